"""Which listeners a route attaches to (Gateway API: ParentReference, AllowedRoutes, hostname intersection).

For each parentRef that names a parent of ours: the listeners that it means (sectionName, port), of those the ones that
allow the route (kind, namespace), of those the ones with a hostname in common. The first step that leaves none gives
the reason. Whether a listener itself is valid plays no part: attachment is a matter of the two objects' own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pygw.control import conditions
from pygw.control.cluster_state import Object
from pygw.control.conditions import Condition
from pygw.control.gateways import Parent
from pygw.control.hostnames import intersects
from pygw.control.listeners import Listener
from pygw.control.references import GATEWAY_GROUP
from pygw.control.selectors import NAMESPACE_NAME_LABEL, selects

# What a route can name in parentRefs (group gateway.networking.k8s.io).
PARENT_KINDS = ("Gateway", "ListenerSet")

Labels = dict[str, str]
ListenerKey = tuple[tuple[str, str, str], str]  # Parent.key, listener name


@dataclass(frozen=True, slots=True)
class Attachment:
    """One parentRef that names a parent of ours."""

    index: int  # its place in spec.parentRefs
    reference: dict[str, Any]
    parent: Parent
    listeners: tuple[Listener, ...]  # those that it attaches to; empty where `refusal` is set
    refusal: Condition | None  # Accepted=False with the reason why there are none


@dataclass(frozen=True, slots=True)
class Attachments:
    """All parentRefs of a route."""

    ours: tuple[Attachment, ...]
    unknown: tuple[tuple[int, str], ...]  # (place in spec.parentRefs, why nothing answers to it)
    places: tuple[ListenerKey, ...]  # every listener that the route attaches to, once


@dataclass(slots=True)
class Parents:
    """All that routes can attach to. Comparable with ==: equal ones attach every route alike."""

    served: dict[tuple[str, str, str], Parent]
    foreign: frozenset[tuple[str, str, str]]  # there, but another controller's
    labels: dict[str, Labels]  # of namespaces by name; empty where no listener selects by labels

    def labels_of(self, namespace: str) -> Labels:
        """The labels of a namespace; its name is always one of them, whether the object is given or not."""
        return {**self.labels.get(namespace, {}), NAMESPACE_NAME_LABEL: namespace}


def collect_parents(
    parents: tuple[Parent, ...], foreign: frozenset[tuple[str, str, str]], namespaces: Mapping[Any, Object]
) -> Parents:
    """Put together what `attach` looks at."""
    labels: dict[str, Labels] = {}
    if any(listener.namespaces == "Selector" for parent in parents for listener in parent.listeners):
        labels = {name: item["metadata"].get("labels") or {} for (_, name), item in namespaces.items()}
    return Parents({parent.key: parent for parent in parents}, foreign, labels)


def attach(route: Object, parents: Parents) -> Attachments:
    """Attach one route of any kind."""
    ours: list[Attachment] = []
    unknown: list[tuple[int, str]] = []
    namespace = route["metadata"]["namespace"]
    for index, reference in enumerate(route["spec"].get("parentRefs") or ()):
        group, kind = reference.get("group", GATEWAY_GROUP), reference.get("kind") or "Gateway"
        key = (kind, reference.get("namespace") or namespace, reference["name"])
        parent = parents.served.get(key) if group == GATEWAY_GROUP else None
        if parent is not None:
            ours.append(_attach(route, index, reference, parent, parents))
        elif group != GATEWAY_GROUP or kind not in PARENT_KINDS:
            unknown.append((index, f"parents of kind {group}/{kind} are not served" if group else
                            f"parents of kind {kind} are not served"))
        elif key not in parents.foreign:
            unknown.append((index, f"{kind} {key[1]}/{key[2]} does not exist"))
    places = {
        (attachment.parent.key, listener.name): None for attachment in ours for listener in attachment.listeners
    }
    return Attachments(tuple(ours), tuple(unknown), tuple(places))


def _attach(
    route: Object, index: int, reference: dict[str, Any], parent: Parent, parents: Parents
) -> Attachment:
    def refuse(reason: str, message: str) -> Attachment:
        return Attachment(index, reference, parent, (), conditions.route_not_accepted(reason, message))

    name = f"{parent.kind} {parent.namespace}/{parent.name}"
    if parent.refusal:
        return refuse("NoMatchingParent", f"{name} is not attached to its Gateway: {parent.refusal}")
    section, port = reference.get("sectionName"), reference.get("port")
    meant = [
        listener
        for listener in parent.listeners
        if (section is None or listener.name == section) and (port is None or listener.port == port)
    ]
    if not meant:
        wanted = " and ".join(
            [*([f"name {section}"] if section is not None else []), *([f"port {port}"] if port is not None else [])]
        )
        return refuse("NoMatchingParent", f"{name} has no listener with {wanted or 'any name'}")
    allowing = [listener for listener in meant if _allows(listener, route, parent, parents)]
    if not allowing:
        return refuse("NotAllowedByListeners", _refusal(meant, route, name))
    hostnames = tuple(hostname.lower() for hostname in route["spec"].get("hostnames") or ())
    common = tuple(listener for listener in allowing if intersects(listener.hostname, hostnames))
    if not common:
        have = ", ".join(f"{listener.name} ({listener.hostname})" for listener in allowing)
        return refuse(
            "NoMatchingListenerHostname", f"{', '.join(hostnames)} has nothing in common with the listeners {have}"
        )
    return Attachment(index, reference, parent, common, None)


def _allows(listener: Listener, route: Object, parent: Parent, parents: Parents) -> bool:
    if route["kind"] not in listener.kinds:
        return False
    namespace = route["metadata"]["namespace"]
    match listener.namespaces:
        case "All":
            return True
        case "Selector":
            return listener.selector is not None and selects(listener.selector, parents.labels_of(namespace))
        case "Same":
            return bool(namespace == parent.namespace)
        case _:  # "None", or a value of the future: nobody
            return False


def _refusal(listeners: list[Listener], route: Object, parent: str) -> str:
    kind, namespace = route["kind"], route["metadata"]["namespace"]
    if not any(kind in listener.kinds for listener in listeners):
        takes = [f"{listener.name}: {listener.fault or ', '.join(listener.kinds)}" for listener in listeners]
        return f"no listener of {parent} takes routes of kind {kind} ({'; '.join(takes)})"
    rules = ", ".join(f"{listener.name}: {listener.namespaces}" for listener in listeners)
    return f"no listener of {parent} allows routes from namespace {namespace} (allowedRoutes.namespaces of {rules})"
