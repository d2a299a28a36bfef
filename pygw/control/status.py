"""Assembles `.status` of GatewayClass, Gateway, ListenerSet and route objects from verdicts (Gateway API 2.5).

The rules that keep it honest among others: conditions and parents of other controllers stay as and where they are;
lastTransitionTime moves only when a condition's status does; a condition that was seen on a newer generation is not
overwritten. Nothing here decides a verdict or writes to a server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pygw.control import conditions
from pygw.control.attach import Attachments
from pygw.control.backend_tls import Policy
from pygw.control.cluster_state import Key, Object
from pygw.control.conditions import Condition
from pygw.control.gateways import SUPPORTED_FEATURES, Gateway, GatewayClass, ListenerSet, Parent, listeners_verdict
from pygw.control.listener_sets import listener_set_verdict
from pygw.control.listeners import Listener
from pygw.control.references import GATEWAY_GROUP
from pygw.control.routes import CompiledRoute

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What turns verdicts into the conditions of one object."""

    generation: int
    now: str  # RFC 3339, for conditions whose status changed

    @classmethod
    def of(cls, item: Object, now: str) -> Stamp:
        """The stamp of an object; files carry no generation, and count as the first."""
        return cls(item["metadata"].get("generation") or 1, now)


@dataclass(frozen=True, slots=True)
class BindFailures:
    """What the data plane could not bind, with the reason: listener ports, and addresses of Gateways."""

    ports: dict[int, str]
    addresses: dict[str, str]


NO_FAILURES = BindFailures({}, {})


def merge_conditions(
    verdicts: Sequence[Condition], own_types: frozenset[str], stamp: Stamp, *histories: Iterable[Status]
) -> list[Status]:
    """The conditions array to write: `histories` are earlier arrays, the one that stands in the object first.

    Conditions of other types keep their place and content; ours that are no longer wanted go.
    """
    existing, *older = [list(history) for history in histories] or [[]]
    wanted = {verdict.type: verdict for verdict in verdicts}
    merged: list[Status] = []
    for condition in existing:
        kind = condition.get("type")
        if kind in wanted:
            merged.append(_stamped(wanted.pop(kind), condition, older, stamp))
        elif kind not in own_types:
            merged.append(condition)
    merged.extend(_stamped(verdict, None, older, stamp) for verdict in verdicts if verdict.type in wanted)
    return merged


def _stamped(verdict: Condition, current: Status | None, older: list[list[Status]], stamp: Stamp) -> Status:
    if current is not None and (current.get("observedGeneration") or 0) > stamp.generation:
        return current
    known = [current] if current is not None else []
    known += [item for history in older for item in history if item.get("type") == verdict.type]
    since = next(
        (
            item["lastTransitionTime"]
            for item in known
            if item.get("status") == verdict.status and item.get("lastTransitionTime")
        ),
        stamp.now,
    )
    return {
        "type": verdict.type,
        "status": verdict.status,
        "reason": verdict.reason,
        "message": verdict.message,
        "observedGeneration": stamp.generation,
        "lastTransitionTime": since,
    }


# Bundle versions whose kinds are all known: GatewayClass to GRPCRoute in v1, ListenerSet too.
_KNOWN_BUNDLE = re.compile(r"v1\.[56]\.\d+(?:-[-.0-9A-Za-z]+)?")


def class_status(class_: GatewayClass, now: str, previous: Status | None, bundle_version: str | None = None) -> Status:
    """status of a GatewayClass of ours.

    `bundle_version` is what the installed CustomResourceDefinitions say they are ("": nothing), None where there are
    none (file mode brings its own) or they may not be read.
    """
    version = conditions.class_supported_version()
    if bundle_version is not None and not _KNOWN_BUNDLE.fullmatch(bundle_version):
        shown = bundle_version or "unknown (no annotation gateway.networking.k8s.io/bundle-version)"
        version = conditions.class_unsupported_version(
            f"the version of the Gateway API's CustomResourceDefinitions is {shown}; known are v1.5 and v1.6"
        )
    verdicts = [class_.accepted, version]
    existing = class_.item.get("status") or {}
    return {
        **existing,
        "conditions": merge_conditions(
            verdicts,
            conditions.GATEWAY_CLASS_TYPES,
            Stamp.of(class_.item, now),
            existing.get("conditions") or (),
            (previous or {}).get("conditions") or (),
        ),
        "supportedFeatures": [{"name": name} for name in SUPPORTED_FEATURES],
    }


