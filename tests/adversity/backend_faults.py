"""Backends that break: each a script for the backend's end, and what the client must be told, at once.

"At once" is PROMPT, unless the case says otherwise; the numbers are grpc-status. After each, a good call must pass.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

from tests.doubles import frames as wire
from tests.doubles.frames import Field

from .case import add, case, expect
from .raw import DEFAULT_WINDOW, RawClient, Seen
from .rig import MESSAGE, Rig, ScriptRig, request
from .scripted_backend import OK, RESPONSE, BackendConnection, answer_well

PROMPT = 1.0
HANG = 8.0
BIG = b"\0" + (100_000).to_bytes(4) + bytes(100_000)
Answer = Callable[[BackendConnection, Seen], None]


def head(seen: Seen, fields: Sequence[Field] | bytes = RESPONSE, **options: bool) -> bytes:
    """A header section of the answer."""
    return wire.headers(seen.stream_id, fields, **options)


def data(seen: Seen, octets: bytes = MESSAGE, **options: bool) -> bytes:
    """DATA of the answer."""
    return wire.data(seen.stream_id, octets, **options)


def end(seen: Seen, fields: Sequence[Field] = OK) -> bytes:
    """The trailers of the answer."""
    return wire.headers(seen.stream_id, fields, end_stream=True)


def sends(*parts: Callable[[Seen], bytes], then: str = "") -> Answer:
    """An answer of these frames; then "cut" (a TCP reset) or "close" the connection."""

    def answer(peer: BackendConnection, seen: Seen) -> None:
        peer.send(*(part(seen) for part in parts))
        if then == "cut":
            peer.cut()
        elif then == "close":
            peer.socket.shutdown(socket.SHUT_RDWR)

    return answer


def reset(code: int) -> Callable[[Seen], bytes]:
    """RST_STREAM."""
    return lambda seen: wire.rst_stream(seen.stream_id, code)


def interim(count: int) -> Callable[[Seen], bytes]:
    """So many interim responses."""
    return lambda seen: head(seen, [(b":status", b"103")]) * count


def is_error(seen: Seen, statuses: Sequence[int]) -> bool:
    """Whether the client was told of an error: one of these statuses, HTTP 5xx, or a reset inside a message."""
    status = seen.value(b":status") or b"200"
    return seen.grpc_status in statuses or status >= b"500" or (seen.reset is not None)


# (name, the answer, the grpc-status that fit; 0: the call passes; how soon)
ROWS: list[tuple[str, Answer, tuple[int, ...]]] = [
    ("reset-before-answer", sends(then="cut"), (14,)),
    ("close-before-answer", sends(then="close"), (14,)),
    ("death-in-headers", sends(lambda s: head(s)[:12], then="close"), (14, 13)),
    ("death-after-headers", sends(head, then="close"), (14, 13)),
    ("death-in-message", sends(head, lambda s: data(s, BIG[:50]), then="close"), (14, 13)),
    ("death-between-messages", sends(head, data, then="close"), (14, 13)),
    ("death-in-trailers", sends(head, data, lambda s: end(s)[:12], then="close"), (14, 13)),
    ("stream-reset", sends(reset(wire.INTERNAL_ERROR)), (14, 13, 2)),
    ("stream-reset-after-headers", sends(head, reset(wire.INTERNAL_ERROR)), (14, 13, 2)),
    ("stream-reset-calm", sends(reset(wire.ENHANCE_YOUR_CALM)), (8, 14)),
    ("garbage", sends(lambda s: b"\x00garbage that is no frame" * 20, then="close"), (14, 13)),
    ("broken-hpack", sends(lambda s: head(s, b"\xff\xff\xff\xff\xff\xff\xff")), (14, 13)),
    ("push-promise", sends(lambda s: wire.frame(wire.PUSH_PROMISE, 4, s.stream_id, bytes(3) + b"\x02\x88")), (14, 13)),
    ("headers-too-large",
     sends(lambda s: head(s, [*RESPONSE, (b"x-a", b"v" * 16000)]), data, end), (0, 8, 13, 14)),
    ("status-missing", sends(head, data, lambda s: end(s, [(b"x-a", b"1")])), (13, 2)),
    ("status-twice", sends(head, data, lambda s: end(s, [*OK, (b"grpc-status", b"5")])), (13, 2, 5, 0)),
    ("trailers-without-body", sends(head, end), (0,)),
    ("data-before-headers", sends(data, head, end), (13, 14)),
    ("data-after-trailers", sends(head, data, end, data), (0,)),
    ("data-end-without-trailers", sends(head, lambda s: data(s, end_stream=True)), (13, 2)),
    ("content-length-lies-long", sends(lambda s: head(s, [*RESPONSE, (b"content-length", b"50")]), data, end),
     (13, 14)),
    ("content-length-lies-short", sends(lambda s: head(s, [*RESPONSE, (b"content-length", b"3")]), data, end),
     (13, 14)),
    ("interim", sends(interim(3), head, data, end), (0,)),
    ("interim-flood", sends(interim(20000), head, data, end), (13, 14)),
    ("error-503", sends(lambda s: head(s, [(b":status", b"503")], end_stream=True)), (14, 2)),
    ("not-grpc", sends(lambda s: head(s, [(b":status", b"200"), (b"content-type", b"text/html")]),
                       lambda s: data(s, b"<html>", end_stream=True)), (2, 13, 14)),
    ("window-overflow", sends(lambda s: wire.window_update(0, 2**31 - 1)), (14, 13)),
    ("early-end", sends(head, data, end, reset(wire.NO_ERROR)), (0,)),
]  # fmt: skip


def run_row(answer: Answer, statuses: tuple[int, ...], rig: Rig) -> None:
    """The case of a row."""
    assert isinstance(rig, ScriptRig)

    def whole(peer: BackendConnection, seen: Seen) -> None:
        peer.whole(seen)
        answer(peer, seen)

    rig.backend.script(answer=whole)
    with rig.client() as client:
        start = time.monotonic()
        seen = client.call(1, request(), MESSAGE, HANG)
        took = time.monotonic() - start
        told = f"{seen.told()}; connection {client.ending()}"
        expect(seen.is_over, f"the client hangs: {told}")
        client_lives = client.fence()
    rig.measures["seconds_to_end"] = round(took, 3)
    if statuses == (0,):
        expect(seen.grpc_status == 0, f"it did not pass: {told}")
    else:
        fits = is_error(seen, statuses) or (0 in statuses and seen.grpc_status == 0)
        expect(fits, f"it got {told}")
    expect(took <= PROMPT, f"it took {took:.2f} s")
    expect(client_lives, f"the client's connection was ended: {client.ending()}")
    rig.backend.script()
    rig.measures["seconds_to_heal"] = round(rig.heal(), 3)


for name, answer, statuses in ROWS:
    words = " or ".join(str(status) for status in statuses)
    add("backend", name, partial(run_row, answer, statuses), f"The client is told at once: grpc-status {words}.")


# ===== connections =====


def call_once(rig: ScriptRig, seconds: float = HANG, *extra: Field) -> tuple[Seen, float]:
    """A call over a new connection, and how long it took."""
    with rig.client() as client:
        start = time.monotonic()
        seen = client.call(1, request(b"/adversity.Test/Call", *extra), MESSAGE, seconds)
        return seen, time.monotonic() - start


@case("backend", "refused")
def refused(rig: Rig) -> None:
    """A refused connection is UNAVAILABLE at once, and calls pass as soon as somebody listens."""
    assert isinstance(rig, ScriptRig)
    with rig.backend.refusing():
        seen, took = call_once(rig)
    rig.measures["seconds_to_end"] = round(took, 4)
    expect(seen.grpc_status == 14 or (seen.value(b":status") or b"") in (b"502", b"503"), f"it got {seen.told()}")
    expect(took <= PROMPT, f"it took {took:.2f} s")
    rig.measures["seconds_to_heal"] = round(rig.heal(), 3)


@case("backend", "http1")
def http1(rig: Rig) -> None:
    """A backend that speaks HTTP/1.1 is an error at once."""
    assert isinstance(rig, ScriptRig)

    def talk(peer: BackendConnection) -> None:
        peer.socket.recv(65536)
        peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    rig.backend.script(talk=talk)
    seen, took = call_once(rig)
    expect(seen.is_over and is_error(seen, (14, 13)), f"it got {seen.told()}")
    expect(took <= PROMPT, f"it took {took:.2f} s")


@case("backend", "silent-with-deadline")
def silent_with_deadline(rig: Rig) -> None:
    """A backend that accepts and says nothing: the call's deadline of 1 s is kept all the same."""
    assert isinstance(rig, ScriptRig)
    def talk(peer: BackendConnection) -> None:
        peer.wait(lambda: False, 20)

    rig.backend.script(talk=talk)
    seen, took = call_once(rig, HANG, (b"grpc-timeout", b"1S"))
    expect(seen.is_over, "the client hangs")
    expect(is_error(seen, (4, 14)) and took < 2, f"it got {seen.told()} after {took:.1f} s")


