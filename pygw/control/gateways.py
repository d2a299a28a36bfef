"""GatewayClasses and Gateways: which are ours, and what becomes of them (Gateway API, gatewayclass_types.go,
gateway_types.go).

In Kubernetes mode a Gateway is ours when its class exists and names our controller. In file mode the class may be left
out: a Gateway whose class is absent is served. Anything of another controller is left alone, in both modes.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from pygw.control import conditions
from pygw.control.cluster_state import ClusterState, Object
from pygw.control.conditions import Condition
from pygw.control.listeners import Listener, judge_listeners
from pygw.control.references import GATEWAY_GROUP

# What GatewayClass status.supportedFeatures claims; sorted, as the specification demands.
SUPPORTED_FEATURES = (
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayHTTPListenerIsolation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "ReferenceGrant",
)

# status.addresses holds at most 16 (CRD).
MAX_ADDRESSES = 16


@dataclass(frozen=True, slots=True)
class Parent:
    """What a route can name in parentRefs and attach to: a Gateway with its listeners."""

    kind: str
    namespace: str
    name: str
    listeners: tuple[Listener, ...]
    is_served: bool  # whether its valid listeners go into the data plane

    @property
    def key(self) -> tuple[str, str, str]:
        """(kind, namespace, name)."""
        return self.kind, self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Gateway:
    """One Gateway of ours, judged."""

    item: Object
    parent: Parent
    accepted: Condition
    bind_addresses: tuple[str, ...]  # its own IP addresses; empty: the shared ones
    status_addresses: tuple[str, ...]
    address_fault: str  # why the addresses that it needs are not assigned; "": they are


@dataclass(frozen=True, slots=True)
class GatewayClass:
    """One GatewayClass of ours, judged."""

    item: Object
    accepted: Condition


@dataclass(frozen=True, slots=True)
class Gateways:
    """All that is ours, and the names of the Gateways that are somebody else's."""

    classes: dict[str, GatewayClass] = field(default_factory=dict)
    gateways: tuple[Gateway, ...] = ()
    foreign: frozenset[tuple[str, str]] = frozenset()


def judge_gateways(
    state: ClusterState, controller_name: str, file_mode: bool, addresses: tuple[str, ...]
) -> Gateways:
    """Sort out the classes and Gateways of a state; `addresses` are what Gateways without their own get in status."""
    classes = {
        name: GatewayClass(item, _judge_class(item))
        for (_, name), item in sorted(state.objects("GatewayClass").items())
        if item["spec"].get("controllerName") == controller_name
    }
    gateways: list[Gateway] = []
    foreign: set[tuple[str, str]] = set()
    for key, item in sorted(state.objects("Gateway").items()):
        class_name = item["spec"].get("gatewayClassName", "")
        class_ = classes.get(class_name)
        if class_ is None and (not file_mode or state.find("GatewayClass", "", class_name) is not None):
            foreign.add(key)
            continue
        gateways.append(_judge_gateway(item, class_, file_mode, addresses))
    return Gateways(classes, tuple(gateways), frozenset(foreign))


def _judge_class(item: Object) -> Condition:
    reference = item["spec"].get("parametersRef")
    if reference is None:
        return conditions.class_accepted()
    return conditions.class_invalid_parameters(
        f"spec.parametersRef: {_reference_text(reference)} is not a kind of parameters that pygw knows; remove it"
    )


def _judge_gateway(
    item: Object, class_: GatewayClass | None, file_mode: bool, assigned: tuple[str, ...]
) -> Gateway:
    listeners = judge_listeners(item)
    bind, status, bad_address, unassigned = _judge_addresses(item, file_mode, assigned)
    accepted = _accepted(item, class_, listeners, bad_address)
    metadata = item["metadata"]
    parent = Parent("Gateway", metadata["namespace"], metadata["name"], listeners, accepted.is_true)
    return Gateway(item, parent, accepted, bind, status, unassigned)


def _accepted(
    item: Object, class_: GatewayClass | None, listeners: tuple[Listener, ...], bad_address: str
) -> Condition:
    if class_ is not None and not class_.accepted.is_true:
        name = class_.item["metadata"]["name"]
        return conditions.gateway_not_accepted("Invalid", f"GatewayClass {name} is not accepted")
    parameters = (item["spec"].get("infrastructure") or {}).get("parametersRef")
    if parameters is not None:
        text = _reference_text(parameters)
        return conditions.gateway_not_accepted(
            "InvalidParameters",
            f"spec.infrastructure.parametersRef: {text} is not a kind of parameters that pygw knows; remove it",
        )
    if bad_address:
        return conditions.gateway_not_accepted("UnsupportedAddress", bad_address)
    return listeners_verdict([(listener.name, listener.fault) for listener in listeners])


def listeners_verdict(faults: list[tuple[str, str]]) -> Condition:
    """The Gateway's Accepted as its listeners make it; `faults` are (name, fault) with "" for a valid one."""
    bad = [f"listener {name}: {fault}" for name, fault in faults if fault]
    if not bad:
        return conditions.gateway_accepted()
    message = conditions.join_messages(bad)
    if len(bad) == len(faults):
        return conditions.gateway_not_accepted("ListenersNotValid", message)
    return conditions.gateway_partly_accepted(message)


def _judge_addresses(
    item: Object, file_mode: bool, assigned: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], str, str]:
    """What to bind, what to show in status, an unsupported address, and why an address is missing."""
    wanted = item["spec"].get("addresses") or ()
    static: list[str] = []
    wants_assignment = not wanted
    for index, address in enumerate(wanted):
        kind, value = address.get("type") or "IPAddress", address.get("value") or ""
        where = f"spec.addresses[{index}]"
        if kind != "IPAddress":
            return (), (), f"{where}: type {kind} is not supported; only IPAddress is", ""
        if not value:
            wants_assignment = True
        elif not _is_ip(value):
            return (), (), f"{where}: {value} is not an IP address", ""
        else:
            static.append(str(ipaddress.ip_address(value)))
    shown = [*static, *assigned] if wants_assignment else static
    shown = list(dict.fromkeys(shown))[:MAX_ADDRESSES]
    unassigned = ""
    if not shown and (wanted or not file_mode):
        unassigned = "no address is known that could be assigned; --gateway-address names one"
    # Where an address is to be assigned beside static ones, only the shared ones surely hold both.
    bind = () if wants_assignment else tuple(dict.fromkeys(static))
    return bind, tuple(shown), "", unassigned


def _is_ip(text: str) -> bool:
    try:
        return not getattr(ipaddress.ip_address(text), "scope_id", None)
    except ValueError:
        return False


def _reference_text(reference: Object) -> str:
    group = reference.get("group", GATEWAY_GROUP)
    kind = f"{group}/{reference.get('kind', '')}" if group else reference.get("kind", "")
    return f"{kind} {reference.get('name', '')}"
