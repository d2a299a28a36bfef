"""Peers that stop in the middle: frames that stay half-sent, and output that is not taken. Both ends."""

import asyncio

import pytest

from pygw.settings import Settings
from tests.doubles import frames
from tests.doubles.in_process import REQUEST, RESPONSE, Backend, gateway, message, one_route, run

FRAME_TIMEOUT = 0.4
BLOCK = frames.headers(1)
OPEN_BLOCK = frames.headers(1, end_headers=False)
HALF_SENT = {
    "half a frame head": BLOCK[:5],
    "a frame head": BLOCK[:9],
    "half a HEADERS frame": BLOCK[:20],
    "HEADERS without END_HEADERS": OPEN_BLOCK,
    "half a CONTINUATION": OPEN_BLOCK + frames.frame(frames.CONTINUATION, 4, 1, bytes(8))[:12],
    "half a PING": frames.ping()[:12],
    "DATA that stops": BLOCK + frames.data(1, bytes(100))[:50],
    "padding that stops": BLOCK + frames.data(1, b"a", padding=50)[:20],
    "half an unknown frame": frames.frame(0xB0, 0, 0, bytes(100))[:50],
}


async def closed(peer):
    await peer.until(lambda: peer.closed)


@pytest.mark.parametrize("kind", HALF_SENT)
def test_a_client_that_leaves_a_frame_half_sent_is_closed(kind):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(frame_timeout=0.1)) as served:
            client = await served.client()
            await client.until(lambda: client.unacknowledged == 0)
            client.writer.write(HALF_SENT[kind])
            await closed(client)
            assert client.goaways
            assert served.count("pygw_limit_hits_total", limit="frame_timeout") == 1

    run(test)


def test_a_header_block_gets_no_more_time_for_trickling():
    async def test():
        async with gateway(one_route(), Settings(frame_timeout=0.2, max_continuations=10_000)) as served:
            client = await served.client()
            await client.until(lambda: client.unacknowledged == 0)
            client.writer.write(frames.headers(1, end_headers=False))
            while not client.closed:
                client.writer.write(frames.frame(frames.CONTINUATION, 0, 1, b""))
                await asyncio.sleep(0.01)
            assert served.count("pygw_limit_hits_total", limit="frame_timeout") == 1

    run(test)


def test_data_that_moves_and_calls_that_are_quiet_live():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(frame_timeout=FRAME_TIMEOUT)) as served:
            client, quiet = await served.client(), await served.client()
            waiting = quiet.request()
            stream_id = client.request()
            body = message(bytes(40))
            octets = frames.data(stream_id, body, end_stream=True)
            client.writer.write(octets[:9])
            start = asyncio.get_running_loop().time()
            for at in range(9, len(octets)):
                client.writer.write(octets[at : at + 1])
                await asyncio.sleep(0.03)
            assert asyncio.get_running_loop().time() - start > 2 * FRAME_TIMEOUT
            peer = await backend.connected()
            await peer.until(lambda: any(stream.data == body for stream in peer.streams.values()))
            quiet.data(waiting, b"", end=True)
            for number in await peer.open(2):
                peer.respond(number)
            assert (await client.over(stream_id)).status == "0"
            assert (await quiet.over(waiting)).status == "0"
            assert served.count("pygw_limit_hits_total", limit="frame_timeout") == 0

    run(test)


@pytest.mark.parametrize("begun", [False, True], ids=["before the response", "in the response"])
def test_a_backend_that_leaves_a_frame_half_sent_loses_its_calls(begun):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(frame_timeout=0.1)) as served:
            client = await served.client()
            stream_id = client.request(body=message(b"ask"))
            peer = await backend.connected()
            number = (await peer.open(1))[0]
            if begun:
                peer.headers(number, RESPONSE)
            peer.writer.write(frames.headers(number, frames.TRAILERS, end_headers=False))
            stream = await client.over(stream_id)
            assert stream.status == "14"
            assert served.count("pygw_limit_hits_total", limit="frame_timeout") == 1
            await closed(peer)

    run(test)


# ===== output that is not taken =====

async def fill(source, number, sink):
    """Sends until the gateway gives no more window, or the stream has ended."""
    while not sink.closed and number in source.h2.streams and not source.h2.streams[number].closed:
        room = min(source.h2.local_flow_control_window(number), 16384)
        if room:
            source.data(number, bytes(room))
        else:
            return
        await asyncio.sleep(0)


async def stall(served, backend, settled):
    """A call whose response fills the client's sockets; the client, its stream and the backend's."""
    client = await served.client(receive_buffer=4096)
    client.widen(2**26)
    await client.until(lambda: client.unacknowledged == 0)
    stream_id = client.request(REQUEST, body=message(b""))
    peer = await backend.connected()
    number = (await peer.open(1))[0]
    client.stop_reading()
    peer.headers(number, RESPONSE)
    while not settled(peer, number):
        await fill(peer, number, client)
        await asyncio.sleep(0.001)
    return client, stream_id, peer


def test_a_client_that_takes_nothing_is_closed():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(write_timeout=0.4)) as served:
            _, _, peer = await stall(
                served, backend, lambda _peer, _number: served.count("pygw_limit_hits_total", limit="write_timeout")
            )
            await peer.until(lambda: any(stream.reset is not None for stream in peer.streams.values()))
            assert served.relay.open_calls == 0

    run(test)


def test_a_client_without_a_flow_control_window_is_not_closed():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(write_timeout=0.1)) as served:
            client = await served.client()
            client.reads = False
            stream_id = client.request(REQUEST, body=message(b""))
            peer = await backend.connected()
            number = (await peer.open(1))[0]
            peer.headers(number, RESPONSE)
            await fill(peer, number, client)
            await asyncio.sleep(0.4)
            assert not client.closed
            assert not client.streams[stream_id].over
            assert served.count("pygw_limit_hits_total", limit="write_timeout") == 0

    run(test)


def test_a_backend_that_takes_nothing_is_left():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(write_timeout=0.4)) as served:
            client = await served.client()
            stream_id = client.request()
            peer = await backend.connected()
            await peer.open(1)
            peer.widen(2**26)
            await peer.until(lambda: peer.unacknowledged == 0)
            peer.stop_reading()
            while not served.count("pygw_limit_hits_total", limit="write_timeout"):
                await fill(client, stream_id, peer)
                await asyncio.sleep(0.001)
            assert (await client.over(stream_id)).status == "14"

    run(test)