@case("backend", "neighbours-live")
def neighbours_live(rig: Rig) -> None:
    """A malformed answer to one call leaves the others of both connections alone."""
    assert isinstance(rig, ScriptRig)

    def answer(peer: BackendConnection, seen: Seen) -> None:
        if seen.value(b":path") == b"/adversity.Test/Bad":
            peer.send(head(seen, [(b":status", b"200"), (b"X-Upper", b"1")]))
        else:
            peer.send(head(seen))
            held.append((peer, seen))

    held: list[tuple[BackendConnection, Seen]] = []
    rig.backend.script(answer=answer)
    numbers = range(1, 11, 2)
    with rig.client() as client:
        client.send(*(wire.headers(n, request(), end_stream=True) for n in numbers))
        expect(rig.backend.wait_for(lambda: len(held) == 5), f"{len(held)} of 5 calls came to the backend")
        client.send(wire.headers(21, request(b"/adversity.Test/Bad"), end_stream=True))
        expect(client.finish(21).is_over, "the bad one hangs")
        for peer, seen in held:
            peer.send(data(seen), end(seen))
        good = sum(client.finish(n, 2).grpc_status == 0 for n in numbers)
    expect(good == 5, f"{5 - good} of 5 good calls died")


@case("backend", "stream-limit-one")
def stream_limit_one(rig: Rig) -> None:
    """A backend that takes one stream at a time gets all calls, one after the other or over several connections."""
    assert isinstance(rig, ScriptRig)
    rig.backend.script(talk=lambda peer: peer.serve(answer_well, (wire.MAX_CONCURRENT_STREAMS, 1)))
    numbers = range(1, 21, 2)
    with rig.client() as client:
        for number in numbers:
            client.send(wire.headers(number, request()), wire.data(number, MESSAGE, end_stream=True))
        good = sum(client.finish(number, 3).grpc_status == 0 for number in numbers)
    expect(good == 10, f"{good} of 10 calls passed")


