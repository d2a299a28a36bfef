"""Endpoints that come and go under a steady load, in TLS: no call fails that could be served."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack

import grpc
import pytest

from pygw.control.cluster_state import Object
from tests.doubles.backend import ECHO, Backend, StartBackend
from tests.doubles.certificates import Authority, to_yaml
from tests.doubles.client import stream_stream
from tests.doubles.gateway import PATIENCE, Gateway, StartGateway
from tests.doubles.load import Gate, Load
from tests.doubles.objects import allow, endpoint, endpoint_slice, gateway, listener, ref, route, rule, service

HOST = "grpc.example.com"


class Cluster:
    """A gateway whose only Service `s` has the endpoints that a test gives it."""

    def __init__(self, start: StartGateway) -> None:
        authority = Authority()
        tls = {"certificateRefs": [{"name": "server"}]}
        self._objects: list[Object] = [
            gateway(listener("https", 443, "HTTPS", tls=tls, **allow("All"))),
            route(rule(ref("s"))),
            service("s"),
            authority.issue(HOST).secret("server"),
        ]
        self._credentials = grpc.ssl_channel_credentials(authority.pem)
        self.gateway: Gateway = start(self._yaml(()), port_of_listener=443)

    def channel(self) -> grpc.Channel:
        return self.gateway.channel(HOST, credentials=self._credentials)

    def scale(self, *backends: Backend) -> None:
        """Write these endpoints, and wait until every worker has them."""
        self.gateway.write("config.yaml", self._yaml(backends))
        wanted = sorted(f"127.0.0.1:{backend.port}" for backend in backends)

        def has_them() -> bool:
            workers = self.gateway.admin_json("/endpoints")["workers"]
            return len(workers) == 2 and all(
                sorted(state["address"] for state in states.get("default/s:50051", ())) == wanted
                for states in workers.values()
            )

        self.gateway.eventually(has_them, f"served by {wanted}")

    def _yaml(self, backends: Iterable[Backend]) -> str:
        slices = [
            endpoint_slice(endpoint("127.0.0.1"), service="s", name=f"s-{place}", ports=[{"port": backend.port}])
            for place, backend in enumerate(backends)
        ]
        return to_yaml(*self._objects, *slices)


@pytest.fixture
def cluster(start_gateway: StartGateway) -> Cluster:
    return Cluster(start_gateway)


@pytest.mark.parametrize("changes", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_endpoints_that_come_and_go_cost_no_call(
    cluster: Cluster, start_backend: StartBackend, changes: int
) -> None:
    """There is always one at least. What has left is stopped, as its pod would be, and another comes instead."""
    backends = [start_backend(f"b{number}") for number in range(4)]
    cluster.scale(*backends)
    with Load(cluster.channel, unary=3, streaming=3, connecting=1) as load:
        load.wait_for(50)
        for number in range(changes):
            leaving = backends.pop(0)
            cluster.scale(*backends[: 1 + number % 3])
            leaving.stop(PATIENCE)
            load.wait_for(10)
            backends.append(start_backend(f"b{number + 4}"))
            cluster.scale(*backends)
            load.wait_for(10)
        assert all(backend.calls for backend in backends[:-1])
    print("calls by status:", dict(load.ended))
    assert not load.failed, load.details[:5]


def test_a_service_that_is_scaled_to_nothing_and_back(
    cluster: Cluster, start_backend: StartBackend, open_stack: ExitStack
) -> None:
    """Calls that begin while it has no endpoint are told so, calls that are open go on, and none fails later."""
    backend = start_backend("backend")
    cluster.scale(backend)
    gate = Gate()
    held = stream_stream(open_stack.enter_context(cluster.channel()), f"{ECHO}/Chat")(iter(gate), timeout=PATIENCE)
    with Load(cluster.channel, unary=2, streaming=2, connecting=1) as load:
        for number in range(3):
            load.wait_for(50)
            began = time.monotonic()
            cluster.scale()
            gate.send(b"%d" % number)
            assert next(held) == b"%d" % number
            cluster.gateway.eventually(lambda: load.failed_since(began) > 0, "refused")  # noqa: B023
            cluster.scale(backend)
            back = time.monotonic()
            load.wait_for(50)
            assert not load.failed_since(back), load.details[-5:]
    gate.close()
    assert list(held) == []
    assert load.failed.keys() == {"UNAVAILABLE"}
    assert all("no ready endpoints" in details for details in load.details)
