"""topology: which endpoints are near (Kubernetes, "Traffic distribution"; the same judgement as kube-proxy's)."""

from __future__ import annotations

from typing import Any

import pytest

from pygw.control.resolve import Resolution, ResolveOptions, resolve
from pygw.control.topology import Place, near, zone_of
from tests.doubles.objects import NOW, endpoint, endpoint_slice, gateway, resolve_items, route, service, state_of

HERE = Place("node-1", "a")


def hinted(address: str, zones: str = "", nodes: str = "") -> dict[str, Any]:
    """An endpoint with the hints of the EndpointSlice controller."""
    hints = {"forZones": [{"name": name} for name in zones], "forNodes": [{"name": f"node-{name}"} for name in nodes]}
    return endpoint(address, hints={name: entries for name, entries in hints.items() if entries})


def placed(address: str, zone: str, node: str) -> dict[str, Any]:
    """An endpoint without hints, of which is known where it runs."""
    return endpoint(address, zone=zone, nodeName=f"node-{node}")


def addresses(endpoints: list[dict[str, Any]]) -> list[str]:
    return [one["addresses"][0][-1] for one in endpoints]


@pytest.mark.parametrize(
    ("endpoints", "here", "expected"),
    [
        ([hinted("1", "a"), hinted("2", "b"), hinted("3", "ab")], HERE, "13"),
        ([hinted("1", "a"), hinted("2", "b")], Place("node-1", ""), "12"),  # our zone is not known
        ([hinted("1", "a"), hinted("2", "b")], Place("", "c"), "12"),  # none is meant for our zone
        ([hinted("1", "a"), endpoint("2")], HERE, "12"),  # one has no hint: they may be half-written
        ([hinted("1", "a", "2"), hinted("2", "a", "1"), hinted("3", "b", "3")], HERE, "2"),
        ([hinted("1", "a", "2"), hinted("2", "b", "3")], HERE, "1"),  # none on our node, but in our zone
        ([hinted("1", "b", "2"), hinted("2", "c", "3")], HERE, "12"),
        ([], HERE, ""),
    ],
)
def test_hints(endpoints: list[dict[str, Any]], here: Place, expected: str) -> None:
    assert addresses(near(endpoints, here, "")) == list(expected)


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [("", "123"), ("PreferClose", "12"), ("PreferSameZone", "12"), ("PreferSameNode", "1"), ("Unknown", "123")],
)
def test_distribution_where_nobody_wrote_hints(distribution: str, expected: str) -> None:
    endpoints = [placed("1", "a", "1"), placed("2", "a", "2"), placed("3", "b", "3")]
    assert addresses(near(endpoints, HERE, distribution)) == list(expected)
    assert addresses(near([*endpoints, endpoint("4")], HERE, distribution)) == list("1234")


def test_hints_come_before_the_zones_of_endpoints() -> None:
    endpoints = [{**hinted("1", "b"), "zone": "a"}, {**hinted("2", "a"), "zone": "b"}]
    assert addresses(near(endpoints, HERE, "PreferSameZone")) == ["2"]


def backends(resolution: Resolution) -> tuple[tuple[str, int], ...]:
    return resolution.config.backends["default/echo:50051"].endpoints


def test_an_endpoint_that_takes_no_calls_is_not_near() -> None:
    """The last one of our zone that goes takes nobody's calls with it."""
    far = endpoint("10.0.0.2", zone="b")
    for ready, expected in ((True, "10.0.0.1"), (False, "10.0.0.2")):
        ours = endpoint("10.0.0.1", zone="a", conditions={"ready": ready})
        items = [gateway(), route(), service(trafficDistribution="PreferSameZone"), endpoint_slice(ours, far)]
        assert backends(resolve_items(*items, here=HERE)) == ((expected, 8080),)


def test_all_slices_of_a_service_are_judged_together() -> None:
    items = [
        gateway(), route(), service(),
        endpoint_slice(hinted("10.0.0.1", "a"), name="echo-1"), endpoint_slice(hinted("10.0.0.2", "b"), name="echo-2"),
    ]  # fmt: skip
    assert backends(resolve_items(*items, here=HERE)) == (("10.0.0.1", 8080),)
    items[-1]["endpoints"].append(endpoint("10.0.0.3"))
    assert len(backends(resolve_items(*items, here=HERE))) == 3


def test_a_zone_that_becomes_known_later_counts_for_what_is_there() -> None:
    state = state_of(gateway(), route(), service(), endpoint_slice(hinted("10.0.0.1", "a"), hinted("10.0.0.2", "b")))
    first = resolve(state, ResolveOptions(now=NOW, here=Place("node-1")))
    assert len(backends(first)) == 2
    second = resolve(state, ResolveOptions(now=NOW, here=HERE, previous=first))
    assert backends(second) == (("10.0.0.1", 8080),)


def test_the_zone_of_a_node_is_what_an_endpoint_there_says() -> None:
    item = endpoint_slice(endpoint("1"), placed("2", "b", "2"), placed("3", "a", "1"), endpoint("4", nodeName="node-4"))
    assert [zone_of(f"node-{number}", item) for number in (1, 2, 3, 4)] == ["a", "b", "", ""]
    assert zone_of("node-1", endpoint_slice()) == ""