def may_send(client: RawClient, octets: int) -> bool:
    """Whether the window of stream 1 allows so many octets in all."""
    return client.window_updates.get(1, 0) + DEFAULT_WINDOW >= octets


@case("backend", "settings-shrink-window")
def settings_shrink_window(rig: Rig) -> None:
    """A backend that shrinks the window in the middle of an upload below what is in flight gets it all, later."""
    assert isinstance(rig, ScriptRig)

    def answer(peer: BackendConnection, seen: Seen) -> None:
        peer.credit = False
        peer.wait(lambda: len(seen.data) >= 20000, 3)
        peer.send(wire.settings((wire.INITIAL_WINDOW_SIZE, 100)))
        peer.wait(lambda: peer.settings_acknowledged, 2)
        peer.credit = True
        peer.send(wire.window_update(0, 1 << 20), wire.window_update(seen.stream_id, 1 << 20))
        answer_well(peer, seen)

    rig.backend.script(answer=answer)
    with rig.client() as client:
        client.send(wire.headers(1, request()))
        for at in range(0, len(BIG), 16000):
            part = BIG[at : at + 16000]
            client.wait(partial(may_send, client, at + len(part)), 3)
            client.send(wire.data(1, part))
        client.send(wire.data(1, b"", end_stream=True))
        seen = client.finish(1)
    expect(seen.grpc_status == 0 and bytes(seen.data) == BIG, f"{seen.told()}, {len(seen.data)} octets")


