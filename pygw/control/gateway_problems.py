"""What is wrong with GatewayClasses, Gateways and ListenerSets, as Problems with the field where it stands."""

from __future__ import annotations

from pygw.control.cluster_state import Object
from pygw.control.gateways import Gateway, Gateways, Parent
from pygw.control.problems import Problem
from pygw.control.routes import problem

# Where in a Gateway or one of its listeners the fault of a condition stands, by its reason.
_PATHS = {
    "UnsupportedProtocol": ".protocol",
    "UnsupportedValue": ".allowedRoutes.namespaces",
    "InvalidRouteKinds": ".allowedRoutes.kinds",
    "UnsupportedAddress": ".addresses",
    "InvalidParameters": ".infrastructure.parametersRef",
    "InvalidCertificateRef": ".tls.certificateRefs",
    "RefNotPermitted": ".tls.certificateRefs",
}


def gateway_problems(gateways: Gateways, file_mode: bool) -> list[Problem]:
    """Everything of them; `file_mode`: what names no Gateway at all is told too."""
    found: list[Problem] = []
    for class_ in gateways.classes.values():
        if not class_.accepted.is_true:
            accepted = class_.accepted
            found.append(problem(class_.item, "error", "spec.parametersRef", accepted.reason, accepted.message))
    for gateway in gateways.gateways:
        found += _listener_problems(gateway.item, gateway.parent)
        found += _tls_problems(gateway)
        accepted = gateway.accepted
        if not accepted.is_true and accepted.reason != "ListenersNotValid":
            path = f"spec{_PATHS.get(accepted.reason, '')}"
            found.append(problem(gateway.item, "error", path, accepted.reason, accepted.message))
        if gateway.address_fault:
            found.append(
                problem(gateway.item, "warning", "spec.addresses", "AddressNotAssigned", gateway.address_fault)
            )
        for listener_set in gateway.listener_sets:
            found += _listener_problems(listener_set.item, listener_set.parent)
            accepted = listener_set.accepted
            if not accepted.is_true and accepted.reason != "ListenersNotValid":
                found.append(problem(listener_set.item, "error", "spec.parentRef", accepted.reason, accepted.message))
    if file_mode:  # in a cluster it may be somebody else's
        for item in gateways.unattached:
            message = "its Gateway does not exist, so none of its listeners is served"
            found.append(problem(item, "error", "spec.parentRef", "NoMatchingParent", message))
    return list(dict.fromkeys(found))


def _tls_problems(gateway: Gateway) -> list[Problem]:
    """Of spec.tls."""
    tls, item = gateway.tls, gateway.item
    found = [problem(item, "warning", path, reason, message) for path, reason, message in tls.notes]
    if not tls.resolved_refs.is_true:
        path = "spec.tls.backend.clientCertificateRef"
        found.append(problem(item, "error", path, tls.resolved_refs.reason, tls.resolved_refs.message))
    if tls.insecure is not None:
        found.append(problem(item, "warning", "spec.tls.frontend", tls.insecure.type, tls.insecure.message))
    return found


def _listener_problems(item: Object, parent: Parent) -> list[Problem]:
    found: list[Problem] = []
    for index, listener in enumerate(parent.listeners):
        where = f"spec.listeners[{index}]"
        for condition in (listener.accepted, listener.resolved_refs):
            if not condition.is_true:
                # A fault of spec.tls.frontend is that of all listeners, and says itself where it is.
                shared = condition.message.startswith("spec.")
                path = "spec.tls.frontend" if shared else f"{where}{_PATHS.get(condition.reason, '')}"
                found.append(problem(item, "error", path, condition.reason, condition.message))
        if parent.is_served and listener.displaced:
            found.append(problem(item, "error", where, "NotProgrammed", listener.displaced))
        for note, reason, message in listener.notes:
            path = note if note.startswith("spec.") else f"{where}.{note}"
            found.append(problem(item, "warning", path, reason, message))
    return found
