"""GatewayClasses and Gateways: which are ours, and what becomes of them (Gateway API, gatewayclass_types.go,
gateway_types.go).

In Kubernetes mode a Gateway is ours when its class exists and names our controller. In file mode the class may be left
out: a Gateway whose class is absent is served. Anything of another controller is left alone, in both modes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pygw.control import conditions
from pygw.control.certificates import Certificates
from pygw.control.cluster_state import ClusterState, Object
from pygw.control.conditions import Condition
from pygw.control.listeners import Listener, judge_listeners
from pygw.control.parameters import NO_PARAMETERS, Parameters, ip_address, read_parameters
from pygw.control.tls_listeners import GatewayTls, judge_gateway_tls, secure_listeners

# What GatewayClass status.supportedFeatures claims; sorted, as the specification demands. Not HTTPRoute: its feature
# stands for HTTP/1.1 too.
SUPPORTED_FEATURES = (
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructurePropagation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "ListenerSet",
    "ReferenceGrant",
)

# status.addresses holds at most 16 (CRD).
MAX_ADDRESSES = 16


@dataclass(frozen=True, slots=True)
class Parent:
    """What a route can name in parentRefs and attach to: a Gateway or ListenerSet with its listeners."""

    kind: str
    namespace: str
    name: str
    listeners: tuple[Listener, ...]
    is_served: bool  # whether its valid listeners go into the data plane
    refusal: str = ""  # why no route can attach to it whatever its listeners say; "": one can

    @property
    def key(self) -> tuple[str, str, str]:
        """(kind, namespace, name)."""
        return self.kind, self.namespace, self.name


@dataclass(frozen=True, slots=True)
class ListenerSet:
    """One ListenerSet that names a Gateway of ours, judged (`listener_sets`)."""

    item: Object
    parent: Parent  # without listeners where the Gateway does not allow it
    accepted: Condition


@dataclass(frozen=True, slots=True)
class Gateway:
    """One Gateway of ours, judged."""

    item: Object
    parent: Parent
    accepted: Condition
    tls: GatewayTls
    bind_addresses: tuple[str, ...]  # its own IP addresses; empty: the shared ones
    status_addresses: tuple[str, ...]
    address_fault: str  # why the addresses that it needs are not assigned; "": they are
    listener_sets: tuple[ListenerSet, ...] = ()  # all that name it, in the order of precedence

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The Gateway itself and its ListenerSets, in the order of precedence."""
        return self.parent, *(listener_set.parent for listener_set in self.listener_sets)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Those of all parents, in the order of precedence."""
        return tuple(listener for parent in self.parents for listener in parent.listeners)

    def with_listeners(self, listeners: Iterable[Listener]) -> Gateway:
        """The same with other verdicts; `listeners` in the order of `self.listeners`."""
        given = iter(listeners)

        def renewed(parent: Parent) -> Parent:
            return replace(parent, listeners=tuple(next(given) for _ in parent.listeners))

        parent = renewed(self.parent)
        sets = tuple(replace(one, parent=renewed(one.parent)) for one in self.listener_sets)
        return replace(self, parent=parent, listener_sets=sets)


@dataclass(frozen=True, slots=True)
class GatewayClass:
    """One GatewayClass of ours, judged."""

    item: Object
    accepted: Condition
    parameters: Parameters = NO_PARAMETERS


@dataclass(frozen=True, slots=True)
class Gateways:
    """All that is ours, and the names of the Gateways that are somebody else's."""

    classes: dict[str, GatewayClass] = field(default_factory=dict)
    gateways: tuple[Gateway, ...] = ()
    foreign: frozenset[tuple[str, str]] = frozenset()
    unattached: tuple[Object, ...] = ()  # ListenerSets whose Gateway does not exist
    foreign_sets: frozenset[tuple[str, str]] = frozenset()  # ListenerSets of foreign Gateways


def judge_gateways(
    state: ClusterState,
    controller_name: str,
    file_mode: bool,
    addresses: tuple[str, ...],
    certificates: Certificates,
) -> Gateways:
    """Sort out the classes and Gateways of a state; `addresses` are what Gateways without their own get in status."""
    classes = {
        name: _judge_class(item, state)
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
        gateways.append(_judge_gateway(item, class_, state, file_mode, addresses, certificates))
    return Gateways(classes, tuple(gateways), frozenset(foreign))


def _judge_class(item: Object, state: ClusterState) -> GatewayClass:
    reference = item["spec"].get("parametersRef")
    if reference is None:
        return GatewayClass(item, conditions.class_accepted())
    parameters, fault = read_parameters(state, reference, "")
    if fault:
        return GatewayClass(item, conditions.class_invalid_parameters(f"spec.parametersRef: {fault}"))
    return GatewayClass(item, conditions.class_accepted(), parameters)


def _judge_gateway(
    item: Object,
    class_: GatewayClass | None,
    state: ClusterState,
    file_mode: bool,
    assigned: tuple[str, ...],
    certificates: Certificates,
) -> Gateway:
    metadata = item["metadata"]
    parameters, fault = class_.parameters if class_ is not None else NO_PARAMETERS, ""
    reference = (item["spec"].get("infrastructure") or {}).get("parametersRef")
    if reference is not None:
        own, fault = read_parameters(state, reference, metadata["namespace"])
        parameters = own.over(parameters)
    listeners = secure_listeners(judge_listeners(item), item, item, certificates)
    bind, status, bad_address, unassigned = _judge_addresses(item, parameters, file_mode, assigned)
    accepted = _accepted(class_, fault, listeners, bad_address)
    parent = Parent("Gateway", metadata["namespace"], metadata["name"], listeners, accepted.is_true)
    return Gateway(item, parent, accepted, judge_gateway_tls(item, certificates), bind, status, unassigned)


def _accepted(
    class_: GatewayClass | None, parameters_fault: str, listeners: tuple[Listener, ...], bad_address: str
) -> Condition:
    if class_ is not None and not class_.accepted.is_true:
        name = class_.item["metadata"]["name"]
        return conditions.gateway_not_accepted("Invalid", f"GatewayClass {name} is not accepted")
    if parameters_fault:
        return conditions.gateway_not_accepted(
            "InvalidParameters", f"spec.infrastructure.parametersRef: {parameters_fault}"
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
    item: Object, parameters: Parameters, file_mode: bool, assigned: tuple[str, ...]
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
        known = ip_address(value)
        if not value:
            wants_assignment = True
        elif known is None:
            return (), (), f"{where}: {value} is not an IP address", ""
        else:
            static.append(known)
    if wants_assignment:
        assigned = parameters.addresses or parameters.bind_addresses or assigned
        shown, bind = [*static, *assigned], parameters.bind_addresses
        # Where an address is to be assigned beside static ones, only the shared ones surely hold both.
        bind = tuple(dict.fromkeys([*static, *bind])) if bind else ()
    else:
        shown, bind = static, tuple(dict.fromkeys(static))
    shown = list(dict.fromkeys(shown))[:MAX_ADDRESSES]
    unassigned = ""
    if not shown and (wanted or not file_mode):
        unassigned = "no address is known that could be assigned; --gateway-address names one"
    return bind, tuple(shown), "", unassigned
