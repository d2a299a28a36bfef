"""The backend behind floods and slow peers: answers every request, counts what reaches it, in its own process.

`python -m tests.adversity.load_backend` prints its port; each line on standard input is answered with a JSON object of
what came since the line before. It decodes no header: what it shall do stands in the gRPC message, `size N` for
so many octets of answer, `slow N` for an answer after so many milliseconds; anything else is sent back at once.
"""

from __future__ import annotations

import asyncio
import functools
import json
import struct
import sys
from collections import Counter
from typing import cast

import uvloop

from tests.doubles import frames as wire

# :status 200 by index, the rest as literals, so that no state is kept.
RESPONSE = b"\x88" + wire.block([(b"content-type", b"application/grpc")])
TRAILERS = wire.block([(b"grpc-status", b"0")])
FRAME = 16384
counts: Counter[str] = Counter()


@functools.cache
def message_of(size: int) -> bytes:
    """A message of zeros; one for all streams that ask for that size."""
    return b"\0" + size.to_bytes(4) + bytes(size)


class Stream:
    """What came of a request, and what of its answer is still to be sent."""

    __slots__ = ("begun", "left", "message", "request", "window")

    def __init__(self, window: int) -> None:
        self.request = bytearray()
        self.window = window
        self.message = b""
        self.left = 0
        self.begun = False


class Backend(asyncio.Protocol):
    """One connection of the proxy."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.window = 65535
        self.first_window = 65535
        self.paused = False
        self.out: list[bytes] = []
        self.credit: Counter[int] = Counter()
        self._octets = bytearray()
        self._preface_left = len(wire.PREFACE)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        counts["connections"] += 1
        self.transport.write(wire.settings((wire.MAX_CONCURRENT_STREAMS, 10000)) + wire.window_update(0, 1 << 30))

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        for stream_id in list(self.streams):
            self.send(stream_id)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._octets += data
        at = 0
        if self._preface_left:
            at = min(self._preface_left, len(self._octets))
            self._preface_left -= at
        for kind, flags, stream_id, payload in wire.take_frames(self._octets, at):
            self.take(kind, flags, stream_id, payload)
        self.flush()

    def flush(self) -> None:
        """Write what was said and give back the windows, once for all that was read: others wait for this process."""
        for stream_id, octets in self.credit.items():
            self.out.append(wire.window_update(stream_id, octets))
        self.credit.clear()
        if self.out and not self.transport.is_closing():
            self.transport.write(b"".join(self.out))
        self.out.clear()

    def take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """A frame."""
        stream = self.streams.get(stream_id)
        if kind == wire.HEADERS and stream is None:
            counts["streams"] += 1
            stream = self.streams[stream_id] = Stream(self.first_window)
        elif kind == wire.DATA:
            counts["octets"] += len(payload)
            if stream is not None:
                stream.request += payload[1 : len(payload) - payload[0]] if flags & wire.PADDED else payload
            if payload:
                self.credit[0] += len(payload)
                if not flags & wire.END_STREAM and stream is not None:
                    self.credit[stream_id] += len(payload)
        elif kind == wire.RST_STREAM:
            counts["resets"] += 1
            self.streams.pop(stream_id, None)
            self.credit.pop(stream_id, None)
            return
        elif kind == wire.SETTINGS and not flags & wire.ACK:
            self.take_settings(payload)
        elif kind == wire.PING and not flags & wire.ACK:
            self.out.append(wire.ping(payload, ack=True))
        elif kind == wire.WINDOW_UPDATE:
            self.take_window(stream_id, int.from_bytes(payload))
        if kind in (wire.HEADERS, wire.DATA) and flags & wire.END_STREAM and stream is not None and not stream.begun:
            self.answer(stream_id, stream)

    def take_settings(self, payload: bytes) -> None:
        """SETTINGS; the first window of streams is what counts here."""
        for setting, value in struct.iter_unpack(">HI", payload):
            if setting == wire.INITIAL_WINDOW_SIZE:
                for stream in self.streams.values():
                    stream.window += value - self.first_window
                self.first_window = value
        self.out.append(wire.settings_ack())

    def take_window(self, stream_id: int, increment: int) -> None:
        """WINDOW_UPDATE."""
        if stream_id == 0:
            self.window += increment
            for waiting in list(self.streams):
                self.send(waiting)
        elif stream_id in self.streams:
            self.streams[stream_id].window += increment
            self.send(stream_id)

    def answer(self, stream_id: int, stream: Stream) -> None:
        """The request is whole."""
        stream.begun = True
        stream.message = bytes(stream.request)
        if stream.message[5:10] == b"size ":
            stream.message = message_of(int(stream.message[10:]))
        elif stream.message[5:10] == b"slow ":
            asyncio.get_running_loop().call_later(int(stream.message[10:]) / 1000, self.begin_late, stream_id, stream)
            return
        self.begin(stream_id, stream)

    def begin_late(self, stream_id: int, stream: Stream) -> None:
        """begin(), outside of a read."""
        self.begin(stream_id, stream)
        self.flush()

    def begin(self, stream_id: int, stream: Stream) -> None:
        """Send the head of an answer, and what may go of it."""
        if self.streams.get(stream_id) is not stream:
            return
        stream.request.clear()
        stream.left = len(stream.message)
        counts["answered"] += 1
        self.out.append(wire.headers(stream_id, RESPONSE))
        self.send(stream_id)

    def send(self, stream_id: int) -> None:
        """As much of an answer as the windows and the socket allow."""
        stream = self.streams[stream_id]
        if not stream.begun:
            return
        while stream.left and not self.paused:
            size = min(stream.left, stream.window, self.window, FRAME)
            if size <= 0:
                return
            at = len(stream.message) - stream.left
            self.out.append(wire.data(stream_id, stream.message[at : at + size]))
            counts["sent"] += size
            stream.left -= size
            stream.window -= size
            self.window -= size
            if len(self.out) > 16:
                self.flush()
        if not stream.left:
            del self.streams[stream_id]
            self.out.append(wire.headers(stream_id, TRAILERS, end_stream=True))


async def main() -> None:
    """Serve; one JSON line for each line on standard input."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Backend, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps(dict(counts)), flush=True)
        counts.clear()


if __name__ == "__main__":
    uvloop.run(main())
