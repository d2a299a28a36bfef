"""One end of an HTTP/2 connection over a blocking socket that sends whatever it is told to, valid or not.

It decodes what comes (PyPI's hpack), answers SETTINGS and PING, and gives credit unless told otherwise. What it
sends are octets that the caller has made (tests/doubles/frames.py); it keeps no state for them.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

import hpack

from tests.doubles import frames as wire
from tests.doubles.frames import Field

LARGE_WINDOW = 1 << 24
DEFAULT_WINDOW = 65535
FRAME = 16384
CODES = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip


def code_name(code: int) -> str:
    """The name of an error code (RFC 9113 §7)."""
    return CODES[code] if code < len(CODES) else hex(code)


@dataclass(slots=True)
class Seen:
    """What came on one stream."""

    stream_id: int
    blocks: list[list[Field]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    data_frames: int = 0
    ended: bool = False
    reset: int | None = None
    over_at: float = 0.0
    sent: int = 0               # octets of DATA that pour() has sent

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        return self.ended or self.reset is not None

    def value(self, name: bytes) -> bytes | None:
        """The last field of that name, trailers first."""
        for block in reversed(self.blocks):
            for field_name, field_value in reversed(block):
                if field_name == name:
                    return field_value
        return None

    @property
    def grpc_status(self) -> int | None:
        """grpc-status as a number; None where there is none."""
        value = self.value(b"grpc-status")
        return int(value) if value is not None and value.isdigit() else None

    @property
    def message(self) -> str:
        """grpc-message as text."""
        return (self.value(b"grpc-message") or b"").decode("latin-1")

    def told(self) -> str:
        """What it got, in a few words."""
        if self.reset is not None:
            return f"RST_STREAM({code_name(self.reset)})"
        if not self.blocks:
            return "nothing"
        status = (self.value(b":status") or b"?").decode("latin-1")
        end = "" if self.ended else ", not ended"
        return f"HTTP {status}, grpc-status {self.grpc_status} {self.message!r}{end}"


class RawPeer:
    """A connection; `streams` has what came on it. A context manager that closes it."""

    def __init__(self, connection: socket.socket, *, credit: bool = True) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.credit = credit
        self.streams: dict[int, Seen] = {}
        self.pings: list[bytes] = []
        self.settings: dict[int, int] = {}
        self.settings_acknowledged = False
        self.goaway: int | None = None
        self.is_closed = False
        self.window_updates: dict[int, int] = {}
        self.sent = 0
        self._decoder = hpack.Decoder(max_header_list_size=1 << 24)
        self._decoder.max_allowed_table_size = 1 << 20
        self._octets = bytearray()
        self._block = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self.is_closed = True
        self.socket.close()

    @property
    def is_lost(self) -> bool:
        """Whether the other end has given the connection up."""
        return self.is_closed or (self.goaway or 0) > 0

    def ending(self) -> str:
        """How the connection ended, in a word."""
        if self.goaway is not None and (self.goaway or self.is_closed):
            return code_name(self.goaway)
        return "closed" if self.is_closed else "open"

    def send(self, *octets: bytes) -> bool:
        """Send; False where the other end is gone."""
        try:
            self.socket.settimeout(10)
            self.socket.sendall(b"".join(octets))
        except OSError:
            return False
        return True

    def pour(self, stream_id: int, octets: bytes, seconds: float = 20.0) -> bool:
        """Send DATA as the other end's windows allow; False where it did not all go in time."""
        stream = self.stream(stream_id)
        for at in range(0, len(octets), FRAME):
            part = octets[at : at + FRAME]

            def fits(size: int = len(part)) -> bool:
                first = self.settings.get(wire.INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
                of_stream = first + self.window_updates.get(stream_id, 0) - stream.sent
                of_connection = DEFAULT_WINDOW + self.window_updates.get(0, 0) - self.sent
                return stream.reset is not None or min(of_stream, of_connection) >= size

            if not self.wait(fits, seconds) or stream.reset is not None or not self.send(wire.data(stream_id, part)):
                return False
            stream.sent += len(part)
            self.sent += len(part)
        return True

    def stream(self, stream_id: int) -> Seen:
        """What came on a stream, so far."""
        return self.streams.setdefault(stream_id, Seen(stream_id))

    def wait(self, holds: Callable[[], object], seconds: float = 5.0) -> bool:
        """Read until `holds()`; False where that did not come in time, or the connection ended before."""
        deadline = time.monotonic() + seconds
        while not holds():
            left = deadline - time.monotonic()
            if self.is_closed or left <= 0:
                return False
            self.read_once(left)
        return True

    def read_once(self, seconds: float) -> None:
        """Take what is there, waiting for it so long at most."""
        try:
            if not select.select([self.socket], [], [], seconds)[0]:
                return
            octets = self.socket.recv(262144)
        except (OSError, ValueError):
            octets = b""
        if not octets:
            self.is_closed = True
            return
        self._octets += octets
        self._take_frames()

    def _take_frames(self) -> None:
        for kind, flags, stream_id, payload in wire.take_frames(self._octets):
            self._take(kind, flags, stream_id, payload)

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        match kind:
            case wire.DATA:
                self._take_data(flags, stream_id, payload)
            case wire.HEADERS | wire.CONTINUATION:
                self._take_fragment(kind, flags, stream_id, payload)
            case wire.RST_STREAM:
                self._end(self.stream(stream_id), reset=int.from_bytes(payload))
            case wire.SETTINGS if flags & wire.ACK:
                self.settings_acknowledged = True
            case wire.SETTINGS:
                self.settings.update(struct.iter_unpack(">HI", payload))
                self._answer(wire.settings_ack())
            case wire.PING if flags & wire.ACK:
                self.pings.append(payload)
            case wire.PING:
                self._answer(wire.ping(payload, ack=True))
            case wire.GOAWAY:
                self.goaway = int.from_bytes(payload[4:8])
            case wire.WINDOW_UPDATE:
                total = self.window_updates.get(stream_id, 0) + int.from_bytes(payload)
                self.window_updates[stream_id] = total

    def _answer(self, octets: bytes) -> None:
        with contextlib.suppress(OSError):
            self.socket.sendall(octets)

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        length = len(payload)
        if flags & wire.PADDED and payload:
            payload = payload[1 : length - payload[0]]
        stream = self.stream(stream_id)
        stream.data += payload
        stream.data_frames += 1
        if length and self.credit:
            self._answer(wire.window_update(0, length))
            if not flags & wire.END_STREAM:
                self._answer(wire.window_update(stream_id, length))
        if flags & wire.END_STREAM:
            self._end(stream)

    def _take_fragment(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == wire.HEADERS:
            if flags & wire.PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & wire.PRIORITY_FLAG:
                payload = payload[5:]
            self._block, self._ends = b"", bool(flags & wire.END_STREAM)
        self._block += payload
        if flags & wire.END_HEADERS:
            fields = self._decoder.decode(self._block, raw=True)
            stream = self.stream(stream_id)
            stream.blocks.append([(bytes(name), bytes(value)) for name, value in fields])
            if self._ends:
                self._end(stream)

    def _end(self, stream: Seen, reset: int | None = None) -> None:
        if not stream.is_over:
            stream.over_at = time.monotonic()
        if reset is None:
            stream.ended = True
        else:
            stream.reset = reset


class RawClient(RawPeer):
    """A client's connection to a local port; says the preface and SETTINGS unless told to say something else."""

    def __init__(self, port: int, *settings: tuple[int, int], first: bytes | None = None, credit: bool = True) -> None:
        super().__init__(socket.create_connection(("127.0.0.1", port), timeout=10), credit=credit)
        self.send(wire.PREFACE + wire.settings(*settings) if first is None else first)
        if first is None and credit:
            self.send(wire.window_update(0, LARGE_WINDOW))

    def fence(self, seconds: float = 5.0) -> bool:
        """Whether the proxy answers a PING, so that it has taken all that was sent before."""
        mark = f"fence{len(self.pings):03}".encode()
        return self.send(wire.ping(mark)) and self.wait(lambda: mark in self.pings, seconds)

    def finish(self, stream_id: int, seconds: float = 5.0) -> Seen:
        """The stream, once it is over (or `seconds` have passed, or the connection ended)."""
        stream = self.stream(stream_id)
        self.wait(lambda: stream.is_over, seconds)
        return stream

    def call(self, stream_id: int, fields: Iterable[Field], payload: bytes, seconds: float = 5.0) -> Seen:
        """A whole call on the stream of that number."""
        self.send(wire.headers(stream_id, fields), wire.data(stream_id, payload, end_stream=True))
        return self.finish(stream_id, seconds)
