"""What goes wrong in a cluster, under load: no call fails that the specification does not say must fail."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.conformance.rig import gateway
from tests.conformance.rig.cluster import Cluster, class_object
from tests.conformance.rig.rest import Object
from tests.conformance.world import PORT, World, ask, condition, eventually
from tests.doubles.load import Load
from tests.doubles.objects import grant, listener, ref, route, rule, service

pytestmark = pytest.mark.cluster

ETCD = "http://127.0.0.1:2379"


@contextmanager
def loaded(world: World) -> Iterator[Load]:
    """A Gateway, a route and a backend under a load of which no call may fail."""
    backend = world.backend()
    world.gateway(listener())
    world.route(rule(ref()))
    world.wait_until_served(world.channel(), backend)
    with Load(world.channel) as load:
        load.wait_for(20)
        yield load
        load.wait_for(20)
    assert not load.failed, load.details


def serve_elsewhere(world: World, name: str) -> None:
    """A change that the gateway has to notice: the route goes to a new backend."""
    backend = world.backend(name)
    world.apply(route(rule(ref(name))))
    world.wait_until_served(world.channel(), backend)


def control_process(cluster: Cluster) -> int:
    """Process id of the gateway's control process, a child of its launcher."""
    launcher = (cluster.folder / "pygw.pid").read_text()
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    found = [int(pid) for pid in children if "control" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(found) == 1, children
    return found[0]


def compact_etcd() -> None:
    """Forget all old revisions: a watch that wants to resume from one gets 410 Gone."""

    def post(path: str, body: Object) -> Object:
        request = urllib.request.Request(f"{ETCD}{path}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as response:
            found: Object = json.loads(response.read())
        return found

    revision = post("/v3/kv/range", {"key": "AA=="})["header"]["revision"]
    post("/v3/kv/compaction", {"revision": revision, "physical": True})


# ===== the control plane =====


def test_api_server_is_killed_and_comes_back(pygw: Cluster, world: World) -> None:
    with loaded(world) as load:
        pygw.stop("kube-apiserver", signal.SIGKILL)
        load.wait_for(200)
        pygw.start("kube-apiserver")
        pygw.wait_until_ready()
        serve_elsewhere(world, "after")


def test_etcd_is_killed_and_comes_back(pygw: Cluster, world: World) -> None:
    with loaded(world) as load:
        pygw.stop("etcd", signal.SIGKILL)
        load.wait_for(200)
        pygw.start("etcd")
        pygw.wait_until_ready()
        serve_elsewhere(world, "after")


def test_watch_expires(pygw: Cluster, world: World) -> None:
    """The gateway's watches end while it cannot look, and what it missed is no longer in the API server's history."""
    with loaded(world) as load:
        world.backend("doomed")
        world.route(rule(ref("doomed"), matches=[{"method": {"service": "doomed"}}]), name="doomed")
        channel = world.channel()
        eventually(lambda: ask(channel, "doomed/Call") == "doomed", "served by doomed")
        control = control_process(pygw)
        os.kill(control, signal.SIGSTOP)
        try:
            pygw.stop("kube-apiserver", signal.SIGKILL)
            pygw.start("kube-apiserver")
            pygw.wait_until_ready()
            # A deletion is what a gateway that resumed, or only added what a list shows, would never hear of.
            world.api.delete("GRPCRoute", "doomed", world.namespace)
            new = world.backend("new")
            world.apply(route(rule(ref("new"))))
            compact_etcd()
            pygw.stop("kube-apiserver", signal.SIGKILL)
            pygw.start("kube-apiserver")
            pygw.wait_until_ready()
            load.wait_for(50)
        finally:
            os.kill(control, signal.SIGCONT)
        world.wait_until_served(channel, new)
        world.wait_until_served(world.channel(), new, "doomed/Call")


# ===== objects come and go =====


def test_revoked_grant_takes_effect(pygw: Cluster, world: World) -> None:
    """Without the grant calls must fail with 14; with it they are served, and nothing else is disturbed."""
    far = f"{world.namespace}-far"
    world.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": far}})
    try:
        with loaded(world):
            backend = world.backend("near")
            world.api.apply(service("far", {"name": "grpc", "port": PORT}, namespace=far))
            entry = world.api.get("EndpointSlice", "near-1", world.namespace)
            labels = {"kubernetes.io/service-name": "far"}
            metadata = {"name": "far-1", "namespace": far, "labels": labels}
            kept = {name: entry[name] for name in ("apiVersion", "kind", "addressType", "ports", "endpoints")}
            world.api.apply(kept | {"metadata": metadata})
            permission = grant(far, world.namespace, grant_name="permit")
            world.api.apply(permission)
            matches = [{"method": {"service": "far"}}]
            world.route(rule(ref("far", namespace=far), matches=matches), name="far")
            channel = world.channel()
            world.wait_until_served(channel, backend, "far/Call")

            world.api.delete("ReferenceGrant", "permit", far)
            world.wait_until_refused(channel, grpc.StatusCode.UNAVAILABLE, "far/Call")

            def refused(status: Object) -> bool:
                return condition(status["parents"][0], "ResolvedRefs") == ("False", "RefNotPermitted")

            world.wait_for("GRPCRoute", "far", refused, "RefNotPermitted")
            world.api.apply(permission)
            world.wait_until_served(channel, backend, "far/Call")
    finally:
        world.api.delete("Namespace", far)


def test_gateway_is_deleted_and_recreated(pygw: Cluster, world: World) -> None:
    backend = world.backend()
    world.gateway(listener())
    world.route(rule(ref()))
    world.wait_until_served(world.channel(), backend)
    world.api.delete("Gateway", "gw", world.namespace)
    eventually(lambda: ask(world.channel()) in ("UNAVAILABLE", "UNIMPLEMENTED"), "no longer served")
    eventually(lambda: not world.status("GRPCRoute", "r").get("parents"), "without a status for a parent that is gone")
    world.gateway(listener())
    world.wait_until_served(world.channel(), backend)


def test_class_becomes_anothers(pygw: Cluster, world: World) -> None:
    """controllerName cannot be changed in place: the class is replaced. A Gateway of another's class is not ours."""
    backend = world.backend()
    world.api.apply(class_object("fickle", gateway.CONTROLLER))
    try:
        world.gateway(listener(), gatewayClassName="fickle")
        world.route(rule(ref()))
        world.wait_until_served(world.channel(), backend)
        world.api.delete("GatewayClass", "fickle")
        world.api.apply(class_object("fickle", "example.com/another"))
        eventually(lambda: ask(world.channel()) in ("UNAVAILABLE", "UNIMPLEMENTED"), "no longer served")
        assert not world.api.get("GatewayClass", "fickle").get("status", {}).get("supportedFeatures")
        world.api.delete("GatewayClass", "fickle")
        world.api.apply(class_object("fickle", gateway.CONTROLLER))
        world.wait_until_served(world.channel(), backend)
    finally:
        world.api.delete("GatewayClass", "fickle")
