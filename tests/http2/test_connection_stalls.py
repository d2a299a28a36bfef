"""Streams whose DATA waits for a window that never comes (RFC 9113 §6.9): found by looking now and then, and reset."""

import pytest

from tests.doubles import frames
from tests.doubles.engine import client_with_streams, ready_server, resets
from tests.doubles.frames import CANCEL, RESPONSE, TRAILERS, headers, settings, window_update

LOOKS = 3


def look(connection, times):
    """Look so many times; the streams that were reset."""
    for _ in range(times):
        connection.look_for_stalls(LOOKS)
    return resets(connection)


def closed(connection):
    return [event[1:] for event in connection.take_events() if event[0] == "closed"]


def test_a_stream_without_a_window_is_reset_at_the_last_look_and_no_other():
    connection = client_with_streams(3, window=10)
    assert not connection.holds_data
    connection.send(1, bytes(11))
    connection.send(3, bytes(10))
    assert connection.holds_data
    assert look(connection, LOOKS - 1) == []
    assert look(connection, 1) == [(1, CANCEL)]
    assert closed(connection) == [(1, "stalled", CANCEL)]
    assert look(connection, 5) == []
    assert not connection.holds_data
    assert connection.streams_in_use == 2
    assert connection.held_octets < 200


def test_an_octet_that_goes_out_starts_the_count_anew():
    connection = client_with_streams(1, window=0)
    connection.send(1, bytes(10))
    for _ in range(4):
        assert look(connection, LOOKS - 1) == []
        connection.feed(window_update(1, 1))
    assert look(connection, LOOKS) == [(1, CANCEL)]


def test_it_begins_to_hold_again_and_is_looked_at_again():
    connection = client_with_streams(1, window=0)
    for _ in range(2):
        connection.send(1, bytes(10))
        assert connection.holds_data
        connection.feed(window_update(1, 10))
        assert look(connection, 1) == []
        assert not connection.holds_data


def test_the_connections_window_counts_too():
    connection = client_with_streams(2, window=100_000)
    connection.send(1, bytes(65535))
    connection.send(3, bytes(10))
    assert look(connection, LOOKS) == [(3, CANCEL)]


def test_what_waits_for_the_transport_does_not_stall():
    connection = client_with_streams(1, window=10)
    connection.block_writes()
    connection.send(1, bytes(10))
    assert look(connection, 5) == []
    assert connection.holds_data
    connection.resume_writes()
    assert look(connection, 1) == []
    assert not connection.holds_data


def test_a_window_that_settings_have_made_negative_is_none():
    connection = client_with_streams(1, window=10)
    connection.send(1, bytes(10))
    connection.feed(settings((frames.INITIAL_WINDOW_SIZE, 0)))
    connection.send(1, bytes(10))
    connection.feed(window_update(1, 10))
    assert look(connection, LOOKS) == [(1, CANCEL)]


@pytest.mark.parametrize("ended", ["trailers", "an early response"])
def test_a_stream_whose_owner_is_done_with_it_is_reset_all_the_same(ended):
    server = ready_server((frames.INITIAL_WINDOW_SIZE, 2))
    server.feed(headers(1, end_stream=ended == "trailers"))
    server.send_headers(1, RESPONSE)
    server.send(1, bytes(3))
    server.send_trailing(1, TRAILERS)
    if ended != "trailers":
        server.finish(1)
    assert look(server, LOOKS) == [(1, CANCEL)]
    assert closed(server) == [(1, "stalled", CANCEL)]
    assert server.streams_in_use == 0
    # What the client sent before it heard of that is no fault of its.
    server.feed(window_update(1, 1))
    assert not server.failed


def test_a_hook_may_end_the_others_that_have_stalled():
    connection = client_with_streams(4, window=0)
    for stream_id in (1, 3, 5, 7):
        connection.send(stream_id, b"a")

    def end_all(event):
        if event[0] == "closed":
            for stream_id in filter(connection.is_open, (1, 3, 5, 7)):
                connection.reset(stream_id)

    connection.on_event = end_all
    assert len(look(connection, LOOKS)) == 4
    assert connection.streams_in_use == 0


def test_a_connection_that_has_failed_is_not_looked_at():
    connection = client_with_streams(1, window=0)
    connection.send(1, b"a")
    connection.give_up(0)
    connection.output()
    assert look(connection, LOOKS) == []
    assert not connection.holds_data
