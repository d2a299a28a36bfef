"""gRPC's own rules at a proxy: deadlines, cancellation, statuses, metadata, and a real client's long stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import grpc

from tests.doubles import frames as wire

from .backend_faults import BIG, Answer, data, end, head
from .case import CaseError, case, expect
from .raw import Seen, code_name
from .rig import MESSAGE, Rig, ScriptRig, request
from .scripted_backend import RESPONSE, BackendConnection

PATH = b"/adversity.Test/Call"
DEADLINE_SLACK = 0.02
BULK = 64 << 20
BULK_MESSAGE = 1 << 20


CHANNEL = [("grpc.default_authority", "adversity.example.com"), ("grpc.use_local_subchannel_pool", 1)]


def received(channel: grpc.Channel, messages: Iterator[bytes]) -> int:
    """Octets that come back for these messages on one call."""
    try:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream("/adversity.Test/Call")
        return sum(len(message) for message in call(messages, timeout=100))
    except grpc.RpcError as error:
        raise CaseError(f"{error.code().name}: {error.details()}") from None


def sends(*parts: Callable[[Seen], bytes]) -> Answer:
    """Answer with these frames as soon as the request has begun."""

    def answer(peer: BackendConnection, seen: Seen) -> None:
        peer.send(*(part(seen) for part in parts))

    return answer


def hang(peer: BackendConnection, seen: Seen) -> None:
    """Never answer."""


@case("grpc", "deadline")
def deadline(rig: Rig) -> None:
    """A deadline of 0.5 s: DEADLINE_EXCEEDED after 0.5 s, CANCEL to the backend."""
    assert isinstance(rig, ScriptRig)
    rig.backend.script(answer=hang)
    with rig.client() as client:
        start = time.monotonic()
        seen = client.call(1, request(PATH, (b"grpc-timeout", b"500m")), MESSAGE)
        took = time.monotonic() - start
    rig.measures["seconds_to_end"] = round(took, 4)
    expect(seen.grpc_status == 4, f"it got {seen.told()} after {took:.3f} s")
    expect(abs(took - 0.5) <= DEADLINE_SLACK, f"it took {took:.3f} s")
    [reached] = rig.backend.reached()
    rig.backend.wait_for(lambda: reached.reset is not None, 1)
    expect(reached.reset == wire.CANCEL, f"the backend got {reached.reset and code_name(reached.reset)}")


@case("grpc", "deadline-after-headers")
def deadline_after_headers(rig: Rig) -> None:
    """A deadline that passes between two messages ends the call with trailers that say so."""
    assert isinstance(rig, ScriptRig)
    rig.backend.script(answer=sends(head, data))
    with rig.client() as client:
        seen = client.call(1, request(PATH, (b"grpc-timeout", b"300m")), MESSAGE, 2)
    expect(seen.grpc_status == 4, f"it got {seen.told()}")


@case("grpc", "deadline-passed-on")
def deadline_passed_on(rig: Rig) -> None:
    """The backend is told of the deadline."""
    assert isinstance(rig, ScriptRig)
    with rig.client() as client:
        client.call(1, request(PATH, (b"grpc-timeout", b"7S")), MESSAGE)
    value = rig.backend.reached()[0].value(b"grpc-timeout")
    unit = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
    seconds = int(value[:-1]) * unit[value[-1:]] if value else 0
    expect(5 < seconds <= 7, f"the backend got {value!r}")


@case("grpc", "cancel")
def cancel(rig: Rig) -> None:
    """A call that the client resets is reset at the backend as CANCEL, within milliseconds."""
    assert isinstance(rig, ScriptRig)
    rig.backend.script(answer=hang)
    with rig.client() as client:
        client.send(wire.headers(1, request()))
        expect(rig.backend.wait_for(rig.backend.reached), "the call did not come to the backend")
        [reached] = rig.backend.reached()
        start = time.monotonic()
        client.send(wire.rst_stream(1, wire.CANCEL))
        rig.backend.wait_for(lambda: reached.is_over, 2)
    expect(reached.reset == wire.CANCEL, f"the backend got {reached.reset and code_name(reached.reset)}")
    rig.measures["seconds_to_end"] = round(reached.over_at - start, 5)
    expect(reached.over_at - start < 0.1, f"it took {reached.over_at - start:.3f} s")


@case("grpc", "client-gone")
def client_gone(rig: Rig) -> None:
    """Calls of a client whose connection is gone are cancelled at the backend."""
    assert isinstance(rig, ScriptRig)
    rig.backend.script(answer=hang)
    with rig.client() as client:
        client.send(*(wire.headers(number, request()) for number in (1, 3, 5)))
        expect(rig.backend.wait_for(lambda: len(rig.backend.reached()) == 3), "they did not come to the backend")
    rig.backend.wait_for(lambda: all(seen.is_over for seen in rig.backend.reached()), 2)
    codes = {seen.reset for seen in rig.backend.reached()}
    expect(codes == {wire.CANCEL}, f"the backend got {codes}")


@case("grpc", "trailers-only")
def trailers_only(rig: Rig) -> None:
    """A Trailers-Only response stays one: a single header section with END_STREAM."""
    assert isinstance(rig, ScriptRig)
    fields = [*RESPONSE, (b"grpc-status", b"5"), (b"grpc-message", b"not%20here")]
    rig.backend.script(answer=sends(lambda seen: head(seen, fields, end_stream=True)))
    with rig.client() as client:
        seen = client.call(1, request(), MESSAGE)
    expect(len(seen.blocks) == 1 and not seen.data_frames, f"{len(seen.blocks)} sections, {seen.data_frames} DATA")
    expect(seen.grpc_status == 5 and seen.message == "not%20here", f"it got {seen.told()}")


@case("grpc", "status-details")
def status_details(rig: Rig) -> None:
    """grpc-status-details-bin and metadata in trailers come through as they are."""
    assert isinstance(rig, ScriptRig)
    details = [(b"grpc-status", b"9"), (b"grpc-status-details-bin", b"CAkSA2FiYw"), (b"x-a-bin", b"AAEC")]
    rig.backend.script(answer=sends(head, data, lambda seen: end(seen, details)))
    with rig.client() as client:
        seen = client.call(1, request(), MESSAGE)
    expect(seen.ended and seen.grpc_status == 9, f"it got {seen.told()}")
    expect(seen.blocks[-1][: len(details)] == details or set(details) <= set(seen.blocks[-1]), f"{seen.blocks[-1]}")


@case("grpc", "early-answer")
def early_answer(rig: Rig) -> None:
    """A status before the request is whole ends the call; the client is told to stop, not of an error."""
    assert isinstance(rig, ScriptRig)
    fields = [*RESPONSE, (b"grpc-status", b"7")]
    rig.backend.script(answer=sends(lambda seen: head(seen, fields, end_stream=True)))
    with rig.client() as client:
        client.send(wire.headers(1, request()), wire.data(1, MESSAGE))
        seen = client.finish(1)
        rig.check_serves(client, 3) if seen.grpc_status != 7 else None
    expect(seen.grpc_status == 7, f"it got {seen.told()}")
    expect(seen.reset in (None, wire.NO_ERROR, wire.CANCEL), f"it got {seen.told()}")


def has(seen: Seen, count: int) -> bool:
    """Whether so many messages came."""
    return len(seen.data) >= count * len(MESSAGE)


@case("grpc", "messages-at-once")
def messages_at_once(rig: Rig) -> None:
    """Messages pass in both directions as they come: none waits for another, or for the end."""
    assert isinstance(rig, ScriptRig)

    def echo(peer: BackendConnection, seen: Seen) -> None:
        peer.send(head(seen))
        for count in range(1, 6):
            peer.wait(partial(has, seen, count), 3)
            peer.send(data(seen))
        peer.send(end(seen))

    rig.backend.script(answer=echo)
    with rig.client() as client:
        client.send(wire.headers(1, request()))
        seen = client.stream(1)
        for count in range(1, 6):
            client.send(wire.data(1, MESSAGE))
            came = client.wait(partial(has, seen, count), 2)
            expect(came, f"message {count} did not come back before the next was sent")
        client.send(wire.data(1, b"", end_stream=True))
        expect(client.finish(1).grpc_status == 0, f"it got {seen.told()}")


@case("grpc", "large-messages")
def large_messages(rig: Rig) -> None:
    """Ten large messages on one call come back whole."""
    assert isinstance(rig, ScriptRig)
    with grpc.insecure_channel(f"127.0.0.1:{rig.proxy.port}", options=CHANNEL) as channel:
        # The double sends everything back once the request is whole.
        came = received(channel, iter([BIG[5:]] * 10))
    expect(came == 10 * len(BIG[5:]), f"{came} octets came")


@case("grpc", "bulk-stream")
def bulk_stream(rig: Rig) -> None:
    """64 MiB to and from a real gRPC client on one stream, with its PINGs and WINDOW_UPDATEs, trip no flood limit."""
    assert isinstance(rig, ScriptRig)

    def take_and_pour(peer: BackendConnection, seen: Seen) -> None:
        peer.wait(lambda: seen.is_over, 60)
        peer.send(head(seen))
        message = b"\0" + BULK_MESSAGE.to_bytes(4) + bytes(BULK_MESSAGE)
        if all(peer.pour(seen.stream_id, message) for _ in range(BULK // BULK_MESSAGE)):
            peer.send(end(seen))

    rig.backend.script(answer=take_and_pour)
    messages = (bytes(BULK_MESSAGE) for _ in range(BULK // BULK_MESSAGE))
    with grpc.insecure_channel(f"127.0.0.1:{rig.proxy.port}", options=CHANNEL) as channel:
        came = received(channel, messages)
    expect(came == BULK, f"{came} octets came of {BULK}")


@case("grpc", "compressed")
def compressed(rig: Rig) -> None:
    """Compressed messages and their encodings pass as they are."""
    assert isinstance(rig, ScriptRig)
    with rig.client() as client:
        extra = [(b"grpc-encoding", b"gzip"), (b"grpc-accept-encoding", b"identity,deflate,gzip")]
        payload = b"\x01\0\0\0\x03abc"
        seen = client.call(1, request(PATH, *extra), payload)
    [reached] = rig.backend.reached()
    expect(bytes(seen.data) == payload, f"it got {bytes(seen.data)!r}")
    expect(reached.value(b"grpc-encoding") == b"gzip", "grpc-encoding did not come to the backend")
