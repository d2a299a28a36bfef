"""How streams begin and end (RFC 9113 §5.1, §5.4, §6.8), limits on them, and what hooks may do meanwhile."""

import gc

import pytest

from pygw.http2.connection_options import ConnectionOptions
from pygw.http2.recording_connection import RecordingConnection
from pygw.http2.stream import StreamPool
from tests.doubles import frames
from tests.doubles.engine import (
    client_with_streams,
    exchange,
    goaway_code,
    join_data,
    ready_client,
    ready_pair,
    ready_server,
    resets,
    sent,
)
from tests.doubles.frames import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    REFUSED_STREAM,
    REQUEST,
    RESPONSE,
    STREAM_CLOSED,
    TRAILERS,
    data,
    goaway,
    headers,
    ping,
    rst_stream,
    settings,
    window_update,
)


def closed(connection):
    return [event[1:] for event in connection.take_events() if event[0] == "closed"]


# ===== a call from end to end =====


def test_a_call():
    client, server = ready_pair()
    client.send_headers(client.open(), REQUEST)
    client.send(1, b"hello", True)
    exchange(client, server)
    assert join_data(server.take_events()) == [("request", 1, REQUEST, False), ("data", 1, b"hello", True)]
    server.send_headers(1, RESPONSE)
    server.send(1, b"world")
    server.send_trailing(1, TRAILERS)
    exchange(client, server)
    assert join_data(client.take_events()) == [
        ("response", 1, 200, RESPONSE, False),
        ("data", 1, b"world", False),
        ("trailers", 1, TRAILERS),
        ("closed", 1, "complete", 0),
    ]
    assert join_data(server.take_events()) == [("closed", 1, "complete", 0)]
    assert client.streams_in_use == 0


def test_request_trailers():
    client, server = ready_pair()
    client.send_headers(client.open(), REQUEST)
    client.send_trailing(1, [(b"checksum", b"1")])
    exchange(client, server)
    assert join_data(server.take_events())[1:] == [("trailers", 1, [(b"checksum", b"1")])]


def test_a_reset_by_the_owner_is_not_told_to_it():
    for end in (0, 1):
        pair = ready_pair()
        client, server = pair
        client.send_headers(client.open(), REQUEST)
        exchange(client, server)
        pair[end].take_events()
        pair[end].reset(1, CANCEL)
        assert closed(pair[end]) == []
        exchange(client, server)
        assert closed(pair[end]) == []
        assert closed(pair[1 - end]) == [(1, "by_peer", CANCEL)]
        assert client.streams_in_use == 0


def test_an_early_response_ends_with_no_error():
    client, server = ready_pair()
    client.send_headers(client.open(), REQUEST)
    client.send(1, bytes(1000))
    exchange(client, server)
    server.send_headers(1, RESPONSE + TRAILERS, True)
    server.finish(1)
    assert closed(server) == [(1, "complete", 0)]
    exchange(client, server)
    assert join_data(client.take_events()) == [
        ("response", 1, 200, RESPONSE + TRAILERS, True), ("closed", 1, "by_peer", 0),
    ]


# ===== limits =====


def test_streams_over_our_limit_are_refused_and_hpack_stays_in_step():
    server = ready_server(max_concurrent_streams=2)
    # As a client does that has not seen our SETTINGS yet.
    impatient = ready_client()
    for number in range(4):
        impatient.send_headers(impatient.open(), [*REQUEST, (b"number", b"%d" % number)], True)
    server.feed(impatient.output())
    assert [event[1] for event in server.take_events() if event[0] == "request"] == [1, 3]
    assert resets(server) == [(5, REFUSED_STREAM), (7, REFUSED_STREAM)]
    server.reset(1)
    last = [*REQUEST, (b"number", b"3")]
    impatient.reset(3)
    impatient.send_headers(impatient.open(), last, True)
    server.feed(impatient.output())
    assert ("request", 9, last, True) in server.take_events()


def test_the_peers_limit_is_kept():
    connection = client_with_streams(2, (frames.MAX_CONCURRENT_STREAMS, 2))
    assert connection.open() is None
    assert not connection.can_open_stream
    connection.feed(settings((3, 3)))
    assert ("stream_available",) in connection.take_events()
    assert connection.open() == 5
    connection.send_headers(5, REQUEST)
    connection.feed(rst_stream(1))
    assert [e[0] for e in connection.take_events() if e[0] != "output"] == ["closed", "stream_available"]
    assert connection.open() == 7
    connection.feed(settings((3, 0)))
    assert connection.open() is None


