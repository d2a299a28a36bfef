"""Calls that their backend did not take are sent once more, on another connection; what it may have, never again."""

import asyncio
import ctypes
import os
import socket
import struct

import h2.settings
import pytest

from pygw.model import MirrorConfig
from pygw.settings import Settings
from tests.doubles.in_process import REQUEST, TRAILERS, Backend, gateway, message, one_route, run

REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 7, 8, 2
CALL = message(b"ask")


def refuse(peer, number):
    peer.h2.reset_stream(number, REFUSED_STREAM)
    peer.flush()


def go_away(peer, number):
    """GOAWAY that leaves out this stream and all after it."""
    peer.h2.close_connection(last_stream_id=number - 1)
    peer.flush()


async def warm(client, backend, count=1):
    """One call, so that the gateway has a connection to `backend`: that connection."""
    stream_id = client.request(body=CALL)
    peer = await backend.connected(count)
    peer.respond((await peer.open(1))[-1])
    await client.over(stream_id)
    return peer


def retries(served):
    return {
        reason: served.count("pygw_upstream_retries_total", reason=reason)
        for reason in ("connect", "refused", "goaway", "unsent")
        if served.count("pygw_upstream_retries_total", reason=reason)
    }


@pytest.mark.parametrize(("turn_down", "reason"), [(refuse, "refused"), (go_away, "goaway")])
@pytest.mark.parametrize("body", [message(b"a"), message(b"b" * 3000)], ids=["small", "large"])
def test_a_call_that_was_not_processed_goes_out_again(turn_down, reason, body):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            stream_id = client.request((*REQUEST, ("x-asked", "once"), ("grpc-timeout", "9S")))
            client.data(stream_id, body[:4])
            first = await backend.connected(1)
            number = (await first.open(1))[0]
            await first.until(lambda: first.streams[number].data)
            turn_down(first, number)
            second = await backend.connected(2)
            again = (await second.open(1))[0]
            client.data(stream_id, body[4:], end=True)
            stream = await second.over(again)
            assert stream.data == body
            before, after = (dict(one.fields[0]) for one in (first.streams[number], stream))
            assert before.pop("grpc-timeout") > after.pop("grpc-timeout")  # both in microseconds, of seven digits
            assert before == after
            second.respond(again)
            stream = await client.over(stream_id)
            assert (stream.status, stream.reset) == ("0", None)
            assert retries(served) == {reason: 1}
            assert served.count("pygw_held_request_bytes") <= 1500  # the endpoint's last section

    run(test)


@pytest.mark.parametrize("turn_down", [refuse, go_away])
def test_a_call_that_is_refused_twice_is_unavailable(turn_down):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            stream_id = client.request(body=CALL)
            for count in (1, 2):
                peer = await backend.connected(count)
                turn_down(peer, (await peer.open(1))[0])
            stream = await client.over(stream_id)
            assert (stream.status, stream.reset, stream.text) == ("14", None, "backend refused the call")
            assert len(backend.peers) == 2

    run(test)


STREAM_LIMIT = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
FULL = Settings(max_upstream_connections=1, refused_wait=0.1)


def test_a_call_that_is_refused_at_the_stream_limit_is_not_refused_twice_in_the_same_moment():
    """grpc-core counts a stream until its last frame is written, and we have opened the next one by then."""

    async def test():
        backend = await Backend({STREAM_LIMIT: 2}).start()
        async with gateway(one_route([backend]), FULL) as served:
            client = await served.client()
            calls = [client.request((*REQUEST, ("x-number", str(number))), body=CALL) for number in range(5)]
            peer = await backend.connected()
            first = (await peer.open(2))[0]
            peer.respond(first)
            third = (await peer.open(3))[-1]
            refuse(peer, third)
            refused_at = asyncio.get_running_loop().time()
            while not retries(served):
                await asyncio.sleep(0)
            # One is open, and two were allowed; but for now it is full.
            assert served.count("pygw_upstream_pending_calls") == 3
            again = (await peer.open(4))[-1]
            assert asyncio.get_running_loop().time() - refused_at >= FULL.refused_wait
            # Those that have waited as long are behind it.
            for number in (again, third):
                assert peer.streams[number].sections[0]["x-number"] == "2"
            for place in (1, 3, 4, 5):
                peer.respond((await peer.open(place + 1))[place])
            assert {(await client.over(stream_id)).status for stream_id in calls} == {"0"}
            assert retries(served) == {"refused": 1}

    run(test)


