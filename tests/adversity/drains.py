"""Drains: reload, graceful stop and SIGTERM under a steady load; no call may be lost, and none refused on a reload."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.doubles import frames as wire

from .case import case, expect
from .floods import BLOCK, odd
from .rig import LoadRig, Rig

BEFORE = 0.5
IN_FLIGHT = 24


def load(rig: LoadRig, seconds: float) -> None:
    """Let the victim call for a while."""
    time.sleep(seconds)  # its calls go by the clock


@case("drain", "reload")
def reload(rig: Rig) -> None:
    """Three reloads under load lose no call."""
    assert isinstance(rig, LoadRig)
    with rig.victim_beside():
        for _ in range(3):
            load(rig, BEFORE)
            rig.proxy.reload()
        load(rig, 2 * BEFORE)
    rig.measures["calls"] = rig.measures["victim_calls"]
    rig.is_spent = True


def stopped(rig: LoadRig, stop: Callable[[], None]) -> None:
    """Begin a stop under load and count what became of the calls that were open, and of those made later."""
    rig.is_spent = True
    message = b"slow 1000"
    body = b"\0" + len(message).to_bytes(4) + message
    numbers = list(odd(IN_FLIGHT))
    with rig.client() as client:
        with rig.victim_beside(may_lose=None):
            load(rig, BEFORE)
            client.send(*(wire.headers(n, BLOCK) + wire.data(n, body, end_stream=True) for n in numbers))
            client.fence()
            stop()
            load(rig, BEFORE)
        ended = sum(client.finish(number, 3).grpc_status == 0 for number in numbers)
    measures = rig.measures
    # Once nobody listens, what cannot connect is no call that was lost.
    measures["lost"] = lost = int(measures["victim_lost"] - measures["victim_refused"]) + IN_FLIGHT - ended
    measures["calls"] = measures["victim_calls"] - measures["victim_refused"] + IN_FLIGHT
    expect(not lost, f"{lost} of {measures['calls']:.0f} calls lost, {IN_FLIGHT - ended} of them in flight")


@case("drain", "graceful-stop")
def graceful_stop(rig: Rig) -> None:
    """A graceful stop under load loses no call that has begun."""
    assert isinstance(rig, LoadRig)
    stopped(rig, rig.proxy.stop_gracefully)


@case("drain", "sigterm")
def sigterm(rig: Rig) -> None:
    """SIGTERM under load, which is what Kubernetes sends, loses no call that has begun."""
    assert isinstance(rig, LoadRig)
    stopped(rig, rig.proxy.terminate)