def test_an_id_that_was_never_sent_is_used_again():
    connection = client_with_streams(1)
    assert connection.open() == 3
    connection.reset(3)
    assert connection.output() == b""
    assert connection.open() == 3


def test_header_lists_over_the_limit():
    server = ready_server(max_header_list_size=1000)
    long = [*REQUEST, (b"a", b"b" * 1000)]
    server.feed(headers(1, long) + headers(3) + headers(3, [(b"a", b"b" * 1000)], end_stream=True))
    assert join_data(server.take_events()) == [
        ("too_large", 1, False), ("request", 3, REQUEST, False), ("closed", 3, "by_error", ENHANCE_YOUR_CALM),
    ]
    server.send_headers(1, [*RESPONSE, (b"grpc-status", b"8")], True)
    server.finish(1)
    assert closed(server) == [(1, "complete", 0)]
    client = client_with_streams(2, max_header_list_size=1000)
    client.feed(headers(1, [*RESPONSE, (b"a", b"b" * 1000)]))
    client.feed(headers(3, RESPONSE) + headers(3, [(b"a", b"b" * 1000)], end_stream=True))
    assert closed(client) == [(1, "too_large", CANCEL), (3, "too_large", CANCEL)]
    assert resets(client) == [(1, CANCEL), (3, CANCEL)]


# ===== frames on closed streams =====


def test_frames_on_streams_that_we_reset_are_let_pass():
    server = ready_server()
    for stream_id in range(1, 201, 2):
        server.feed(headers(stream_id))
        server.reset(stream_id)
    server.take_events()
    for stream_id in range(1, 201, 2):
        server.feed(data(stream_id, bytes(1000)) + window_update(stream_id, 5))
        server.feed(headers(stream_id, TRAILERS, end_stream=True) + rst_stream(stream_id))
    assert not server.failed
    assert join_data(server.take_events()) == []
    server.output()
    server.feed(ping())
    assert server.output() == ping(ack=True)


def test_but_not_beyond_their_windows():
    server = ready_server()
    server.feed(headers(1))
    server.reset(1)
    server.feed(data(1, bytes(16384)) * 3 + data(1, bytes(16383)))
    assert not server.failed
    server.feed(data(1, b"a"))
    assert goaway_code(server) == STREAM_CLOSED


@pytest.mark.parametrize("late", [data(1, b"a"), headers(1, TRAILERS, end_stream=True)])
def test_frames_behind_both_ends_are_errors(late):
    server = ready_server()
    server.feed(headers(1, end_stream=True))
    server.send_headers(1, RESPONSE, True)
    assert closed(server) == [(1, "complete", 0)]
    server.feed(window_update(1, 5) + rst_stream(1) + frames.priority(1))
    assert not server.failed
    server.output()
    server.feed(late)
    assert goaway_code(server) == STREAM_CLOSED


# ===== the end of a connection =====


def test_goaway_of_the_server():
    client = client_with_streams(4)
    client.send(5, b"a")
    client.feed(headers(1, RESPONSE) + goaway(3, 0, b"bye"))
    events = [event for event in client.take_events() if event[0] in ("goaway", "closed")]
    assert events[0] == ("goaway", 3, 0)
    assert sorted(events[1:]) == [("closed", 5, "unprocessed", 0), ("closed", 7, "unprocessed", 0)]
    assert client.open() is None
    # What is left goes on.
    assert client.send(1, b"b", True) == 1
    client.feed(data(1, b"c", end_stream=True))
    assert closed(client) == [(1, "complete", 0)]
    assert client.stream_count == client.streams_in_use == 1


def test_two_goaways_of_ours():
    server = ready_server()
    server.feed(headers(1))
    server.announce_going_away()
    server.feed(headers(3))
    server.go_away()
    assert [(t, payload) for t, _, _, payload in sent(server)] == [
        (frames.GOAWAY, b"\x7f\xff\xff\xff" + bytes(4)), (frames.GOAWAY, b"\0\0\0\x03" + bytes(4)),
    ]
    server.take_events()
    # Later streams are ignored, HPACK stays in step, what is open goes on.
    server.feed(headers(5, b"\x40\x01a\x01b") + data(5, b"x") + window_update(5, 1) + rst_stream(5))
    server.feed(data(1, b"y"))
    assert join_data(server.take_events()) == [("data", 1, b"y", False)]
    assert server.output() == b""
    server.feed(headers(3, b"\xbe", end_stream=True))
    assert join_data(server.take_events()) == [("trailers", 3, [(b"a", b"b")])]


