"""What a gRPC call carries arrives unchanged: messages, metadata, statuses, cancellation, deadlines.

Every test runs twice, straight to the backend and through the gateway.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator

import grpc
import pytest

from tests.doubles.backend import ECHO, Backend, StartBackend
from tests.doubles.client import stream_stream, stream_unary, unary_stream, unary_unary
from tests.doubles.gateway import StartGateway
from tests.doubles.manifests import GATEWAY, route, to

MIB = 1024 * 1024
TIMEOUT = 30.0


def test_unary(channel: grpc.Channel) -> None:
    assert unary_unary(channel, f"{ECHO}/Unary")(b"hello", timeout=TIMEOUT) == b"hello"


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 65535, 65536, MIB, 16 * MIB])
def test_message_sizes(channel: grpc.Channel, size: int) -> None:
    message = os.urandom(size)
    assert unary_unary(channel, f"{ECHO}/Unary")(message, timeout=TIMEOUT) == message


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 10), (1000, 100), (8, 4 * MIB)])
def test_server_streaming(channel: grpc.Channel, count: int, size: int) -> None:
    parameters = json.dumps({"count": count, "size": size}).encode()
    received = list(unary_stream(channel, f"{ECHO}/Download")(parameters, timeout=TIMEOUT))
    assert [len(message) for message in received] == [size] * count
    assert all(message == bytes([number % 256]) * size for number, message in enumerate(received))


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 10), (1000, 100), (8, 4 * MIB)])
def test_client_streaming(channel: grpc.Channel, count: int, size: int) -> None:
    messages = [os.urandom(size) for _ in range(count)]
    summary = json.loads(stream_unary(channel, f"{ECHO}/Upload")(iter(messages), timeout=TIMEOUT))
    digest = hashlib.sha256(b"".join(messages)).hexdigest()
    assert summary == {"messages": count, "octets": count * size, "sha256": digest}


def test_bidi_of_10_000_messages(channel: grpc.Channel) -> None:
    sent, received = hashlib.sha256(), hashlib.sha256()

    def requests() -> Iterator[bytes]:
        for number in range(10_000):
            message = number.to_bytes(4) * (1 + number % 64)
            sent.update(message)
            yield message

    count = 0
    for message in stream_stream(channel, f"{ECHO}/Chat")(requests(), timeout=60.0):
        received.update(message)
        count += 1
    assert count == 10_000
    assert received.digest() == sent.digest()


def test_bidi_takes_turns(channel: grpc.Channel) -> None:
    """Each message comes back before the next is sent: nothing waits for the stream to end."""
    turn = threading.Semaphore(1)

    def requests() -> Iterator[bytes]:
        for number in range(50):
            assert turn.acquire(timeout=TIMEOUT)
            yield b"%d" % number

    received = []
    for message in stream_stream(channel, f"{ECHO}/Chat")(requests(), timeout=TIMEOUT):
        received.append(int(message))
        turn.release()
    assert received == list(range(50))


def test_many_calls_at_once_on_one_connection(channel: grpc.Channel) -> None:
    call = unary_unary(channel, f"{ECHO}/Unary")
    futures = [call.future(b"%d" % number, timeout=TIMEOUT) for number in range(300)]
    assert [future.result() for future in futures] == [b"%d" % number for number in range(300)]


# ===== metadata =====


def metadata_of(entries: Iterable[tuple[str, str | bytes]], prefix: str) -> list[tuple[str, str | bytes]]:
    return [(key, value) for key, value in entries if key.startswith(prefix)]


def test_metadata_arrives_in_order_both_ways(channel: grpc.Channel, backend: Backend) -> None:
    sent: list[tuple[str, str | bytes]] = [
        ("echo-one", "1"),
        ("echo-repeated", "a"),
        ("echo-repeated", "b"),
        ("echo-empty-bin", b""),
        ("echo-octets-bin", bytes(range(256))),
        ("trail-one", "text with spaces, commas; and ~ signs"),
        ("trail-octets-bin", b"\x00\xff\n"),
    ]
    _, call = unary_unary(channel, f"{ECHO}/Unary").with_call(b"", metadata=tuple(sent), timeout=TIMEOUT)
    assert metadata_of(backend.calls[-1].metadata, "echo-") == metadata_of(sent, "echo-")
    assert metadata_of(call.initial_metadata(), "echo-") == metadata_of(sent, "echo-")
    assert metadata_of(call.trailing_metadata(), "trail-") == metadata_of(sent, "trail-")


def test_60_kib_of_metadata(start_backend: StartBackend, start_gateway: StartGateway) -> None:
    # grpcio itself refuses more than 8 KiB (soft) to 16 KiB (hard) unless told otherwise.
    large = [("grpc.max_metadata_size", 128 * 1024), ("grpc.absolute_max_metadata_size", 128 * 1024)]
    backend = start_backend("backend", options=large)
    gateway = start_gateway(GATEWAY + route(to("backend")), resolve={"default/backend": backend.port})
    value = "".join(itertools.islice(itertools.cycle("abcdefghij0123456789"), 60 * 1024))
    for name in ("echo-large", "trail-large"):
        with gateway.channel(options=large) as channel:
            _, call = unary_unary(channel, f"{ECHO}/Unary").with_call(b"", metadata=((name, value),), timeout=TIMEOUT)
            assert dict([*call.initial_metadata(), *call.trailing_metadata()])[name] == value


# ===== statuses =====


@pytest.mark.parametrize("method", ["Fail", "FailLate"])
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_code(channel: grpc.Channel, method: str, code: grpc.StatusCode) -> None:
    parameters = json.dumps({"code": code.value[0], "message": f"because of {code.name}"}).encode()
    call = unary_stream(channel, f"{ECHO}/{method}")(parameters, timeout=TIMEOUT)
    with pytest.raises(grpc.RpcError):
        list(call)
    assert call.code() is code
    assert call.details() == f"because of {code.name}"


@pytest.mark.parametrize("method", ["Fail", "FailLate"])
@pytest.mark.parametrize("details", [b"", b"\x00", bytes(range(256)), os.urandom(4097)], ids=len)
def test_status_details_and_message_are_exact(channel: grpc.Channel, method: str, details: bytes) -> None:
    message = 'percent % and ünïcode ☃ and "quotes"\n'
    parameters = json.dumps({"code": 9, "message": message, "details": details.hex()}).encode()
    call = unary_stream(channel, f"{ECHO}/{method}")(parameters, timeout=TIMEOUT)
    with pytest.raises(grpc.RpcError):
        list(call)
    assert call.details() == message
    assert dict(call.trailing_metadata())["grpc-status-details-bin"] == details


# ===== cancellation and deadlines =====


def test_cancellation_reaches_the_backend(channel: grpc.Channel, backend: Backend) -> None:
    seen = len(backend.calls)
    call = stream_stream(channel, f"{ECHO}/HangStream")(iter([b""]), timeout=TIMEOUT)
    assert next(call) == b"one"
    call.cancel()
    arrived = backend.wait_for_calls(seen + 1)[-1]
    assert arrived.ended.wait(TIMEOUT)
    assert call.code() is grpc.StatusCode.CANCELLED


def test_cancellation_before_any_response(channel: grpc.Channel, backend: Backend) -> None:
    seen = len(backend.calls)
    future = unary_unary(channel, f"{ECHO}/Hang").future(b"", timeout=TIMEOUT)
    arrived = backend.wait_for_calls(seen + 1)[-1]
    future.cancel()
    assert arrived.ended.wait(TIMEOUT)


def test_deadline_is_passed_on_and_kept(channel: grpc.Channel, backend: Backend) -> None:
    seen = len(backend.calls)
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        unary_unary(channel, f"{ECHO}/Hang")(b"", timeout=0.5)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.4 < time.monotonic() - started < 5.0
    arrived = backend.wait_for_calls(seen + 1)[-1]
    assert arrived.time_remaining is not None
    # gRPC's own libraries round deadlines by up to some milliseconds: without a gateway it shows 0.5002 at times.
    assert 0.0 < arrived.time_remaining <= 0.51
    assert arrived.ended.wait(TIMEOUT)


def test_no_deadline_means_none(channel: grpc.Channel, backend: Backend) -> None:
    unary_unary(channel, f"{ECHO}/Unary")(b"")
    assert backend.calls[-1].time_remaining is None


# ===== more =====


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compression(channel: grpc.Channel, algorithm: grpc.Compression) -> None:
    message = b"compress me " * 10_000
    answer = unary_unary(channel, f"{ECHO}/Unary")(message, timeout=TIMEOUT, compression=algorithm)
    assert answer == message


def test_early_answer_while_the_client_still_sends(channel: grpc.Channel) -> None:
    """The answer ends the call although the request stream never does."""
    release = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"first"
        while not release.wait(0.001):
            yield bytes(1024)

    try:
        assert stream_unary(channel, f"{ECHO}/AnswerEarly")(requests(), timeout=TIMEOUT) == b"first"
    finally:
        release.set()
