"""What the gateway answers itself: no match, not gRPC, HTTP/1, garbage; in the forms that gRPC clients understand."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.doubles.gateway import Gateway
from tests.doubles.raw_peers import GRPC_REQUEST, H2Client, Headers

TIMEOUT = 10.0
NOT_GRPC = [b"text/plain", b"application/json", b"application/grpc-web", b"application/grpcx"]


@pytest.fixture
def client(gateway: Gateway, open_stack: ExitStack) -> H2Client:
    return open_stack.enter_context(H2Client(gateway.port))


def with_fields(**fields: bytes) -> Headers:
    """GRPC_REQUEST with some fields changed, or added; names have `_` for `-`, pseudo-headers begin with `_`."""
    names = {
        (":" + name[1:] if name.startswith("_") else name.replace("_", "-")).encode(): value
        for name, value in fields.items()
    }
    kept = [(name, names.pop(name, value)) for name, value in GRPC_REQUEST]
    return [*kept, *names.items()]


def test_no_match_is_trailers_only(client: H2Client) -> None:
    answer = client.call(with_fields(_path=b"/no.Method"))
    assert len(answer.header_blocks) == 1
    fields = answer.fields()
    assert fields[b":status"] == b"200"
    assert fields[b"content-type"].startswith(b"application/grpc")
    assert fields[b"grpc-status"] == b"12"
    assert fields[b"grpc-message"]


@pytest.mark.parametrize("path", [b"/a/b/c", b"/a", b"/a/", b"//b", b"/a/..", b"/a/b?c", b"/a/b#c", b"/a%2fb/c", b"/"])
def test_paths_that_are_no_method(client: H2Client, path: bytes) -> None:
    assert client.call(with_fields(_path=path)).fields()[b"grpc-status"] == b"12"


@pytest.mark.parametrize("content_type", NOT_GRPC)
def test_other_content_types_get_415(client: H2Client, content_type: bytes) -> None:
    answer = client.call(with_fields(content_type=content_type))
    assert answer.fields()[b":status"] == b"415"
    assert len(answer.data) >= 64
    assert b"gRPC" in answer.data


def test_other_methods_get_405(client: H2Client) -> None:
    assert client.call(with_fields(_method=b"GET"), b"").fields()[b":status"] == b"405"


@pytest.mark.parametrize(
    "request_octets",
    [
        b"GET / HTTP/1.1\r\nHost: grpc.example.com\r\n\r\n",
        b"POST /helloworld.Greeter/SayHello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
def test_http1_clients_are_told_to_speak_http2(gateway: Gateway, request_octets: bytes) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=TIMEOUT) as connection:
        connection.sendall(request_octets)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status_line, *fields = head.split(b"\r\n")
    assert status_line.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505"))
    assert any(field.lower().startswith(b"content-type: text/plain") for field in fields)
    assert b"HTTP/2" in body
    assert len(body) < 500


def test_garbage_closes_only_its_own_connection(gateway: Gateway, client: H2Client) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=TIMEOUT) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200))  # a TLS ClientHello
        while connection.recv(65536):
            pass
    assert client.call(with_fields(_path=b"/no.Method")).fields()[b"grpc-status"] == b"12"
