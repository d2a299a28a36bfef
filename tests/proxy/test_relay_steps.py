"""A change of the configuration in steps: how many there are, what is served in between, and what stays at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from pygw import tables
from pygw.backend_list import CHUNK, Backends, read_backends, write_backends
from pygw.match.image_check import ImageProof
from pygw.model import BackendRefConfig, GatewayConfig, ListenerConfig, MatchConfig, RouteConfig, RuleConfig
from pygw.proxy.relay import Relay
from pygw.settings import Settings

STEP = 32768  # records that are proven in one step, as relay.pyx has it


def config_of(names: range, weights: tuple[int, ...] = (1,)) -> GatewayConfig:
    """A rule for each name, with a backend of that name for each of the weights."""
    routes = {}
    for number in names:
        refs = tuple(
            BackendRefConfig(f"d/b{number}-{place}:80", "d", f"b{number}-{place}", 80, weight=weight)
            for place, weight in enumerate(weights)
        )
        route = RouteConfig("d", f"r{number}", (), (RuleConfig(0, (MatchConfig(f"s{number}", False),), refs),))
        routes[route.key] = route
    listener = ListenerConfig("d/gw", "grpc", 80, routes=tuple(sorted(routes)))
    return GatewayConfig((listener,), routes)


def rows_of(image: tables.Image, address: str = "127.0.0.1") -> list[tuple[str, tuple[tuple[str, int], ...]]]:
    return [(key, ((address, 9),)) for key in image.backend_keys]


def chunks_of(image: tables.Image, address: str = "127.0.0.1") -> list[Backends]:
    rows = [(key, list(endpoints)) for key, endpoints in rows_of(image, address)]
    return [rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK)]


def with_relay(test: Callable[[Relay], Awaitable[None]]) -> None:
    async def main() -> None:
        relay = Relay(asyncio.get_running_loop(), Settings(), 0)
        try:
            await test(relay)
        finally:
            relay.close()

    asyncio.run(main())


def take(steps: Iterator[None], until: Callable[[], bool]) -> int:
    """Take steps until something holds: how many."""
    count = 0
    while not until():
        next(steps)
        count += 1
    return count


def test_nothing_of_a_large_change_is_served_before_the_last_of_its_backends_is_there() -> None:
    async def test(relay: Relay) -> None:
        small = tables.compile_image(config_of(range(1)))
        relay.apply(1, small.octets, rows_of(small))
        large = tables.compile_image(config_of(range(CHUNK * 5)))
        steps = relay.steps_to(2, large.octets, chunks_of(large))
        taken = take(steps, lambda: relay.version == 2)
        assert taken >= 5 + 1  # each chunk is a step of its own
        assert len(relay.endpoint_states()) == CHUNK * 5
        assert sum(1 for _ in steps) < 5

    with_relay(test)


def test_backends_that_are_gone_are_let_go_in_steps() -> None:
    async def test(relay: Relay) -> None:
        large = tables.compile_image(config_of(range(CHUNK * 5)))
        relay.apply(1, large.octets, rows_of(large))
        small = tables.compile_image(config_of(range(1)))
        steps = relay.steps_to(2, small.octets, chunks_of(small, "127.0.0.2"))
        take(steps, lambda: relay.version == 2)
        assert sum(1 for _ in steps) >= 5
        (states,) = relay.endpoint_states().values()
        assert [state["address"] for state in states] == ["127.0.0.2:9"]

    with_relay(test)


def test_an_image_that_is_none_changes_nothing_however_late_that_shows() -> None:
    async def test(relay: Relay) -> None:
        image = tables.compile_image(config_of(range(3000)))
        relay.apply(1, image.octets, rows_of(image))
        damaged = bytearray(image.octets)
        damaged[-8:] = b"\xff" * 8  # the last slot of the last table
        steps = relay.steps_to(2, damaged, chunks_of(image))
        with pytest.raises(ValueError, match="not a usable route image"):
            take(steps, lambda: relay.version == 2)
        assert relay.version == 1
        assert len(relay.endpoint_states()) == 3000

    with_relay(test)


def test_an_image_is_proven_in_steps_that_do_not_depend_on_its_size() -> None:
    def steps(rules: int) -> int:
        proof = ImageProof(tables.compile_image(config_of(range(rules))).octets)
        count = 1
        while not proof.step(STEP):
            count += 1
        return count

    assert steps(1) == 1
    assert steps(10_000) >= 4


def test_backends_travel_in_chunks() -> None:
    rows = [(f"d/b{number}:80", (("127.0.0.1", number + 1), ("::1", 2))) for number in range(CHUNK * 2 + 1)]
    chunks = list(read_backends(write_backends(rows)))
    assert [len(chunk) for chunk in chunks] == [CHUNK, CHUNK, 1]
    assert [(key, tuple(endpoints)) for chunk in chunks for key, endpoints in chunk] == rows
    assert list(read_backends(write_backends([]))) == []
