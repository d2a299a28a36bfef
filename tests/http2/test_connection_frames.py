"""What frames do to a connection, section by section of RFC 9113: each case whole, an octet at a time, cut in two at
every place, and with more behind it."""

import struct

import pytest

from tests.doubles import frames
from tests.doubles.engine import goaway_code, join_data, new_client, new_server, ready_client, ready_server, resets
from tests.doubles.frames import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REQUEST,
    RESPONSE,
    STREAM_CLOSED,
    TRAILERS,
    block,
    continuation,
    data,
    frame,
    goaway,
    headers,
    ping,
    priority,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)

OPEN = headers(1)
OPENED = ("request", 1, REQUEST, False)
WHOLE = headers(1, end_stream=True)
UNARY = headers(1, [*REQUEST, (b"content-length", b"5")])
ALL = block(REQUEST)


def server():
    return ready_server()


def client():
    """A client end with stream 1 open, its request sent whole."""
    connection = ready_client()
    stream_id = connection.open()
    connection.send_headers(stream_id, REQUEST, True)
    connection.output()
    connection.take_events()
    return connection


def cuts(octets):
    """The ways to cut `octets` into reads."""
    yield [octets]
    yield [octets[i : i + 1] for i in range(len(octets))]
    if len(octets) <= 400:
        for place in range(1, len(octets)):
            yield [octets[:place], octets[place:]]


def feed_all_ways(make, octets):
    for reads in cuts(octets):
        connection = make()
        for read in reads:
            connection.feed(read)
        yield connection


# ===== what is well-formed =====

GOOD = [
    ("3.4 settings may be empty, more may follow", settings() + settings((1, 0)), ["settings", "settings"]),
    ("4.1 reserved bit is ignored", frame(frames.PING, 0, 1 << 31, b"12345678"), []),
    ("4.1 unknown flags are ignored", frame(frames.HEADERS, 0xD2 | 4, 1, ALL), [OPENED]),
    ("5.5 unknown frame is ignored", frame(0x42, 0xFF, 7, b"whatever") + OPEN, [OPENED]),
    ("5.5 unknown frame without payload", frame(0xFF, 0, 0) + OPEN, [OPENED]),
    ("6.1 DATA in pieces", OPEN + data(1, b"ab") + data(1, b"c"), [OPENED, ("data", 1, b"abc", False)]),
    ("6.1 END_STREAM", OPEN + data(1, b"ab", end_stream=True), [OPENED, ("data", 1, b"ab", True)]),
    ("6.1 END_STREAM on empty DATA", OPEN + data(1, end_stream=True), [OPENED, ("data", 1, b"", True)]),
    ("6.1 empty DATA says nothing", OPEN + data(1) + data(1, b"a"), [OPENED, ("data", 1, b"a", False)]),
    ("6.1 padding goes", OPEN + data(1, b"ab", padding=3) + data(1, b"c", padding=0, end_stream=True),
     [OPENED, ("data", 1, b"abc", True)]),
    ("6.1 padding alone", OPEN + data(1, padding=7) + data(1, padding=255, end_stream=True),
     [OPENED, ("data", 1, b"", True)]),
    ("6.2 padding and priority go", headers(1, padding=9, depends_on=3), [OPENED]),
    ("6.2 padding may fill all but the block", headers(1, padding=0), [OPENED]),
    ("6.3 priority on any stream", priority(99) + OPEN + priority(1, 99), [OPENED]),
    ("6.4 reset", OPEN + rst_stream(1, 5), [OPENED, ("closed", 1, "by_peer", 5)]),
    ("6.5 unknown setting is ignored", settings((0x99, 5)), ["settings"]),
    ("6.5 acknowledgement once more", settings_ack(), []),
    ("6.5.2 push is the client's to refuse", settings((2, 0)) + settings((2, 1)), ["settings", "settings"]),
    ("6.7 answer to a ping", ping(struct.pack(">Q", 77), ack=True), [("ping_ack", 77)]),
    ("6.8 goaway", goaway(0, 2, b"why"), [("goaway", 0, 2)]),
    ("6.9 window", window_update(0, 5) + OPEN + window_update(1, 9), [OPENED]),
    ("6.10 block in three frames",
     headers(1, ALL[:5], end_headers=False, end_stream=True) + continuation(1, ALL[5:30])
     + continuation(1, ALL[30:], end_headers=True), [("request", 1, REQUEST, True)]),
    ("6.10 block in empty frames",
     headers(1, b"", end_headers=False) + continuation(1) + continuation(1, ALL) + continuation(1, end_headers=True),
     [OPENED]),
    ("6.10 padding belongs to HEADERS alone",
     headers(1, ALL[:5], end_headers=False, padding=4, depends_on=0) + continuation(1, ALL[5:], end_headers=True),
     [OPENED]),
    ("8.1 trailers", OPEN + data(1, b"a") + headers(1, TRAILERS, end_stream=True),
     [OPENED, ("data", 1, b"a", False), ("trailers", 1, TRAILERS)]),
    ("8.1.1 content-length that is true", UNARY + data(1, b"ab") + data(1, b"cde", end_stream=True),
     [("request", 1, [*REQUEST, (b"content-length", b"5")], False), ("data", 1, b"abcde", True)]),
    ("5.1.1 ids may be left out", headers(7) + headers(101),
     [("request", 7, REQUEST, False), ("request", 101, REQUEST, False)]),
]


