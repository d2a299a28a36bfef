"""Flow control both ways (RFC 9113 §5.2, §6.9), what waits for it, and how header blocks are framed (§6.10)."""

import struct

import pytest

from pygw.settings import Settings
from tests.doubles import frames
from tests.doubles.engine import (
    client_with_streams,
    exchange,
    goaway_code,
    join_data,
    new_server,
    ready_client,
    ready_pair,
    ready_server,
    resets,
    sent,
)
from tests.doubles.frames import (
    DATA,
    FLOW_CONTROL_ERROR,
    HEADERS,
    REQUEST,
    RESPONSE,
    RST_STREAM,
    TRAILERS,
    WINDOW_UPDATE,
    data,
    headers,
    settings,
    settings_ack,
    window_update,
)


def data_sent(connection):
    """[(stream id, length, end_stream)] of the DATA in its output, taken."""
    return [
        (stream_id, len(payload), bool(flags & frames.END_STREAM))
        for type, flags, stream_id, payload in sent(connection)
        if type == DATA
    ]


def updates_sent(connection):
    return [
        (stream_id, struct.unpack(">I", payload)[0])
        for type, _, stream_id, payload in sent(connection)
        if type == WINDOW_UPDATE
    ]


def drained(connection):
    return [event[1:] for event in connection.take_events() if event[0] == "drained"]


# ===== sending =====


def test_data_goes_out_at_once_in_frames_that_every_peer_takes():
    connection = client_with_streams(1)
    assert connection.send(1, bytes(40000), True) == 40000
    assert data_sent(connection) == [(1, 16384, False), (1, 16384, False), (1, 7232, True)]
    assert connection.windows[0] == 65535 - 40000
    assert connection.octets == (0, 40000)


def test_data_waits_for_the_streams_window():
    connection = client_with_streams(1, window=10)
    assert connection.send(1, b"abcdefghijklmno") == 10
    assert connection.send(1, b"pq", True) == 0
    assert data_sent(connection) == [(1, 10, False)]
    connection.feed(window_update(1, 3))
    assert data_sent(connection) == [(1, 3, False)]
    connection.feed(window_update(1, 100))
    assert list(sent(connection)) == [(DATA, frames.END_STREAM, 1, b"nopq")]
    assert drained(connection) == [(1, 3), (1, 4)]
    assert connection.held_octets <= 64


def test_data_waits_for_the_connections_window():
    connection = client_with_streams(2, window=1000000)
    assert connection.send(1, bytes(65530)) == 65530
    assert connection.send(3, b"123456789") == 5
    connection.output()
    connection.feed(window_update(0, 4))
    assert data_sent(connection) == [(3, 4, False)]


def test_an_empty_end_needs_no_window():
    connection = client_with_streams(1, window=0)
    assert connection.send(1, b"", True) == 0
    assert data_sent(connection) == [(1, 0, True)]


def test_an_empty_end_waits_behind_data():
    connection = client_with_streams(1, window=0)
    connection.send(1, b"a")
    connection.send(1, b"", True)
    assert data_sent(connection) == []
    connection.feed(window_update(1, 1))
    assert data_sent(connection) == [(1, 1, True)]


def test_trailers_wait_behind_data():
    server = ready_server((frames.INITIAL_WINDOW_SIZE, 2))
    server.feed(headers(1, end_stream=True))
    server.send_headers(1, RESPONSE)
    server.send(1, b"abc")
    server.send_trailing(1, TRAILERS)
    assert [frame[0] for frame in sent(server) if frame[0] in (HEADERS, DATA)] == [HEADERS, DATA]
    assert server.is_open(1)
    server.feed(window_update(1, 1))
    assert [(type, flags) for type, flags, _, _ in sent(server)] == [(DATA, 0), (HEADERS, 5)]
    assert [event for event in server.take_events() if event[0] == "closed"] == [("closed", 1, "complete", 0)]
    assert server.streams_in_use == 0


