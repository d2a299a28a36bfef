"""Frames through the engine's receiving side. A figure divided by the count in the test's name is the time of one.

Run: .venv/bin/python -m pytest bench/micro/test_frames.py --benchmark-only
"""

import pytest

from bench.micro.operations import new_server
from tests.doubles.frames import data, headers, rst_stream, window_update


def measure(benchmark, octets: bytes) -> None:
    def fresh():
        connection = new_server()
        connection.feed(headers(1))
        connection.output()
        return (connection,), {}

    def run(connection):
        connection.measure_receive(octets, 100)
        assert not connection.failed

    benchmark.pedantic(run, setup=fresh, rounds=30)


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_20000_data_frames(benchmark, size):
    measure(benchmark, data(1, bytes(size)) * 200)


def test_2000_data_frames_of_16_kib(benchmark):
    measure(benchmark, data(1, bytes(16384)) * 20)


def test_1250_reads_of_4_octets(benchmark):
    """Heads and payloads cut in two: a frame of 10 octets takes two or three reads."""
    octets = data(1, b"x") * 500
    pieces = [octets[i : i + 4] for i in range(0, len(octets), 4)]

    def fresh():
        connection = new_server()
        connection.feed(headers(1))
        return (connection,), {}

    def run(connection):
        for piece in pieces:
            connection.measure_receive(piece, 1)

    benchmark.pedantic(run, setup=fresh, rounds=10)


def test_20000_window_updates(benchmark):
    """With 10,000 DATA frames, which pay for them."""
    measure(benchmark, (data(1, b"x") + window_update(1, 1) + window_update(0, 1)) * 100)


def test_10000_calls(benchmark):
    """Requests that are reset a second later, and their streams given back: no answer is written."""
    # Header blocks of literals: HPACK's figures with tables are in test_hpack.py.
    calls = [headers(2 * n + 1, end_stream=True) for n in range(10000)]
    resets = [rst_stream(2 * n + 1) for n in range(10000)]

    def fresh():
        connection = new_server()
        return (connection,), {}

    def run(connection):
        for start in range(0, 10000, 100):
            connection.measure_receive(b"".join(calls[start : start + 100]), 1)
            connection.second_passes()
            connection.measure_receive(b"".join(resets[start : start + 100]), 1)
        assert connection.hooks == 20000

    benchmark.pedantic(run, setup=fresh, rounds=10)
