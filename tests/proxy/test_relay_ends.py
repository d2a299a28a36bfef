"""How calls, connections and configurations end while other ends are under way: nothing may be left, twice or never."""

import asyncio
import gc

import pytest

from pygw.model import MirrorConfig
from pygw.settings import Settings
from tests.doubles.in_process import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    Backend,
    gateway,
    message,
    one_route,
    run,
    unread_response,
)

CANCEL = 8
MAX_CONCURRENT_STREAMS = 3


async def stalled_client(served, backend, fields=REQUEST):
    """A client that stops reading in the middle of a response; its stream, and the backend's connection."""
    client, stream_id, peer, number = await unread_response(served, backend, fields)
    for _ in range(200):
        await peer.fill(number, 60_000)
    return client, stream_id, peer, number


def test_a_client_connection_that_fails_while_its_call_ends():
    """A deadline ends the first call; so the second goes out; that makes the client's connection fail."""

    async def test():
        backend = await Backend({MAX_CONCURRENT_STREAMS: 1}).start()
        settings = Settings(max_upstream_connections=1, max_blocked_output=1, write_high_water=1)
        async with gateway(one_route([backend]), settings) as served:
            client, _, peer, number = await stalled_client(served, backend, (*REQUEST, ("grpc-timeout", "1S")))
            second = client.request()
            for _ in range(3):
                client.data(second, b"\0" * 16000)
            await peer.until(lambda: peer.streams[number].reset == CANCEL)
            async with asyncio.timeout(5):
                while served.relay.open_calls:
                    await asyncio.sleep(0)
            assert served.relay.open_calls == 0
            # Another connection's calls are none the worse.
            other = await served.client()
            for _ in range(3):
                before = set(peer.streams)
                stream_id = other.request(body=message(b""))
                await peer.until(lambda before=before: set(peer.streams) - before)
                peer.respond(max(peer.streams))
                assert (await other.over(stream_id)).status == "0"

    run(test)


def test_an_access_log_that_raises_costs_no_call():
    async def test():
        def sink(octets):
            raise ValueError("I/O operation on closed file")

        backend = await Backend().start()
        async with gateway(one_route([backend]), access_log=sink) as served:
            client = await served.client()
            peer = None
            for turn in range(400):  # lines go out at once when there are 64 KiB of them
                client.request(body=message(b""))
                peer = await backend.connected()
                if turn % 100 == 99:
                    await peer.open(turn + 1)
            for stream_id in sorted(client.streams) or range(1, 800, 2):
                client.h2.reset_stream(stream_id, CANCEL)
            client.flush()
            await peer.until(lambda: all(stream.reset == CANCEL for stream in peer.streams.values()))
            assert not client.closed

    run(test)


# ===== endpoints =====


def test_calls_that_wait_for_an_endpoint_that_is_taken_off_the_list_are_served():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            stream_id = client.request(body=message(b""))
            await client.until(lambda: client.h2.remote_settings.max_concurrent_streams > 0)
            while not served.relay.open_calls:
                await asyncio.sleep(0)
            served.relay.update_endpoints([("default/main:1", [])])
            peer = await backend.connected()
            await peer.open(1)
            peer.respond(1)
            assert (await client.over(stream_id)).status == "0"
            await peer.until(lambda: peer.closed)
            assert len(backend.peers) == 1

    run(test)


def test_an_endpoint_that_leaves_before_it_took_a_call_is_not_dialled_for_ever():
    async def test():
        backend = await Backend({MAX_CONCURRENT_STREAMS: 0}).start()
        async with gateway(one_route([backend]), Settings(max_upstream_connections=1)) as served:
            client = await served.client()
            stream_id = client.request(body=message(b""))
            peer = await backend.connected()
            await peer.until(lambda: peer.h2.remote_settings.enable_push == 0)
            await peer.close()
            assert (await client.over(stream_id)).status == "14"
            assert len(backend.peers) == 1

    run(test)


