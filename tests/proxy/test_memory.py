"""Nothing stays behind: whatever comes and goes through a Relay, memory and objects are as they were.

Three measures that see what the others do not: octets that malloc() has lent (structs and buffers of the compiled
modules), blocks that Python's allocator has lent (objects, and references that were taken and not given back), objects
that its collector knows. Each round does the same; the first ones fill freelists, caches and tables.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys

import pytest

from tests.doubles.in_process import REQUEST, RESPONSE, Backend, gateway, message, one_route, run

WARM_UP, ROUNDS = 6, 30
# What one of ROUNDS may leave on the average. A Call, a Stream or a Field that stayed is more by far.
OCTETS_A_ROUND, BLOCKS_A_ROUND, OBJECTS_A_ROUND = 256, 4, 1


class _Mallinfo2(ctypes.Structure):
    """glibc's mallinfo2()."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def octets_lent() -> int:
    """By malloc(); 0 where it is not glibc's."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None or "asan" in os.environ.get("LD_PRELOAD", ""):
        return 0
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)


def measure() -> tuple[int, int, int]:
    """Octets of malloc(), blocks of Python's allocator, objects that the collector knows."""
    gc.collect()
    gc.collect()
    return octets_lent(), sys.getallocatedblocks(), len(gc.get_objects())


async def unary_calls(served, backend):
    client = await served.client()
    ids = [client.request(body=message(b"x" * 300)) for _ in range(10)]
    peer = await backend.connected()
    for number in await peer.open(10):
        await peer.over(number)
        peer.respond(number)
    for number in ids:
        assert (await client.over(number)).status == "0"


async def resets(served, backend):
    client = await served.client()
    ids = [client.request() for _ in range(10)]
    peer = await backend.connected()
    numbers = await peer.open(10)
    for number in numbers[::2]:
        peer.headers(number, RESPONSE)
        peer.data(number, message(b"y" * 3000))
    for number in ids:
        client.h2.reset_stream(number, 8)
    client.flush()
    for number in numbers:
        await peer.over(number)


async def deadlines(served, backend):
    client = await served.client()
    ids = [client.request((*REQUEST, ("grpc-timeout", "20m"))) for _ in range(5)]
    for number in ids:
        assert (await client.over(number)).status == "4"


async def broken_backends(served, backend):
    client = await served.client()
    ids = [client.request(body=message(b"x")) for _ in range(5)]
    peer = await backend.connected()
    for number in await peer.open(5):
        peer.headers(number, RESPONSE)
    peer.writer.transport.abort()
    for number in ids:
        assert (await client.over(number)).status == "14"


async def bad_requests(served, backend):
    client = await served.client()
    for number in [client.request((*REQUEST, ("te", "gzip")), body=b"") for _ in range(10)]:
        assert (await client.over(number)).reset is not None


async def lost_clients(served, backend):
    client = await served.client()
    for _ in range(5):
        client.request()
    peer = await backend.connected()
    numbers = await peer.open(5)
    client.writer.transport.abort()
    for number in numbers:
        await peer.over(number)


async def connections(served, backend):
    for prefix in (b"", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HT"):
        client = await served.client(prefix)
        await client.close()


async def reloads(served, backend):
    for version in range(2, 6):
        served.apply(one_route([backend], ports=[1] * (version % 2)), version)
    for ports in ([backend.port, 1], [], [backend.port]):
        served.relay.update_endpoints([("default/main:1", [("127.0.0.1", port) for port in ports])])


async def hang_up(served, backend):
    """All connections end, so that what they hold is seen, and what the doubles keep of them goes."""
    for peers in (served.clients, backend.peers):
        while peers:  # while one is closed, the gateway may connect anew
            await peers.pop().close()
    async with asyncio.timeout(5):
        while served.relay.open_connections or served.relay.context.pool.used:
            await asyncio.sleep(0)
    for _ in range(3):  # turns of the loop, in which uvloop gives back closed handles
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "work",
    [unary_calls, resets, deadlines, broken_backends, bad_requests, lost_clients, connections, reloads],
)
def test_nothing_stays_behind(work):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            for rounds in (WARM_UP, ROUNDS):
                before = measure()
                for _ in range(rounds):
                    await work(served, backend)
                    await hang_up(served, backend)
            grown = [after - first for first, after in zip(before, measure(), strict=True)]
        for grew, allowed in zip(grown, (OCTETS_A_ROUND, BLOCKS_A_ROUND, OBJECTS_A_ROUND), strict=True):
            assert grew <= ROUNDS * allowed, f"octets, blocks and objects more after {ROUNDS} rounds: {grown}"

    run(test)
