"""Peers that stop in the middle: half a frame, output that is not taken, windows that stay shut. Both ends."""

import asyncio

import pytest

from pygw.settings import Settings
from tests.doubles import frames
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

def test_a_client_that_takes_nothing_is_closed():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(write_timeout=0.4)) as served:
            _, _, peer, number = await unread_response(served, backend)
            while not served.count("pygw_limit_hits_total", limit="write_timeout"):
                await peer.fill(number)
                await asyncio.sleep(0.001)
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
            await peer.fill(number)
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
                await client.fill(stream_id)
                await asyncio.sleep(0.001)
            assert (await client.over(stream_id)).status == "14"

    run(test)


# ===== windows that stay shut =====

STALL_TIMEOUT = 0.2


async def call_without_window(served, backend):
    """A client that opens no more windows, its call whose response waits for one, and the backend's end of it."""
    client = await served.client()
    client.h2.increment_flow_control_window(2**20)
    client.reads = False
    stream_id = client.request(REQUEST, body=message(b""))
    peer = await backend.connected()
    number = (await peer.open(1))[-1]
    peer.headers(number, RESPONSE)
    octets = message(bytes(peer.h2.local_flow_control_window(number) - 5))
    for at in range(0, len(octets), 16384):
        peer.data(number, octets[at : at + 16384])
    return client, stream_id, peer, number


def test_a_client_that_opens_no_window_loses_the_call_and_nothing_else():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(stream_stall_timeout=STALL_TIMEOUT)) as served:
            client, stalled, peer, number = await call_without_window(served, backend)
            start = asyncio.get_running_loop().time()
            quiet = client.request(REQUEST, body=message(b""))
            await peer.open(2)
            assert (await client.over(stalled)).reset == frames.CANCEL
            assert asyncio.get_running_loop().time() - start >= STALL_TIMEOUT * 0.9
            await peer.until(lambda: peer.streams[number].reset == frames.CANCEL)
            assert served.count("pygw_limit_hits_total", limit="stream_stall_timeout") == 1
            assert served.count("pygw_calls_total", grpc_status="1") == 1
            # One that has nothing to wait for may be quiet for as long as it likes.
            peer.respond(number + 2)
            assert (await client.over(quiet)).status == "0"
            assert served.count("pygw_limit_hits_total") == 1

    run(test)


def test_a_response_that_is_over_does_not_wait_for_a_window_for_ever():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(stream_stall_timeout=STALL_TIMEOUT)) as served:
            client, stalled, peer, number = await call_without_window(served, backend)
            peer.headers(number, TRAILERS, end=True)
            assert (await client.over(stalled)).reset == frames.CANCEL
            assert served.count("pygw_limit_hits_total", limit="stream_stall_timeout") == 1
            # It had ended well: as far as the backend is concerned it was whole.
            assert served.count("pygw_calls_total", grpc_status="0") == 1

    run(test)


def test_a_client_that_opens_its_window_little_by_little_is_served():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(stream_stall_timeout=STALL_TIMEOUT)) as served:
            client, stream_id, peer, number = await call_without_window(served, backend)
            for _ in range(20):
                await asyncio.sleep(STALL_TIMEOUT / 5)
                client.h2.increment_flow_control_window(10, stream_id)
                client.flush()
            assert not client.streams[stream_id].over
            client.h2.increment_flow_control_window(2**20, stream_id)
            client.flush()
            peer.headers(number, TRAILERS, end=True)
            assert (await client.over(stream_id)).status == "0"
            assert served.count("pygw_limit_hits_total") == 0

    run(test)


@pytest.mark.parametrize("begun", [False, True], ids=["before the response", "in the response"])
def test_a_backend_that_opens_no_window_loses_the_call(begun):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(stream_stall_timeout=STALL_TIMEOUT)) as served:
            client = await served.client()
            stream_id = client.request()
            peer = await backend.connected()
            number = (await peer.open(1))[0]
            peer.reads = False
            if begun:
                peer.headers(number, RESPONSE)
            await client.fill(stream_id)
            stream = await client.over(stream_id)
            assert stream.status == "14"
            assert stream.text == "the backend does not read the request (stream_stall_timeout)"
            await peer.until(lambda: peer.streams[number].reset == frames.CANCEL)
            assert served.count("pygw_limit_hits_total", limit="stream_stall_timeout") == 1
            assert served.count("pygw_endpoint_ejections_total") == 0

    run(test)


@pytest.mark.parametrize(("timeout", "timers"), [(0.0, 0), (300.0, 1)])
def test_a_timer_runs_while_data_waits_and_a_limit_of_0_is_none(timeout, timers):
    async def test():
        backend = await Backend().start()
        # No other timer than those of the two connections' lives.
        settings = Settings(stream_stall_timeout=timeout, frame_timeout=0.0, write_timeout=0.0)
        async with gateway(one_route([backend]), settings) as served:
            client = await served.client()
            stream_id = client.request(REQUEST, body=message(b""))
            peer = await backend.connected()
            number = (await peer.open(1))[0]
            before = served.relay.context.count
            client.reads = False
            peer.headers(number, RESPONSE)
            await peer.fill(number)
            await client.until(lambda: len(client.streams[stream_id].data) == 65535)
            assert served.relay.context.count - before == timers

    run(test)