def test_a_lost_connection_ends_all_and_tells_once():
    for make in (lambda: ready_server(), lambda: client_with_streams(3)):
        connection = make()
        if not connection.is_client:
            connection.feed(headers(1) + headers(3) + headers(5))
            connection.take_events()
        connection.lose()
        assert sorted(closed(connection)) == [(n, "connection", 0) for n in (1, 3, 5)]
        connection.lose()
        connection.feed(ping())
        assert connection.take_events() == []
        assert connection.streams_in_use == 0
        assert connection.open() is None


def test_giving_up_says_why():
    client, server = ready_pair()
    client.send_headers(client.open(), REQUEST)
    exchange(client, server)
    server.take_events()
    server.give_up(2)
    assert join_data(server.take_events()) == [("closed", 1, "connection", 2), ("failed", 2, "given up")]
    exchange(client, server)
    assert [e for e in client.take_events() if e[0] == "goaway"] == [("goaway", 1, 2)]


def test_a_connection_that_nobody_closed_gives_its_streams_back():
    pool = StreamPool()
    connection = RecordingConnection(ConnectionOptions(), pool)
    connection.begin()
    connection.feed(frames.PREFACE + settings() + headers(1) + headers(3) + data(1, b"a"))
    assert pool.used == 2
    del connection
    gc.collect()
    assert pool.used == 0


def test_a_cycle_of_connections_is_collected():
    pool = StreamPool()
    connection = RecordingConnection(ConnectionOptions(), pool)
    connection.begin()
    connection.feed(frames.PREFACE + settings((4, 0)) + headers(1))
    connection.send_headers(1, RESPONSE)
    connection.send(1, bytes(1000))
    connection.on_event = [connection].append
    del connection
    assert gc.collect() > 0


# ===== what hooks may do =====


class Interloper:
    """Does something once, from inside of the first hook of a kind."""

    def __init__(self, connection, kind, act):
        self.kind, self.act, self.done = kind, act, False
        connection.on_event = self

    def __call__(self, event):
        if event[0] == self.kind and not self.done:
            self.done = True
            self.act()


ACTS = {
    "reset it": lambda c: c.reset(1) if c.is_open(1) else None,
    "reset another": lambda c: c.reset(3) if c.is_open(3) else None,
    "reset all": lambda c: [c.reset(n) for n in (1, 3, 5) if c.is_open(n)],
    "finish it": lambda c: c.finish(1) if c.is_open(1) else None,
    "end it": lambda c: (c.send_headers(1, RESPONSE + TRAILERS, True) if not c.is_client else c.send(1, b"", True))
    if c.is_open(1) else None,
    "fail": lambda c: c.give_up(2),
    "lose": lambda c: c.lose(),
    "go away": lambda c: c.go_away(),
    "take the output": lambda c: c.output(),
    "ping": lambda c: c.send_ping(1),
    "drain": lambda c: c.drain(1, 10**9) if c.is_open(1) else None,
}
BUSY_SERVER = (
    headers(1) + headers(3) + headers(5) + data(1, b"a" * 100) + data(3, b"b", padding=5) + data(1, b"c" * 5)
    + window_update(1, 5) + window_update(0, 100) + settings((4, 70000)) + data(5, b"d", end_stream=True)
    + headers(1, TRAILERS, end_stream=True) + rst_stream(3) + ping() + frames.ping(ack=True) + goaway(0)
)  # fmt: skip


def check_ends(connection, opened, owner_ended=()):
    """Every stream that was opened has ended, once."""
    connection.on_event = None
    connection.lose()
    ends = [event[1] for event in connection.events if event[0] == "closed"]
    assert len(ends) == len(set(ends))
    assert set(ends) | set(owner_ended) >= set(opened)
    assert connection.streams_in_use == 0
    assert connection.stream_count == 0


@pytest.mark.parametrize("kind", ["request", "data", "trailers", "closed", "output", "settings", "stream_available",
                                  "ping_ack", "goaway"])
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("piecewise", [False, True])
def test_hooks_of_a_server_may_do_anything(kind, act, piecewise):
    connection = ready_server()
    interloper = Interloper(connection, kind, lambda: ACTS[act](connection))
    for read in [BUSY_SERVER[i : i + 1] for i in range(len(BUSY_SERVER))] if piecewise else [BUSY_SERVER]:
        connection.feed(read)
    assert interloper.done or kind == "stream_available"
    opened = {event[1] for event in connection.events if event[0] == "request"}
    check_ends(connection, opened, {1, 3, 5} if act.startswith("reset") else ())


