"""How many connections clients may have: in all, and by the address that they come from."""

import asyncio

import pytest

from pygw.settings import Settings
from tests.doubles import frames
from tests.doubles.in_process import Backend, gateway, message, one_route, run

LOOPBACK = ("127.0.0.0/8",)


def proxied(address: str) -> bytes:
    """A PROXY header (version 1) that names a client."""
    family = "TCP6" if ":" in address else "TCP4"
    return f"PROXY {family} {address} {address} 1000 80\r\n".encode()


async def is_served(client) -> bool:
    """Whether the gateway says SETTINGS; else it closes."""
    await client.until(lambda: client.closed or client.h2.remote_settings.max_concurrent_streams <= 1000)
    return not client.closed


def test_one_address_has_so_many_connections_and_gets_them_back():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(max_connections_per_address=2)) as served:
            clients = [await served.client() for _ in range(2)]
            assert [await is_served(client) for client in clients] == [True, True]
            assert not await is_served(await served.client())
            assert served.count("pygw_limit_hits_total", limit="max_connections_per_address") == 1
            # The calls of those that were there first go on.
            stream_id = clients[0].request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            peer.respond(1)
            assert (await clients[0].over(stream_id)).status == "0"
            await clients[1].close()
            async with asyncio.timeout(10):
                while served.relay.open_connections > 1:
                    await asyncio.sleep(0)
            assert await is_served(await served.client())

    run(test)


def test_the_address_in_a_proxy_header_counts():
    async def test():
        settings = Settings(max_connections_per_address=1)
        async with gateway(one_route(), settings, proxy_protocol_from=LOOPBACK) as served:
            assert await is_served(await served.client(proxied("192.0.2.1")))
            assert await is_served(await served.client(proxied("192.0.2.2")))
            assert not await is_served(await served.client(proxied("192.0.2.1")))
            # A host has a whole /64 of IPv6 to choose from.
            assert await is_served(await served.client(proxied("2001:db8::1")))
            assert not await is_served(await served.client(proxied("2001:db8::2")))
            assert await is_served(await served.client(proxied("2001:db8:0:1::1")))

    run(test)


def test_a_trusted_proxy_speaks_for_many_clients():
    async def test():
        settings = Settings(max_connections_per_address=1)
        async with gateway(one_route(), settings, trusted_proxies=LOOPBACK) as served:
            for _ in range(3):
                assert await is_served(await served.client())

    run(test)


@pytest.mark.parametrize("limit", [1, 100])
def test_accepting_stops_at_the_limit_and_goes_on_below_it(limit):
    async def test():
        told = []
        async with gateway(one_route(), Settings(max_connections=limit)) as served:
            served.relay.watch_accepting(told.append)
            clients = [await served.client() for _ in range(limit)]
            for client in clients:
                assert await is_served(client)
            assert told == [False]
            served.relay.accept_again()
            assert told == [False]
            # One that was accepted before accepting had stopped.
            assert not await is_served(await served.client())
            assert served.count("pygw_limit_hits_total", limit="max_connections") == 2
            await clients[0].close()
            async with asyncio.timeout(10):
                while told != [False, True]:
                    await asyncio.sleep(0)

    run(test)


def test_without_a_setting_there_is_no_limit_by_address():
    async def test():
        async with gateway(one_route()) as served:
            for _ in range(50):
                assert await is_served(await served.client())

    run(test)


# ===== connections that break the protocol =====

SHORT_PING = frames.frame(frames.PING, 0, 0, bytes(7))


async def break_protocol(served):
    """A client that has read our GOAWAY for it."""
    client = await served.client()
    await client.until(lambda: client.unacknowledged == 0)
    client.writer.write(SHORT_PING)
    await client.until(lambda: client.goaways)
    assert client.goaways == [(0, frames.FRAME_SIZE_ERROR)]
    return client


def test_one_more_read_is_taken_of_who_broke_the_protocol():
    async def test():
        async with gateway(one_route(), Settings(goaway_linger=60.0)) as served:
            client = await break_protocol(served)
            assert served.relay.open_connections == 1
            client.writer.write(b"what was on its way")
            await client.until(lambda: client.closed)

    run(test)


@pytest.mark.parametrize("linger", [0.0, 0.1])
def test_who_broke_the_protocol_and_says_no_more_is_closed_after_goaway_linger(linger):
    async def test():
        start = asyncio.get_running_loop().time()
        async with gateway(one_route(), Settings(goaway_linger=linger)) as served:
            client = await break_protocol(served)
            await client.until(lambda: client.closed)
            assert asyncio.get_running_loop().time() - start >= linger

    run(test)


# ===== half-open connections =====

HALF_OPEN = {
    "silent": b"",
    "half a preface": frames.PREFACE[:12],
    "a preface alone": frames.PREFACE,
    "half a frame head": frames.PREFACE + frames.settings((3, 100))[:5],
    "half a SETTINGS frame": frames.PREFACE + frames.settings((3, 100))[:12],
    "half a PROXY header": b"PROXY TCP4 192.0.2.1 192.0",
}


@pytest.mark.parametrize("kind", HALF_OPEN)
def test_a_connection_that_stays_half_open_is_closed(kind):
    async def test():
        options = {"proxy_protocol_from": LOOPBACK} if "PROXY" in kind else {}
        async with gateway(one_route(), Settings(handshake_timeout=0.1), **options) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(HALF_OPEN[kind])
            async with asyncio.timeout(10):
                await reader.read(-1)
            writer.close()
            await writer.wait_closed()
            assert served.count("pygw_limit_hits_total", limit="handshake_timeout") == 1

    run(test)
