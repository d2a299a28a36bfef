"""Backends that break HTTP/2 or gRPC: the status that docs/decisions.md names, at once, and no other call notices more
than it must. (TLS: test_tls_relay.py. What gRPC libraries see: tests/end_to_end/test_bad_backends.py.)"""

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Any

import pytest
from h2.settings import SettingCodes

from pygw.settings import Settings
from tests.doubles import frames
from tests.doubles.frames import data, headers, rst_stream
from tests.doubles.in_process import REQUEST, RESPONSE, TRAILERS, Backend, gateway, message, one_route, run
from tests.doubles.raw_peers import black_hole, refused_port, speak_http1, tcp_server

CALL = message(b"ask")
HEAD = headers(3, frames.RESPONSE)
END = headers(3, frames.TRAILERS, end_stream=True)
INTERIM = headers(3, [(b":status", b"103")])


def trailers_only(*fields):
    return headers(3, [*frames.RESPONSE, *fields], end_stream=True)


@dataclass
class Case:
    """What the backend sends on stream 3, and what becomes of it; `breaks`: its connection does not outlive it."""

    sent: bytes
    status: str | None
    reset: int | None = None
    breaks: bool = False
    http_status: str = "200"


ANSWER = data(3, message(b"answer"))
OK, OK_END = (b"grpc-status", b"0"), headers(3, [(b"grpc-status", b"5")], end_stream=True)
STREAM_FAULTS = {
    # What is missing or too much.
    "no :status": Case(headers(3, [(b"content-type", b"application/grpc")]), "13"),
    "no grpc-status in trailers": Case(HEAD + ANSWER + headers(3, [(b"x-a", b"b")], end_stream=True), "13"),
    "no trailers": Case(HEAD + data(3, message(b"answer"), end_stream=True), "13"),
    "no grpc-status, no body": Case(trailers_only(), None),
    "two grpc-status": Case(HEAD + ANSWER + headers(3, [OK, (b"grpc-status", b"5")], end_stream=True), "13"),
    "two grpc-status, no body": Case(trailers_only(OK, OK), "13"),
    "grpc-status that is no number": Case(HEAD + headers(3, [(b"grpc-status", b"ok")], end_stream=True), "ok"),
    "trailers without a body": Case(HEAD + OK_END, "5"),
    "trailers that do not end": Case(HEAD + headers(3, frames.TRAILERS), "13"),
    "a body before the head": Case(ANSWER, "13"),
    "a pseudo-header in trailers": Case(HEAD + headers(3, [(b":status", b"200"), OK], end_stream=True), "13"),
    "an upper-case name": Case(headers(3, [*frames.RESPONSE, (b"X-A", b"b")]), "13"),
    "a connection-specific field": Case(headers(3, [*frames.RESPONSE, (b"connection", b"close")]), "13"),
    "a line feed in a value": Case(headers(3, [*frames.RESPONSE, (b"x-a", b"b\nc: d")]), "13"),
    "more content than its length": Case(
        headers(3, [*frames.RESPONSE, (b"content-length", b"2")]) + ANSWER, "13"),
    "less content than its length": Case(
        headers(3, [*frames.RESPONSE, (b"content-length", b"99")]) + ANSWER + END, "13"),
    "oversize header list": Case(headers(3, [*frames.RESPONSE, *((b"x" * 90, b"y" * 90) for _ in range(20))]), "8"),
    "oversize trailers": Case(HEAD + headers(3, [(b"x" * 90, b"y" * 90) for _ in range(20)], end_stream=True), "8"),
    # Interim responses.
    "a flood of interim responses": Case(INTERIM * 33, "13"),
    "an interim response that ends": Case(headers(3, [(b":status", b"103")], end_stream=True), "13"),
    # Windows and ends.
    "WINDOW_UPDATE of 0": Case(frames.window_update(3, 0), "13"),
    "ends inside a message": Case(HEAD + data(3, message(b"answer")[:-1]) + END, None, frames.INTERNAL_ERROR),
    "fails inside a message": Case(HEAD + data(3, message(b"answer")[:-1]) + OK_END, "5"),
    "malformed inside a message": Case(
        HEAD + data(3, message(b"answer")[:-1]) + headers(3, frames.TRAILERS), None, frames.INTERNAL_ERROR),
    # Resets.
    "NO_ERROR": Case(rst_stream(3, frames.NO_ERROR), "14"),
    "INTERNAL_ERROR": Case(rst_stream(3, frames.INTERNAL_ERROR), "14"),
    "CANCEL": Case(rst_stream(3, frames.CANCEL), "14"),
    "ENHANCE_YOUR_CALM": Case(rst_stream(3, frames.ENHANCE_YOUR_CALM), "8"),
    "an error that nobody knows": Case(rst_stream(3, 0xFFFF), "14"),
    "a reset between messages": Case(HEAD + ANSWER + rst_stream(3, frames.INTERNAL_ERROR), "14"),
    "a reset inside a message": Case(
        HEAD + data(3, message(b"answer")[:-1]) + rst_stream(3, frames.INTERNAL_ERROR), None, frames.INTERNAL_ERROR),
    # What is not gRPC goes through: clients derive the status.
    "503 of a proxy": Case(headers(3, [(b":status", b"503")], end_stream=True), None, http_status="503"),
}
CONNECTION_FAULTS = {
    "PUSH_PROMISE": Case(frames.frame(frames.PUSH_PROMISE, 4, 3, b"\0\0\0\2" + frames.block(frames.REQUEST)), "14"),
    "HPACK that cannot be read": Case(headers(3, b"\xff\xff\xff\xff\xff\xff"), "14"),
    "an index beyond the table": Case(headers(3, b"\xfe"), "14"),
    "a frame that is too large": Case(frames.frame(frames.DATA, 0, 3, length=16385), "14"),
    "garbage": Case(b"HTTP/1.1 500 Internal Server Error\r\n\r\n" * 8, "14"),
    "a frame on an idle stream": Case(data(99, b"x"), "14"),
    "a stream of the server's": Case(headers(2, frames.RESPONSE), "14"),
    "CONTINUATION without HEADERS": Case(frames.continuation(3), "14"),
    "a header block that is cut off by another frame": Case(
        headers(3, frames.RESPONSE, end_headers=False) + frames.ping(), "14"),
    "a window over 2**31 - 1": Case(frames.window_update(0, 2**31 - 1), "14"),
    "an initial window over 2**31 - 1": Case(frames.settings((frames.INITIAL_WINDOW_SIZE, 2**31)), "14"),
    "push enabled by a server": Case(frames.settings((frames.ENABLE_PUSH, 1)), "14"),
    "SETTINGS of a wrong length": Case(frames.frame(frames.SETTINGS, 0, 0, b"x" * 5), "14"),
    "PING of a wrong length": Case(frames.frame(frames.PING, 0, 0, b"x"), "14"),
    "a flood of PINGs": Case(frames.ping() * 1500, "14"),
    "a flood of SETTINGS": Case(frames.settings() * 150, "14"),
    "a body after the trailers": Case(HEAD + ANSWER + END + ANSWER, "0"),
    "garbage inside a message": Case(
        HEAD + data(3, message(b"answer")[:-1]) + b"\xff" * 99, None, frames.INTERNAL_ERROR),
}
CASES = [
    *(pytest.param(case, False, id=name) for name, case in STREAM_FAULTS.items()),
    *(pytest.param(case, True, id=name) for name, case in CONNECTION_FAULTS.items()),
]