def gateway_status(
    gateway: Gateway, attached: dict[str, int], now: str, previous: Status | None, failures: BindFailures = NO_FAILURES
) -> Status:
    """status of a Gateway of ours; `attached` counts the accepted routes of each listener by its name."""
    stamp, existing, previous = Stamp.of(gateway.item, now), gateway.item.get("status") or {}, previous or {}
    accepted = _gateway_accepted(gateway, failures)
    unserved = "" if gateway.parent.is_served else f"the Gateway is not accepted: {gateway.accepted.message}"
    verdicts = [
        accepted,
        _gateway_programmed(gateway, accepted, failures),
        gateway.tls.with_listeners(gateway.parent.listeners),
        *([gateway.tls.insecure] if gateway.tls.insecure else []),
    ]
    shown = [address for address in gateway.status_addresses if address not in failures.addresses]
    ours = ("addresses", "listeners", "attachedListenerSets")
    status: Status = {key: value for key, value in existing.items() if key not in ours}
    status["conditions"] = merge_conditions(
        verdicts, conditions.GATEWAY_TYPES, stamp, existing.get("conditions") or (), previous.get("conditions") or ()
    )
    status["listeners"] = _listener_statuses(gateway.parent, unserved, attached, failures, stamp, existing, previous)
    if shown:
        status["addresses"] = [_address(value) for value in shown]
    if "allowedListeners" in gateway.item["spec"]:
        verdicts = [listener_set_accepted(one, failures) for one in gateway.listener_sets]
        status["attachedListenerSets"] = sum(verdict.is_true for verdict in verdicts)
    return status


def _gateway_accepted(gateway: Gateway, failures: BindFailures) -> Condition:
    if not gateway.parent.is_served or not failures.ports:
        return gateway.accepted
    return listeners_verdict(_faults(gateway.parent, failures))


def _faults(parent: Parent, failures: BindFailures) -> list[tuple[str, str]]:
    return [
        (listener.name, listener.fault or failures.ports.get(listener.port, "")) for listener in parent.listeners
    ]


def listener_set_accepted(listener_set: ListenerSet, failures: BindFailures = NO_FAILURES) -> Condition:
    """The ListenerSet's Accepted, with what the data plane could not bind."""
    if not listener_set.parent.is_served or not failures.ports:
        return listener_set.accepted
    return listener_set_verdict(_faults(listener_set.parent, failures))


def listener_set_status(
    listener_set: ListenerSet,
    gateway: Gateway,
    attached: dict[str, int],
    now: str,
    previous: Status | None,
    failures: BindFailures = NO_FAILURES,
) -> Status:
    """status of a ListenerSet of one of our Gateways."""
    stamp, existing, previous = Stamp.of(listener_set.item, now), listener_set.item.get("status") or {}, previous or {}
    parent, accepted = listener_set.parent, listener_set_accepted(listener_set, failures)
    gateway_programmed = _gateway_programmed(gateway, _gateway_accepted(gateway, failures), failures)
    unserved = ""
    if not accepted.is_true:
        from_parent = accepted.reason == "ParentNotAccepted"
        programmed = conditions.listener_set_not_programmed(
            "ParentNotProgrammed" if from_parent else accepted.reason, accepted.message
        )
        unserved = accepted.message if from_parent else ""
    elif not gateway_programmed.is_true:
        unserved = f"the Gateway is not programmed: {gateway_programmed.message}"
        programmed = conditions.listener_set_not_programmed("ParentNotProgrammed", unserved)
    elif displaced := _all_displaced(parent):
        programmed = conditions.listener_set_not_programmed("Invalid", displaced)
    else:
        programmed = conditions.listener_set_programmed()
    status: Status = {key: value for key, value in existing.items() if key != "listeners"}
    status["conditions"] = merge_conditions(
        [accepted, programmed], conditions.LISTENER_SET_TYPES, stamp,
        existing.get("conditions") or (), previous.get("conditions") or (),
    )  # fmt: skip
    if parent.listeners:
        status["listeners"] = _listener_statuses(parent, unserved, attached, failures, stamp, existing, previous)
    return status