def test_an_endpoint_that_cannot_even_be_dialled_fails_its_calls():
    async def test():
        async with gateway(one_route(ports=[70000])) as served:
            client = await served.client()
            for _ in range(2):
                assert (await client.over(client.request(body=message(b"")))).status == "14"

    run(test)


# ===== resources =====


def test_an_idle_connection_does_not_keep_an_old_configuration():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            clients = []
            for version in range(2, 6):
                client = await served.client()
                stream_id = client.request(body=message(b""))
                peer = await backend.connected()
                peer.respond((await peer.open(len(clients) + 1))[-1])
                await client.over(stream_id)
                clients.append(client)
                served.apply(one_route([backend]), version)
            gc.collect()
            kept = [one for one in gc.get_objects() if type(one).__name__ == "Snapshot"]
            assert [snapshot.version for snapshot in kept] == [5]

    run(test)


def test_a_client_that_does_not_read_cannot_keep_a_closed_connection():
    async def test():
        backend = await Backend().start()
        settings = Settings(write_high_water=1, keepalive_timeout=0.05)
        async with gateway(one_route([backend]), settings) as served:
            client, _, peer, number = await stalled_client(served, backend)
            client.writer.write(b"\0\0\0\x03\0\0\0\0\0")  # RST_STREAM of no length: a connection error
            await peer.until(lambda: peer.streams[number].reset == CANCEL)
            async with asyncio.timeout(5):
                while served.relay.open_connections:
                    await asyncio.sleep(0)

    run(test)


def test_interim_responses_are_limited_by_their_setting_alone():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(max_interim_responses=20)) as served:
            client = await served.client()
            stream_id = client.request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            for _ in range(20):
                peer.headers(1, ((":status", "103"),))
            peer.respond(1)
            stream = await client.over(stream_id)
            assert [section[":status"] for section in stream.sections[:-1]] == ["103"] * 20 + ["200"]
            assert stream.status == "0"

    run(test)


def test_a_backend_that_does_not_read_keeps_the_calls_it_has():
    """Requests behind a full transport are bounded: later calls wait, those before are not lost with it."""

    async def test():
        backend = await Backend().start()
        settings = Settings(write_high_water=1, max_blocked_output=20_000, max_upstream_connections=1)
        async with gateway(one_route([backend]), settings) as served:
            client = await served.client()
            first = client.request()
            peer = await backend.connected()
            await peer.open(1)
            peer.widen(2**24)
            await client.until(lambda: client.h2.remote_settings.max_concurrent_streams > 0)
            peer.stop_reading()
            for _ in range(300):
                await client.fill(first, 60_000)
                await asyncio.sleep(0)
            for _ in range(400):
                client.request(body=message(b""))
            async with asyncio.timeout(5):
                while served.relay.open_calls < 401:
                    await asyncio.sleep(0)
            assert served.count("pygw_upstream_connection_errors_total") == 0
            peer.writer.transport.resume_reading()
            await peer.open(401)

    run(test)


@pytest.mark.parametrize("trailers", [TRAILERS, (("grpc-status", "5"),)])
def test_a_response_before_the_end_of_the_request_takes_its_mirror_along(trailers):
    async def test():
        backend, shadow = await Backend().start(), await Backend().start()
        rule = {"mirrors": (MirrorConfig("default/shadow:1"),)}
        async with gateway(one_route([backend], rule=rule, extra={"shadow": [shadow]})) as served:
            client = await served.client()
            stream_id = client.request()
            peer, copy = await backend.connected(), await shadow.connected()
            await peer.open(1)
            await copy.open(1)
            peer.headers(1, (*RESPONSE, *trailers), end=True)
            assert (await client.over(stream_id)).status == trailers[0][1]
            assert (await copy.over(1)).reset == CANCEL
            await peer.until(lambda: peer.streams[1].reset == CANCEL)

    run(test)