async def two_calls(served: Any, backend: Backend) -> tuple[Any, Any, int, int]:
    """A client, the backend's connection, and two calls on it: streams 1 and 3 there."""
    client = await served.client()
    beside = client.request()
    peer = await backend.connected()
    await peer.open(1)
    bad = client.request(body=CALL)
    await peer.over(3)
    return client, peer, beside, bad


@pytest.mark.parametrize(("case", "breaks"), CASES)
def test_what_a_client_is_told(case, breaks):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(max_header_list_size=2000)) as served:
            client, peer, beside, bad = await two_calls(served, backend)
            async with asyncio.timeout(2):
                peer.writer.write(case.sent)
                stream = await client.over(bad)
            assert (stream.status, stream.reset) == (case.status, case.reset)
            if stream.sections:
                assert stream.sections[-1].get(":status") in (None, case.http_status)
            if breaks:
                assert (await client.over(beside)).status == "14"
                await peer.until(lambda: peer.closed)
            else:
                client.data(beside, CALL, end=True)
                await peer.over(1)
                peer.respond(1)
                assert (await client.over(beside)).status == "0"
            following = client.request(body=CALL)
            peer = await backend.connected(2) if breaks else peer
            peer.respond((await peer.open(1 if breaks else 3))[-1])
            assert (await client.over(following)).status == "0"
            assert (not client.closed, len(backend.peers)) == (True, 2 if breaks else 1)

    run(test)


