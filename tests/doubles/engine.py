"""RecordingConnections made ready for a test, and two of them wired to each other."""

from __future__ import annotations

import struct
from typing import Any

from pygw.http2.connection_options import ConnectionOptions
from pygw.http2.recording_connection import RecordingConnection
from pygw.http2.stream import StreamPool

from . import frames

Event = tuple[Any, ...]


def new_server(pool: StreamPool | None = None, **options: Any) -> RecordingConnection:
    """A server end that has seen nothing yet."""
    connection = RecordingConnection(ConnectionOptions(**options), pool)
    connection.begin()
    return connection


def new_client(pool: StreamPool | None = None, **options: Any) -> RecordingConnection:
    """A client end whose preface is in its output."""
    connection = RecordingConnection(
        ConnectionOptions(**{"is_client": True, "credit_at_receipt": True} | options), pool
    )
    connection.begin()
    return connection


def ready_server(*settings: tuple[int, int], **options: Any) -> RecordingConnection:
    """A server end behind the exchange of SETTINGS, nothing in its output or events."""
    connection = new_server(**options)
    connection.feed(frames.PREFACE + frames.settings(*settings) + frames.settings_ack())
    connection.output()
    connection.take_events()
    return connection


def ready_client(*settings: tuple[int, int], **options: Any) -> RecordingConnection:
    """A client end behind the exchange of SETTINGS, nothing in its output or events."""
    connection = new_client(**options)
    connection.feed(frames.settings(*settings) + frames.settings_ack())
    connection.output()
    connection.take_events()
    return connection


def client_with_streams(
    count: int, *settings: tuple[int, int], window: int = 65535, **options: Any
) -> RecordingConnection:
    """A client end whose peer gives each stream `window`, with so many requests sent and not ended.

    Nothing is in its output or events.
    """
    connection = ready_client((frames.INITIAL_WINDOW_SIZE, window), *settings, **options)
    for _ in range(count):
        connection.send_headers(connection.open() or 0, frames.REQUEST)
    connection.output()
    connection.take_events()
    return connection


def exchange(client: RecordingConnection, server: RecordingConnection) -> None:
    """Carries octets until neither end has more to say."""
    while True:
        to_server, to_client = client.output(), server.output()
        if not to_server and not to_client:
            return
        server.feed(to_server)
        client.feed(to_client)


def ready_pair(**options: Any) -> tuple[RecordingConnection, RecordingConnection]:
    """A client and a server end behind the exchange of SETTINGS, with one StreamPool."""
    pool = StreamPool(True)
    client, server = new_client(pool), new_server(pool, **options)
    exchange(client, server)
    client.take_events()
    server.take_events()
    return client, server


def sent(connection: RecordingConnection) -> list[tuple[int, int, int, bytes]]:
    """The frames in its output, taken."""
    return list(frames.parse(connection.output()))


def resets(connection: RecordingConnection) -> list[tuple[int, int]]:
    """(stream id, error code) of the RST_STREAMs in its output, taken."""
    return [
        (stream_id, struct.unpack(">I", payload)[0])
        for type, _, stream_id, payload in sent(connection)
        if type == frames.RST_STREAM
    ]


def goaway_code(connection: RecordingConnection) -> int | None:
    """The error code of the GOAWAY that ends its output, taken; None where there is none."""
    written = sent(connection)
    if not written or written[-1][0] != frames.GOAWAY:
        return None
    code: int = struct.unpack(">II", written[-1][3][:8])[1]
    return code


def join_data(events: list[Event]) -> list[Event]:
    """`events` without ("output",), and with neighbouring pieces of a stream's DATA joined: what does not depend on
    where reads were cut."""
    joined: list[Event] = []
    for event in events:
        if event[0] in ("output", "stream_available"):
            continue
        last = joined[-1] if joined else None
        if event[0] == "data" and last and last[0] == "data" and last[1] == event[1] and not last[3]:
            joined[-1] = ("data", event[1], last[2] + event[2], event[3])
        else:
            joined.append(event)
    return joined
