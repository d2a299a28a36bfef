"""A worker that is out of connections or descriptors: it stops accepting, serves what it has, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from pygw.model import (
    BackendConfig,
    BackendRefConfig,
    GatewayConfig,
    ListenerConfig,
    MatchConfig,
    RouteConfig,
    RuleConfig,
)
from tests.doubles import frames
from tests.doubles.worker import Driver, drive

HELLO = frames.PREFACE + frames.settings()
DESCRIPTORS = 128  # of the worker, of which clients get three quarters


def config() -> GatewayConfig:
    """One route for all calls."""
    reference = BackendRefConfig("default/b:80", "default", "b", 80)
    route = RouteConfig("default", "r", (), (RuleConfig(0, (MatchConfig(),), (reference,)),))
    listener = ListenerConfig("default/gw", "grpc", 80, routes=(route.key,))
    return GatewayConfig((listener,), {route.key: route}, {"default/b:80": BackendConfig("default/b:80", "d", "b", 80)})


class Client:
    """One connection that has sent its preface."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def connect(self, port: int) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.writer.write(HELLO)
        return self

    async def served(self) -> Client:
        """Wait for the worker's SETTINGS."""
        async with asyncio.timeout(20):
            assert (await self.reader.readexactly(9))[3] == frames.SETTINGS
        return self

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def paused(driver: Driver, port: int) -> None:
    """Wait until the worker accepts no more: the only one that listens is the double's own socket."""
    async with asyncio.timeout(20):
        while not await driver.count("pygw_limit_hits_total", limit="max_connections"):
            pass


def test_at_max_connections_clients_wait_until_one_has_left() -> None:
    async def test(driver: Driver) -> None:
        await driver.publish(config())
        port = driver.listen()
        first, second = [await (await Client().connect(port)).served() for _ in range(2)]
        await paused(driver, port)
        waiting = [await Client().connect(port) for _ in range(3)]
        # Longer than accepting is tried again by itself: nobody is let in, and nobody is thrown out.
        await asyncio.sleep(1.5)
        assert driver.waiting(port) == 3
        assert await driver.count("pygw_downstream_connections") == 2
        await first.close()
        await waiting[0].served()
        await second.close()
        await waiting[1].served()
        await waiting[0].close()
        await waiting[2].served()
        for client in waiting[1:]:
            await client.close()

    drive(test, {"max_connections": 2})


def test_what_waits_at_max_connections_is_served_by_a_drain() -> None:
    async def test(driver: Driver) -> None:
        await driver.publish(config())
        port = driver.listen()
        first = await (await Client().connect(port)).served()
        await paused(driver, port)
        late = await Client().connect(port)
        driver.launcher.send({"type": "drain"})
        await first.close()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(20):
                await late.reader.read(-1)
        assert await driver.ended() == 0
        await late.close()

    drive(test, {"max_connections": 1})


def test_descriptors_run_out_for_clients_only() -> None:
    """Endpoints are still reached, the worker neither dies nor spins, and goes on when clients have left."""

    async def test(driver: Driver) -> None:
        backend_met = asyncio.Event()

        def meet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            backend_met.set()
            writer.close()

        backend = await asyncio.start_server(meet, "127.0.0.1", 0)
        await driver.publish(config(), port=backend.sockets[0].getsockname()[1])
        port = driver.listen()
        clients = [await Client().connect(port) for _ in range(2 * DESCRIPTORS)]
        await clients[0].served()
        async with asyncio.timeout(20):
            while not await driver.count("pygw_limit_hits_total", limit="descriptor_reserve"):
                pass
        open_now = await driver.count("pygw_downstream_connections")
        assert DESCRIPTORS // 2 < open_now < DESCRIPTORS * 3 // 4
        assert driver.waiting(port) > 0
        # A call on an open connection needs a new one to its endpoint.
        clients[0].writer.write(frames.headers(1, frames.block(frames.REQUEST), end_stream=True))
        async with asyncio.timeout(20):
            await backend_met.wait()
        before = driver.cpu_seconds()
        await asyncio.sleep(0.5)
        assert driver.cpu_seconds() - before < 0.25
        for client in clients:
            await client.close()
        after = await (await Client().connect(port)).served()
        await after.close()
        backend.close()

    drive(test, descriptors=DESCRIPTORS)


def test_descriptors_that_are_gone_all_the_same_cost_only_those_who_come() -> None:
    """The kernel's queue is emptied then (libuv keeps one descriptor for it), and what is open goes on."""

    async def test(driver: Driver) -> None:
        await driver.publish(config())
        port = driver.listen()
        first = await (await Client().connect(port)).served()
        taken = {int(path.name) for path in Path(f"/proc/{driver.pid}/fd").iterdir()}  # noqa: ASYNC240
        lowest_free = next(number for number in range(len(taken) + 1) if number not in taken)
        driver.limit_descriptors(lowest_free)
        late = await Client().connect(port)
        async with asyncio.timeout(20):
            with contextlib.suppress(OSError):
                assert await late.reader.read(-1) == b""
        first.writer.write(frames.ping(b"01234567"))
        async with asyncio.timeout(20):
            while frames.ping(b"01234567", ack=True) not in await first.reader.read(65536):
                pass
        driver.limit_descriptors(lowest_free + 64)
        after = await (await Client().connect(port)).served()
        for client in (first, late, after):
            await client.close()

    drive(test)