DEATHS = {
    "before the head": (b"", "14"),
    "inside the head": (HEAD[:12], "14"),
    "after the head": (HEAD, "14"),
    "inside a message's prefix": (HEAD + data(3, message(b"answer")[:3]), None),
    "inside a DATA frame": (HEAD + ANSWER[:-1], None),
    "inside a message": (HEAD + data(3, message(b"answer")[:-1]), None),
    "between messages": (HEAD + ANSWER, "14"),
    "inside the trailers": (HEAD + ANSWER + END[:12], "14"),
}


@pytest.mark.parametrize(("begun", "status"), DEATHS.values(), ids=DEATHS)
def test_a_backend_that_dies(begun, status):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client, peer, _, bad = await two_calls(served, backend)
            peer.writer.write(begun)
            peer.writer.close()
            stream = await client.over(bad)
            assert (stream.status, stream.reset) == (status, None if status else frames.INTERNAL_ERROR)

    run(test)


def test_a_backend_that_sends_more_than_the_window():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client, peer, beside, bad = await two_calls(served, backend)
            client.reads = False
            body = message(b"\0" * 128_000)  # its last frame is over the window
            peer.writer.write(HEAD + b"".join(data(3, body[at : at + 16384]) for at in range(0, len(body), 16384)))
            assert (await client.over(bad)).reset == frames.INTERNAL_ERROR
            assert (await peer.over(3)).reset == frames.FLOW_CONTROL_ERROR
            client.data(beside, CALL, end=True)
            await peer.over(1)

    run(test)


def stay_silent(connection):
    connection.recv(65536)
    connection.recv(1)


def reset_at_once(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (refused_port, "Connection refused"),
        (black_hole, "no TCP connection within 0.05 s (connect_timeout)"),
        (lambda: tcp_server(reset_at_once), "closed before it sent HTTP/2 SETTINGS|reset by peer"),
        (lambda: tcp_server(stay_silent), "not an HTTP/2 server: no HTTP/2 handshake in time"),
        (lambda: tcp_server(speak_http1), "not an HTTP/2 server"),
    ],
    ids=["refused", "black hole", "reset", "silent", "HTTP/1"],
)
def test_a_backend_that_cannot_be_connected(bad, reason):
    async def test():
        settings = Settings(connect_timeout=0.05, handshake_timeout=0.05)
        with bad() as port:
            async with gateway(one_route(ports=[port]), settings) as served:
                client = await served.client()
                stream = await client.over(client.request(body=CALL))
                assert (stream.status, stream.reset) == ("14", None)
                assert any(text in stream.text for text in reason.split("|")), stream.text

    run(test)


# ===== time =====


def test_a_backend_that_never_answers_is_ended_by_the_deadline():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            begun = asyncio.get_running_loop().time()
            stream_id = client.request((*REQUEST, ("grpc-timeout", "200m")), body=CALL)
            peer = await backend.connected()
            assert (await client.over(stream_id)).status == "4"
            assert 0.2 <= asyncio.get_running_loop().time() - begun < 0.5
            assert (await peer.over(1)).reset == frames.CANCEL

    run(test)