def test_an_endpoint_that_names_another_stream_limit_gets_as_many_at_once():
    async def test():
        backend = await Backend({STREAM_LIMIT: 2}).start()
        async with gateway(one_route([backend]), Settings(max_upstream_connections=1, refused_wait=60.0)) as served:
            client = await served.client()
            calls = [client.request(body=CALL) for _ in range(2)]
            peer = await backend.connected()
            refuse(peer, (await peer.open(2))[-1])
            while not retries(served):
                await asyncio.sleep(0)
            calls.append(client.request(body=CALL))
            peer.change({STREAM_LIMIT: 3})
            for place in (0, 2, 3):
                peer.respond((await peer.open(4))[place])
            assert {(await client.over(stream_id)).status for stream_id in calls} == {"0"}

    run(test)


def test_another_endpoint_gets_what_one_refuses():
    async def test():
        backends = [await Backend().start(), await Backend().start()]
        async with gateway(one_route(backends)) as served:
            client = await served.client()
            stream_id = client.request(body=CALL)
            while not any(backend.peers and backend.peers[0].streams for backend in backends):
                await asyncio.sleep(0)
            chosen, other = backends if backends[0].peers else backends[::-1]
            refuse(chosen.peers[0], 1)
            peer = await other.connected()
            peer.respond((await peer.open(1))[0])
            assert (await client.over(stream_id)).status == "0"
            assert len(chosen.peers) == 1

    run(test)


def test_the_same_connection_is_tried_again_where_there_can_be_no_other():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(max_upstream_connections=1)) as served:
            client = await served.client()
            stream_id = client.request(body=CALL)
            peer = await backend.connected()
            refuse(peer, (await peer.open(1))[0])
            peer.respond((await peer.open(2))[1])
            assert (await client.over(stream_id)).status == "0"
            assert len(backend.peers) == 1

    run(test)


@pytest.mark.parametrize("cancel", [False, True])
def test_a_refused_call_that_waits_for_a_connection(cancel):
    """Its client may send on, trailers too, or leave."""

    async def test():
        full = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1}
        backend = await Backend(full).start()
        async with gateway(one_route([backend]), Settings(max_upstream_connections=2)) as served:
            client = await served.client()
            other = client.request(body=CALL)
            peer = await backend.connected()
            await peer.open(1)
            stream_id = client.request()
            client.data(stream_id, CALL)
            second = await backend.connected(2)
            number = (await second.open(1))[0]
            await second.until(lambda: second.streams[number].data)
            second.change({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 0})
            refuse(second, number)
            while served.count("pygw_upstream_pending_calls") != 1:
                await asyncio.sleep(0)
            if cancel:
                client.h2.reset_stream(stream_id, CANCEL)
                client.flush()
                while served.relay.open_calls > 1:
                    await asyncio.sleep(0)
            else:
                client.data(stream_id, CALL)
                client.headers(stream_id, (("x-last", "1"),), end=True)
            await peer.until(lambda: peer.streams[1].ended)
            peer.respond(1)
            assert (await client.over(other)).status == "0"
            if cancel:
                return
            number = (await peer.open(2))[1]
            stream = await peer.over(number)
            assert (stream.data, stream.sections[-1]) == (CALL + CALL, {"x-last": "1"})
            peer.respond(number)
            assert (await client.over(stream_id)).status == "0"

    run(test)


# ===== what is not sent again =====


def do_nothing(peer, number):
    pass


def begin_response(peer, number):
    peer.headers(number, ((":status", "103"),))


@pytest.mark.parametrize(
    ("before", "code"),
    [(do_nothing, INTERNAL_ERROR), (do_nothing, CANCEL), (begin_response, REFUSED_STREAM)],
    ids=["internal error", "cancel", "after an interim response"],
)
def test_a_call_that_may_have_been_processed_is_sent_once(before, code):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            stream_id = client.request(body=CALL)
            peer = await backend.connected()
            number = (await peer.open(1))[0]
            before(peer, number)
            peer.h2.reset_stream(number, code)
            peer.flush()
            stream = await client.over(stream_id)
            assert (stream.status, stream.reset) == ("14", None)
            assert (len(backend.peers), retries(served)) == (1, {})

    run(test)


