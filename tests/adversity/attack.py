"""Sends an attack as fast as the proxy takes it, and reads what it answers only as far as it must.

One thread and a non-blocking socket: what is sent is made before, so that the attacker's own CPU does not limit it.
"""

from __future__ import annotations

import select
import socket
import struct
import time

from tests.doubles import frames as wire

from .raw import code_name

FENCE = b"theFence"
# The acknowledgement goes out before there is anything to acknowledge, as it could not later: in the middle of a frame.
START = (
    wire.PREFACE
    + wire.settings((wire.INITIAL_WINDOW_SIZE, 1 << 20))
    + wire.window_update(0, 1 << 24)
    + wire.settings_ack()
)
CHUNK = 1 << 18


class Attack:
    """One connection of an attacker. A context manager that closes it."""

    def __init__(self, port: int, start: bytes = START, *, small_buffer: bool = False) -> None:
        self.socket = socket.socket()
        if small_buffer:
            # Before the connection, or the kernel has promised more already.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(5)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.sent = 0
        self.received = 0
        self.resets = 0
        self.goaway: int | None = None
        self.is_closed = False
        self.is_fenced = False
        self._octets = bytearray()
        self.send(start, 5)

    def __enter__(self) -> Attack:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def ending(self) -> str:
        """How it ended: the name of the error code, "closed" without any, "open"."""
        if self.goaway:
            return code_name(self.goaway)
        return "closed" if self.is_closed else "open"

    @property
    def is_over(self) -> bool:
        """Whether the proxy has given this connection up."""
        return self.is_closed or bool(self.goaway)

    def send(self, octets: bytes, seconds: float) -> bool:
        """Send all, reading what comes; False where the proxy ended it or took too long to take it."""
        view = memoryview(octets)
        deadline = time.monotonic() + seconds
        while view and not self.is_closed and time.monotonic() < deadline:
            readable, writable, _ = select.select([self.socket], [self.socket], [], 0.1)
            if readable:
                self._read()
            if writable:
                try:
                    count = self.socket.send(view[:CHUNK])
                except BlockingIOError:
                    continue
                except OSError:
                    self._drain()
                    break
                self.sent += count
                view = view[count:]
        return not view

    def settle(self, seconds: float = 3.0) -> None:
        """Until the proxy has taken everything (it answers a PING) or given the connection up."""
        self.is_fenced = False
        self.send(wire.ping(FENCE), seconds)
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Read until the fence is there or the connection has ended."""
        deadline = time.monotonic() + seconds
        while not self.is_closed and not self.is_fenced and time.monotonic() < deadline:
            if select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._read()

    def _drain(self) -> None:
        """The other end is gone; what it said before may still be there."""
        while not self.is_closed:
            self._read()

    def _read(self) -> None:
        try:
            octets = self.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        self.is_closed = not octets
        self.received += len(octets)
        self._octets += octets
        at, end = 0, len(self._octets)
        while end - at >= 9:
            length = int.from_bytes(self._octets[at : at + 3])
            if end - at < 9 + length:
                break
            self._take(self._octets[at + 3], self._octets[at + 4], self._octets[at + 9 : at + 9 + length])
            at += 9 + length
        del self._octets[:at]

    def _take(self, kind: int, flags: int, payload: bytearray) -> None:
        if kind == wire.RST_STREAM:
            self.resets += 1
        elif kind == wire.GOAWAY:
            self.goaway = struct.unpack_from(">I", payload, 4)[0] or self.goaway
        elif kind == wire.PING and flags & wire.ACK and payload == FENCE:
            self.is_fenced = True