@pytest.mark.parametrize(("octets", "events"), [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_takes_what_is_well_formed(octets, events):
    expected = [(event,) if isinstance(event, str) else event for event in events]
    for connection in feed_all_ways(server, octets):
        assert join_data(connection.take_events()) == expected
        assert not connection.failed
        assert connection.last_stream_error is None
        # Whatever stands behind is still read rightly, and nothing was kept.
        connection.output()
        connection.feed(ping(b"in step!"))
        assert connection.output() == ping(b"in step!", ack=True)
        assert connection.held_octets <= 64


RESPONSES = [
    ("8.1 response with body and trailers",
     headers(1, RESPONSE) + data(1, b"ab", padding=1) + headers(1, TRAILERS, end_stream=True),
     [("response", 1, 200, RESPONSE, False), ("data", 1, b"ab", False), ("trailers", 1, TRAILERS)], "complete"),
    ("8.1 trailers alone", headers(1, RESPONSE + TRAILERS, end_stream=True),
     [("response", 1, 200, RESPONSE + TRAILERS, True)], "complete"),
    ("8.1 interim responses first", headers(1, [(b":status", b"100")]) * 2 + headers(1, RESPONSE, end_stream=True),
     [("response", 1, 100, [(b":status", b"100")], False)] * 2 + [("response", 1, 200, RESPONSE, True)], "complete"),
    ("8.1.1 no content, whatever its length says",
     headers(1, [(b":status", b"304"), (b"content-length", b"7")], end_stream=True),
     [("response", 1, 304, [(b":status", b"304"), (b"content-length", b"7")], True)], "complete"),
    ("8.7 refused", rst_stream(1, 7), [], "unprocessed"),
    ("6.4 reset", rst_stream(1, 8), [], "by_peer"),
    ("6.4 refused behind a response is a reset", headers(1, RESPONSE) + rst_stream(1, 7),
     [("response", 1, 200, RESPONSE, False)], "by_peer"),
    ("6.8 goaway below", goaway(0), [("goaway", 0, 0)], "unprocessed"),
]


@pytest.mark.parametrize(("octets", "events", "cause"), [c[1:] for c in RESPONSES], ids=[c[0] for c in RESPONSES])
def test_takes_responses(octets, events, cause):
    for connection in feed_all_ways(client, octets):
        *before, last = join_data(connection.take_events())
        assert before == events
        assert last[:3] == ("closed", 1, cause)
        assert connection.stream_count == connection.streams_in_use == 0


# ===== connection errors (§5.4.1) =====

BAD = [
    ("4.2 frame over 16,384", frame(frames.DATA, 0, 1, length=16385), FRAME_SIZE_ERROR),
    ("4.2 unknown frame over 16,384", frame(0x42, 0, 1, length=16385), FRAME_SIZE_ERROR),
    ("4.3 broken HPACK", headers(1, b"\xbf"), COMPRESSION_ERROR),
    ("4.3 broken HPACK of trailers", OPEN + headers(1, b"\x80", end_stream=True), COMPRESSION_ERROR),
    ("4.3 broken HPACK of a stream that was reset", headers(1, [(b"X", b"y")]) + headers(1, b"\xbf"),
     COMPRESSION_ERROR),
    ("5.1 DATA on an idle stream", data(1, b"a"), PROTOCOL_ERROR),
    ("5.1 RST_STREAM on an idle stream", rst_stream(1), PROTOCOL_ERROR),
    ("5.1 WINDOW_UPDATE on an idle stream", window_update(1, 1), PROTOCOL_ERROR),
    ("5.1 DATA on a stream of the server's", data(2, b"a"), PROTOCOL_ERROR),
    ("5.1 DATA behind the client's own reset", OPEN + rst_stream(1) + data(1, b"a"), STREAM_CLOSED),
    ("5.1 HEADERS behind the client's own reset", OPEN + rst_stream(1) + OPEN, STREAM_CLOSED),
    ("5.1.1 even id", headers(2), PROTOCOL_ERROR),
    ("5.1.1 lower id", headers(5) + headers(3), PROTOCOL_ERROR),
    ("6.1 DATA on stream 0", data(0, b"a"), PROTOCOL_ERROR),
    ("6.1 padding as long as the payload", OPEN + frame(frames.DATA, frames.PADDED, 1, b"\x04abc"), PROTOCOL_ERROR),
    ("6.1 no pad length", OPEN + frame(frames.DATA, frames.PADDED, 1), FRAME_SIZE_ERROR),
    ("6.2 HEADERS on stream 0", headers(0), PROTOCOL_ERROR),
    ("6.2 padding over the payload", frame(frames.HEADERS, 4 | 8, 1, b"\x09" + b"abc"), PROTOCOL_ERROR),
    ("6.2 no pad length", frame(frames.HEADERS, 4 | 8, 1), FRAME_SIZE_ERROR),
    ("6.2 no room for the priority", frame(frames.HEADERS, 4 | 0x20, 1, b"abcd"), FRAME_SIZE_ERROR),
    ("6.3 PRIORITY on stream 0", priority(0), PROTOCOL_ERROR),
    ("6.3 PRIORITY of a wrong length, stream idle", frame(frames.PRIORITY, 0, 1, b"abcd"), FRAME_SIZE_ERROR),
    ("5.3.1 PRIORITY on itself, stream idle", priority(1, 1), PROTOCOL_ERROR),
    ("6.4 RST_STREAM on stream 0", rst_stream(0), PROTOCOL_ERROR),
    ("6.4 RST_STREAM of a wrong length", OPEN + frame(frames.RST_STREAM, 0, 1, b"abc"), FRAME_SIZE_ERROR),
    ("6.5 SETTINGS on a stream", frame(frames.SETTINGS, 0, 1), PROTOCOL_ERROR),
    ("6.5 acknowledgement with a payload", frame(frames.SETTINGS, 1, 0, bytes(6)), FRAME_SIZE_ERROR),
    ("6.5 SETTINGS of a wrong length", frame(frames.SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    ("6.5.2 push neither 0 nor 1", settings((2, 2)), PROTOCOL_ERROR),
    ("6.5.2 window too large", settings((4, 2**31)), FLOW_CONTROL_ERROR),
    ("6.5.2 frame size too small", settings((5, 16383)), PROTOCOL_ERROR),
    ("6.5.2 frame size too large", settings((5, 2**24)), PROTOCOL_ERROR),
    ("6.6 PUSH_PROMISE", frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), PROTOCOL_ERROR),
    ("6.7 PING on a stream", frame(frames.PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    ("6.7 PING of a wrong length", frame(frames.PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    ("6.8 GOAWAY on a stream", frame(frames.GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    ("6.8 GOAWAY of a wrong length", frame(frames.GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    ("6.9 WINDOW_UPDATE of 0", window_update(0, 0), PROTOCOL_ERROR),
    ("6.9 WINDOW_UPDATE of a wrong length", frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    ("6.9.1 connection's window too large", window_update(0, 2**31 - 1), FLOW_CONTROL_ERROR),
    ("6.9.2 a stream's window too large by SETTINGS",
     OPEN + window_update(1, 2**31 - 1 - 65535) + settings((4, 65536)), FLOW_CONTROL_ERROR),
    ("6.10 CONTINUATION alone", continuation(1), PROTOCOL_ERROR),
    ("6.10 CONTINUATION behind a whole block", OPEN + continuation(1), PROTOCOL_ERROR),
    ("6.10 CONTINUATION of another stream", headers(1, b"", end_headers=False) + continuation(3), PROTOCOL_ERROR),
    ("6.10 DATA in a block", headers(1, b"", end_headers=False) + data(1, b"a"), PROTOCOL_ERROR),
    ("6.10 PING in a block", headers(1, b"", end_headers=False) + ping(), PROTOCOL_ERROR),
    ("6.10 unknown frame in a block", headers(1, b"", end_headers=False) + frame(0x42, 0, 1), PROTOCOL_ERROR),
    ("10.5.1 too many CONTINUATIONs", headers(1, b"", end_headers=False) + continuation(1) * 33, ENHANCE_YOUR_CALM),
]


@pytest.mark.parametrize(("octets", "code"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_connection_errors(octets, code):
    for connection in feed_all_ways(server, octets):
        events = connection.take_events()
        assert connection.failed
        assert [event[:2] for event in events if event[0] == "failed"] == [("failed", code)]
        # Whoever heard of a stream hears of its end.
        assert {e[1] for e in events if e[0] == "request"} == {e[1] for e in events if e[0] == "closed"}
        assert connection.stream_count == connection.streams_in_use == 0
        assert goaway_code(connection) == code
        # Nothing that comes behind does anything.
        connection.feed(ping() + OPEN + b"\0garbage")
        assert (connection.output(), connection.take_events(), connection.held_octets) == (b"", [], 0)


BAD_TO_CLIENT = [
    ("5.1 DATA on an idle stream", data(3, b"a"), PROTOCOL_ERROR),
    ("5.1 HEADERS on an idle stream", headers(3, RESPONSE), PROTOCOL_ERROR),
    ("5.1 HEADERS on a stream of the server's", headers(2, RESPONSE), PROTOCOL_ERROR),
    ("5.1 DATA behind the end", headers(1, RESPONSE, end_stream=True) + data(1, b"a"), STREAM_CLOSED),
    ("6.5.2 a server that wants to push", settings((2, 1)), PROTOCOL_ERROR),
    ("8.4 PUSH_PROMISE", frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("octets", "code"), [c[1:] for c in BAD_TO_CLIENT], ids=[c[0] for c in BAD_TO_CLIENT])
def test_connection_errors_at_the_client_end(octets, code):
    for connection in feed_all_ways(client, octets):
        assert connection.failed
        assert goaway_code(connection) == code
        assert [event[1] for event in connection.take_events() if event[0] == "closed"] == [1]


# ===== stream errors (§5.4.2): the connection and its other streams go on =====

FIELD = (b"a", b"b")
UNANNOUNCED = [
    ("5.3.1 depends on itself", headers(1, depends_on=1), PROTOCOL_ERROR),
    ("8.1.1 length without DATA", headers(1, [*REQUEST, (b"content-length", b"1")], end_stream=True), PROTOCOL_ERROR),
    ("8.2.1 upper case", headers(1, [*REQUEST, (b"Te", b"trailers")]), PROTOCOL_ERROR),
    ("8.2.1 line feed", headers(1, [*REQUEST, (b"a", b"b\nc")]), PROTOCOL_ERROR),
    ("8.2.2 connection-specific", headers(1, [*REQUEST, (b"connection", b"close")]), PROTOCOL_ERROR),
    ("8.3 pseudo-header field late", headers(1, [FIELD, *REQUEST]), PROTOCOL_ERROR),
    ("8.3.1 nothing there", headers(1, []), PROTOCOL_ERROR),
    ("8.5 CONNECT", headers(1, [(b":method", b"CONNECT"), (b":authority", b"a")]), PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("octets", "code"), [c[1:] for c in UNANNOUNCED], ids=[c[0] for c in UNANNOUNCED])
def test_malformed_requests_are_reset_before_anybody_hears_of_them(octets, code):
    for connection in feed_all_ways(server, octets):
        assert join_data(connection.take_events()) == []
        assert resets(connection) == [(1, code)]
        assert connection.streams_in_use == 0
        # What is under way on the stream is let pass; the next call is served.
        ended = octets[4] & frames.END_STREAM
        connection.feed(b"" if ended else data(1, b"a") + headers(1, TRAILERS, end_stream=True))
        connection.feed(rst_stream(1) + headers(3))
        assert join_data(connection.take_events()) == [("request", 3, REQUEST, False)]


ANNOUNCED = [
    ("5.1 DATA behind END_STREAM", WHOLE, data(1, b"a"), STREAM_CLOSED),
    ("5.1 HEADERS behind END_STREAM", WHOLE, headers(1, TRAILERS, end_stream=True), STREAM_CLOSED),
    ("5.3.1 PRIORITY on itself", OPEN, priority(1, 1), PROTOCOL_ERROR),
    ("6.3 PRIORITY of a wrong length", OPEN, frame(frames.PRIORITY, 0, 1, b"abcd"), FRAME_SIZE_ERROR),
    ("6.9 WINDOW_UPDATE of 0", OPEN, window_update(1, 0), PROTOCOL_ERROR),
    ("6.9.1 window too large", OPEN, window_update(1, 2**31 - 1), FLOW_CONTROL_ERROR),
    ("8.1 trailers without END_STREAM", OPEN, headers(1, TRAILERS), PROTOCOL_ERROR),
    ("8.1 pseudo-header field in trailers", OPEN, headers(1, [(b":path", b"/")], end_stream=True), PROTOCOL_ERROR),
    ("8.1.1 more DATA than content-length", UNARY, data(1, b"123456"), PROTOCOL_ERROR),
    ("8.1.1 less DATA than content-length", UNARY, data(1, b"1234", end_stream=True), PROTOCOL_ERROR),
    ("8.1.1 no DATA but trailers", UNARY, headers(1, TRAILERS, end_stream=True), PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("before", "octets", "code"), [c[1:] for c in ANNOUNCED], ids=[c[0] for c in ANNOUNCED])
def test_stream_errors(before, octets, code):
    for connection in feed_all_ways(server, before + octets):
        opened, *events = join_data(connection.take_events())
        assert opened[0] == "request"
        assert events == [("closed", 1, "by_error", code)]
        assert resets(connection) == [(1, code)]
        assert connection.streams_in_use == 0
        connection.feed(rst_stream(1) + window_update(1, 5) + headers(3))
        assert join_data(connection.take_events()) == [("request", 3, REQUEST, False)]


BAD_RESPONSES = [
    ("8.1 DATA before HEADERS", data(1, b"a"), PROTOCOL_ERROR),
    ("8.1 interim response that ends", headers(1, [(b":status", b"100")], end_stream=True), PROTOCOL_ERROR),
    ("8.1 trailers without END_STREAM", headers(1, RESPONSE) + headers(1, TRAILERS), PROTOCOL_ERROR),
    ("8.1.1 length without DATA", headers(1, [*RESPONSE, (b"content-length", b"1")], end_stream=True), PROTOCOL_ERROR),
    ("8.3.2 no status", headers(1, [FIELD]), PROTOCOL_ERROR),
    ("8.6 status 101", headers(1, [(b":status", b"101")]), PROTOCOL_ERROR),
    ("8.2.2 connection-specific", headers(1, [*RESPONSE, (b"te", b"trailers")]), PROTOCOL_ERROR),
    ("10.5 interim responses without end", headers(1, [(b":status", b"103")]) * 33, ENHANCE_YOUR_CALM),
    ("6.9.1 more than the window", headers(1, RESPONSE) + data(1, bytes(16384)) * 4, FLOW_CONTROL_ERROR),
]


@pytest.mark.parametrize(("octets", "code"), [c[1:] for c in BAD_RESPONSES], ids=[c[0] for c in BAD_RESPONSES])
def test_stream_errors_at_the_client_end(octets, code):
    for connection in feed_all_ways(client, octets):
        assert join_data(connection.take_events())[-1] == ("closed", 1, "by_error", code)
        assert resets(connection) == [(1, code)]
        assert not connection.failed
        assert connection.streams_in_use == 0


def test_a_head_has_no_content():
    connection = client()
    connection.expect_no_content(1)
    connection.feed(headers(1, [*RESPONSE, (b"content-length", b"9")], end_stream=True))
    assert join_data(connection.take_events())[-1] == ("closed", 1, "complete", 0)


# ===== the preface (§3.4) =====


def test_the_server_is_silent_until_the_preface_is_whole():
    connection = new_server()
    for octet in frames.PREFACE:
        assert connection.output() == b""
        connection.feed(bytes([octet]))
    first = next(frames.parse(connection.output()))
    assert first[:3] == (frames.SETTINGS, 0, 0)
    assert struct.pack(">HI", frames.MAX_CONCURRENT_STREAMS, 1000) in first[3]


def test_the_client_sends_its_preface_at_once():
    connection = new_client(stream_window=1000, header_table_size=100)
    octets = connection.output()
    assert octets.startswith(frames.PREFACE)
    (type, _, _, payload), (next_type, _, _, increment) = frames.parse(octets)
    assert (type, next_type) == (frames.SETTINGS, frames.WINDOW_UPDATE)
    assert dict(struct.iter_unpack(">HI", payload)) == {
        frames.ENABLE_PUSH: 0,
        frames.HEADER_TABLE_SIZE: 100,
        frames.INITIAL_WINDOW_SIZE: 1000,
        frames.MAX_HEADER_LIST_SIZE: 131072,
    }
    assert struct.unpack(">I", increment) == (4194304 - 65535,)


OTHERS = [
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"PRI * HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00" + bytes(600),
    frames.PREFACE[:-1] + b"x",
]


@pytest.mark.parametrize("octets", OTHERS)
def test_what_is_not_http2_is_handed_over_and_gets_no_frames(octets):
    for reads in [[octets], [octets[:2], octets[2:]], [octets[i : i + 1] for i in range(len(octets))]]:
        connection = new_server()
        for read in reads:
            connection.feed(read)
        (kind, seen), *rest = [e for e in connection.take_events() if e[0] != "output"]
        assert kind == "bad_preface"
        assert octets.startswith(seen)
        assert len(seen) == min(len(octets), 256) or len(reads) > 1
        assert [event[0] for event in rest] == ["failed"]
        assert connection.output() == b""


@pytest.mark.parametrize("octets", [ping(), settings_ack(), headers(1), frame(0x42, 0, 0)])
@pytest.mark.parametrize("is_client", [False, True])
def test_the_first_frame_is_settings(octets, is_client):
    connection = new_client() if is_client else new_server()
    connection.feed(octets if is_client else frames.PREFACE + octets)
    assert goaway_code(connection) == PROTOCOL_ERROR


def test_settings_are_acknowledged_and_told():
    connection = new_server()
    connection.feed(
        frames.PREFACE + settings((3, 7), (4, 1000), (5, 20000), (6, 5000), (4, 2000)) + settings((1, 0))
    )
    assert [e[0] for e in connection.take_events()] == ["ready", "settings", "output"]
    assert connection.output().endswith(settings_ack() * 2)
    assert connection.peer_settings == {
        "max_concurrent_streams": 7, "initial_window": 2000, "max_frame_size": 20000, "max_header_list_size": 5000,
    }


def test_pings_are_answered_with_what_they_hold():
    connection = server()
    connection.feed(ping(b"abcdefgh") + ping(b"ijklmnop"))
    assert connection.output() == ping(b"abcdefgh", ack=True) + ping(b"ijklmnop", ack=True)
    assert connection.take_events() == [("output",)]
