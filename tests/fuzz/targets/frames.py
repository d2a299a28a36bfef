"""The frame parser: any octets to a server or a client end, whole and in pieces.

The first octet chooses the end and how the rest is cut. However it is cut, the same events come of it and the same
octets are answered; every stream ends once; and nothing is held in the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pygw.http2.recording_connection import RecordingConnection
from tests.doubles import frames
from tests.doubles.engine import Event, join_data, new_client, new_server

CLIENT_END = 0x80
REQUESTS = 3  # of a client end, so that there are streams to answer

_GET_READY = frames.settings((frames.INITIAL_WINDOW_SIZE, 1000)) + frames.settings_ack()
SEEDS = (
    b"\x01" + _GET_READY + frames.headers(1) + frames.data(1, b"\0\0\0\0\1a", end_stream=True) + frames.ping(),
    b"\x02" + _GET_READY + frames.headers(1, end_headers=False, depends_on=7)[:40]
    + frames.continuation(1, frames.block([(b"x-a", b"1")]), end_headers=True),
    b"\x03" + _GET_READY + frames.headers(3, padding=5) + frames.data(3, b"abc", padding=200) + frames.rst_stream(3),
    b"\x04" + _GET_READY + frames.window_update(0, 2**31 - 1) + frames.priority(9, 9) + frames.goaway(0, 2, b"bye"),
    b"\x05" + _GET_READY + frames.headers(1) + frames.headers(1, frames.TRAILERS, end_stream=True),
    b"\x81" + _GET_READY + frames.headers(1, frames.RESPONSE) + frames.data(1, b"abc")
    + frames.headers(1, frames.TRAILERS, end_stream=True),
    b"\x82" + _GET_READY + frames.headers(1, [(b":status", b"103")]) + frames.headers(3, frames.RESPONSE)
    + frames.goaway(1) + frames.rst_stream(3, 7) + frames.window_update(5, 9),
)  # fmt: skip
WORDS = (
    *(bytes([0, 0, 0, type, flags]) for type in range(10) for flags in (0, 1, 4, 5)),
    frames.block(frames.REQUEST), frames.block(frames.RESPONSE), frames.block(frames.TRAILERS), frames.TRAILERS[0][0],
    b"content-length", b":status", b"\0\0\0\1", b"\0\0\0\3", b"\x7f\xff\xff\xff", b"\0\0\x40\0", b"\x82", b"\x84\x86",
)  # fmt: skip


def check(data: bytes) -> None:
    """See the module."""
    if not data:
        return
    head, octets = data[0], data[1:]
    whole = play(head, [octets])
    size = head & 0x3F
    cut = play(head, list(pieces(octets, size + 1)))
    assert whole == cut, "what comes of it depends on where reads are cut"


def pieces(octets: bytes, size: int) -> Iterator[bytes]:
    """`octets` in pieces of this size."""
    for start in range(0, len(octets), size):
        yield octets[start : start + size]


def play(head: int, parts: list[bytes]) -> tuple[list[Event], bytes]:
    """What an end says and sends while it takes these octets."""
    end = new_client(connection_window=70000) if head & CLIENT_END else new_server(connection_window=70000)
    end.auto_credit = bool(head & 0x40)
    sent = b""
    opened = set()
    if head & CLIENT_END:
        for _ in range(REQUESTS):
            stream_id = end.open()
            assert stream_id is not None
            opened.add(stream_id)
            end.send_headers(stream_id, frames.REQUEST)
    else:
        end.feed(frames.PREFACE)
    for part in parts:
        end.feed(part)
    sent += end.output()
    events = join_data(end.events)
    end.lose()
    check_ends(end, opened)
    return events, sent


def check_ends(end: RecordingConnection, opened: set[int]) -> None:
    """Every stream was closed once, and nothing is held."""
    opened = opened | {event[1] for event in end.events if event[0] in ("request", "too_large")}
    closed = Counter(event[1] for event in end.events if event[0] == "closed")
    assert closed == Counter(opened), "a stream did not end exactly once"
    assert end.stream_count == 0
    assert end.streams_in_use == 0
