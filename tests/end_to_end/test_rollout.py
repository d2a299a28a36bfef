"""A rolling restart of the gateway: replicas as a Deployment has them, one replaced after the other, and what a single
one does from SIGTERM to its end. No call is lost, and the gateways have counted the same calls as the clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.doubles.backend import ECHO, StartBackend
from tests.doubles.balancer import Balancer
from tests.doubles.gateway import PATIENCE, Gateway, StartGateway
from tests.doubles.in_process import REQUEST, Peer, message
from tests.doubles.load import Load
from tests.doubles.manifests import GATEWAY, route, to

NO_ERROR = 0
EVERY_STREAM = 2**31 - 1  # RFC 9113 §6.8: the first GOAWAY of a graceful end refuses none


def calls_in(path: Path) -> Counter[int]:
    """Calls by grpc-status in an access log."""
    return Counter(json.loads(line)["grpc_status"] for line in path.read_text().splitlines())


@pytest.mark.slow
def test_a_rolling_restart_loses_no_call(
    start_backend: StartBackend, start_gateway: StartGateway, tmp_path: Path
) -> None:
    config, resolve = GATEWAY + route(to("backend")), {"default/backend": start_backend("backend").port}
    folder = tmp_path / "logs"
    folder.mkdir()
    logs: list[Path] = []

    def start() -> Gateway:
        logs.append(folder / f"{len(logs)}.log")
        return start_gateway(config, "--drain-delay", "1", "--access-log", str(logs[-1]), resolve=resolve)

    replicas = [start(), start()]
    with (
        Balancer(*replicas) as balancer,
        Load(lambda: replicas[0].channel(port=balancer.port), unary=3, streaming=3, connecting=2) as load,
    ):
        load.wait_for(100)
        for leaving in replicas:
            coming = start()
            balancer.replicas.append(coming)
            coming.eventually(lambda coming=coming: balancer.is_ready(coming), "one of the Service")  # type: ignore[misc]
            leaving.process.send_signal(signal.SIGTERM)
            assert leaving.process.wait(PATIENCE) == 0
            balancer.replicas.remove(leaving)
            load.wait_for(100)
    counts = [calls_in(path) for path in logs]
    print("calls by status:", dict(load.ended), "of each replica:", counts)
    assert not load.failed, load.details[:5]
    assert not balancer.refused
    assert all(count.keys() == {0} for count in counts)
    assert sum(count[0] for count in counts) == load.ended["OK"]


@contextlib.asynccontextmanager
async def connect(gateway: Gateway) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    client = Peer(reader, writer, is_client=True)
    yield client
    await client.close()


def request(client: Peer, method: str) -> int:
    fields = [(name, f"/{ECHO}/{method}" if name == ":path" else value) for name, value in REQUEST]
    return client.request(fields, body=message(b"hello"))


async def is_served(client: Peer) -> bool:
    return (await client.over(request(client, "Unary"))).status == "0"


@pytest.mark.slow
def test_one_gateway_from_sigterm_to_its_end(start_backend: StartBackend, start_gateway: StartGateway) -> None:
    """Not ready, still accepting; GOAWAY twice; a grace for the calls that are open, then 14; exit 0."""
    backend = start_backend("backend")
    arguments = ("--drain-delay", "2", "--drain-timeout", "3")
    gateway = start_gateway(GATEWAY + route(to("backend")), *arguments, resolve={"default/backend": backend.port})

    async def follow(client: Peer) -> None:
        hanging = request(client, "Hang")
        await asyncio.to_thread(backend.wait_for_calls, 1)
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(gateway.eventually, lambda: gateway.admin("/readyz")[0] == 503, "not ready")
        # The delay: load balancers have not heard of it yet.
        async with connect(gateway) as late:
            assert await is_served(late)
            assert await is_served(client)
            assert client.goaways == late.goaways == []
            # A GOAWAY that allows for calls under way, and a second later the last one.
            await client.until(lambda: client.goaways)
            assert client.goaways == [(EVERY_STREAM, NO_ERROR)]
            assert await is_served(client)
            await client.until(lambda: len(client.goaways) == 2)
            assert client.goaways[1] == (max(client.streams), NO_ERROR)
            await late.until(lambda: late.closed)
            assert [code for _, code in late.goaways] == [NO_ERROR, NO_ERROR]
        # The grace is over.
        stream = await client.over(hanging)
        assert (stream.status, stream.reset) == ("14", None)
        await client.until(lambda: client.closed)

    async def test() -> None:
        async with connect(gateway) as client:
            await follow(client)

    asyncio.run(test())
    assert gateway.process.wait(PATIENCE) == 0
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", gateway.port)) != 0