BUSY_CLIENT = (
    headers(1, [(b":status", b"100")]) + headers(1, RESPONSE) + data(1, b"a" * 100) + headers(3, RESPONSE)
    + window_update(0, 100000) + window_update(1, 50) + window_update(3, 50) + settings((3, 1), (4, 40))
    + headers(1, TRAILERS, end_stream=True) + data(3, b"b", end_stream=True) + goaway(3) + rst_stream(3)
)  # fmt: skip


@pytest.mark.parametrize("kind", ["response", "data", "trailers", "closed", "output", "settings", "stream_available",
                                  "drained", "goaway"])
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("piecewise", [False, True])
def test_hooks_of_a_client_may_do_anything(kind, act, piecewise):
    connection = client_with_streams(3, (frames.INITIAL_WINDOW_SIZE, 20))
    for stream_id in (1, 3, 5):
        connection.send(stream_id, bytes(200))
    connection.output()
    connection.take_events()
    interloper = Interloper(connection, kind, lambda: ACTS[act](connection))
    for read in [BUSY_CLIENT[i : i + 1] for i in range(len(BUSY_CLIENT))] if piecewise else [BUSY_CLIENT]:
        connection.feed(read)
    assert interloper.done
    check_ends(connection, {1, 3, 5}, {1, 3, 5} if act.startswith("reset") else ())


def test_a_hook_may_open_streams_while_others_end():
    connection = client_with_streams(3, (frames.MAX_CONCURRENT_STREAMS, 3))

    def open_more(event):
        if event[0] == "stream_available":
            while connection.can_open_stream and connection.stream_count < 3:
                connection.send_headers(connection.open(), REQUEST)

    connection.on_event = open_more
    connection.feed(rst_stream(1) + rst_stream(3))
    assert connection.stream_count == 3
    connection.reset(5)
    assert connection.stream_count == 3
    connection.take_events()
    connection.lose()
    assert sorted(n for n, _, _ in closed(connection)) == [7, 9, 11]


def test_a_stream_may_end_between_two_reads_of_one_frame():
    connection = ready_server(connection_window=65536)
    connection.feed(headers(1) + headers(3))
    frame = data(1, bytes(16384), padding=None)
    connection.feed(frame[:1000])
    connection.reset(1)
    connection.take_events()
    connection.feed(frame[1000:] + data(3, b"next"))
    assert join_data(connection.take_events()) == [("data", 3, b"next", False)]
    connection.drain(3, 4)
    # Every octet of it is given back or about to be.
    connection.feed(data(3, bytes(16384)))
    connection.drain(3, 16384)
    assert connection.windows[1] == 65536


def test_two_connections_share_a_pool_and_end_each_others_streams():
    client, server = ready_pair()
    other, backend = ready_pair()
    client.send_headers(client.open(), REQUEST)
    other.send_headers(other.open(), REQUEST)
    exchange(other, backend)
    server.on_event = lambda event: other.reset(1) if other.is_open(1) else None
    other.on_event = lambda event: server.reset(1) if server.is_open(1) else None
    exchange(client, server)
    assert server.streams_in_use == 0 or not server.is_open(1)
    exchange(other, backend)
    assert backend.streams_in_use == 0


def test_an_exception_in_a_hook_passes_and_leaves_memory_right():
    connection = ready_server()

    def fail(event):
        raise ZeroDivisionError

    connection.on_event = fail
    with pytest.raises(ZeroDivisionError):
        connection.feed(headers(1) + headers(3))
    connection.on_event = None
    connection.lose()
    assert connection.streams_in_use == 0


def test_a_header_block_that_was_broken_off_ends_the_connection():
    """HPACK: the peer could not follow any more. And what stands in the output are no whole frames."""
    connection = ready_server()
    connection.feed(headers(1, REQUEST) + headers(3, REQUEST))
    with pytest.raises(MemoryError):
        connection.break_off(1, RESPONSE)
    with pytest.raises(RuntimeError, match="header block"):
        connection.send_headers(3, RESPONSE)
    written = sent(connection)
    assert [type for type, _, _, _ in written] == [frames.GOAWAY]
    assert connection.failed
    assert [event[:3] for event in connection.take_events() if event[0] == "closed"] == [
        ("closed", 3, "connection"), ("closed", 1, "connection"),
    ]
