"""Our ends against PyPI's h2, as client and as server: calls, bodies, trailers, resets, windows, in small reads."""

import random

import pytest

h2_config = pytest.importorskip("h2.config")
import h2.connection  # noqa: E402
import h2.errors  # noqa: E402
import h2.events  # noqa: E402
import h2.settings  # noqa: E402

from tests.doubles.engine import join_data, new_client, new_server  # noqa: E402
from tests.doubles.frames import CANCEL, REQUEST, RESPONSE, TRAILERS  # noqa: E402


class Peer:
    """PyPI's h2 at one end: collects what comes, gives windows back at once."""

    def __init__(self, client_side, window=65535):
        config = h2_config.H2Configuration(client_side=client_side, header_encoding=None)
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.events = []
        self.bodies = {}
        self.waiting = {}
        self.padding = None

    def feed(self, octets):
        for event in self.connection.receive_data(octets):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.push()

    def output(self):
        return self.connection.data_to_send()

    def send(self, stream_id, octets, padding=None):
        self.waiting[stream_id] = self.waiting.get(stream_id, b"") + octets
        self.padding = padding
        self.push()

    def push(self):
        for stream_id, octets in list(self.waiting.items()):
            overhead = self.padding + 1 if self.padding is not None else 0
            while octets:
                window = min(self.connection.local_flow_control_window(stream_id), 16384)
                size = min(window - overhead, len(octets))
                if size <= 0:
                    break
                self.connection.send_data(stream_id, octets[:size], pad_length=self.padding)
                octets = octets[size:]
            self.waiting[stream_id] = octets

    def seen(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def exchange(ours, peer, chance):
    """Carries octets both ways in reads of any length, until there are no more."""
    while True:
        to_peer, to_us = ours.output(), peer.output()
        if not to_peer and not to_us:
            return
        for octets, end in ((to_peer, peer), (to_us, ours)):
            while octets:
                size = chance.choice([1, 2, 9, 10, 100, 20000])
                end.feed(octets[:size])
                octets = octets[size:]


def fields_of(event):
    return [(bytes(name), bytes(value)) for name, value in event.headers]


@pytest.fixture(params=range(4))
def chance(request):
    return random.Random(request.param)


SIZES = [0, 1, 1000, 65535, 65536, 300000]


@pytest.mark.parametrize("size", SIZES)
def test_our_client_and_its_server(chance, size):
    client = new_client(stream_window=chance.choice([1000, 65535, 200000]))
    client.auto_credit = True
    server = Peer(client_side=False, window=chance.choice([1000, 65535]))
    body = chance.randbytes(size)
    stream_ids = [client.open() for _ in range(3)]
    for number, stream_id in enumerate(stream_ids):
        client.send_headers(stream_id, [*REQUEST, (b"number", b"%d" % number)])
        client.send(stream_id, body, True)
    exchange(client, server, chance)
    requests = {event.stream_id: fields_of(event) for event in server.seen(h2.events.RequestReceived)}
    assert requests == {n: [*REQUEST, (b"number", b"%d" % i)] for i, n in enumerate(stream_ids)}
    assert sorted(event.stream_id for event in server.seen(h2.events.StreamEnded)) == stream_ids
    assert all(server.bodies.get(stream_id, b"") == body for stream_id in stream_ids)
    for stream_id in stream_ids:
        server.connection.send_headers(stream_id, RESPONSE)
        server.send(stream_id, body, padding=chance.choice([None, 7]))
    exchange(client, server, chance)
    for stream_id in stream_ids:
        server.connection.send_headers(stream_id, TRAILERS, end_stream=True)
    exchange(client, server, chance)
    for stream_id in stream_ids:
        events = [event for event in client.events if len(event) > 1 and event[1] == stream_id]
        assert join_data([event for event in events if event[0] != "drained"]) == [
            ("response", stream_id, 200, RESPONSE, False),
            *([("data", stream_id, body, False)] if body else []),
            ("trailers", stream_id, TRAILERS),
            ("closed", stream_id, "complete", 0),
        ]
    assert client.streams_in_use == 0
    assert client.held_octets <= 64


@pytest.mark.parametrize("size", SIZES)
def test_our_server_and_its_client(chance, size):
    server = new_server(stream_window=chance.choice([1000, 65535, 200000]))
    server.auto_credit = True
    client = Peer(client_side=True, window=chance.choice([1000, 65535]))
    body = chance.randbytes(size)
    stream_ids = [1, 3, 5]
    exchange(server, client, chance)
    for stream_id in stream_ids:
        client.connection.send_headers(stream_id, REQUEST)
        client.send(stream_id, body, padding=chance.choice([None, 3]))
    exchange(server, client, chance)
    for stream_id in stream_ids:
        client.connection.end_stream(stream_id)
    exchange(server, client, chance)
    for stream_id in stream_ids:
        events = [event for event in server.events if len(event) > 1 and event[1] == stream_id]
        expected = [("request", stream_id, REQUEST, False)]
        assert join_data(events) == [*expected, ("data", stream_id, body, True)]
        server.send_headers(stream_id, RESPONSE)
        server.send(stream_id, body)
        server.send_trailing(stream_id, TRAILERS)
    exchange(server, client, chance)
    assert {event.stream_id: fields_of(event) for event in client.seen(h2.events.TrailersReceived)} == dict.fromkeys(
        stream_ids, TRAILERS
    )
    assert all(client.bodies.get(stream_id, b"") == body for stream_id in stream_ids)
    assert server.streams_in_use == 0


@pytest.mark.parametrize("by", ["us", "peer"])
def test_resets(chance, by):
    client, server = new_client(), Peer(client_side=False)
    stream_id = client.open()
    client.send_headers(stream_id, REQUEST)
    exchange(client, server, chance)
    if by == "us":
        client.send(stream_id, bytes(1000))
        client.reset(stream_id, CANCEL)
        exchange(client, server, chance)
        assert [(e.stream_id, e.error_code) for e in server.seen(h2.events.StreamReset)] == [(stream_id, CANCEL)]
    else:
        server.connection.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        exchange(client, server, chance)
        assert ("closed", stream_id, "unprocessed", 7) in client.events
    assert client.streams_in_use == 0
    assert not client.failed


def test_window_changes_in_mid_stream(chance):
    client, server = new_client(), Peer(client_side=False)
    # h2 takes the acknowledgement of its first SETTINGS for one of a change that is under way.
    exchange(client, server, chance)
    body = chance.randbytes(200000)
    stream_id = client.open()
    client.send_headers(stream_id, REQUEST)
    client.send(stream_id, body, True)
    for size in (10, 100000, 0, 50000):
        server.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: size})
        to_us, to_peer = server.output(), client.output()
        client.feed(to_us)
        server.feed(to_peer)
    exchange(client, server, chance)
    assert server.bodies[stream_id] == body
    assert server.seen(h2.events.StreamEnded)


