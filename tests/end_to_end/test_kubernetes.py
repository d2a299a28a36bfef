"""`pygw run --kubernetes` as a process, between an API server that the test plays and real calls."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.doubles import objects
from tests.doubles.backend import Backend, StartBackend
from tests.doubles.client import unary_unary
from tests.doubles.gateway import Gateway
from tests.doubles.kube_api import KubeApiThread
from tests.doubles.load import Load
from tests.doubles.objects import gateway_class, listener, ref, route, rule

LEASE = ("Lease", "pygw-system", "pygw.dev-gateway-controller")


@pytest.fixture
def api() -> Iterator[KubeApiThread]:
    with KubeApiThread() as started:
        started.put(gateway_class())
        yield started


@pytest.fixture
def kubernetes(api: KubeApiThread, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that reads that API server, which has nothing but our GatewayClass."""
    source = ["--kubernetes", "--kubeconfig", str(api.kubeconfig(tmp_path)), "--gateway-address", "192.0.2.1"]
    with Gateway(tmp_path, source=source) as started:
        yield started


def put_backend(api: KubeApiThread, name: str, *backends: Backend) -> None:
    """A Service and its endpoints, all on loopback, a slice for each since their ports differ."""
    api.put(objects.service(name, {"name": "grpc", "port": 50051}))
    for number, backend in enumerate(backends):
        api.put(
            objects.endpoint_slice(
                objects.endpoint("127.0.0.1"), service=name, name=f"{name}-{number}",
                ports=[{"name": "grpc", "port": backend.port}],
            )
        )  # fmt: skip


def answered_by(gateway: Gateway, name: str) -> bool:
    with gateway.channel() as channel:
        try:
            _, call = unary_unary(channel, "which.Backend/Answers").with_call(b"", timeout=10.0)
        except grpc.RpcError:
            return False
    return dict(call.initial_metadata()).get("served-by") == name


def conditions(api: KubeApiThread, kind: str, name: str) -> dict[str, str]:
    """Type and reason of all conditions of a Gateway, or of a route at its first parent."""
    status: dict[str, Any] = api.get(kind, "default", name).get("status") or {}
    holder = status if kind == "Gateway" else (status.get("parents") or [{}])[0]
    return {one["type"]: f"{one['status']} {one['reason']}" for one in holder.get("conditions") or ()}


def serve(api: KubeApiThread, gateway: Gateway, *backends: Backend) -> None:
    """A Gateway whose route leads to the first backend."""
    for backend in backends:
        put_backend(api, backend.name, backend)
    api.put(objects.gateway(listener()))
    api.put(route(rule(ref(backends[0].name))))
    gateway.eventually(lambda: answered_by(gateway, backends[0].name), "served")