def test_waiting_streams_take_turns():
    connection = client_with_streams(3, window=1000000)
    connection.send(1, bytes(65535))
    for stream_id in (1, 3, 5):
        assert connection.send(stream_id, bytes(40000), True) == 0
    connection.output()
    connection.feed(window_update(0, 1000000))
    assert data_sent(connection) == [
        (1, 16384, False), (3, 16384, False), (5, 16384, False),
        (1, 16384, False), (3, 16384, False), (5, 16384, False),
        (1, 7232, True), (3, 7232, True), (5, 7232, True),
    ]  # fmt: skip


def test_newcomers_do_not_overtake_those_that_wait():
    connection = client_with_streams(3, window=1000000)
    connection.send(1, bytes(65535))
    connection.send(3, b"x" * 20000)
    connection.output()
    connection.block_writes()
    connection.feed(window_update(0, 100000))
    assert connection.send(5, b"y") == 0
    connection.resume_writes()
    assert data_sent(connection) == [(3, 16384, False), (5, 1, False), (3, 3616, False)]


def test_a_blocked_transport_holds_data_and_nothing_else():
    connection = client_with_streams(2)
    connection.block_writes()
    assert connection.send(1, b"abc") == 0
    connection.send_trailing(1, TRAILERS)
    connection.send(3, b"", True)
    connection.send_headers(connection.open(), REQUEST)
    connection.send_ping(1)
    assert [frame[:3] for frame in sent(connection)] == [(DATA, 1, 3), (HEADERS, 4, 5), (frames.PING, 0, 0)]
    connection.resume_writes()
    assert [frame[:3] for frame in sent(connection)] == [(DATA, 0, 1), (HEADERS, 5, 1)]


def test_settings_move_the_windows_of_open_streams_below_zero_too():
    connection = client_with_streams(1, window=100)
    connection.send(1, bytes(150))
    connection.feed(settings((4, 30)))
    assert connection.stream_state(1)["send_window"] == -70
    connection.output()
    connection.feed(window_update(1, 70))
    assert data_sent(connection) == []
    connection.feed(window_update(1, 20))
    assert data_sent(connection) == [(1, 20, False)]
    connection.feed(settings((4, 35)))
    assert data_sent(connection) == [(1, 5, False)]
    connection.feed(settings((4, 1000)))
    assert data_sent(connection) == [(1, 25, False)]
    assert connection.send(connection.open() or 0, b"") == 0


def test_settings_may_shrink_a_window_while_the_stream_waits_for_the_connection():
    connection = client_with_streams(2, window=70000)
    connection.send(1, bytes(65535))
    connection.send(3, bytes(10))
    connection.output()
    connection.feed(settings((4, 0)) + window_update(0, 100))
    assert data_sent(connection) == []
    connection.feed(window_update(3, 10))
    assert data_sent(connection) == [(3, 10, False)]


def test_pending_octets_stay_in_order_however_they_come_and_go():
    connection = client_with_streams(1, window=0)
    expected, got, value = b"", b"", 0
    for turn in range(400):
        piece = bytes((value + i) % 251 for i in range(turn % 37))
        value += len(piece)
        expected += piece
        connection.send(1, piece)
        connection.feed(window_update(1, turn % 29 + 1))
        got += b"".join(payload for type, _, _, payload in sent(connection) if type == DATA)
        assert connection.held_octets < 4096
    connection.feed(window_update(1, 100000))
    got += b"".join(payload for type, _, _, payload in sent(connection) if type == DATA)
    assert got == expected
    assert connection.stream_state(1)["pending"] == 0


@pytest.mark.parametrize("behind", ["send", "send_headers", "send_trailing"])
def test_nothing_can_be_sent_behind_the_end(behind):
    connection = client_with_streams(1)
    connection.send(1, b"a", True)
    with pytest.raises(RuntimeError, match="behind the end of stream 1"):
        getattr(connection, behind)(1, b"b" if behind == "send" else TRAILERS)


# ===== header blocks =====


