"""A whole call through the relay in memory, without sockets: what our own code takes of it.

Run: .venv/bin/python -m pytest bench/micro/test_relay.py --benchmark-only. Each round relays 1,000 calls, 100 to a
read; a figure divided by 1,000 is the time of one.
"""

from __future__ import annotations

import pytest

from bench.micro.memory_relay import MemoryRelay

READS, CALLS = 10, 100


@pytest.mark.parametrize("message", [16, 8192])
@pytest.mark.parametrize("changing", [False, True], ids=["repeated", "changing"])
def test_1000_calls(benchmark, message, changing):
    relay = MemoryRelay(message, changing)

    def fresh():
        return ([relay.prepare(CALLS) for _ in range(READS)],), {}

    def run(prepared):
        for calls in prepared:
            relay.relay_prepared(calls)
        relay.written()

    benchmark.pedantic(run, setup=fresh, rounds=20, warmup_rounds=1)
    assert relay.completed() == 1 + 21 * READS * CALLS
    relay.close()
