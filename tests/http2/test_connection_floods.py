"""What a peer may make us do for nothing (RFC 9113 §10.5): floods end early, no busy connection is taken for one."""

from types import SimpleNamespace

import pytest

from tests.doubles import frames
from tests.doubles.engine import exchange, goaway_code, ready_client, ready_pair, ready_server, sent
from tests.doubles.frames import (
    ENHANCE_YOUR_CALM,
    REFUSED_STREAM,
    REQUEST,
    RESPONSE,
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


def frames_until_the_end(connection, octets_of, most=5000):
    """How many frames it takes; octets_of(n) is the n-th round."""
    count = 0
    for number in range(most):
        octets = octets_of(number)
        for one in frames.parse(octets):
            count += 1
            connection.feed(frame(*one))
            if connection.failed:
                assert goaway_code(connection) == ENHANCE_YOUR_CALM
                assert connection.streams_in_use == 0
                return count
        connection.output()
        connection.take_events()
    raise AssertionError(f"still open after {count} frames")


def stream(number):
    return 2 * number + 1


# name, what opens the connection's streams, the n-th round, the most frames it may take
FLOODS = [
    ("PING", b"", lambda n: ping(), 2000),
    ("PING answers", b"", lambda n: ping(ack=True), 2000),
    ("SETTINGS", b"", lambda n: settings(), 2000),
    ("SETTINGS that move windows", headers(1), lambda n: settings((4, n)), 2000),
    ("SETTINGS acknowledgements", b"", lambda n: settings_ack(), 2000),
    ("PRIORITY", b"", lambda n: priority(stream(n)), 2000),
    ("WINDOW_UPDATE, connection", b"", lambda n: window_update(0, 1), 2000),
    ("WINDOW_UPDATE, stream", headers(1), lambda n: window_update(1, 1), 2000),
    ("WINDOW_UPDATE, closed stream", headers(1) + rst_stream(1), lambda n: window_update(1, 1), 2000),
    ("RST_STREAM, closed stream", headers(1) + rst_stream(1), lambda n: rst_stream(1), 2000),
    ("empty DATA", headers(1), lambda n: data(1), 2000),
    ("DATA of padding", headers(1), lambda n: data(1, padding=3), 2000),
    ("unknown frames", b"", lambda n: frame(0x42, 0, 0, b"x"), 2000),
    ("GOAWAY", b"", lambda n: goaway(0), 2000),
    ("empty HEADERS", b"", lambda n: headers(stream(n), b""), 200),
    ("empty HEADERS as trailers", headers(1), lambda n: headers(stream(n), b"", end_stream=True), 200),
    ("rapid reset", b"", lambda n: headers(stream(n)) + rst_stream(stream(n)), 500),
    ("rapid reset, whole requests", b"", lambda n: headers(stream(n), end_stream=True) + rst_stream(stream(n)), 500),
    ("MadeYouReset, WINDOW_UPDATE of 0", b"", lambda n: headers(stream(n)) + window_update(stream(n), 0), 200),
    ("MadeYouReset, window overflow", b"", lambda n: headers(stream(n)) + window_update(stream(n), 2**31 - 1), 200),
    ("MadeYouReset, PRIORITY length", b"",
     lambda n: headers(stream(n)) + frame(frames.PRIORITY, 0, stream(n), b"abcd"), 200),
    ("MadeYouReset, PRIORITY on itself", b"", lambda n: headers(stream(n)) + priority(stream(n), stream(n)), 200),
    ("MadeYouReset, HEADERS behind the end", b"",
     lambda n: headers(stream(n), end_stream=True) + headers(stream(n), TRAILERS, end_stream=True), 200),
    ("MadeYouReset, DATA behind the end", b"",
     lambda n: headers(stream(n), end_stream=True) + data(stream(n), b"x"), 200),
    ("malformed requests", b"", lambda n: headers(stream(n), [(b"A", b"b")]), 200),
    ("content-length that lies", b"",
     lambda n: headers(stream(n), [*REQUEST, (b"content-length", b"3")]) + data(stream(n), b"x", end_stream=True), 200),
    ("header lists over the limit", b"", lambda n: headers(stream(n), [*REQUEST, (b"a", b"b" * 1000)]), 200),
]  # fmt: skip


@pytest.mark.parametrize(("before", "octets_of", "most"), [c[1:] for c in FLOODS], ids=[c[0] for c in FLOODS])
def test_floods_end(before, octets_of, most):
    connection = ready_server(max_header_list_size=800)
    connection.feed(before)
    assert frames_until_the_end(connection, octets_of) <= most


@pytest.mark.parametrize("octets_of", [lambda n: ping(), lambda n: settings((3, n)), lambda n: window_update(0, 1)])
def test_floods_by_a_backend_end_too(octets_of):
    assert frames_until_the_end(ready_client(), octets_of) <= 2000


def test_streams_over_the_limit_end():
    connection = ready_server(max_concurrent_streams=1)
    connection.feed(headers(1))
    assert frames_until_the_end(connection, lambda n: headers(stream(n + 1))) == 1001
    written = [type for type, _, _, _ in sent(connection)]
    assert written == []
    connection = ready_server(max_concurrent_streams=1)
    connection.feed(headers(1) + headers(3))
    assert sent(connection) == [(frames.RST_STREAM, 0, 3, REFUSED_STREAM.to_bytes(4, "big"))]


@pytest.mark.parametrize("fragment", [b"", b"\0", bytes(100), bytes(4096), bytes(16384)])
def test_continuations_end_within_128_kib(fragment):
    connection = ready_server()
    octets = headers(1, b"\0\x01a\x7f\xff\xff\xff\x0f", end_headers=False)
    connection.feed(octets)
    total = len(octets)
    while not connection.failed:
        one = continuation(1, fragment)
        total += len(one)
        connection.feed(one)
        assert total <= 128 * 1024
    assert goaway_code(connection) == ENHANCE_YOUR_CALM
    assert connection.held_octets == 0


def test_a_header_block_of_the_largest_size_passes():
    connection = ready_server()
    octets = block([*REQUEST, (b"a", b"\xff" * 110000)])
    connection.feed(headers(1, octets[:16384], end_headers=False))
    for start in range(16384, len(octets), 4096):
        connection.feed(continuation(1, octets[start : start + 4096], end_headers=start + 4096 >= len(octets)))
    assert [event[:2] for event in connection.take_events()] == [("request", 1)]


def test_budgets_are_settings():
    limits = SimpleNamespace(flood_control_frames=5, flood_settings_frames=2)
    assert frames_until_the_end(ready_server(limits=limits), lambda n: ping()) == 6
    # One SETTINGS came with the preface.
    assert frames_until_the_end(ready_server(limits=limits), lambda n: settings()) == 2


def test_time_gives_budgets_back():
    connection = ready_server()
    for _ in range(60):
        for _ in range(490):
            connection.feed(ping())
        for _ in range(9):
            connection.feed(settings())
        connection.take_events()
        connection.second_passes()
        connection.output()
    assert not connection.failed


def test_a_reset_after_a_second_is_not_rapid():
    connection = ready_server()
    for round in range(10):
        first = round * 500
        for number in range(first, first + 500):
            connection.feed(headers(stream(number), end_stream=True))
        connection.second_passes()
        for number in range(first, first + 500):
            connection.feed(rst_stream(stream(number)))
        assert not connection.failed


def test_a_reset_behind_the_answer_is_not_rapid():
    connection = ready_server()
    for number in range(2000):
        connection.feed(headers(stream(number)))
        connection.send_headers(stream(number), RESPONSE)
        connection.feed(rst_stream(stream(number)))
        connection.output()
        connection.take_events()
    assert not connection.failed


def test_completed_calls_pay_for_cancelled_and_malformed_ones():
    connection = ready_server()
    for number in range(0, 6000, 3):
        connection.feed(headers(stream(number), end_stream=True))
        connection.send_headers(stream(number), RESPONSE + TRAILERS, True)
        connection.feed(headers(stream(number + 1)) + rst_stream(stream(number + 1)))
        connection.feed(headers(stream(number + 2), [(b"A", b"b")]))
        connection.output()
        connection.take_events()
    assert not connection.failed


def test_a_bulk_stream_to_a_client_pays_for_pings_and_window_updates():
    """What grpc-go and gRPC-core send while they receive: two WINDOW_UPDATEs and a PING for a DATA frame."""
    connection = ready_server((4, 2**31 - 1))
    connection.feed(window_update(0, 2**30) + headers(1, end_stream=True))
    connection.send_headers(1, RESPONSE)
    for _ in range(20000):
        connection.send(1, b"message")
        connection.feed(window_update(1, 7) + window_update(0, 7) + ping())
        connection.output()
        connection.take_events()
    assert not connection.failed


def test_a_bulk_stream_that_waits_for_windows_pays_too():
    connection = ready_server()
    connection.feed(headers(1, end_stream=True))
    connection.send_headers(1, RESPONSE)
    connection.send(1, bytes(3000000))
    for _ in range(10000):
        connection.feed(window_update(1, 200) + window_update(0, 200) + ping())
        connection.output()
        connection.take_events()
    assert not connection.failed


def test_a_backend_may_answer_a_burst_late_and_all_at_once():
    """DATA frames of one octet, all sent before the backend gives credit for each of them, twice."""
    client, _ = ready_pair()
    stream_id = client.open()
    client.send_headers(stream_id, REQUEST)
    for _ in range(20000):
        client.send(stream_id, b"x")
    client.feed((window_update(0, 1) + window_update(stream_id, 1)) * 20000)
    assert not client.failed
    # What it sent is answered; from here on it is a flood.
    assert frames_until_the_end(client, lambda n: window_update(0, 1), 50000) < 45000


def test_answers_on_streams_that_we_reset_are_no_flood():
    """A client that cancels its calls in a row must not cost the connection to the backend, which others share."""
    client, _ = ready_pair()
    for _ in range(2000):
        stream_id = client.open()
        client.send_headers(stream_id, REQUEST)
        client.send(stream_id, b"message")
        client.reset(stream_id, frames.CANCEL)
        client.output()
        credit = window_update(0, 7) + window_update(stream_id, 7)
        client.feed(credit + headers(stream_id, RESPONSE) + headers(stream_id, TRAILERS, end_stream=True))
        client.take_events()
    assert not client.failed


def test_messages_of_one_octet_are_no_flood():
    connection = ready_server()
    connection.auto_credit = True
    connection.feed(headers(1))
    connection.feed(data(1, b"x") * 30000)
    assert not connection.failed
    assert connection.octets[0] == 30000


def test_unary_calls_pay_for_pings_and_window_updates():
    client, server = ready_pair()
    for _ in range(3000):
        stream_id = client.open()
        client.send_headers(stream_id, REQUEST, True)
        exchange(client, server)
        server.send_headers(stream_id, RESPONSE)
        server.send(stream_id, b"answer")
        server.send_trailing(stream_id, TRAILERS)
        exchange(client, server)
        server.feed(window_update(0, 6) + window_update(stream_id, 6) + ping() + ping())
        client.take_events()
        server.take_events()
        server.output()
    assert not server.failed
    assert not client.failed


# ===== a peer that does not read =====


@pytest.mark.parametrize("octets_of", [
    lambda n: ping(),
    lambda n: headers(stream(n), end_stream=True),
])  # fmt: skip
def test_output_for_a_peer_that_does_not_read_is_bounded(octets_of):
    limits = SimpleNamespace(max_blocked_output=10000, flood_control_frames=10**6)
    connection = ready_server(limits=limits)
    connection.on_event = (
        lambda event: connection.send_headers(event[1], RESPONSE + TRAILERS, True) if event[0] == "request" else None
    )
    connection.block_writes()
    written = 0
    for number in range(2000):
        connection.feed(octets_of(number))
        if connection.failed:
            break
        written += len(connection.output())
    assert connection.failed
    assert 9000 <= written <= 10100
    assert connection.blocked_output == written
    assert goaway_code(connection) == ENHANCE_YOUR_CALM


def test_output_counts_anew_when_the_peer_has_read():
    limits = SimpleNamespace(max_blocked_output=1000, flood_control_frames=10**6)
    connection = ready_server(limits=limits)
    for _ in range(100):
        connection.block_writes()
        for _ in range(50):
            connection.feed(ping())
        connection.output()
        connection.resume_writes()
    assert not connection.failed
