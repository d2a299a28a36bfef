"""A well-behaved client beside an attack: 50 calls a second over its own connection, in its own process.

`python -m tests.adversity.victim PORT` says `ready`; a line `begin` on standard input starts the calls, and is answered
with `calling` when the first of them was; `end` stops them and prints a JSON object with their number, how many were
lost, and latencies in milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import cast

import uvloop

from tests.doubles import frames as wire

INTERVAL = 0.02
PATIENCE = 10.0
MESSAGE = b"\0\0\0\0\x06victim"
BLOCK = wire.block([
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/adversity.Victim/Call"),
    (b":authority", b"adversity.example.com"), (b"content-type", b"application/grpc"), (b"te", b"trailers"),
])  # fmt: skip


class Connection(asyncio.Protocol):
    """Makes calls and notes how long each took; `open` has those that are not answered, by stream.

    `unprocessed` are those of which the other end says that it did nothing with them: gRPC clients send them again.
    """

    def __init__(self) -> None:
        self.open: dict[int, float] = {}
        self.unprocessed: list[float] = []
        self.latencies: list[float] = []
        self.has_answer = asyncio.Event()
        self.lost = 0
        self.next_id = 1
        self.is_usable = True
        self._octets = bytearray()
        self._answered: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(wire.PREFACE + wire.settings() + wire.window_update(0, 1 << 24))

    def call(self, since: float) -> None:
        """Begin a call, the time of which counts from `since`."""
        self.open[self.next_id] = since
        self.transport.write(
            wire.headers(self.next_id, BLOCK) + wire.data(self.next_id, MESSAGE, end_stream=True)
        )
        self.next_id += 2

    def data_received(self, data: bytes) -> None:
        self._octets += data
        for kind, flags, stream_id, payload in wire.take_frames(self._octets):
            self._take(kind, flags, stream_id, payload)

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == wire.SETTINGS and not flags & wire.ACK:
            self.transport.write(wire.settings_ack())
        elif kind == wire.PING and not flags & wire.ACK:
            self.transport.write(wire.ping(payload, ack=True))
        elif kind == wire.GOAWAY:
            self.is_usable = False
            last = int.from_bytes(payload[:4])
            self.unprocessed += [self.open.pop(number) for number in list(self.open) if number > last]
        elif kind == wire.RST_STREAM and int.from_bytes(payload) == wire.REFUSED_STREAM and stream_id in self.open:
            self.unprocessed.append(self.open.pop(stream_id))
        elif kind == wire.RST_STREAM and stream_id in self.open and stream_id not in self._answered:
            self.lost += 1
            del self.open[stream_id]
        elif kind == wire.DATA and payload == MESSAGE:
            self._answered.add(stream_id)
        if kind in (wire.DATA, wire.HEADERS) and flags & wire.END_STREAM and stream_id in self.open:
            took = time.monotonic() - self.open.pop(stream_id)
            if stream_id in self._answered:
                self.latencies.append(took)
                self.has_answer.set()
            else:
                self.lost += 1
        if not self.is_usable and not self.open:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_usable = False
        self.lost += len(self.open)
        self.open.clear()


class Victim:
    """The calls between `begin` and `end`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections: list[Connection] = []
        self.refused = 0
        self._calls: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start to call. Returns when a call was answered, or none was in time."""
        self.connections, self.refused = [], 0
        self._connected = asyncio.Event()
        self._calls = asyncio.create_task(self._run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._connected.wait()
                await self.connections[0].has_answer.wait()

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            if not self.connections or not self.connections[-1].is_usable:
                await self._connect()
            else:
                self.connections[-1].call(time.monotonic())
                for connection in self.connections:
                    while connection.unprocessed:
                        self.connections[-1].call(connection.unprocessed.pop())
            due = max(due + INTERVAL, time.monotonic() - INTERVAL)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _connect(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            _, connection = await asyncio.wait_for(loop.create_connection(Connection, "127.0.0.1", self.port), 5)
            self.connections.append(connection)
            self._connected.set()
        except (OSError, TimeoutError):
            self.refused += 1

    async def end(self) -> dict[str, float]:
        """Stop, wait for the calls that are open, and say what became of all."""
        assert self._calls
        self._calls.cancel()
        await asyncio.wait([self._calls])
        deadline = time.monotonic() + PATIENCE
        while any(connection.open for connection in self.connections) and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        latencies = sorted(took * 1000 for connection in self.connections for took in connection.latencies)
        lost = self.refused + sum(c.lost + len(c.open) + len(c.unprocessed) for c in self.connections)
        for connection in self.connections:
            connection.transport.close()
        return {
            "calls": len(latencies) + lost,
            "lost": lost,
            "refused": self.refused,
            "p50_ms": quantile(latencies, 0.5),
            "p99_ms": quantile(latencies, 0.99),
        }


def quantile(ordered: list[float], share: float) -> float:
    """The value that so large a share does not exceed."""
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2) if ordered else 0.0


async def main(port: int) -> None:
    """Do what the lines on standard input say."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    victim = Victim(port)
    print("ready", flush=True)
    while line := await reader.readline():
        if line.strip() == b"begin":
            await victim.begin()
            print("calling", flush=True)
        else:
            print(json.dumps(await victim.end()), flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