@case("backend", "over-our-window")
def over_our_window(rig: Rig) -> None:
    """A backend that sends 64 MiB over the window is cut off, not buffered."""
    assert isinstance(rig, ScriptRig)
    sent = []

    def answer(peer: BackendConnection, seen: Seen) -> None:
        peer.send(head(seen), b"")
        total = 0
        peer.socket.settimeout(1)
        try:
            while total < 64 << 20:
                peer.socket.sendall(wire.data(seen.stream_id, bytes(16384)) * 16)
                total += 1 << 18
        except OSError:
            pass
        sent.append(total)

    rig.backend.script(answer=answer)
    with rig.client(credit=False) as client:
        client.send(wire.headers(1, request(), end_stream=True))
        expect(rig.backend.wait_for(lambda: sent, 20), "the backend is still sending")
        client.wait(lambda: client.stream(1).is_over, 2)
    rig.measures["sent_mib"] = sent[0] >> 20
    expect(sent[0] < 64 << 20, "64 MiB beyond the window were taken")


# ===== calls that may be tried again, and those that may not =====


def deliveries(rig: ScriptRig) -> int:
    """How often the call came to the backend."""
    rig.measures["deliveries"] = len(rig.backend.reached())
    return len(rig.backend.reached())


def once_then_well(first: Answer) -> Answer:
    """Does `first` with the first request, answers the others well."""
    seen_one: list[Seen] = []

    def answer(peer: BackendConnection, seen: Seen) -> None:
        seen_one.append(seen)
        if len(seen_one) == 1:
            peer.whole(seen)
            first(peer, seen)
        else:
            answer_well(peer, seen)

    return answer


def retried(first: Answer, rig: Rig) -> None:
    """A call that the backend says it did not process is tried once more, and passes."""
    assert isinstance(rig, ScriptRig)
    rig.backend.script(answer=once_then_well(first))
    seen, _ = call_once(rig)
    expect(seen.grpc_status == 0 and bytes(seen.data) == MESSAGE, f"it got {seen.told()}")
    expect(deliveries(rig) == 2, f"it came {deliveries(rig)} times")


def not_retried(first: Answer, rig: Rig) -> None:
    """A call that may have been processed is never sent twice, and never called REFUSED_STREAM."""
    assert isinstance(rig, ScriptRig)
    rig.backend.script(answer=once_then_well(first))
    seen, _ = call_once(rig)
    expect(seen.is_over and seen.grpc_status != 0, f"it got {seen.told()}")
    expect(seen.reset != wire.REFUSED_STREAM, "the client is told that it may send it again")
    expect(deliveries(rig) == 1, f"it came {deliveries(rig)} times")


for name, first in (
    ("refused-stream", sends(reset(wire.REFUSED_STREAM))),
    ("goaway-above-last", sends(lambda s: wire.goaway(0))),
    ("goaway-then-close", sends(lambda s: wire.goaway(0), then="close")),
):
    add("backend", f"retry-{name}", partial(retried, first), (retried.__doc__ or "").strip())
for name, first in (
    ("cut", sends(then="cut")),
    ("goaway-processed", sends(lambda s: wire.goaway(s.stream_id), then="close")),
    ("refused-after-headers", sends(head, reset(wire.REFUSED_STREAM))),
):
    add("backend", f"no-retry-{name}", partial(not_retried, first), (not_retried.__doc__ or "").strip())


@case("backend", "idle-closed")
def idle_closed(rig: Rig) -> None:
    """Connections that the backend resets just before a call cost no call, and none is delivered twice."""
    assert isinstance(rig, ScriptRig)
    lost = 0
    with rig.client() as client:
        for number in range(30):
            seen = client.call(2 * number + 1, request(), MESSAGE)
            lost += seen.grpc_status != 0
            rig.backend.reset_connections()
    rig.measures["lost"] = lost
    expect(not lost, f"{lost} of 30 calls failed")
    expect(deliveries(rig) == 30, f"{deliveries(rig)} deliveries of 30 calls")
