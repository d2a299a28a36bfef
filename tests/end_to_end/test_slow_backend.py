"""A backend at its stream limit, slower than its calls come: who waits for it and who is refused (pending_lag)."""

from __future__ import annotations

import asyncio

import pytest

from tests.doubles.backend import ECHO, SLOW, StartBackend
from tests.doubles.gateway import Gateway, StartGateway
from tests.doubles.load import Load
from tests.doubles.manifests import GATEWAY, route, to
from tests.doubles.open_load import Phase, load

STREAMS = 4
CAPACITY = STREAMS / SLOW  # calls a second, at most
LAG = 0.25  # pending_lag's default
ONE_CONNECTION = ("--set", "max_upstream_connections=1", "--set", "overload_lag=0")


def shed(gateway: Gateway) -> dict[str, float]:
    """Calls refused by limit, where there are any."""
    lines = gateway.admin("/metrics")[1].decode().splitlines()
    rows = [line.rpartition(" ") for line in lines if line.startswith("pygw_overload_shed_total{")]
    return {name.split('"')[1]: float(value) for name, _, value in rows if float(value)}


def offer(gateway: Gateway, *phases: str) -> list[Phase]:
    """Calls of the slow method at these rates."""
    return asyncio.run(load(gateway.port, *phases, authority="grpc.example.com", path=f"/{ECHO}/Slow"))


@pytest.mark.slow
def test_a_slow_backend_at_three_times_its_capacity(start_backend: StartBackend, start_gateway: StartGateway) -> None:
    """Without pending_lag the last of 4 seconds would wait for 8 s, until pending_calls or the deadline ends it."""
    slow = start_backend("slow", options=[("grpc.max_concurrent_streams", STREAMS)])
    sound = start_backend("sound")
    rules = route(to("slow", matches=f"[{{method: {{service: {ECHO}, method: Slow}}}}]"), to("sound"))
    targets = {"default/slow": slow.port, "default/sound": sound.port}
    gateway = start_gateway(GATEWAY + rules, *ONE_CONNECTION, resolve=targets, workers=1)
    half, triple = f"{CAPACITY / 2:g}:1", f"{CAPACITY * 3:g}:4"
    with Load(gateway.channel, unary=1, streaming=1) as others:
        before, over, after, later = offer(gateway, half, triple, half, half)
    assert before.failed == over.failed == after.failed == later.failed == 0
    assert before.shed == 0
    # It is kept busy, by calls that came in time: half of them waited no longer than pending_lag and a half.
    assert over.good > 2 * CAPACITY
    assert over.p50_us < 1.5 * LAG * 1e6
    assert over.good + over.shed == over.offered
    # A second after the load has gone down, all are taken again, and nobody waits.
    assert later.shed == 0
    assert later.p99_us < LAG * 1e6
    # (Next to all: what grpc-core refuses at its stream limit is sent again, but once.)
    assert list(shed(gateway)) == ["pending_lag"]
    assert 0.98 * (over.shed + after.shed) <= shed(gateway)["pending_lag"] <= over.shed + after.shed
    # Calls for other backends were not touched.
    assert not others.failed
    assert others.ended["OK"] > 100
