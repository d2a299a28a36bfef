"""When output is written: at the end of a loop turn, or at once where one call at a time is relayed."""

from collections.abc import Iterator

import pytest

from bench.micro.memory_relay import MemoryRelay

ENOUGH = 40  # calls, two reads each: more than the relay waits for before it writes at once


@pytest.fixture
def relay() -> Iterator[MemoryRelay]:
    """Without sockets."""
    made = MemoryRelay()
    made.written()
    yield made
    made.close()


def alone(relay: MemoryRelay, count: int = ENOUGH) -> None:
    """So many calls, one after the other."""
    for _ in range(count):
        relay.relay_prepared(relay.prepare(1))
    relay.written()


def test_output_waits_for_the_end_of_the_turn(relay: MemoryRelay) -> None:
    request, answer = relay.prepare(1)
    relay.feed(relay.client, request)
    assert relay.written() == 0
    relay.loop.turn()
    assert len(relay.endpoint_transport.written) == 1
    relay.feed(relay.endpoint, answer)
    assert relay.client_transport.written == []
    relay.loop.turn()
    assert len(relay.client_transport.written) == 1


def test_one_call_at_a_time_is_written_at_once(relay: MemoryRelay) -> None:
    alone(relay)
    before = relay.completed()
    for _ in range(3):
        request, answer = relay.prepare(1)
        relay.feed(relay.client, request)
        assert len(relay.endpoint_transport.written) == 1
        relay.feed(relay.endpoint, answer)
        assert len(relay.client_transport.written) == 1
        relay.written()
    assert relay.completed() == before + 3
    relay.loop.turn()
    assert relay.written() == 0


def test_two_calls_at_a_time_share_a_write_again(relay: MemoryRelay) -> None:
    alone(relay)
    (first, one), (second, other) = relay.prepare(1), relay.prepare(1)
    relay.feed(relay.client, first)
    relay.written()
    relay.feed(relay.client, second)
    assert relay.written() == 0
    relay.loop.turn()
    relay.written()
    relay.feed(relay.endpoint, one + other)
    assert relay.written() == 0
    relay.loop.turn()
    assert relay.written() > 0
    # And for a while: calls that come in pairs must not cost one write more each time.
    alone(relay, 1)
    relay.feed(relay.client, relay.prepare(1)[0])
    assert relay.written() == 0


def test_a_turn_that_has_begun_takes_what_follows(relay: MemoryRelay) -> None:
    alone(relay)
    relay.feed(relay.client, b"".join(relay.prepare(2)[:1]))
    relay.feed(relay.client, relay.prepare(1)[0])
    assert relay.written() == 0
    relay.loop.turn()
    assert len(relay.endpoint_transport.written) == 1