@pytest.mark.parametrize("size", [10, 16384, 16385, 40000, 100000])
def test_long_header_blocks_are_continued(size):
    client, server = ready_pair()
    fields = [*REQUEST, (b"long", b"\xff" * size)]  # octets that Huffman makes no shorter
    client.send_headers(client.open(), fields, True)
    octets = client.output()
    written = list(frames.parse(octets))
    assert all(len(payload) <= 16384 for _, _, _, payload in written)
    assert [type for type, _, _, _ in written] == [HEADERS] + [frames.CONTINUATION] * (len(written) - 1)
    assert [flags & frames.END_HEADERS for _, flags, _, _ in written] == [0] * (len(written) - 1) + [4]
    assert written[0][1] & frames.END_STREAM
    server.feed(octets)
    assert server.take_events() == [("request", 1, fields, True)]


def test_header_blocks_use_the_frame_size_that_the_peer_allows():
    connection = ready_client((frames.MAX_FRAME_SIZE, 50000))
    connection.send_headers(connection.open(), [*REQUEST, (b"long", b"\xff" * 40000)])
    assert [type for type, _, _, _ in sent(connection)] == [HEADERS]


# ===== receiving =====


def test_windows_come_back_at_half():
    connection = ready_server(stream_window=100, connection_window=100000)
    connection.feed(headers(1) + data(1, bytes(60)))
    connection.drain(1, 49)
    assert updates_sent(connection) == []
    connection.drain(1, 1)
    assert updates_sent(connection) == [(1, 50)]
    assert connection.stream_state(1)["receive_window"] == 90
    assert connection.windows[1] == 100000 - 60


def test_the_connections_window_comes_back_as_the_owner_drains():
    connection = ready_server(connection_window=65536, stream_window=65535)
    connection.feed(headers(1) + headers(3))
    connection.feed(data(1, bytes(16384)) * 3)
    assert connection.windows[1] == 65536 - 3 * 16384
    connection.drain(1, 32768)
    assert (0, 32768) in updates_sent(connection)


def test_or_at_receipt():
    connection = client_with_streams(1, connection_window=65536, stream_window=65535)
    connection.feed(headers(1, RESPONSE) + data(1, bytes(16384)) * 2)
    assert updates_sent(connection) == [(0, 32768)]


@pytest.mark.parametrize("is_client", [False, True])
def test_what_nobody_drains_any_more_comes_back_to_the_connection(is_client):
    for end in ("reset", "by_peer", "finish"):
        if is_client:
            connection = client_with_streams(1, connection_window=65536)
            connection.feed(headers(1, RESPONSE))
        else:
            connection = ready_server(connection_window=65536)
            connection.feed(headers(1))
        connection.feed(data(1, bytes(16384)) * 3)
        if end == "by_peer":
            connection.feed(frames.rst_stream(1))
        else:
            getattr(connection, end)(1)
        # Half of it and more is outstanding, so that it is given back with this.
        assert connection.windows[1] >= 65536 - 32768


def test_data_of_streams_that_are_gone_comes_back_at_once():
    connection = ready_server(connection_window=65536)
    connection.feed(headers(1) + headers(3))
    connection.reset(1)
    connection.reset(3)
    connection.output()
    connection.feed(data(1, bytes(16384)) * 2)
    assert updates_sent(connection) == [(0, 32768)]
    assert connection.octets[0] == 0
    assert not connection.failed


def test_padding_comes_back_at_once():
    connection = ready_server(stream_window=65535, connection_window=65536)
    connection.feed(headers(1))
    for _ in range(130):
        connection.feed(data(1, b"a", padding=255))
        connection.drain(1, 1)
    state = connection.stream_state(1)
    assert state["undrained"] == 0
    assert state["receive_window"] > 65535 // 2
    assert connection.windows[1] > 32768


def test_a_stream_window_is_kept():
    connection = ready_server(stream_window=100)
    connection.feed(headers(1) + headers(3) + data(1, bytes(100)))
    connection.feed(data(1, b"a"))
    assert ("closed", 1, "by_error", FLOW_CONTROL_ERROR) in connection.take_events()
    assert resets(connection) == [(1, FLOW_CONTROL_ERROR)]
    assert connection.is_open(3)


