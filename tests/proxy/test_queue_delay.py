"""A queue at a backend that is at its stream limit: when calls may join it, and what those that may not are told."""

import asyncio

import pytest
from h2.settings import SettingCodes

from pygw.proxy.queue_delay import simulate
from pygw.settings import Settings
from tests.doubles.in_process import Backend, gateway, message, one_route, run

MILLISECOND = 1000
TARGET = 250 * MILLISECOND
SERVICE = 2 * MILLISECOND  # of a call: 500 calls a second


def steady(load, seconds, begin=0):
    """Arrivals of so many times what can be served."""
    step = int(SERVICE / load)
    return [begin + number * step for number in range(int(seconds * 1_000_000) // step)]


@pytest.mark.parametrize("calls", [100, 1000])
def test_a_burst_alone_is_served_whole(calls):
    assert None not in simulate(TARGET, [0] * calls, SERVICE)


def test_below_capacity_nothing_is_refused():
    assert None not in simulate(TARGET, steady(0.9, 20), SERVICE)


def test_at_three_times_capacity_waits_stay_near_the_target_and_nothing_idles():
    arrivals = steady(3, 10)
    waits = simulate(TARGET, arrivals, SERVICE)
    served = sorted(wait for wait in waits if wait is not None)
    assert len(served) >= 10_000_000 // SERVICE
    late = [wait for wait, at in zip(waits, arrivals, strict=True) if wait is not None and at > 2_000_000]
    assert max(late) <= TARGET * 3 // 2
    # Those who came before it was clear that the queue stands.
    assert served[-1] <= 6 * TARGET


def test_after_it_every_call_is_taken_again():
    arrivals = steady(3, 5)
    later = steady(0.5, 5, begin=5_000_000 + 2 * TARGET)
    waits = simulate(TARGET, arrivals + later, SERVICE)
    assert None in waits[: len(arrivals)]
    assert None not in waits[len(arrivals) :]


def test_off_is_off():
    assert None not in simulate(0, steady(3, 5), SERVICE)


def test_who_would_wait_too_long_is_told_when_to_come_again():
    async def test():
        backend = await Backend({SettingCodes.MAX_CONCURRENT_STREAMS: 1}).start()
        settings = Settings(max_upstream_connections=1, pending_lag=0.02, overload_pushback=2.0)
        async with gateway(one_route([backend]), settings) as served:
            client = await served.client()
            first = client.request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            waiting = client.request(body=message(b""))
            while served.count("pygw_upstream_pending_calls") < 1:
                await asyncio.sleep(0)
            # Until the one that waits has waited for pending_lag, and for as long again, more may join it.
            refused = None
            while refused is None:
                stream_id = client.request(body=message(b""))
                await asyncio.sleep(0.005)
                refused = client.streams.get(stream_id)
            await client.until(lambda: refused.over)
            assert refused.status == "14"
            assert refused.text == "the backend is overloaded: calls wait too long for it (pending_lag)"
            assert 1000 <= int(refused.sections[0]["grpc-retry-pushback-ms"]) <= 3000
            assert served.count("pygw_overload_shed_total", limit="pending_lag") >= 1
            # Who waits keeps the place.
            peer.respond(1)
            assert (await client.over(first)).status == "0"
            await peer.open(2)
            peer.respond(3)
            assert (await client.over(waiting)).status == "0"

    run(test)
