"""ReferenceGrants: which references across namespaces are permitted (Gateway API, referencegrant_types.go).

A grant lives in the namespace of what is referred to. It permits when one entry of `from` and one of `to` fit; several
grants add up. References inside one namespace need none.
"""

from __future__ import annotations

from collections.abc import Iterable

from pygw.control.cluster_state import Object

GATEWAY_GROUP = "gateway.networking.k8s.io"

_Side = tuple[str, str, str]  # group, kind, namespace (from) or name (to; "" is any)


class Grants:
    """All ReferenceGrants, ready to be asked."""

    __slots__ = ("_pairs",)

    def __init__(self, grants: Iterable[Object]) -> None:
        self._pairs: dict[str, list[tuple[frozenset[_Side], frozenset[_Side]]]] = {}
        for grant in grants:
            spec = grant.get("spec") or {}
            sources = frozenset(
                (item.get("group", ""), item["kind"], item["namespace"]) for item in spec.get("from") or ()
            )
            targets = frozenset(
                (item.get("group", ""), item["kind"], item.get("name") or "") for item in spec.get("to") or ()
            )
            self._pairs.setdefault(grant["metadata"]["namespace"], []).append((sources, targets))

    def permit(
        self, source: tuple[str, str, str], target: tuple[str, str], namespace: str, name: str
    ) -> bool:
        """Whether `source` (group, kind, namespace) may refer to the `target` (group, kind) called namespace/name."""
        if source[2] == namespace:
            return True
        return any(
            source in sources and ((*target, "") in targets or (*target, name) in targets)
            for sources, targets in self._pairs.get(namespace, ())
        )
