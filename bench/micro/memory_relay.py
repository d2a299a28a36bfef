"""A Relay without sockets: a client's octets go in and an endpoint's come out, in this process and on one call stack.

For what a relayed call costs in our own code, which the kernel's part of a real call hides.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import hpack

from pygw import tables
from pygw.model import (
    BackendConfig,
    BackendRefConfig,
    GatewayConfig,
    ListenerConfig,
    MatchConfig,
    RouteConfig,
    RuleConfig,
)
from pygw.proxy.relay import Relay
from pygw.settings import Settings
from tests.doubles import frames

WINDOW = 2**31 - 1
REQUEST = [
    (":method", "POST"), (":scheme", "http"), (":path", "/bench.Echo/Call"), (":authority", "bench.example.com"),
    ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "grpc-go/1.80.0"),
]  # fmt: skip
RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS = [("grpc-status", "0")]


class MemoryTransport(asyncio.Transport):
    """Where a Peer writes; `written` is what it wrote."""

    def __init__(self, peer: socket.socket) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.socket = peer

    def write(self, data: Any) -> None:
        """As uvloop: all is taken at once."""
        self.written.append(data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """An address, and a socket that nothing travels on."""
        return {"peername": ("127.0.0.1", 40000), "socket": self.socket}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """Nothing is open."""


class MemoryLoop(asyncio.SelectorEventLoop):
    """A loop whose connections lead nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[tuple[MemoryTransport, Any]] = []
        self.unused, self.other = socket.socketpair()

    async def create_connection(self, protocol_factory: Callable[[], Any], *args: Any, **options: Any) -> Any:  # type: ignore[override]
        """Connected at once."""
        transport, protocol = MemoryTransport(self.unused), protocol_factory()
        protocol.connection_made(transport)
        self.dialled.append((transport, protocol))
        return transport, protocol

    def turn(self) -> None:
        """Everything that is due now."""
        self.call_soon(self.stop)
        self.run_forever()


class MemoryRelay:
    """One client connection, one endpoint; `calls(n)` relays n calls that came in one read."""

    def __init__(self, message: int = 16, changing: bool = False) -> None:
        self.loop = MemoryLoop()
        # No call is shed: under callgrind, and on a busy machine, any turn is too long.
        self.relay = Relay(self.loop, Settings(overload_lag=0), 0)
        self._apply()
        self.message, self.changing = frames_message(message), changing
        self.encoders = hpack.Encoder(), hpack.Encoder()  # the client's, the endpoint's
        self.next_stream = [1, 1]
        self.number = 0
        self.client = self.relay.protocol_factory("127.0.0.1", 80)()
        self.client_transport = MemoryTransport(self.loop.unused)
        self.client.connection_made(self.client_transport)
        wide = frames.settings((frames.INITIAL_WINDOW_SIZE, WINDOW)) + frames.settings_ack()
        wide += frames.window_update(0, WINDOW - 65535)
        self.feed(self.client, frames.PREFACE + wide + self._request())
        for _ in range(10):
            self.loop.turn()
        [(self.endpoint_transport, self.endpoint)] = self.loop.dialled
        limit = frames.settings((frames.INITIAL_WINDOW_SIZE, WINDOW), (frames.MAX_CONCURRENT_STREAMS, 1000))
        self.feed(self.endpoint, limit + frames.settings_ack() + frames.window_update(0, WINDOW - 65535))
        for _ in range(10):
            self.loop.turn()
        self.feed(self.endpoint, self._answer())
        self.loop.turn()

    def _apply(self) -> None:
        key = "default/main:1"
        rule = RuleConfig(0, (MatchConfig("bench.Echo", False, "Call", False),),
                          (BackendRefConfig(key, "default", "main", 1),))
        route = RouteConfig("default", "route", ("bench.example.com",), (rule,))
        listener = ListenerConfig("default/gateway", "grpc", 80, routes=(route.key,))
        backend = BackendConfig(key, "default", "main", 1, (("127.0.0.1", 1),))
        image = tables.compile_image(GatewayConfig((listener,), {route.key: route}, {key: backend}))
        self.relay.apply(1, image.octets, [(name, backend.endpoints) for name in image.backend_keys])

    def feed(self, protocol: Any, octets: bytes) -> None:
        """What uvloop does with a read."""
        for start in range(0, len(octets), 131072):
            piece = octets[start : start + 131072]
            protocol.get_buffer(-1)[: len(piece)] = piece
            protocol.buffer_updated(len(piece))

    def prepare(self, count: int) -> tuple[bytes, bytes]:
        """The octets of so many calls: the client's, and the endpoint's answers."""
        request = b"".join(self._request() for _ in range(count))
        return request, b"".join(self._answer() for _ in range(count))

    def relay_prepared(self, calls: tuple[bytes, bytes]) -> None:
        """Two reads and a write for each."""
        request, answer = calls
        self.feed(self.client, request)
        self.loop.turn()
        self.feed(self.endpoint, answer)
        self.loop.turn()

    def close(self) -> None:
        """Gives back what it holds."""
        self.relay.close()
        self.loop.turn()
        self.loop.unused.close()
        self.loop.other.close()
        self.loop.close()

    def completed(self) -> float:
        """How many calls have ended with grpc-status 0."""
        return sum(
            value for name, labels, value in self.relay.metrics()["counters"]
            if name == "pygw_calls_total" and labels["grpc_status"] == "0"
        )

    def written(self) -> int:
        """Octets that came out at both ends, taken."""
        octets = 0
        for transport in (self.client_transport, self.endpoint_transport):
            octets += sum(map(len, transport.written))
            transport.written.clear()
        return octets

    def _request(self) -> bytes:
        stream = self._next(0)
        fields = list(REQUEST)
        if self.changing:
            self.number += 1
            fields += [("grpc-timeout", f"{50000 + self.number % 1000}m"), ("x-request-id", f"{self.number:032x}"),
                       ("traceparent", f"00-{self.number:032x}-{self.number:016x}-01")]
        block = self.encoders[0].encode(fields)
        return frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block) + frames.data(
            stream, self.message, end_stream=True)

    def _answer(self) -> bytes:
        stream = self._next(1)
        encode = self.encoders[1].encode
        end = frames.END_HEADERS | frames.END_STREAM
        return (
            frames.frame(frames.HEADERS, frames.END_HEADERS, stream, encode(RESPONSE))
            + frames.data(stream, self.message)
            + frames.frame(frames.HEADERS, end, stream, encode(TRAILERS))
        )

    def _next(self, end: int) -> int:
        self.next_stream[end] += 2
        return self.next_stream[end] - 2


def frames_message(size: int) -> bytes:
    """A gRPC message of so many octets."""
    return b"\0" + size.to_bytes(4) + bytes(size)
