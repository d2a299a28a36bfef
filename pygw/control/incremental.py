"""What one resolution leaves for the next, so that a change costs what it touches.

Everything is judged anew that is cheap (Gateways); of routes and backends, which are many, only those whose object or
whose dependencies changed. "Changed" is found by comparing with a shallow copy of the earlier objects: the counters of
ClusterState say at once that a whole kind stands still.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pygw.control.attach import Attachments, Parents
from pygw.control.backend_tls import Policies
from pygw.control.certificates import Certificates
from pygw.control.cluster_state import ClusterState, Key, Object
from pygw.control.problems import Problem
from pygw.control.references import Grants
from pygw.control.routes import CompiledRoute
from pygw.control.slices import Slices
from pygw.control.status import Status
from pygw.model import BackendConfig

RouteKey = tuple[str, str, str]  # kind, namespace, name

ROUTE_KINDS = ("GRPCRoute", "HTTPRoute")
_WATCHED = (*ROUTE_KINDS, "Service", "ReferenceGrant", "EndpointSlice")

_NOTHING: frozenset[Key] = frozenset()


@dataclass(slots=True)
class Snapshot:
    """The objects of the kinds that are many, as they were."""

    state: ClusterState
    generations: dict[str, int]
    objects: dict[str, Mapping[Key, Object]]


@dataclass(frozen=True, slots=True)
class RouteMemo:
    """Everything about one route."""

    item: Object
    compiled: CompiledRoute | None  # None for a kind whose rules are not served
    attachments: Attachments
    status: Status | None
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class Memory:
    """Handed from resolution to resolution; belongs to the newest."""

    snapshot: Snapshot
    options: object  # what of the options bears on routes and backends
    parents: Parents
    grants: Grants
    slices: Slices
    certificates: Certificates
    policies: Policies
    routes: dict[RouteKey, RouteMemo] = field(default_factory=dict)
    backends: dict[tuple[str, str, int], tuple[BackendConfig, list[Problem]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """The (namespace, name) of objects that came, went or changed, by kind."""

    keys: dict[str, frozenset[Key]]

    def of(self, kind: str) -> frozenset[Key]:
        """The changed objects of a kind."""
        return self.keys.get(kind, _NOTHING)


def take_snapshot(state: ClusterState, previous: Snapshot | None) -> tuple[Snapshot, Changes]:
    """Copy what is needed of a state, and tell how it differs from the previous one (from nothing, if None)."""
    generations: dict[str, int] = {}
    objects: dict[str, Mapping[Key, Object]] = {}
    changes: dict[str, frozenset[Key]] = {}
    for kind in _WATCHED:
        generations[kind] = state.generation(kind)
        # Counters of two different states say nothing about each other.
        if previous is not None and previous.state is state and previous.generations[kind] == generations[kind]:
            objects[kind] = previous.objects[kind]
            continue
        objects[kind] = dict(state.objects(kind))
        changes[kind] = _difference(previous.objects[kind] if previous is not None else {}, objects[kind])
    return Snapshot(state, generations, objects), Changes(changes)


def _difference(old: Mapping[Key, Object], new: Mapping[Key, Object]) -> frozenset[Key]:
    changed = {key for key, item in new.items() if (other := old.get(key)) is not item and other != item}
    changed.update(key for key in old if key not in new)
    return frozenset(changed)
