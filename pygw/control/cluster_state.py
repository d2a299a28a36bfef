"""ClusterState: the latest accepted Kubernetes objects, by kind, namespace and name.

The one thing that `resolve` reads. Objects are plain dicts as the Kubernetes API gives them (camelCase; apiVersion,
kind, metadata, spec...), validated and defaulted before they come here. Files fill it (`objects`), the Kubernetes
informers will. Nobody changes an object in place: a new version replaces the old one, so "the same object" is `is`.
Cluster-scoped kinds (GatewayClass, Namespace) have the namespace "".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str]  # (namespace, name)

CLUSTER_SCOPED = frozenset({"GatewayClass", "Namespace"})

_NOTHING: Mapping[Key, Object] = MappingProxyType({})


def key_of(item: Object) -> Key:
    """(namespace, name) of an object; the namespace of a cluster-scoped one is ""."""
    metadata = item["metadata"]
    return ("" if item["kind"] in CLUSTER_SCOPED else metadata["namespace"], metadata["name"])


def creation_time(item: Object) -> str:
    """creationTimestamp in UTC to the second, so that the order of the texts is the order in time; "" if none."""
    timestamp = item["metadata"].get("creationTimestamp")
    try:
        moment = timestamp if isinstance(timestamp, datetime) else datetime.fromisoformat(timestamp)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment
    except (TypeError, ValueError, OverflowError):  # the last: in UTC it is before the year 1 or after 9999
        return ""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def by_age(item: Object) -> tuple[bool, str, str]:
    """Sorts objects of one kind as the Gateway API breaks ties: the oldest first, then by `namespace/name`.

    An object without a creationTimestamp counts as newer than any with one.
    """
    created = creation_time(item)
    return not created, created, "/".join(key_of(item))


class ClusterState:
    """Objects by kind and (namespace, name), with a counter per kind that moves when something of it changes."""

    __slots__ = ("_generations", "_kinds")

    def __init__(self, kinds: dict[str, dict[Key, Object]] | None = None) -> None:
        self._kinds: dict[str, dict[Key, Object]] = {} if kinds is None else kinds
        self._generations: dict[str, int] = dict.fromkeys(self._kinds, 1)

    def objects(self, kind: str) -> Mapping[Key, Object]:
        """All objects of a kind by (namespace, name); do not change it."""
        return self._kinds.get(kind, _NOTHING)

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        """One object, or None; the namespace of cluster-scoped kinds is ""."""
        return self.objects(kind).get((namespace, name))

    def kinds(self) -> list[str]:
        """The kinds of which there was ever an object."""
        return sorted(self._kinds)

    def generation(self, kind: str) -> int:
        """Grows with every change to an object of this kind; 0 where there was never one."""
        return self._generations.get(kind, 0)

    def apply(self, item: Object) -> bool:
        """Add or replace one object; False where an equal one is there already (which then stays)."""
        kind = item["kind"]
        objects = self._kinds.setdefault(kind, {})
        key = key_of(item)
        if objects.get(key) == item:
            return False
        objects[key] = item
        self._generations[kind] = self._generations.get(kind, 0) + 1
        return True

    def delete(self, kind: str, namespace: str, name: str) -> bool:
        """Remove one object; False where there is none."""
        if self._kinds.get(kind, {}).pop((namespace, name), None) is None:
            return False
        self._generations[kind] += 1
        return True
