"""Backends that break: the client learns of each by its own status, and no other call notices."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import grpc
import pytest

from tests.doubles.backend import ECHO, StartBackend
from tests.doubles.client import unary_stream, unary_unary
from tests.doubles.gateway import Gateway, StartGateway
from tests.doubles.manifests import GATEWAY, route, to
from tests.doubles.raw_peers import (
    GRPC_RESPONSE,
    H2Peer,
    Stream,
    h2_server,
    message,
    refused_port,
    speak_http1,
    tcp_server,
)

TIMEOUT = 10.0
UNAVAILABLE, INTERNAL = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL


@pytest.fixture
def start_beside(start_backend: StartBackend, start_gateway: StartGateway) -> Callable[[int], Gateway]:
    """A gateway that sends test.Raw to the given port, and everything else to a sound backend."""

    def start(port: int) -> Gateway:
        sound = start_backend("sound")
        rules = route(to("bad", matches="[{method: {service: test.Raw}}]"), to("sound"))
        return start_gateway(GATEWAY + rules, resolve={"default/bad": port, "default/sound": sound.port})

    return start


def die_at_headers(peer: H2Peer, stream: Stream) -> None:
    peer.socket.shutdown(socket.SHUT_RDWR)


def die_between_messages(peer: H2Peer, stream: Stream) -> None:
    peer.send_headers(stream.stream_id, GRPC_RESPONSE)
    peer.send_data(stream.stream_id, message(b"one"))
    peer.socket.shutdown(socket.SHUT_RDWR)


def die_inside_a_message(peer: H2Peer, stream: Stream) -> None:
    peer.send_headers(stream.stream_id, GRPC_RESPONSE)
    peer.send_data(stream.stream_id, message(b"a whole message")[:-3])
    peer.socket.shutdown(socket.SHUT_RDWR)


def say_garbage(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x00\x01\x02 this is no protocol at all " * 20)


BAD_BACKENDS: dict[str, tuple[Callable[[], AbstractContextManager[int]], grpc.StatusCode]] = {
    "refuses": (refused_port, UNAVAILABLE),
    "closes at once": (lambda: tcp_server(lambda connection: None), UNAVAILABLE),
    "speaks HTTP/1": (lambda: tcp_server(speak_http1), UNAVAILABLE),
    "speaks garbage": (lambda: tcp_server(say_garbage), UNAVAILABLE),
    "dies at the request": (lambda: h2_server(die_at_headers), UNAVAILABLE),
    "dies between messages": (lambda: h2_server(die_between_messages), UNAVAILABLE),
    "dies inside a message": (lambda: h2_server(die_inside_a_message), INTERNAL),
}


@pytest.mark.parametrize("name", BAD_BACKENDS)
def test_bad_backend(name: str, start_beside: Callable[[int], Gateway], open_stack: ExitStack) -> None:
    bad, expected = BAD_BACKENDS[name]
    gateway = start_beside(open_stack.enter_context(bad()))
    channel = open_stack.enter_context(gateway.channel())
    sound = unary_unary(channel, f"{ECHO}/Unary")
    for _ in range(5):
        call = unary_stream(channel, "test.Raw/Call")(b"", timeout=TIMEOUT)
        with pytest.raises(grpc.RpcError):
            list(call)
        assert call.code() is expected, call.details()
        assert call.details()
        # On the same connection, right after it:
        assert sound(b"still here", timeout=TIMEOUT) == b"still here"


def test_backend_that_dies_ends_a_long_call(
    start_backend: StartBackend, start_gateway: StartGateway, open_stack: ExitStack
) -> None:
    dying = start_backend("dying")
    gateway = start_gateway(GATEWAY + route(to("dying")), resolve={"default/dying": dying.port})
    channel = open_stack.enter_context(gateway.channel())
    call = unary_stream(channel, f"{ECHO}/HangStream")(b"", timeout=TIMEOUT)
    assert next(call) == b"one"
    dying.stop()
    with pytest.raises(grpc.RpcError):
        next(call)
    assert call.code() in (UNAVAILABLE, grpc.StatusCode.CANCELLED)  # what grpcio says when it stops: GOAWAY and reset