def _listener_statuses(
    parent: Parent,
    unserved: str,
    attached: dict[str, int],
    failures: BindFailures,
    stamp: Stamp,
    existing: Status,
    previous: Status,
) -> list[Status]:
    """status.listeners of a parent; `unserved` says why none of them is in the data plane ("": valid ones are)."""
    return [
        _listener_status(
            listener, parent, unserved, attached.get(listener.name, 0), failures.ports.get(listener.port, ""), stamp,
            _by_name(existing, listener.name), _by_name(previous, listener.name),
        )
        for listener in parent.listeners
    ]  # fmt: skip


def _by_name(status: Status, name: str) -> Iterable[Status]:
    """The conditions that an earlier status holds for a listener."""
    for listener in status.get("listeners") or ():
        if listener.get("name") == name:
            return listener.get("conditions") or ()
    return ()


def _address(value: str) -> Status:
    is_ip = ":" in value or value.replace(".", "").isdigit()
    return {"type": "IPAddress" if is_ip else "Hostname", "value": value}


def _gateway_programmed(gateway: Gateway, accepted: Condition, failures: BindFailures) -> Condition:
    if not accepted.is_true:
        return conditions.gateway_not_programmed("Invalid", f"the Gateway is not accepted: {accepted.message}")
    unusable = [
        f"{address}: {failures.addresses[address]}"
        for address in gateway.bind_addresses
        if address in failures.addresses
    ]
    if unusable:
        return conditions.gateway_not_programmed("AddressNotUsable", conditions.join_messages(unusable))
    if gateway.address_fault:
        return conditions.gateway_not_programmed("AddressNotAssigned", gateway.address_fault)
    displaced = _all_displaced(gateway.parent)
    if displaced:
        return conditions.gateway_not_programmed("Invalid", displaced)
    return conditions.gateway_programmed()


def _all_displaced(parent: Parent) -> str:
    """Why none of a parent's listeners is served though some are valid; "" if one is."""
    if any(listener.is_served for listener in parent.listeners):
        return ""
    return conditions.join_messages(
        [f"listener {listener.name}: {listener.displaced}" for listener in parent.listeners if listener.displaced]
    )


def _listener_status(
    listener: Listener,
    parent: Parent,
    unserved: str,
    attached: int,
    bind_failure: str,
    stamp: Stamp,
    *histories: Iterable[Status],
) -> Status:
    accepted = listener.accepted
    if listener.is_valid and bind_failure:
        accepted = conditions.listener_not_accepted("PortUnavailable", f"port {listener.port}: {bind_failure}")
    if not accepted.is_true:
        # A loser against another object is named as such in each of its conditions (the official suite).
        is_loser = parent.kind == "ListenerSet" and listener.conflicted.is_true
        reason = accepted.reason if is_loser else "Invalid"
        programmed = conditions.listener_not_programmed(accepted.message, reason)
    elif listener.fault or unserved or listener.displaced:
        programmed = conditions.listener_not_programmed(listener.fault or unserved or listener.displaced)
    else:
        programmed = conditions.listener_programmed()
    verdicts = [accepted, programmed, listener.resolved_refs, listener.conflicted]
    if listener.overlapping is not None:
        verdicts.append(listener.overlapping)
    return {
        "name": listener.name,
        "supportedKinds": [{"group": GATEWAY_GROUP, "kind": kind} for kind in listener.kinds],
        "attachedRoutes": attached,
        "conditions": merge_conditions(verdicts, conditions.LISTENER_TYPES, stamp, *histories),
    }


