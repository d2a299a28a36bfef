"""ListenerSets: which of them attach to a Gateway, and which of their listeners lose (listenerset_types.go, GEP-1713).

A Gateway has to allow them (spec.allowedListeners, by default nobody). Its own listeners come first, then its
ListenerSets by age and name; where two listeners want the same, the first has it. Faults of a ListenerSet never touch
its Gateway or the others. References of its listeners are the ListenerSet's own: no grant for the Gateway helps it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pygw.control import conditions
from pygw.control.certificates import Certificates
from pygw.control.cluster_state import ClusterState, Object, by_age
from pygw.control.conditions import Condition
from pygw.control.gateways import Gateway, Gateways, ListenerSet, Parent
from pygw.control.listeners import Listener, judge_listeners, yield_to
from pygw.control.references import GATEWAY_GROUP
from pygw.control.selectors import labels_of, selector_fault, selects
from pygw.control.tls_listeners import secure_listeners

_GatewayKey = tuple[str, str, str]  # Parent.key


def with_listener_sets(gateways: Gateways, state: ClusterState, certificates: Certificates) -> Gateways:
    """The Gateways with the ListenerSets that name them."""
    items = state.objects("ListenerSet")
    if not items:
        return gateways
    ours = {gateway.parent.key for gateway in gateways.gateways}
    by_gateway: dict[_GatewayKey, list[Object]] = {}
    unattached: list[Object] = []
    foreign: set[tuple[str, str]] = set()
    for key, item in items.items():
        gateway = _gateway_key(item)
        if gateway in ours:
            by_gateway.setdefault(gateway, []).append(item)
        elif gateway[0] == "Gateway" and gateway[1:] not in gateways.foreign:
            unattached.append(item)
        else:
            foreign.add(key)
    return replace(
        gateways,
        gateways=tuple(
            _attach(one, by_gateway.get(one.parent.key, ()), state, certificates) for one in gateways.gateways
        ),
        unattached=tuple(unattached),
        foreign_sets=frozenset(foreign),
    )


def _gateway_key(item: Object) -> _GatewayKey:
    """The Parent.key of the Gateway that a ListenerSet names; another kind gives a key that no Gateway has."""
    reference = item["spec"]["parentRef"]
    group, kind = reference.get("group", GATEWAY_GROUP), reference.get("kind") or "Gateway"
    namespace = reference.get("namespace") or item["metadata"]["namespace"]
    return kind if group == GATEWAY_GROUP else f"{group}/{kind}", namespace, reference["name"]


def _attach(
    gateway: Gateway, items: Iterable[Object], state: ClusterState, certificates: Certificates
) -> Gateway:
    sets: list[ListenerSet] = []
    taken = list(gateway.parent.listeners)
    for item in sorted(items, key=by_age):
        listener_set = _judge(item, gateway, taken, state, certificates)
        taken += [listener for listener in listener_set.parent.listeners if not listener.conflicted.is_true]
        sets.append(listener_set)
    return replace(gateway, listener_sets=tuple(sets)) if sets else gateway


def _judge(
    item: Object, gateway: Gateway, taken: list[Listener], state: ClusterState, certificates: Certificates
) -> ListenerSet:
    metadata = item["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    refusal = _refusal(gateway.item, namespace, state)
    if refusal:
        parent = Parent("ListenerSet", namespace, name, (), False, refusal)
        return ListenerSet(item, parent, conditions.listener_set_not_accepted("NotAllowed", refusal))
    shown = f"{gateway.parent.namespace}/{gateway.parent.name}"
    listeners = secure_listeners(judge_listeners(item), item, gateway.item, certificates)
    listeners = yield_to(taken, listeners, shown)
    if gateway.parent.is_served:
        accepted = listener_set_verdict([(listener.name, listener.fault) for listener in listeners])
    else:
        accepted = conditions.listener_set_not_accepted("ParentNotAccepted", f"Gateway {shown} is not accepted")
    return ListenerSet(item, Parent("ListenerSet", namespace, name, listeners, accepted.is_true), accepted)


def listener_set_verdict(faults: list[tuple[str, str]]) -> Condition:
    """The ListenerSet's Accepted as its listeners make it; `faults` are (name, fault) with "" for a valid one."""
    bad = [f"listener {name}: {fault}" for name, fault in faults if fault]
    if not bad:
        return conditions.listener_set_accepted()
    message = conditions.join_messages(bad)
    if len(bad) == len(faults):
        return conditions.listener_set_not_accepted("ListenersNotValid", message)
    return conditions.listener_set_partly_accepted(message)


def _refusal(gateway: Object, namespace: str, state: ClusterState) -> str:
    """Why a Gateway does not let ListenerSets of a namespace attach; "" if it does."""
    metadata = gateway["metadata"]
    shown = f"Gateway {metadata['namespace']}/{metadata['name']}"
    allowed = (gateway["spec"].get("allowedListeners") or {}).get("namespaces") or {}
    match allowed.get("from") or "None":
        case "All":
            return ""
        case "Same":
            return "" if namespace == metadata["namespace"] else (
                f"{shown} allows ListenerSets of its own namespace only (spec.allowedListeners)"
            )
        case "Selector":
            fault = selector_fault(allowed.get("selector"))
            if fault is not None:
                return f"{shown} allows no ListenerSets: spec.allowedListeners.namespaces: {fault}"
            if selects(allowed["selector"], labels_of(namespace, state.find("Namespace", "", namespace))):
                return ""
            return f"{shown} does not select namespace {namespace} in spec.allowedListeners"
        case _:  # "None", or a value of the future
            return f"{shown} allows no ListenerSets (spec.allowedListeners)"
