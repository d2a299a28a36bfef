"""The pool of Streams, seen through connections: what it lends, what comes back, that nothing is mixed up."""

import random

import pytest

from pygw.http2.connection_options import ConnectionOptions
from pygw.http2.recording_connection import RecordingConnection
from pygw.http2.stream import StreamPool
from tests.doubles import frames
from tests.doubles.frames import REQUEST, headers, rst_stream


def new_server(pool, isolated=False):
    connection = RecordingConnection(ConnectionOptions(max_concurrent_streams=5000), pool, isolated)
    connection.begin()
    connection.feed(frames.PREFACE + frames.settings())
    return connection


@pytest.mark.parametrize("isolated", [False, True])
def test_streams_go_back_and_are_lent_again(isolated):
    pool = StreamPool(isolated)
    connection = new_server(pool, isolated)
    for round in range(5):
        first = round * 2000 + 1
        for stream_id in range(first, first + 1000, 2):
            connection.feed(headers(stream_id))
        assert pool.used == connection.stream_count == 500
        for stream_id in range(first, first + 1000, 2):
            connection.reset(stream_id)
        assert pool.used == connection.stream_count == 0


def test_many_streams_of_many_connections_are_found_by_their_ids():
    pool = StreamPool()
    connections = [new_server(pool) for _ in range(5)]
    expected = {}
    chance = random.Random(7)
    for stream_id in range(1, 2000, 2):
        for number, connection in enumerate(connections):
            connection.feed(headers(stream_id, [*REQUEST, (b"n", b"%d" % number)]))
            expected[number, stream_id] = True
    for connection in connections:
        connection.second_passes()  # so that these are no rapid resets
    keys = list(expected)
    chance.shuffle(keys)
    for number, stream_id in keys[::2]:
        connections[number].feed(rst_stream(stream_id))
        del expected[number, stream_id]
    assert pool.used == len(expected)
    for number, connection in enumerate(connections):
        for stream_id in range(1, 2000, 2):
            assert connection.is_open(stream_id) == ((number, stream_id) in expected)
    for connection in connections:
        connection.lose()
    assert pool.used == 0


def test_ids_that_leave_out_many_are_found():
    connection = new_server(StreamPool())
    ids = [1, 3, *(2**bits - 1 for bits in range(3, 32)), 2**31 - 1]
    for stream_id in sorted(set(ids)):
        connection.feed(headers(stream_id))
    assert all(connection.is_open(stream_id) for stream_id in ids)
    connection.output()
    assert connection.held_octets <= 64 * 8


def test_pools_do_not_hash_alike():
    assert len({StreamPool().multiplier for _ in range(20)}) > 15


def test_an_idle_connection_holds_nearly_nothing():
    connection = new_server(StreamPool())
    for stream_id in range(1, 200, 2):
        connection.feed(headers(stream_id, [*REQUEST, (b"a", b"b" * 5000)]))
    for stream_id in range(1, 200, 2):
        connection.feed(rst_stream(stream_id))
    connection.output()
    assert connection.held_octets == 0
    assert connection.hpack_octets == 0
    assert connection.object_octets < 1280
