"""Which endpoints of a Service are near: the hints of its EndpointSlices and its trafficDistribution.

After Kubernetes' "Traffic distribution" and what kube-proxy does: hints count only where every endpoint that takes
calls has one, and one at least is meant for us; else all endpoints take calls, so that no zone is cut off. In a cluster
the EndpointSlice controller writes the hints. Where nobody did, as in file mode, they follow from trafficDistribution
and from the zone and the node of each endpoint, by the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pygw.control.cluster_state import Object

_BY_ZONE = frozenset({"PreferClose", "PreferSameZone", "PreferSameNode"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where this gateway runs; "": not known, and then nothing is preferred by it."""

    node: str = ""
    zone: str = ""


NOWHERE = Place()


def near(endpoints: list[Object], here: Place, distribution: str) -> list[Object]:
    """Those that calls from `here` prefer, or all.

    `endpoints` are the entries of EndpointSlices that take calls, `distribution` the Service's trafficDistribution.
    """
    if here.node:
        hints = [_nodes(endpoint, distribution) for endpoint in endpoints]
        found = _meant_for(here.node, endpoints, hints)
        if found:
            return found
    if here.zone:
        hints = [_zones(endpoint, distribution) for endpoint in endpoints]
        return _meant_for(here.zone, endpoints, hints) or endpoints
    return endpoints


def _meant_for(name: str, endpoints: list[Object], hints: list[frozenset[str]]) -> list[Object]:
    if not all(hints):
        return []
    return [endpoint for endpoint, names in zip(endpoints, hints, strict=True) if name in names]


def _nodes(endpoint: Object, distribution: str) -> frozenset[str]:
    if endpoint.get("hints"):
        return _names(endpoint["hints"].get("forNodes"))
    return _names([{"name": endpoint.get("nodeName")}]) if distribution == "PreferSameNode" else frozenset()


def _zones(endpoint: Object, distribution: str) -> frozenset[str]:
    if endpoint.get("hints"):
        return _names(endpoint["hints"].get("forZones"))
    return _names([{"name": endpoint.get("zone")}]) if distribution in _BY_ZONE else frozenset()


def _names(entries: Iterable[dict[str, Any]] | None) -> frozenset[str]:
    return frozenset(entry["name"] for entry in entries or () if entry.get("name"))


def zone_of(node: str, item: Object) -> str:
    """The zone of a node, as an endpoint that runs there has it in an EndpointSlice; "" where none tells."""
    for endpoint in item.get("endpoints") or ():
        if endpoint.get("nodeName") == node and endpoint.get("zone"):
            return str(endpoint["zone"])
    return ""
