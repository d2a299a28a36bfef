"""Which Secrets and ConfigMaps our objects refer to: those, and no others, are read.

References are found in Gateways whose class is ours, in ListenerSets that name a Gateway, and in BackendTLSPolicies.
One across namespaces counts only with a ReferenceGrant: without it nothing about the object may be found out, its
existence included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pygw.control.cluster_state import Key, Object
from pygw.control.references import GATEWAY_GROUP, Grants

Reference = tuple[str, str, str]  # kind (Secret or ConfigMap), namespace, name
Owner = tuple[str, str, str]  # kind, namespace, name of what refers

# What may hold references, and what decides whether they count.
REFERRING = ("Gateway", "ListenerSet", "BackendTLSPolicy")
DECIDING = ("GatewayClass", "ReferenceGrant")

Objects = Mapping[str, Mapping[Key, Object]]  # by kind


class References:
    """The references of each object, kept up to date object by object."""

    def __init__(self, controller_name: str, objects: Objects) -> None:
        """`objects` is what the informers hold, and stays theirs."""
        self._controller_name, self._objects = controller_name, objects
        self._of: dict[Owner, frozenset[Reference]] = {}
        self._grants = Grants(())

    def update(self, kind: str, key: Key) -> frozenset[Reference]:
        """Take in that one object of the REFERRING kinds came, went or changed; what it refers to now."""
        item = self._objects[kind].get(key)
        found = frozenset(self._permitted(item)) if item is not None else frozenset()
        if found:
            self._of[kind, *key] = found
        else:
            self._of.pop((kind, *key), None)
        return found

    def refresh(self) -> None:
        """Take in that objects of the DECIDING kinds came, went or changed."""
        self._grants = Grants(self._objects["ReferenceGrant"].values())
        self._of = {}
        for kind in REFERRING:
            for key in self._objects[kind]:
                self.update(kind, key)

    def all(self) -> frozenset[Reference]:
        """Everything that is referred to."""
        return frozenset().union(*self._of.values())

    def _permitted(self, item: Object) -> Iterator[Reference]:
        kind, namespace = item["kind"], item["metadata"]["namespace"]
        if kind == "Gateway" and not self._is_ours(item):
            return
        for target, place, name in _written(item):
            if self._grants.permit((GATEWAY_GROUP, kind, namespace), ("", target), place, name):
                yield target, place, name

    def _is_ours(self, gateway: Object) -> bool:
        class_ = self._objects["GatewayClass"].get(("", gateway["spec"].get("gatewayClassName", "")))
        return class_ is not None and class_["spec"].get("controllerName") == self._controller_name


def _written(item: Object) -> Iterator[Reference]:
    """Every reference of an object, permitted or not."""
    namespace, spec = item["metadata"]["namespace"], item["spec"]
    for listener in spec.get("listeners") or ():
        yield from _core((listener.get("tls") or {}).get("certificateRefs"), namespace, "Secret")
    if item["kind"] == "BackendTLSPolicy":
        yield from _core((spec.get("validation") or {}).get("caCertificateRefs"), namespace, "")
    if item["kind"] == "Gateway":
        tls = spec.get("tls") or {}
        client = (tls.get("backend") or {}).get("clientCertificateRef")
        yield from _core([client] if client else (), namespace, "Secret")
        frontend = tls.get("frontend") or {}
        settings = [frontend.get("default") or {}]
        settings += [entry.get("tls") or {} for entry in frontend.get("perPort") or ()]
        for setting in settings:
            yield from _core((setting.get("validation") or {}).get("caCertificateRefs"), namespace, "")


def _core(references: Iterable[dict[str, Any]] | None, namespace: str, default_kind: str) -> Iterator[Reference]:
    """Those references that name a Secret or a ConfigMap."""
    for reference in references or ():
        kind = reference.get("kind") or default_kind
        if not reference.get("group") and kind in ("Secret", "ConfigMap") and reference.get("name"):
            yield kind, reference.get("namespace") or namespace, reference["name"]
