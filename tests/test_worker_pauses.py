"""A worker that did not run for a while (SIGSTOP, a machine that slept): timers are due by then, but what came in the
meantime counts first, so that nobody is blamed for our own pause."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from h2.settings import SettingCodes

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
from tests.doubles.in_process import Backend, Peer, message
from tests.doubles.worker import Driver, drive

TIMEOUT = 1.0  # seconds, of the timer that a test is about
CALL = message(b"ask")
PING = frames.ping(b"01234567")
pytestmark = pytest.mark.slow


def config() -> GatewayConfig:
    """One route for all calls."""
    reference = BackendRefConfig("default/b:80", "default", "b", 80)
    route = RouteConfig("default", "r", (), (RuleConfig(0, (MatchConfig(),), (reference,)),))
    listener = ListenerConfig("default/gw", "grpc", 80, routes=(route.key,))
    return GatewayConfig((listener,), {route.key: route}, {"default/b:80": BackendConfig("default/b:80", "d", "b", 80)})


@contextlib.asynccontextmanager
async def served(driver: Driver, *, port: int = 0, limit: int = 100) -> AsyncIterator[tuple[Peer, Backend]]:
    """A client of the worker, and the backend (at most `limit` streams) that it leads to, unless that is at `port`."""
    backend = await Backend({SettingCodes.MAX_CONCURRENT_STREAMS: limit}).start()
    await driver.publish(config(), port=port or backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", driver.listen())
    client = Peer(reader, writer, is_client=True)
    try:
        await client.until(lambda: client.unacknowledged == 0)
        yield client, backend
    finally:
        await client.close()
        await backend.stop()
        Backend.started.clear()


async def read_all(driver: Driver) -> None:
    """Wait until the worker has read what had come: it reads all that is there before it looks again."""
    for _ in range(2):
        await driver.ask({"type": "metrics"})


@contextlib.contextmanager
def stopped(driver: Driver) -> Iterator[None]:
    """The worker does not run."""
    os.kill(driver.pid, signal.SIGSTOP)
    try:
        while Path(f"/proc/{driver.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            pass
        yield
    finally:
        os.kill(driver.pid, signal.SIGCONT)


async def outlast_the_timer() -> None:
    """Nothing but time can make a timer due."""
    await asyncio.sleep(1.5 * TIMEOUT)


def test_a_frame_whose_rest_came_in_the_pause_is_whole() -> None:
    async def test(driver: Driver) -> None:
        async with served(driver) as (client, backend):
            client.writer.write(PING[:12])
            await read_all(driver)
            with stopped(driver):
                client.writer.write(PING[12:])
                await outlast_the_timer()
            stream_id = client.request(body=CALL)
            peer = await backend.connected()
            peer.respond((await peer.open(1))[0])
            assert (await client.over(stream_id)).status == "0"
            assert not client.goaways
            assert await driver.count("pygw_limit_hits_total", limit="frame_timeout") == 0

    drive(test, {"frame_timeout": TIMEOUT})


def test_a_keepalive_that_was_answered_in_the_pause_is_answered() -> None:
    async def test(driver: Driver) -> None:
        async with served(driver) as (client, backend):
            client.answers_pings = False
            stream_id = client.request(body=CALL)
            peer = await backend.connected()
            number = (await peer.open(1))[0]
            await client.until(lambda: client.pings)
            with stopped(driver):
                client.writer.write(frames.ping(client.pings[0], ack=True))
                await outlast_the_timer()
            client.answers_pings = True
            peer.respond(number)
            assert (await client.over(stream_id)).status == "0"
            assert await driver.count("pygw_limit_hits_total", limit="keepalive_timeout") == 0

    drive(test, {"keepalive_time": TIMEOUT, "keepalive_timeout": TIMEOUT})


def test_a_call_whose_turn_came_in_the_pause_is_served() -> None:
    async def test(driver: Driver) -> None:
        async with served(driver, limit=1) as (client, backend):
            first, second = (client.request(body=CALL) for _ in range(2))
            peer = await backend.connected()
            await peer.open(1)
            while not await driver.count("pygw_upstream_pending_calls"):
                pass
            with stopped(driver):
                peer.respond(1)
                await outlast_the_timer()
            peer.respond((await peer.open(2))[1])
            assert [(await client.over(stream)).status for stream in (first, second)] == ["0", "0"]

    drive(test, {"pending_timeout": TIMEOUT, "max_upstream_connections": 1})


def test_a_handshake_that_was_finished_in_the_pause_is_finished() -> None:
    async def test(driver: Driver) -> None:
        arrived: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        server = await asyncio.start_server(lambda *ends: arrived.put_nowait(ends), "127.0.0.1", 0)
        async with served(driver, port=server.sockets[0].getsockname()[1]) as (client, _):
            stream_id = client.request(body=CALL)
            reader, writer = await arrived.get()
            assert (await reader.readexactly(len(frames.PREFACE))) == frames.PREFACE
            with stopped(driver):
                peer = Peer(reader, writer, is_client=False)
                peer.h2.receive_data(frames.PREFACE)
                await outlast_the_timer()
            peer.respond((await peer.open(1))[0])
            assert (await client.over(stream_id)).status == "0"
            await peer.close()
        server.close()

    drive(test, {"handshake_timeout": TIMEOUT})


def connecting_to(port: int) -> int:
    """Sockets that connect, or have connected, to a local port (proc(5), /proc/net/tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(row[2].partition(":")[2], 16) == port for row in rows)


def test_a_connection_that_was_made_in_the_pause_is_used() -> None:
    async def test(driver: Driver) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as listener, contextlib.ExitStack() as stack:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            listener.setblocking(False)
            fillers = [stack.enter_context(socket.socket()) for _ in range(8)]
            for filler in fillers:  # until its queue is full, so that it answers no SYN
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            ours = {filler.getsockname() for filler in fillers}
            async with served(driver, port=listener.getsockname()[1]) as (client, _):
                stream_id = client.request(body=CALL)
                async with asyncio.timeout(20):
                    while connecting_to(listener.getsockname()[1]) == len(fillers):
                        await asyncio.sleep(0)
                with stopped(driver):
                    for filler in fillers:  # which would compete with it for the one place
                        filler.close()
                    while True:
                        sock, address = await loop.sock_accept(listener)
                        if address not in ours:
                            break
                        stack.enter_context(sock)
                    await outlast_the_timer()
                reader, writer = await asyncio.open_connection(sock=sock)
                peer = Peer(reader, writer, is_client=False)
                peer.respond((await peer.open(1))[0])
                assert (await client.over(stream_id)).status == "0"
                await peer.close()

    drive(test, {"connect_timeout": TIMEOUT})