def route_verdicts(refusal: Condition | None, compiled: CompiledRoute | None) -> list[Condition]:
    """The conditions of a route towards one parent; `compiled` is None for kinds of which we know no rules."""
    if compiled is None:
        return [refusal or conditions.route_accepted()]
    verdicts = [refusal or conditions.route_accepted(), compiled.resolved_refs]
    if refusal is None and not compiled.has_rule:
        verdicts[0] = conditions.route_not_accepted("UnsupportedValue", compiled.dropped)
    elif refusal is None and compiled.dropped:
        verdicts.append(conditions.route_partially_invalid(compiled.dropped))
    return verdicts


def route_status(
    item: Object,
    attachments: Attachments,
    compiled: CompiledRoute | None,
    controller_name: str,
    now: str,
    previous: Status | None,
) -> Status | None:
    """status of a route; None where it has nothing of ours and never had."""
    stamp, existing = Stamp.of(item, now), item.get("status") or {}
    parents: list[Status] = existing.get("parents") or []
    others = [entry for entry in parents if entry.get("controllerName") != controller_name]
    if not attachments.ours and len(others) == len(parents):
        return None
    ours = [
        _parent_status(
            attachment.reference,
            route_verdicts(attachment.refusal, compiled),
            controller_name,
            stamp,
            [parents, (previous or {}).get("parents") or []],
        )
        for attachment in attachments.ours
    ]
    return {**existing, "parents": [*others, *ours]}


def _parent_status(
    reference: dict[str, Any],
    verdicts: list[Condition],
    controller_name: str,
    stamp: Stamp,
    histories: list[list[Status]],
) -> Status:
    full = {"group": GATEWAY_GROUP, "kind": "Gateway", **reference}
    earlier = [
        next(
            (
                entry.get("conditions") or ()
                for entry in history
                if entry.get("controllerName") == controller_name
                and {"group": GATEWAY_GROUP, "kind": "Gateway", **(entry.get("parentRef") or {})} == full
            ),
            (),
        )
        for history in histories
    ]
    return {
        "parentRef": full,
        "controllerName": controller_name,
        "conditions": merge_conditions(verdicts, conditions.ROUTE_TYPES, stamp, *earlier),
    }


# status.ancestors holds at most 16 (CRD).
MAX_ANCESTORS = 16


def policy_status(
    policy: Policy, gateways: Iterable[Key], controller_name: str, now: str, previous: Status | None
) -> Status | None:
    """status of a BackendTLSPolicy; None where it has nothing of ours and never had. `gateways` in the order shown."""
    stamp, existing = Stamp.of(policy.item, now), policy.item.get("status") or {}
    ancestors: list[Status] = existing.get("ancestors") or []
    others = [entry for entry in ancestors if entry.get("controllerName") != controller_name]
    histories = [ancestors, (previous or {}).get("ancestors") or []]
    verdicts = [policy.accepted, policy.resolved_refs]
    ours = []
    for namespace, name in gateways:
        reference = {"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": namespace, "name": name}
        earlier = [_of_ancestor(history, reference, controller_name, policy.key[0]) for history in histories]
        ours.append({
            "ancestorRef": reference,
            "controllerName": controller_name,
            "conditions": merge_conditions(verdicts, conditions.POLICY_TYPES, stamp, *earlier),
        })  # fmt: skip
    if not ours and len(others) == len(ancestors):
        return None
    return {**existing, "ancestors": [*others, *ours][: max(MAX_ANCESTORS, len(others))]}


def _of_ancestor(
    history: list[Status], reference: Status, controller_name: str, namespace: str
) -> Iterable[Status]:
    """The conditions that an earlier status holds for an ancestor."""
    defaults = {"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": namespace}
    for entry in history:
        if entry.get("controllerName") == controller_name and {**defaults, **entry.get("ancestorRef", {})} == reference:
            return entry.get("conditions") or ()
    return ()