def test_what_was_on_its_way_behind_an_overrun_is_discarded():
    """RFC 9113 §5.1: the peer has not heard of the reset yet. §6.9: it counts for the connection's window."""
    connection = ready_server(stream_window=100, connection_window=65535)
    connection.feed(headers(1) + headers(3) + data(1, bytes(101)))
    assert resets(connection) == [(1, FLOW_CONTROL_ERROR)]
    connection.feed(data(1, bytes(16384)) * 3)
    assert not connection.failed
    # Given back at half the connection's window.
    assert any(type == WINDOW_UPDATE and stream_id == 0 for type, _, stream_id, _ in sent(connection))
    connection.take_events()
    connection.feed(data(3, b"ask"))
    assert ("data", 3, b"ask", False) in connection.take_events()


def test_whoever_never_heeds_the_reset_of_an_overrun_is_closed():
    connection = ready_server(stream_window=100, connection_window=65535)
    connection.feed(headers(1) + data(1, bytes(101)))
    for _ in range(5):
        connection.feed(data(1, bytes(16384)))
    assert goaway_code(connection) == frames.STREAM_CLOSED


def test_the_connections_window_is_kept():
    connection = ready_server(stream_window=1048576, connection_window=65535)
    connection.feed(headers(1) + data(1, bytes(16384)) * 3 + data(1, bytes(16383)))
    assert not connection.failed
    connection.feed(data(1, b"a"))
    assert goaway_code(connection) == FLOW_CONTROL_ERROR


def test_padding_counts():
    connection = ready_server(stream_window=10)
    connection.feed(headers(1) + data(1, b"a", padding=9))
    assert resets(connection) == [(1, FLOW_CONTROL_ERROR)]


def test_a_small_window_holds_from_the_acknowledgement_on():
    connection = new_server(stream_window=100, stream_window_max=100)
    connection.feed(frames.PREFACE + settings() + headers(1) + headers(3) + data(1, bytes(1000)))
    assert connection.stream_state(1)["receive_window"] == 65535 - 1000
    connection.feed(settings_ack())
    assert connection.stream_state(1)["receive_window"] == 100 - 1000
    assert connection.stream_state(3)["receive_window"] == 100
    connection.drain(1, 1000)
    assert connection.stream_state(1)["receive_window"] == 100
    connection.feed(headers(5) + data(5, bytes(101)))
    assert (5, FLOW_CONTROL_ERROR) in resets(connection)


def test_more_cannot_be_drained_than_came():
    connection = ready_server(stream_window=100)
    connection.feed(headers(1) + data(1, bytes(60)))
    connection.drain(1, 1000)
    connection.drain(1, 1000)
    assert connection.stream_state(1)["receive_window"] == 100


def pour(connection, octets, *, drains=True, stream_id=1):
    """Sends a stream as much, in frames as its windows allow, and drains it or does not."""
    while octets:
        size = min(octets, 16384, connection.stream_state(stream_id)["receive_window"])
        connection.feed(data(stream_id, bytes(size)))
        if drains:
            connection.drain(stream_id, size)
        octets -= size
        connection.output()
        connection.take_events()


def test_the_window_of_a_stream_grows_while_it_is_drained_at_once():
    connection = ready_server(stream_window=65535, stream_window_max=300000)
    connection.feed(headers(1))
    pour(connection, 65535)
    assert connection.stream_state(1)["receive_target"] == 131070
    pour(connection, 131070)
    assert connection.stream_state(1)["receive_target"] == 262140
    pour(connection, 1000000)
    assert connection.stream_state(1)["receive_target"] == 300000
    state = connection.stream_state(1)
    assert state["receive_window"] > 150000


def test_it_does_not_grow_for_a_slow_sender():
    connection = ready_server()
    connection.feed(headers(1))
    for _ in range(10):
        pour(connection, 60000)
        connection.second_passes()
    assert connection.stream_state(1)["receive_target"] == 65535


