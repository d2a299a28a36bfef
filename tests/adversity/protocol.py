"""Protocol checks: frames, streams, windows and HPACK as RFC 9113 and RFC 7541 have them, one violation in each case.

A row says what is sent behind a good preface and what must become of it: the stream is refused, or the connection
ended with one of some codes, or nothing happens at all. Where RFC 9113 §5.4.2 lets a stream error be treated as one
of the connection, both pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.doubles import frames as wire

from .case import add, case, expect
from .probe import ANSWERED, ENDED, REFUSED, probe
from .raw import RawClient
from .rig import MESSAGE, Rig, ScriptRig, request
from .scripted_backend import BackendConnection

PATIENCE = 2.0
GOOD = wire.headers(1, request()) + wire.data(1, MESSAGE, end_stream=True)
OPEN = wire.headers(1, request())
WHOLE = wire.headers(1, request(), end_stream=True)
BASIC = wire.block(request())


def raw_call(block: bytes) -> bytes:
    """A request of that header block."""
    return wire.headers(1, block, end_stream=True)


# (name, what is sent, what may become of it: kinds or codes of the connection's end, or of the reset)
ROWS: list[tuple[str, Callable[[], bytes], str]] = [
    ("good-call", lambda: GOOD, "answered"),
    ("unknown-frame", lambda: wire.frame(0xCC, 0xFF, 0, b"whatever") + GOOD, "answered"),
    ("unknown-frame-on-stream", lambda: OPEN + wire.frame(0xCC, 0xFF, 1, b"x") + wire.data(1, MESSAGE, end_stream=True),
     "answered"),
    ("unknown-setting", lambda: wire.settings((0xF000, 7)) + GOOD, "answered"),
    ("unknown-flags", lambda: wire.ping(b"flagflag")[:4] + b"\xfe" + wire.ping(b"flagflag")[5:] + GOOD, "answered"),
    ("reserved-bit", lambda: wire.headers(0x80000001, request()) + wire.data(0x80000001, MESSAGE, end_stream=True),
     "answered"),
    ("priority-idle-stream", lambda: wire.priority(99) + GOOD, "answered"),
    ("padded-headers", lambda: wire.headers(1, request(), padding=200, depends_on=0)
     + wire.data(1, MESSAGE, end_stream=True, padding=255), "answered"),
    ("continuation", lambda: wire.headers(1, BASIC[:20], end_headers=False) + wire.continuation(1, b"")
     + wire.continuation(1, BASIC[20:], end_headers=True) + wire.data(1, MESSAGE, end_stream=True), "answered"),
    ("data-on-0", lambda: wire.data(0, b"x"), "PROTOCOL_ERROR"),
    ("headers-on-0", lambda: wire.headers(0, request()), "PROTOCOL_ERROR"),
    ("reset-on-0", lambda: wire.rst_stream(0), "PROTOCOL_ERROR"),
    ("settings-on-stream", lambda: wire.frame(wire.SETTINGS, 0, 1), "PROTOCOL_ERROR"),
    ("ping-on-stream", lambda: wire.frame(wire.PING, 0, 1, b"12345678"), "PROTOCOL_ERROR"),
    ("goaway-on-stream", lambda: wire.frame(wire.GOAWAY, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    ("window-zero", lambda: wire.window_update(0, 0), "PROTOCOL_ERROR"),
    ("window-overflow", lambda: wire.window_update(0, 2**31 - 1), "FLOW_CONTROL_ERROR"),
    ("stream-window-overflow", lambda: OPEN + wire.window_update(1, 2**31 - 1), "FLOW_CONTROL_ERROR refused"),
    ("settings-window-overflow", lambda: OPEN + wire.window_update(1, 2**30) + wire.settings((4, 2**31 - 1)),
     "FLOW_CONTROL_ERROR"),
    ("settings-length", lambda: wire.frame(wire.SETTINGS, 0, 0, bytes(5)), "FRAME_SIZE_ERROR"),
    ("settings-ack-length", lambda: wire.frame(wire.SETTINGS, wire.ACK, 0, bytes(6)), "FRAME_SIZE_ERROR"),
    ("settings-window-large", lambda: wire.settings((4, 2**31)), "FLOW_CONTROL_ERROR"),
    ("settings-frame-size", lambda: wire.settings((5, 100)), "PROTOCOL_ERROR"),
    ("settings-push", lambda: wire.settings((2, 2)), "PROTOCOL_ERROR"),
    ("ping-length", lambda: wire.frame(wire.PING, 0, 0, bytes(7)), "FRAME_SIZE_ERROR"),
    ("reset-length", lambda: OPEN + wire.frame(wire.RST_STREAM, 0, 1, bytes(3)), "FRAME_SIZE_ERROR"),
    ("window-update-length", lambda: wire.frame(wire.WINDOW_UPDATE, 0, 0, bytes(3)), "FRAME_SIZE_ERROR"),
    ("frame-too-large", lambda: OPEN + wire.data(1, bytes(16385)), "FRAME_SIZE_ERROR refused"),
    ("push-promise", lambda: wire.frame(wire.PUSH_PROMISE, 4, 1, bytes(4)), "PROTOCOL_ERROR"),
    ("even-id", lambda: wire.headers(2, request(), end_stream=True), "PROTOCOL_ERROR"),
    ("decreasing-id", lambda: wire.headers(5, request(), end_stream=True) + wire.headers(3, request()),
     "PROTOCOL_ERROR STREAM_CLOSED"),
    ("data-on-idle", lambda: wire.data(1, b"x"), "PROTOCOL_ERROR STREAM_CLOSED"),
    ("reset-on-idle", lambda: wire.rst_stream(1), "PROTOCOL_ERROR"),
    ("window-update-on-idle", lambda: wire.window_update(1, 1), "PROTOCOL_ERROR"),
    ("data-after-end", lambda: WHOLE + wire.data(1, b"x"), "STREAM_CLOSED refused"),
    ("headers-after-end", lambda: WHOLE + wire.headers(1, request(), end_stream=True), "STREAM_CLOSED refused"),
    ("trailers-without-end", lambda: OPEN + wire.headers(1, [(b"x-a", b"1")]), "PROTOCOL_ERROR refused"),
    ("self-dependency", lambda: wire.headers(1, request(), end_stream=True, depends_on=1), "PROTOCOL_ERROR refused"),
    ("continuation-alone", lambda: wire.continuation(1, BASIC, end_headers=True), "PROTOCOL_ERROR"),
    ("frame-in-block", lambda: wire.headers(1, BASIC, end_headers=False) + wire.ping(), "PROTOCOL_ERROR"),
    ("continuation-of-another", lambda: wire.headers(1, BASIC, end_headers=False)
     + wire.continuation(3, b"", end_headers=True), "PROTOCOL_ERROR"),
    ("padding-too-long", lambda: OPEN + wire.frame(wire.DATA, wire.PADDED, 1, b"\x05abc"), "PROTOCOL_ERROR"),
    ("padding-too-long-headers", lambda: wire.frame(wire.HEADERS, wire.PADDED | 5, 1, b"\xff" + BASIC),
     "PROTOCOL_ERROR"),
    ("hpack-index-0", lambda: raw_call(BASIC + b"\x80"), "COMPRESSION_ERROR"),
    ("hpack-index-beyond", lambda: raw_call(BASIC + b"\xfe"), "COMPRESSION_ERROR"),
    ("hpack-size-over-limit", lambda: raw_call(b"\x3f\xe1\xff\xff\x07" + BASIC), "COMPRESSION_ERROR"),
    ("hpack-size-in-block", lambda: raw_call(BASIC + b"\x20"), "COMPRESSION_ERROR"),
    ("hpack-huffman-eos", lambda: raw_call(BASIC + b"\x00\x01a\x84\xff\xff\xff\xff"), "COMPRESSION_ERROR"),
    ("hpack-huffman-padding", lambda: raw_call(BASIC + b"\x00\x01a\x82\x1f\xff"), "COMPRESSION_ERROR"),
    ("hpack-huffman-zero-padding", lambda: raw_call(BASIC + b"\x00\x01a\x81\x18"), "COMPRESSION_ERROR"),
    ("hpack-integer-overflow", lambda: raw_call(BASIC + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
     "COMPRESSION_ERROR"),
    ("hpack-string-cut", lambda: raw_call(BASIC + b"\x00\x01a\x05b"), "COMPRESSION_ERROR"),
]  # fmt: skip


def run_row(octets: Callable[[], bytes], allowed: str, rig: Rig) -> None:
    """The case of a row."""
    assert isinstance(rig, ScriptRig)
    verdict = probe(rig, octets(), patience=PATIENCE)
    rig.measures["ended_by"] = verdict.code or verdict.kind
    wanted = allowed.split()
    if "answered" in wanted:
        expect(verdict.kind == ANSWERED and verdict.serves, f"it was not answered: {verdict.told}")
        return
    expect(verdict.kind in (ENDED, REFUSED), f"nothing became of it: {verdict.told}")
    if verdict.kind == REFUSED:
        expect("refused" in wanted, f"the connection lives on: {verdict.told}")
    else:
        # Closing without GOAWAY is allowed (§5.4.1: SHOULD), and so is a general code (§7: PROTOCOL_ERROR).
        fits = verdict.code in (*wanted, "closed", "PROTOCOL_ERROR")
        expect(fits, f"it ended with {verdict.code}, not {allowed}")


for name, make, allowed in ROWS:
    add("protocol", name, partial(run_row, make, allowed), f"{name.replace('-', ' ')}: {allowed.replace(' ', ' or ')}")


def not_http2(octets: bytes, rig: Rig) -> None:
    """What is not HTTP/2 gets its connection closed within a second or two."""
    with RawClient(rig.proxy.port, first=octets) as client:
        expect(client.wait(lambda: client.is_lost, 3), "the connection is still open after 3 s")


for name, first in (
    ("http1", b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
    ("tls-hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160)),
    ("noise", bytes(range(128, 256)) * 4),
    ("wrong-preface", wire.PREFACE[:-1] + b"!"),
    ("settings-missing", wire.PREFACE + wire.ping()),
):
    add("protocol", f"preface-{name}", partial(not_http2, first), "What is not HTTP/2 ends the connection.")


@case("protocol", "upload-over-window")
def upload_over_window(rig: Rig) -> None:
    """Uploads behind a backend that gives no credit may send what the windows say; more is an error, not memory."""
    assert isinstance(rig, ScriptRig)

    def never_credit(peer: BackendConnection) -> None:
        peer.credit = False
        peer.serve(lambda peer, seen: None)

    rig.backend.script(talk=never_credit)
    with rig.client() as client:
        client.send(OPEN)
        sent = 0
        while sent < 64 << 20 and not client.is_lost and client.stream(1).reset is None:
            if not client.send(wire.data(1, bytes(16384))):
                break
            sent += 16384
            client.read_once(0)
        client.wait(lambda: client.is_lost or client.stream(1).reset is not None, 1)
        refused = client.is_lost or client.stream(1).reset is not None
    rig.measures["sent_mib"] = sent >> 20
    expect(refused, "64 MiB were taken for a stream whose backend takes nothing")


@case("protocol", "window-negative")
def window_negative(rig: Rig) -> None:
    """SETTINGS that make a stream's window negative stop it; credit makes it go on."""
    assert isinstance(rig, ScriptRig)
    with rig.client((wire.INITIAL_WINDOW_SIZE, 10), credit=False) as client:
        message = b"\0" + (100).to_bytes(4) + bytes(100)
        client.send(wire.headers(1, request()), wire.data(1, message, end_stream=True))
        seen = client.stream(1)
        expect(client.wait(lambda: len(seen.data) == 10), f"{len(seen.data)} octets came with a window of 10")
        client.send(wire.settings((wire.INITIAL_WINDOW_SIZE, 0)), wire.window_update(1, 5))
        expect(client.fence() and len(seen.data) == 10, "DATA came with a negative window")
        client.send(wire.window_update(1, 1000))
        expect(client.finish(1).grpc_status == 0 and bytes(seen.data) == message, f"it got {seen.told()}")