def test_goaway_and_ping(chance):
    server, client = new_server(), Peer(client_side=True)
    exchange(server, client, chance)
    client.connection.send_headers(1, REQUEST, end_stream=True)
    client.connection.ping(b"abcdefgh")
    server.send_ping(99)
    exchange(server, client, chance)
    assert [event.ping_data for event in client.seen(h2.events.PingAckReceived)] == [b"abcdefgh"]
    assert ("ping_ack", 99) in server.events
    server.go_away()
    exchange(server, client, chance)
    assert [event.last_stream_id for event in client.seen(h2.events.ConnectionTerminated)] == [1]


def test_header_tables_in_step_over_many_calls(chance):
    """The peer shrinks and grows its table; every header still arrives."""
    client, server = new_client(), Peer(client_side=False)
    exchange(client, server, chance)
    for number in range(60):
        if number % 20 == 10:
            size = chance.choice([0, 50, 200, 4096])
            server.connection.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: size})
            exchange(client, server, chance)
        stream_id = client.open()
        sent = [*REQUEST, (b"x-%d" % (number % 7), b"value" * (number % 5)), (b"x-trace", b"%d" % number)]
        client.send_headers(stream_id, sent, True)
        exchange(client, server, chance)
        assert fields_of(server.seen(h2.events.RequestReceived)[-1]) == sent
        answer = [*RESPONSE, (b"x-%d" % (number % 3), b"y"), *TRAILERS]
        server.connection.send_headers(stream_id, answer, end_stream=True)
        exchange(client, server, chance)
        assert client.events[-3][3] == answer or ("response", stream_id, 200, answer, True) in client.events
    assert client.streams_in_use == 0