def test_a_backend_that_sends_single_octets_is_understood():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client, peer, _, bad = await two_calls(served, backend)
            for octet in HEAD + ANSWER + END:
                peer.writer.write(bytes([octet]))
                await asyncio.sleep(0)
            stream = await client.over(bad)
            assert (stream.status, stream.data) == ("0", message(b"answer"))

    run(test)


def test_a_cancelled_call_is_cancelled_at_the_backend():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client, peer, _, bad = await two_calls(served, backend)
            client.h2.reset_stream(bad, frames.INTERNAL_ERROR)
            client.flush()
            await peer.until(lambda: peer.streams[3].reset is not None)
            assert peer.streams[3].reset == frames.CANCEL

    run(test)


# ===== SETTINGS =====


def test_a_backend_that_takes_no_streams_makes_calls_wait_and_say_so():
    async def test():
        backend = await Backend({SettingCodes.MAX_CONCURRENT_STREAMS: 0}).start()
        settings = Settings(pending_timeout=0.05, max_upstream_connections=1)
        async with gateway(one_route([backend]), settings) as served:
            client = await served.client()
            stream = await client.over(client.request(body=CALL))
            assert (stream.status, "pending_timeout" in stream.text) == ("14", True)

    run(test)


def test_a_backend_that_changes_how_many_streams_it_takes():
    async def test():
        backend = await Backend({SettingCodes.MAX_CONCURRENT_STREAMS: 0}).start()
        async with gateway(one_route([backend]), Settings(max_upstream_connections=1)) as served:
            client = await served.client()
            ids = [client.request(body=CALL) for _ in range(4)]
            peer = await backend.connected()
            while served.count("pygw_upstream_pending_calls") < 4:
                await asyncio.sleep(0)
            peer.change({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
            assert await peer.open(1) == [1]
            await peer.over(1)
            await peer.until(lambda: peer.unacknowledged == 0)
            assert served.count("pygw_upstream_pending_calls") == 3
            peer.respond(1)
            assert await peer.open(2) == [1, 3]
            peer.change({SettingCodes.MAX_CONCURRENT_STREAMS: 0})
            await peer.until(lambda: peer.unacknowledged == 0)
            peer.respond(3)
            assert (await client.over(ids[1])).status == "0"
            assert (len(peer.streams), served.count("pygw_upstream_pending_calls")) == (2, 2)
            peer.change({SettingCodes.MAX_CONCURRENT_STREAMS: 100})
            for number in (await peer.open(4))[2:]:
                peer.respond(number)
            for stream_id in ids:
                assert (await client.over(stream_id)).status == "0"

    run(test)


def test_a_window_that_becomes_negative_in_the_middle_of_a_stream():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            body = bytes(range(256)) * 200
            stream_id = client.request()
            peer = await backend.connected()
            await peer.open(1)
            peer.reads = False
            for start in range(0, 40000, 10000):
                client.data(stream_id, body[start : start + 10000])
            await peer.until(lambda: len(peer.streams[1].data) == 40000)
            peer.change({SettingCodes.INITIAL_WINDOW_SIZE: 1000})  # the window is -39,000 now
            await peer.until(lambda: peer.unacknowledged == 0)
            client.data(stream_id, body[40000:], end=True)
            peer.h2.increment_flow_control_window(39000, 1)  # 0
            peer.h2.increment_flow_control_window(100000)
            peer.h2.ping(b"12345678")
            peer.flush()
            peer.h2.increment_flow_control_window(1, 1)
            peer.flush()
            await peer.until(lambda: len(peer.streams[1].data) == 40001)
            peer.change({SettingCodes.INITIAL_WINDOW_SIZE: 20000})
            await peer.until(lambda: peer.streams[1].ended)
            assert peer.streams[1].data == body
            peer.headers(1, RESPONSE)
            peer.headers(1, TRAILERS, end=True)
            assert (await client.over(stream_id)).status == "0"

    run(test)
