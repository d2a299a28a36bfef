"""A Gateway's listeners: what each accepts, and which of them lose (Gateway API, gateway_types.go).

Judges spec.listeners of a Gateway or a ListenerSet: protocol, allowed route kinds and namespaces, conflicts inside one
object and with the listeners that come before it. It knows nothing of routes; `attach` brings those. Listeners of
different Gateways never conflict here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pygw.control import conditions
from pygw.control.cluster_state import Object
from pygw.control.conditions import Condition
from pygw.control.references import GATEWAY_GROUP
from pygw.control.selectors import selector_fault
from pygw.model import TlsConfig

# The route kinds that a listener of a protocol can serve. A protocol that is missing here is unsupported.
ROUTE_KINDS_OF_PROTOCOL = {"HTTP": ("GRPCRoute", "HTTPRoute"), "HTTPS": ("GRPCRoute", "HTTPRoute")}

# Protocols that can share a port with each other, told apart by name (Host, SNI). Others want the port alone;
# UDP is another port space altogether.
_SHARING = (frozenset({"HTTP"}), frozenset({"HTTPS", "TLS"}), frozenset({"TCP"}), frozenset({"UDP"}))


@dataclass(frozen=True, slots=True)
class Listener:
    """One judged listener. Comparable with ==, so that an unchanged Gateway is seen to be unchanged."""

    name: str
    port: int
    protocol: str
    hostname: str  # lower case; "" is any
    kinds: tuple[str, ...]  # the route kinds that it takes
    namespaces: str  # Same, All or Selector
    selector: Any  # a valid label selector where namespaces is Selector
    accepted: Condition
    resolved_refs: Condition
    conflicted: Condition
    # HTTPS alone, by `tls_listeners`:
    tls: TlsConfig | None = None  # None: it is cleartext, or cannot be served
    overlapping: Condition | None = None  # OverlappingTLSConfig
    notes: tuple[tuple[str, str, str], ...] = ()  # warnings: field path, reason, message
    # By `shared_ports`: which older listener of another Gateway has its place; "": none
    displaced: str = ""

    @property
    def is_valid(self) -> bool:
        """Whether it can go into the data plane."""
        return self.accepted.is_true and bool(self.kinds) and (self.protocol != "HTTPS" or self.tls is not None)

    @property
    def is_served(self) -> bool:
        """Whether it does, if its Gateway does."""
        return self.is_valid and not self.displaced

    @property
    def fault(self) -> str:
        """Why it is not valid; "" if it is."""
        if not self.accepted.is_true:
            return self.accepted.message
        return "" if self.is_valid else self.resolved_refs.message


def judge_listeners(owner: Object) -> tuple[Listener, ...]:
    """All listeners of a Gateway or ListenerSet, in order; those that conflict with each other all lose."""
    return _mark_conflicts([_judge(listener) for listener in owner["spec"].get("listeners") or ()])


def yield_to(taken: Sequence[Listener], listeners: Sequence[Listener], gateway: str) -> tuple[Listener, ...]:
    """The listeners of a ListenerSet where `taken` come before them (precedence of ListenerSetSpec.listeners).

    Here there is a winner, so the loser alone is told; not whose listener won, which may be another tenant's.
    """
    by_port: dict[int, list[Listener]] = {}
    for listener in taken:
        by_port.setdefault(listener.port, []).append(listener)
    return tuple(
        _yielding(listener, by_port.get(listener.port, []), f"another listener of Gateway {gateway}")
        for listener in listeners
    )


def _judge(listener: dict[str, Any]) -> Listener:
    protocol = listener.get("protocol", "")
    allowed = listener.get("allowedRoutes") or {}
    kinds, resolved_refs = _route_kinds(protocol, allowed.get("kinds"))
    accepted, selector, source = conditions.listener_accepted(), None, "Same"
    if protocol not in ROUTE_KINDS_OF_PROTOCOL:
        served = ", ".join(sorted(ROUTE_KINDS_OF_PROTOCOL))
        accepted = conditions.listener_not_accepted(
            "UnsupportedProtocol", f"protocol {protocol} is not served; this version serves {served}"
        )
    namespaces = allowed.get("namespaces") or {}
    source = namespaces.get("from") or "Same"
    if source == "Selector":
        selector = namespaces.get("selector")
        fault = selector_fault(selector)
        if fault is not None:
            selector = None
            message = f"allowedRoutes.namespaces: {fault}"
            if accepted.is_true:
                accepted = conditions.listener_not_accepted("UnsupportedValue", message)
    return Listener(
        name=listener["name"],
        port=listener["port"],
        protocol=protocol,
        hostname=(listener.get("hostname") or "").lower(),
        kinds=kinds,
        namespaces=source,
        selector=selector,
        accepted=accepted,
        resolved_refs=resolved_refs,
        conflicted=conditions.listener_not_conflicted(),
    )


def _route_kinds(protocol: str, wanted: Sequence[dict[str, Any]] | None) -> tuple[tuple[str, ...], Condition]:
    served = ROUTE_KINDS_OF_PROTOCOL.get(protocol, ())
    if not wanted:
        return served, conditions.listener_resolved_refs()
    kinds: list[str] = []
    bad: list[str] = []
    for entry in wanted:
        group, kind = entry.get("group", GATEWAY_GROUP), entry.get("kind", "")
        if group == GATEWAY_GROUP and kind in served:
            if kind not in kinds:
                kinds.append(kind)
        else:
            bad.append(f"{group}/{kind}" if group else kind)
    if not bad:
        return tuple(kinds), conditions.listener_resolved_refs()
    offer = f"this version serves {', '.join(served)}" if served else f"protocol {protocol} is not served"
    return tuple(kinds), conditions.listener_unresolved_refs(
        "InvalidRouteKinds", f"allowedRoutes.kinds: {', '.join(bad)} cannot be served here; {offer}"
    )


def _mark_conflicts(listeners: list[Listener]) -> tuple[Listener, ...]:
    """Conflicting listeners all lose: which one stood first must not decide what is served."""
    by_port: dict[int, list[Listener]] = {}
    for listener in listeners:
        by_port.setdefault(listener.port, []).append(listener)
    return tuple(_with_conflict(listener, by_port[listener.port]) for listener in listeners)


def _with_conflict(listener: Listener, neighbours: list[Listener]) -> Listener:
    for reason, conflict in _CONFLICTS:
        others = [other.name for other in neighbours if other is not listener and conflict(listener, other)]
        if others:
            message = f"{_claim(reason, listener)} conflicts with {', '.join(others)}"
            accepted = listener.accepted
            if accepted.is_true:
                accepted = conditions.listener_not_accepted(reason, message)
            return replace(listener, accepted=accepted, conflicted=conditions.listener_conflicted(reason, message))
    return listener


def _yielding(listener: Listener, taken: list[Listener], owner: str) -> Listener:
    for reason, conflict in _CONFLICTS:
        if any(conflict(listener, other) for other in taken):
            message = f"{_claim(reason, listener)} conflicts with {owner} that comes before it"
            return replace(
                listener,
                accepted=conditions.listener_not_accepted(reason, message),
                conflicted=conditions.listener_conflicted(reason, message),
            )
    return listener


def _claim(reason: str, listener: Listener) -> str:
    if reason == "ProtocolConflict":
        return f"protocol {listener.protocol} on port {listener.port}"
    return f"hostname {listener.hostname or '(any)'} on port {listener.port}"


def _family(protocol: str) -> frozenset[str]:
    return next((family for family in _SHARING if protocol in family), frozenset())


def _protocols_conflict(one: Listener, other: Listener) -> bool:
    """Whether `one` cannot stand beside `other`; a protocol that is refused for itself disturbs no neighbour."""
    if other.protocol not in ROUTE_KINDS_OF_PROTOCOL:
        return False
    first, second = _family(one.protocol), _family(other.protocol)
    return bool(first and second) and first is not second and "UDP" not in first | second


def _hostnames_conflict(one: Listener, other: Listener) -> bool:
    if other.protocol not in ROUTE_KINDS_OF_PROTOCOL:
        return False
    family = _family(one.protocol)
    return bool(family) and family is _family(other.protocol) and one.hostname == other.hostname


_CONFLICTS = (("ProtocolConflict", _protocols_conflict), ("HostnameConflict", _hostnames_conflict))
