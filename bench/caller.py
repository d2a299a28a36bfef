"""A gRPC client of a few lines: one blocking connection, one call at a time. For measurements of when, not how fast.

A call is served where the backend's message comes back: a gateway's own answer has no DATA, or some HTML. Nothing
of a header block is decoded, and each is written with literals that are not indexed (RFC 7541 §6.2.2). As a program it
is the victim of bench/reload.py: calls at a fixed rate until its standard input ends, then one JSON object of
[seconds on the monotonic clock, microseconds] for each:

    python -m bench.caller PORT AUTHORITY PATH CALLS_PER_SECOND [NAME VALUE]
"""

from __future__ import annotations

import gc
import json
import select
import socket
import ssl
import struct
import sys
import time

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WINDOW = 1 << 30  # so large that we never have to give credit
PREFIX = 5


class CallError(Exception):
    """The connection ended, or a call was reset."""


def request_message(size: int, response: int) -> bytes:
    """A request message of so many octets that asks for one answer of `response` (programs/h2.h: ORDER, PATTERN)."""
    head = b"\0" + size.to_bytes(4) + response.to_bytes(4) + (1).to_bytes(4)
    return head + bytes((i * 131 + (i >> 8) * 17) & 255 for i in range(len(head), PREFIX + size))


MESSAGE = request_message(16, 16)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!IBI", len(payload) << 8 | kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    if len(name) > 126 or len(value) > 126:
        raise ValueError("names and values must be shorter than 127 octets")
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Caller:
    """One connection."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, server_name: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(30)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname=server_name)
        self._input = b""
        self._stream = -1
        settings = struct.pack("!HI", 4, (1 << 31) - 1)  # INITIAL_WINDOW_SIZE
        self._socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(SETTINGS, 0, 0, settings)
            + _frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", WINDOW))
        )

    def call(self, authority: str, path: str, *headers: tuple[str, str]) -> bool:
        """Make a call; whether a backend served it."""
        self._socket.sendall(self._request(authority, path, headers) + _frame(DATA, END_STREAM, self._stream, MESSAGE))
        served = False
        while True:
            kind, flags, stream, payload = self._read_frame()
            if kind == SETTINGS and not flags & ACK:
                self._socket.sendall(_frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self._socket.sendall(_frame(PING, ACK, 0, payload))
            elif kind == GOAWAY or (kind == RST_STREAM and stream == self._stream):
                raise CallError(f"frame type {kind}: {payload!r}")
            elif stream == self._stream and kind in (DATA, HEADERS):
                served = served or (kind == DATA and payload.startswith(MESSAGE[:PREFIX]))
                if flags & END_STREAM:
                    return served

    def open(self, authority: str, path: str) -> None:
        """Begin a call that sends no message and does not end."""
        self._socket.sendall(self._request(authority, path, ()))

    def ping(self) -> None:
        """Wait until the other end has handled all that was sent."""
        self._socket.sendall(_frame(PING, 0, 0, bytes(8)))
        while True:
            kind, flags, _, _ = self._read_frame()
            if kind == SETTINGS and not flags & ACK:
                self._socket.sendall(_frame(SETTINGS, ACK, 0))
            elif kind == PING and flags & ACK:
                return

    def _request(self, authority: str, path: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        """HEADERS of the next stream."""
        self._stream += 2
        scheme = "https" if isinstance(self._socket, ssl.SSLSocket) else "http"
        fields = [(":method", "POST"), (":scheme", scheme), (":path", path), (":authority", authority)]
        fields += [("content-type", "application/grpc"), ("te", "trailers"), *headers]
        block = b"".join(_literal(name.encode(), value.encode()) for name, value in fields)
        return _frame(HEADERS, END_HEADERS, self._stream, block)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _read_frame(self) -> tuple[int, int, int, bytes]:
        head = self._read(9)
        first, flags, stream = struct.unpack("!IBI", head)
        return first & 0xFF, flags, stream, self._read(first >> 8)

    def _read(self, count: int) -> bytes:
        while len(self._input) < count:
            more = self._socket.recv(65536)
            if not more:
                raise CallError("the connection was closed")
            self._input += more
        taken, self._input = self._input[:count], self._input[count:]
        return taken


def main() -> int:
    port, authority, path, rate, *header = sys.argv[1:]
    headers = [(header[0], header[1])] if header else []
    interval = 1 / float(rate)
    caller = Caller(int(port))
    samples: list[tuple[float, int]] = []
    for _ in range(10):
        assert caller.call(authority, path, *headers)
    print("calling", flush=True)
    gc.disable()  # our own pauses must not be taken for the gateway's
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(due - time.monotonic(), 0))[0]:
        start = time.monotonic()
        assert caller.call(authority, path, *headers)
        samples.append((start, round((time.monotonic() - start) * 1e6)))
        due = max(due + interval, start)  # after a pause there is nothing to catch up with
    json.dump(samples, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