def test_goaway_behind_a_stream_lets_it_go_on_and_the_end_loses_it():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            ids = [client.request(body=CALL) for _ in range(2)]
            peer = await backend.connected()
            numbers = await peer.open(2)
            peer.h2.close_connection(last_stream_id=numbers[-1])
            peer.flush()
            # h2 has closed the connection for itself, so the frames are its encoder's and ours.
            block = peer.h2.encoder.encode([(":status", "200"), ("content-type", "application/grpc"), *TRAILERS])
            peer.writer.write(len(block).to_bytes(3) + b"\x01\x05" + numbers[0].to_bytes(4) + block)
            assert (await client.over(ids[0])).status == "0"
            await peer.close()
            assert (await client.over(ids[1])).status == "14"
            assert (len(backend.peers), retries(served)) == (1, {})

    run(test)


@pytest.mark.parametrize(
    ("settings", "size"),
    [(Settings(retry_buffer=100), 101), (Settings(retry_buffer=0), 1), (Settings(retry_memory=0), 1)],
    ids=["over retry_buffer", "retry_buffer is 0", "over retry_memory"],
)
def test_what_was_not_kept_is_not_sent_again(settings, size):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), settings) as served:
            client = await served.client()
            await warm(client, backend)
            stream_id = client.request(body=b"\0" * size)
            peer = backend.peers[0]
            number = (await peer.open(2))[-1]
            await peer.over(number)
            refuse(peer, number)
            assert (await client.over(stream_id)).status == "14"
            assert (len(backend.peers), retries(served)) == (1, {})

    run(test)


def test_a_mirror_is_not_sent_again():
    async def test():
        backend, shadow = await Backend().start(), await Backend().start()
        rule = {"mirrors": (MirrorConfig("default/shadow:1"),)}
        async with gateway(one_route([backend], rule=rule, extra={"shadow": [shadow]})) as served:
            client = await served.client()
            stream_id = client.request(body=CALL)
            copy = await shadow.connected()
            refuse(copy, (await copy.open(1))[0])
            while not served.count("pygw_mirrors_failed_total"):
                await asyncio.sleep(0)
            peer = await backend.connected()
            peer.respond((await peer.open(1))[0])
            assert (await client.over(stream_id)).status == "0"
            assert (len(shadow.peers), retries(served)) == (1, {})

    run(test)


# ===== connections that the backend has just closed =====


def descriptor(peer):
    return peer.writer.transport.get_extra_info("socket").fileno()


def close(peer):
    with socket.socket(fileno=os.dup(descriptor(peer))) as sock:
        sock.shutdown(socket.SHUT_RDWR)


def reset(peer):
    """RST at once: connect(2) to AF_UNSPEC, which Python's sockets do not know."""
    assert ctypes.CDLL(None).connect(descriptor(peer), struct.pack("H14x", socket.AF_UNSPEC), 16) == 0


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize("first", [False, True], ids=["end comes first", "call comes first"])
@pytest.mark.parametrize("beside", [False, True], ids=["idle", "with a call open"])
def test_a_connection_that_was_just_closed_costs_no_call(end, first, beside):
    """The gateway hears of both in one turn of its loop."""

    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            peer = await warm(client, backend)
            for turn in range(10):
                if beside:
                    open_call = client.request()
                    await peer.open(2)
                    await asyncio.sleep(0.002)
                if first:
                    stream_id = client.request(body=CALL)
                    end(peer)
                else:
                    end(peer)
                    stream_id = client.request(body=CALL)
                peer = await backend.connected(turn + 2)
                peer.respond((await peer.open(1))[0])
                assert (await client.over(stream_id)).status == "0"
                if beside:
                    # That one was delivered, and is told of its loss.
                    assert (await client.over(open_call)).status == "14"
            assert served.count("pygw_calls_total", grpc_status="0") == 11

    run(test)


@pytest.mark.parametrize("end", [close, reset])
def test_nor_does_one_that_closes_on_a_gateway_that_writes_at_once(end):
    """One call at a time for a while: what is read is relayed before the loop has told of the end."""

    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            peer = await warm(client, backend)
            for turn in range(3):
                for call in range(20):
                    stream_id = client.request(body=CALL)
                    peer.respond((await peer.open(call + 2))[-1])
                    await client.over(stream_id)
                stream_id = client.request(body=CALL)
                end(peer)
                peer = await backend.connected(turn + 2)
                peer.respond((await peer.open(1))[0])
                assert (await client.over(stream_id)).status == "0"
            assert retries(served) == {"unsent": 3}

    run(test)