@case("protocol", "blast-radius")
def blast_radius(rig: Rig) -> None:
    """One malformed request does not cost ten good calls on the same connection."""
    assert isinstance(rig, ScriptRig)
    numbers = range(1, 21, 2)
    with rig.client() as client:
        client.send(*(wire.headers(number, request()) for number in numbers))
        client.send(wire.headers(21, request(b"/adversity.Test/Call", (b"X-Upper", b"1")), end_stream=True))
        client.fence()
        client.send(*(wire.data(number, MESSAGE, end_stream=True) for number in numbers))
        answered = sum(client.finish(number, 1).grpc_status == 0 for number in numbers)
    expect(answered == 10, f"{10 - answered} of 10 good calls died; connection {client.ending()}")


@case("protocol", "reused-id")
def reused_id(rig: Rig) -> None:
    """A stream's number used again is an error, and no second call."""
    assert isinstance(rig, ScriptRig)
    with rig.client() as client:
        client.send(GOOD)
        expect(client.finish(1).grpc_status == 0, f"the first got {client.finish(1).told()}")
        client.send(wire.headers(1, request(b"/adversity.Test/Again"), end_stream=True))
        client.wait(lambda: client.is_lost, 2)
        rig.measures["ended_by"] = client.ending()
    with rig.client() as other:
        rig.check_serves(other, 1)
    again = [seen for seen in rig.backend.reached() if seen.value(b":path") == b"/adversity.Test/Again"]
    expect(not again, "the second request reached the backend")


@case("protocol", "ping-answer")
def ping_answer(rig: Rig) -> None:
    """A PING is answered with its octets while calls are open (RFC 9113 §6.7)."""
    with rig.client() as client:
        client.send(OPEN)
        client.send(wire.ping(b"\0\xff\x01abcd\x7f"))
        expect(client.wait(lambda: b"\0\xff\x01abcd\x7f" in client.pings, 2), "no answer, or with other octets")



