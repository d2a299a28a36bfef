"""What a person sees of pygw in the cluster: conditions, events, columns. Once all is said, nothing is written."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable

import grpc
import pytest

from tests.conformance.rig import gateway
from tests.conformance.rig.cluster import Cluster
from tests.conformance.rig.rest import Api, Object
from tests.conformance.world import World, condition, eventually
from tests.doubles.objects import listener, ref, rule

pytestmark = pytest.mark.cluster

FLIPS = 5


def status_writes() -> int:
    """How often the gateway has written a status since it started, successfully or not."""
    with urllib.request.urlopen(f"http://{gateway.ADMIN}/metrics", timeout=10) as response:
        text = response.read().decode()
    return sum(
        int(float(count)) for count in re.findall(r"^pygw_kubernetes_status_writes_total\{.*\} (\S+)$", text, re.M)
    )


def versions(api: Api, namespace: str) -> dict[tuple[str, str], str]:
    """resourceVersion of everything whose status the gateway writes."""
    items = [("GatewayClass", item) for item in api.list("GatewayClass")]
    items += [(kind, item) for kind in ("Gateway", "GRPCRoute") for item in api.list(kind, namespace)]
    return {(kind, item["metadata"]["name"]): item["metadata"]["resourceVersion"] for kind, item in items}


def test_statuses_settle(pygw: Cluster, world: World, api: Api, record_property: Callable[[str, object], None]) -> None:
    """Each object is written a few times at most, and what changes no status is no reason to write."""
    at_first = status_writes()
    backend = world.backend()
    world.gateway(listener())
    world.route(rule(ref()))
    channel = world.channel()
    world.wait_until_served(channel, backend)

    def route_is_counted(status: Object) -> bool:
        return [one["attachedRoutes"] for one in status["listeners"]] == [1]

    world.wait_for("Gateway", "gw", route_is_counted, "with one attached route")
    settled, before = status_writes(), versions(api, world.namespace)
    record_property("status_writes", settled - at_first)
    # The Gateway when it comes and when the route is attached, the route once; one more each for a race.
    assert settled - at_first <= 5

    entry = api.get("EndpointSlice", "echo-1", world.namespace)
    for _ in range(FLIPS):
        api.patch(entry, {"endpoints": [one | {"conditions": {"ready": False}} for one in entry["endpoints"]]})
        world.wait_until_refused(channel, grpc.StatusCode.UNAVAILABLE)
        api.patch(entry, {"endpoints": entry["endpoints"]})
        world.wait_until_served(channel, backend)

    # Statuses are written in turn: what was due before is written by the time that a later one is.
    world.route(rule(ref()), name="later", parents=[{"name": "gw", "sectionName": "absent"}], wait=False)
    world.wait_for("GRPCRoute", "later", lambda status: bool(status.get("parents")), "judged")
    after = versions(api, world.namespace)
    assert {key: after[key] for key in before} == before
    assert status_writes() <= settled + 2


def test_kubectl_shows_what_is_up(pygw: Cluster, world: World) -> None:
    """`kubectl wait`, the columns of `get`, and `describe` read as a user expects."""
    world.backend()
    world.gateway(listener(), wait=False)
    world.route(rule(ref()), hostnames=["grpc.example.com"], wait=False)
    here = ("--namespace", world.namespace)
    pygw.kubectl("wait", *here, "--for=condition=Programmed", "gateway/gw", "--timeout=30s")
    columns = pygw.kubectl("get", *here, "gateway", "gw", "-o", "wide", "--no-headers").stdout.split()
    assert columns[:4] == ["gw", gateway.CLASS_NAME, gateway.ADDRESS, "True"]
    assert "grpc.example.com" in pygw.kubectl("get", *here, "grpcroute", "-o", "wide").stdout
    accepted = "--for=jsonpath={.status.parents[0].conditions[?(@.type=='Accepted')].status}=True"
    pygw.kubectl("wait", *here, accepted, "grpcroute/r", "--timeout=30s")
    described = pygw.kubectl("describe", *here, "gateway", "gw").stdout
    assert re.search(r"Attached Routes:\s+1", described)
    assert re.search(r"Type:\s+Programmed", described)


def test_what_a_person_must_fix_is_an_event(pygw: Cluster, world: World) -> None:
    """A missing Secret is told where `kubectl describe` shows it, by name."""
    tls = {"certificateRefs": [{"name": "absent-secret"}]}
    world.gateway(listener("https", 443, "HTTPS", tls=tls), wait=False)

    def told() -> bool:
        described = pygw.kubectl("describe", "--namespace", world.namespace, "gateway", "gw").stdout
        return "absent-secret" in described.partition("Events:")[2]

    eventually(told, "told in an event")
    status = world.status("Gateway", "gw")
    assert condition(status["listeners"][0], "ResolvedRefs") == ("False", "InvalidCertificateRef")
    assert "absent-secret" in str(status["listeners"][0]["conditions"])


def test_others_entries_are_left_alone(pygw: Cluster, world: World) -> None:
    """Parents of another controller, and conditions of another's type, stay as they are."""
    item = world.route(rule(ref()), wait=False)
    foreign: Object = {"type": "example.com/Audited", "status": "True", "reason": "Audited", "message": "by hand"}
    foreign |= {"lastTransitionTime": "2024-01-01T00:00:00Z", "observedGeneration": 1}
    entry = {"parentRef": {"name": "theirs"}, "controllerName": "example.com/other", "conditions": [foreign]}
    world.api.patch(item, {"status": {"parents": [entry]}}, "status")
    world.backend()
    world.gateway(listener())

    def both(status: Object) -> bool:
        names = sorted(parent["controllerName"] for parent in status.get("parents", []))
        return names == ["example.com/other", gateway.CONTROLLER]

    status = world.wait_for("GRPCRoute", "r", both, "with both controllers' entries")
    assert entry["conditions"] == next(
        parent["conditions"] for parent in status["parents"] if parent["controllerName"] == "example.com/other"
    )