def test_is_ready_with_nothing_to_serve_then_serves_and_says_so(
    api: KubeApiThread, kubernetes: Gateway, start_backend: StartBackend
) -> None:
    assert kubernetes.admin("/readyz")[0] == 200
    one, two = start_backend("one"), start_backend("two")
    serve(api, kubernetes, one, two)
    kubernetes.eventually(lambda: conditions(api, "Gateway", "gw").get("Programmed") == "True Programmed", "Programmed")
    assert api.get("Gateway", "default", "gw")["status"]["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]
    kubernetes.eventually(lambda: conditions(api, "GRPCRoute", "r").get("Accepted") == "True Accepted", "Accepted")
    api.put(route(rule(ref("two"))))
    kubernetes.eventually(lambda: answered_by(kubernetes, "two"), "served by two")
    api.put(route(rule(ref("missing"))))
    kubernetes.eventually(
        lambda: conditions(api, "GRPCRoute", "r").get("ResolvedRefs") == "False BackendNotFound", "told"
    )
    kubernetes.eventually(lambda: bool(api.objects["events"]), "an Event")
    api.delete("Gateway", "default", "gw")
    kubernetes.eventually(lambda: conditions(api, "GRPCRoute", "r") == {}, "withdrawn from the route")


def metrics(gateway: Gateway, name: str) -> list[str]:
    """The lines of a metric."""
    text = gateway.admin("/metrics")[1].decode()
    return [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]


def test_statuses_settle(api: KubeApiThread, kubernetes: Gateway, start_backend: StartBackend) -> None:
    serve(api, kubernetes, start_backend("one"))
    pending = ["pygw_kubernetes_status_pending 0.0"]
    kubernetes.eventually(lambda: conditions(api, "GRPCRoute", "r") != {}, "written")
    kubernetes.eventually(lambda: metrics(kubernetes, "pygw_kubernetes_status_pending") == pending, "nothing pending")
    before = metrics(kubernetes, "pygw_kubernetes_status_writes_total")
    assert len(before) == 3  # the GatewayClass, the Gateway, the route
    for number in range(5):  # changes that change no status
        api.put(objects.service(f"other-{number}"))
    seen = 'pygw_kubernetes_objects{kind="Service"} 6.0'
    kubernetes.eventually(lambda: seen in metrics(kubernetes, "pygw_kubernetes_objects"), "seen")
    kubernetes.eventually(lambda: metrics(kubernetes, "pygw_kubernetes_status_pending") == pending, "nothing pending")
    assert metrics(kubernetes, "pygw_kubernetes_status_writes_total") == before


def test_the_api_server_goes_and_comes_without_a_call_failing(
    api: KubeApiThread, kubernetes: Gateway, start_backend: StartBackend
) -> None:
    one, two = start_backend("one"), start_backend("two")
    serve(api, kubernetes, one, two)
    with Load(kubernetes.channel) as load:
        api.stop()
        kubernetes.wait_for_log("does not answer; serving on")
        load.wait_for(20)
        api.put(route(rule(ref("two"))))
        api.compact()
        api.start()
        kubernetes.eventually(lambda: answered_by(kubernetes, "two"), "served by two")
        load.wait_for(20)
    assert not load.failed, load.details[:5]


def test_a_control_process_that_dies_is_replaced_and_keeps_the_lease(
    api: KubeApiThread, kubernetes: Gateway, start_backend: StartBackend
) -> None:
    one, two = start_backend("one"), start_backend("two")
    serve(api, kubernetes, one, two)
    kubernetes.eventually(lambda: conditions(api, "GRPCRoute", "r") != {}, "written")
    children = Path(f"/proc/{kubernetes.process.pid}/task/{kubernetes.process.pid}/children").read_text().split()
    control = next(int(pid) for pid in children if "control" in Path(f"/proc/{pid}/cmdline").read_text())
    holder = api.get(*LEASE)["spec"]["holderIdentity"]
    with Load(kubernetes.channel) as load:
        logged = len(kubernetes.log)
        os.kill(control, signal.SIGKILL)
        api.put(route(rule(ref("two"))))
        kubernetes.eventually(lambda: answered_by(kubernetes, "two"), "served by two")
        kubernetes.wait_for_log("this replica writes statuses from now on", since=logged)
        load.wait_for(20)
    assert not load.failed, load.details[:5]
    assert api.get(*LEASE)["spec"]["holderIdentity"] == holder
    assert api.get(*LEASE)["spec"]["leaseTransitions"] == 0


def test_the_class_says_whether_the_installed_version_is_known(api: KubeApiThread, kubernetes: Gateway) -> None:
    def says(expected: str) -> bool:
        found = (api.get("GatewayClass", "", "pygw").get("status") or {}).get("conditions") or ()
        return any(one["type"] == "SupportedVersion" and one["reason"] == expected for one in found)

    kubernetes.eventually(lambda: says("SupportedVersion"), "known")
    api.install_bundle("v9.0.0")
    kubernetes.eventually(lambda: says("UnsupportedVersion"), "unknown")


def test_draining_gives_the_lease_back(api: KubeApiThread, kubernetes: Gateway) -> None:
    kubernetes.eventually(lambda: LEASE[1:] in api.objects["leases"], "led")
    kubernetes.process.terminate()
    kubernetes.process.wait(20)
    assert api.get(*LEASE)["spec"]["holderIdentity"] == ""


def test_a_takeover_loses_no_call_and_takes_the_lease(
    api: KubeApiThread, start_backend: StartBackend, tmp_path: Path
) -> None:
    """The successor serves what the API server says, writes statuses from then on, and follows changes."""
    one, two = start_backend("one"), start_backend("two")
    run_dir = ("--run-dir", str(tmp_path / "run"))
    source = ["--kubernetes", "--kubeconfig", str(api.kubeconfig(tmp_path)), "--gateway-address", "192.0.2.1"]
    with Gateway(tmp_path, *run_dir, source=source) as old:
        serve(api, old, one, two)
        old.wait_for_log("this replica writes statuses from now on")
        before = api.get(*LEASE)["spec"]["holderIdentity"]
        with Load(old.channel, connecting=1) as load:
            load.wait_for(20)
            with Gateway(tmp_path, *run_dir, "--takeover", source=source, port=old.port) as new:
                assert old.process.wait(20) == 0
                new.wait_for_log("this replica writes statuses from now on")
                assert api.get(*LEASE)["spec"]["holderIdentity"] not in ("", before)
                api.put(route(rule(ref("two"))))
                new.eventually(lambda: answered_by(new, "two"), "served by two")
                load.wait_for(20)
                load.stop()
        assert not load.failed, load.details[:5]


def test_waits_for_an_api_server_that_is_not_there_yet(api: KubeApiThread, tmp_path: Path) -> None:
    api.stop()
    source = ["--kubernetes", "--kubeconfig", str(api.kubeconfig(tmp_path))]
    gateway = Gateway(tmp_path, source=source)
    try:
        gateway.wait_for_log("does not answer; serving on")
        status, text = gateway.admin("/readyz")
        assert status == 503
        assert b"not listed yet" in text
        api.start()
        with gateway:  # waits until it is ready
            pass
    finally:
        gateway.kill()


def test_a_kubeconfig_that_makes_no_sense_is_said(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("current-context: nowhere\ncontexts: []\nclusters: []\nusers: []\n")
    gateway = Gateway(tmp_path, source=["--kubernetes", "--kubeconfig", str(path)])
    try:
        assert gateway.process.wait(20) == 1
        gateway.wait_for_log("the Kubernetes configuration cannot be used")
    finally:
        gateway.kill()