def test_it_does_not_grow_for_a_reader_that_lags():
    connection = ready_server()
    connection.feed(headers(1))
    for _ in range(40):
        connection.feed(data(1, bytes(10000)) * 2)
        connection.drain(1, 20000)
    assert connection.stream_state(1)["receive_target"] == 65535


def test_a_message_of_64_kib_comes_in_one_go():
    connection = client_with_streams(1, stream_window=Settings().stream_window)
    connection.feed(headers(1, RESPONSE, end_stream=False) + data(1, bytes(16384)) * 4 + data(1, bytes(5)))
    assert connection.stream_state(1)["receive_window"] > 0
    assert updates_sent(connection) == []


def test_windows_together_grow_by_no_more_than_the_limit():
    connection = client_with_streams(3, stream_window=65535, window_growth_total=65535)
    for stream_id in (1, 3, 5):
        connection.feed(headers(stream_id, RESPONSE, end_stream=False))
    pour(connection, 65535, stream_id=1)
    assert connection.stream_state(1)["receive_target"] == 131070
    pour(connection, 200000, stream_id=3)
    assert connection.stream_state(3)["receive_target"] == 65535
    # What ends gives back what it had.
    connection.reset(1, frames.CANCEL)
    pour(connection, 200000, stream_id=5)
    assert connection.stream_state(5)["receive_target"] == 131070


def test_much_output_is_told_of_before_the_turn_is_over():
    connection = ready_server((frames.INITIAL_WINDOW_SIZE, 2**30))
    connection.feed(headers(1) + window_update(0, 2**30))
    connection.send_headers(1, RESPONSE)
    connection.take_events()
    body = bytes(i % 251 for i in range(400000))
    connection.send(1, body[:200000])
    assert ("output_full",) not in connection.take_events()
    connection.send(1, body[200000:])
    assert ("output_full",) in connection.take_events()
    written = [payload for type, _, _, payload in sent(connection) if type == DATA]
    assert b"".join(written) == body
    assert connection.output() == b""


def test_two_ends_move_a_large_body_through_small_windows():
    client, server = ready_pair(stream_window=1000, stream_window_max=1000)
    server.auto_credit = True
    body = bytes(i % 253 for i in range(200000))
    client.send_headers(client.open(), REQUEST)
    client.send(1, body, True)
    exchange(client, server)
    events = join_data(server.take_events())
    assert events[1:] == [("data", 1, body, True)]
    assert client.stream_state(1)["pending"] == 0


def test_finish_with_reset_follows_what_is_queued():
    server = ready_server((frames.INITIAL_WINDOW_SIZE, 2))
    server.feed(headers(1) + data(1, b"half a request"))
    server.send_headers(1, RESPONSE)
    server.send(1, b"abc")
    server.send_trailing(1, TRAILERS)
    server.finish(1)
    server.take_events()
    server.output()
    # What still comes reaches nobody.
    server.feed(data(1, b"more") + data(1, b"", padding=3))
    assert server.take_events() == []
    server.feed(window_update(1, 1))
    written = sent(server)
    assert [type for type, _, _, _ in written] == [DATA, HEADERS, RST_STREAM]
    assert written[-1][3] == bytes(4)
    assert [e for e in server.take_events() if e[0] != "output"] == [
        ("closed", 1, "complete", 0), ("stream_available",),
    ]
    server.feed(data(1, b"late") + headers(1, TRAILERS, end_stream=True))
    assert not server.failed


def test_finish_with_reset_is_a_plain_end_where_the_peer_has_ended():
    server = ready_server()
    server.feed(headers(1))
    server.send_headers(1, RESPONSE)
    server.block_writes()
    server.send(1, b"abc", True)
    server.finish(1)
    server.feed(data(1, b"", end_stream=True))
    server.output()
    server.resume_writes()
    assert [type for type, _, _, _ in sent(server)] == [DATA]
    assert ("closed", 1, "complete", 0) in server.take_events()
