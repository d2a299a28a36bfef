"""Real Pods: a Deployment of backends is rolled under load, scaled to nothing and back."""

from __future__ import annotations

import pytest

from tests.conformance.rig.cluster import Cluster
from tests.conformance.rig.rest import Object
from tests.conformance.world import PORT, World, ask, eventually
from tests.doubles.load import Load
from tests.doubles.objects import listener, ref, rule, service

pytestmark = pytest.mark.cluster

# Longer than it takes the gateway to hear of a terminating endpoint; what rolls without it drops calls anywhere.
PRE_STOP_SECONDS = 2


def deployment(replicas: int = 3) -> Object:
    """Backends that go on serving for a while after they were told to end, as gRPC servers behind any proxy must."""
    container = {
        "name": "backend",
        "image": "pygw.dev/test-backend:1",
        "args": ["--port", "8080", "--name", "$(POD_NAME)"],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"name": "grpc", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": 8080}},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
    }
    labels = {"app": "backend"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "backend"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.fixture
def rolled(pygw: Cluster, world: World) -> World:
    """A Gateway and a route to the Service of the Deployment, which is there."""
    world.apply(deployment())
    # By the name of the container's port, as real manifests have it.
    port = {"name": "grpc", "port": PORT, "targetPort": "grpc"}
    world.apply(service("backend", port, selector={"app": "backend"}))
    world.gateway(listener())
    world.route(rule(ref("backend")))
    pygw.kubectl("rollout", "status", "deployment/backend", "--namespace", world.namespace, "--timeout=90s")
    eventually(lambda: ask(world.channel()).startswith("backend-"), "served")
    return world


def test_roll_under_load(pygw: Cluster, rolled: World) -> None:
    """All Pods are replaced, and no call notices."""
    before = {pod["metadata"]["name"] for pod in rolled.api.list("Pod", rolled.namespace)}
    with Load(rolled.channel) as load:
        load.wait_for(20)
        pygw.kubectl("rollout", "restart", "deployment/backend", "--namespace", rolled.namespace)
        pygw.kubectl("rollout", "status", "deployment/backend", "--namespace", rolled.namespace, "--timeout=90s")

        def replaced() -> bool:
            pods = rolled.api.list("Pod", rolled.namespace)
            return not before & {pod["metadata"]["name"] for pod in pods} and len(pods) == 3

        eventually(replaced, "replaced", patience=60.0)
        load.wait_for(50)
    assert not load.failed, load.details


def test_scaled_to_nothing_and_back(pygw: Cluster, rolled: World) -> None:
    """No ready endpoint: 14, and the route's references stay resolved; then served again."""
    item = rolled.apply(deployment(0))
    eventually(lambda: ask(rolled.channel()) == "UNAVAILABLE", "unavailable")
    conditions = rolled.status("GRPCRoute", "r")["parents"][0]["conditions"]
    assert [one["status"] for one in conditions if one["type"] == "ResolvedRefs"] == ["True"]
    rolled.api.patch(item, {"spec": {"replicas": 1}})
    eventually(lambda: ask(rolled.channel()).startswith("backend-"), "served again", patience=60.0)
