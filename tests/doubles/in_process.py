"""A Relay inside the test's own event loop, with PyPI's h2 at both ends: every frame and every counter is in sight.

For what needs a look inside (streams held, calls open) or settings that no real deployment would have. What needs
processes, files and real gRPC libraries is in tests/end_to_end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import h2.config
import h2.connection
import h2.events
import h2.settings
import h2.stream
import hyperframe.frame
import uvloop

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

# PyPI's h2 lets late frames on a stream that it has reset pass, but forgets interim responses.
_closed = h2.stream._transitions[(h2.stream.StreamState.CLOSED, h2.stream.StreamInputs.RECV_HEADERS)]
h2.stream._transitions[(h2.stream.StreamState.CLOSED, h2.stream.StreamInputs.RECV_INFORMATIONAL_HEADERS)] = _closed

PATIENCE = 10.0
Fields = Sequence[tuple[str, str]]
REQUEST: Fields = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Service/Call"),
    (":authority", "grpc.example.com"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)
RESPONSE: Fields = ((":status", "200"), ("content-type", "application/grpc"))
TRAILERS: Fields = (("grpc-status", "0"),)


def message(octets: bytes) -> bytes:
    """A gRPC message with its prefix."""
    return b"\x00" + len(octets).to_bytes(4) + octets


def run(test: Callable[[], Awaitable[None]], patience: float = 1) -> None:
    """Run an asynchronous test on uvloop, as a worker would; backends that it started are stopped.

    `patience` multiplies the time that it may take.
    """

    async def whole() -> None:
        try:
            await asyncio.wait_for(test(), PATIENCE * 3 * patience)
        finally:
            for backend in Backend.started:
                await backend.stop()
            Backend.started.clear()

    uvloop.run(whole())


@dataclass(slots=True)
class Stream:
    """What came on one stream."""

    sections: list[dict[str, str]] = field(default_factory=list)
    fields: list[list[tuple[str, str]]] = field(default_factory=list)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.ended or self.reset is not None

    @property
    def status(self) -> str | None:
        """grpc-status of the last section that has one."""
        return next((section["grpc-status"] for section in reversed(self.sections) if "grpc-status" in section), None)

    @property
    def text(self) -> str:
        """grpc-message, or nothing."""
        return self.sections[-1].get("grpc-message", "")


class Peer:
    """One end of an HTTP/2 connection; `streams` has what came. It acknowledges DATA unless `reads` is false."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_client: bool,
        settings: dict[h2.settings.SettingCodes | int, int] | None = None, encoding: str = "utf-8",
    ) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=is_client, header_encoding=encoding, validate_outbound_headers=False)
        )
        # PyPI's h2 refuses all that comes behind a GOAWAY, but RFC 9113 §6.8 lets open streams go on.
        self.h2._frame_dispatch_table[hyperframe.frame.GoAwayFrame] = self._take_goaway
        self.streams: dict[int, Stream] = {}
        self.reads = True
        self.goaways: list[tuple[int, int]] = []
        self.pings: list[bytes] = []
        self.answers_pings = True
        self.closed = False
        self._changed = asyncio.Condition()
        if settings is not None:
            initial: Any = settings
            self.h2.local_settings = h2.settings.Settings(client=is_client, initial_values=initial)
        self.unacknowledged = 1
        self.h2.initiate_connection()
        self.flush()
        self._task = asyncio.ensure_future(self._read())

    def flush(self) -> None:
        """Write what h2 has to say."""
        octets = self.h2.data_to_send()
        if octets and not self.writer.is_closing():
            self.writer.write(octets)

    def headers(self, stream_id: int, fields: Fields, *, end: bool = False) -> None:
        """Send HEADERS."""
        self.h2.send_headers(stream_id, list(fields), end_stream=end)
        self.flush()

    def data(self, stream_id: int, octets: bytes, *, end: bool = False) -> None:
        """Send DATA within one frame."""
        self.h2.send_data(stream_id, octets, end_stream=end)
        self.flush()

    async def fill(self, stream_id: int, octets: int = 2**31) -> int:
        """Send up to so many octets of DATA, as far as the other end gives windows; how many went."""
        sent = 0
        while stream_id in self.h2.streams and not self.h2.streams[stream_id].closed:
            room = min(self.h2.local_flow_control_window(stream_id), 16384, octets - sent)
            if room <= 0:
                break
            self.data(stream_id, bytes(room))
            sent += room
            await asyncio.sleep(0)
        return sent

    def request(self, fields: Fields = REQUEST, *, body: bytes | None = None) -> int:
        """Send a whole request, or only its HEADERS where `body` is None; the stream's id."""
        stream_id = self.h2.get_next_available_stream_id()
        self.headers(stream_id, fields, end=body == b"")
        if body:
            self.data(stream_id, body, end=True)
        return stream_id

    def respond(self, stream_id: int, body: bytes = message(b"answer"), trailers: Fields = TRAILERS) -> None:
        """Send a whole response."""
        self.headers(stream_id, RESPONSE)
        self.data(stream_id, body)
        self.headers(stream_id, trailers, end=True)

    def stop_reading(self) -> None:
        """Leave what comes in the kernel: soon the other end cannot write."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def widen(self, octets: int) -> None:
        """Open the window of the connection, and the first ones of its streams."""
        self.change({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: octets})
        self.h2.increment_flow_control_window(octets)
        self.flush()

    def change(self, settings: dict[h2.settings.SettingCodes | int, int]) -> None:
        """Send SETTINGS. While `unacknowledged`, h2 would take the next acknowledgement for that of all."""
        self.unacknowledged += 1
        self.h2.update_settings(settings)
        self.flush()

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait until it holds; whatever comes is looked at."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(holds)

    async def over(self, stream_id: int) -> Stream:
        """Wait for the end of a stream."""
        await self.until(lambda: stream_id in self.streams and self.streams[stream_id].over)
        return self.streams[stream_id]

    async def open(self, count: int) -> list[int]:
        """Wait until so many streams came; their ids."""
        await self.until(lambda: len(self.streams) >= count)
        return sorted(self.streams)

    async def close(self) -> None:
        """Close the connection and wait for it."""
        self._task.cancel()
        self.writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self.writer.wait_closed()

    async def _read(self) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while octets := await self.reader.read(65536):
                self.take(octets)
                async with self._changed:
                    self._changed.notify_all()
        self.closed = True
        async with self._changed:
            self._changed.notify_all()

    def _take_goaway(self, frame: hyperframe.frame.GoAwayFrame) -> tuple[list[Any], list[Any]]:
        self.goaways.append((frame.last_stream_id, frame.error_code))
        return [], []

    def take(self, octets: bytes) -> None:
        """Look at what came."""
        for event in self.h2.receive_data(octets):
            if isinstance(event, h2.events.PingReceived):
                self.pings.append(event.ping_data)
            elif isinstance(event, h2.events.SettingsAcknowledged):
                self.unacknowledged -= 1
            stream_id = getattr(event, "stream_id", None)
            if not stream_id:
                continue
            stream = self.streams.setdefault(stream_id, Stream())
            fields = getattr(event, "headers", None)
            if fields is not None:
                stream.fields.append([(str(name), str(value)) for name, value in fields])
                stream.sections.append(dict(stream.fields[-1]))
            elif isinstance(event, h2.events.DataReceived):
                stream.data += event.data or b""
                if self.reads:
                    self.h2.acknowledge_received_data(event.flow_controlled_length or 0, stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream.ended = True
            elif isinstance(event, h2.events.StreamReset):
                stream.reset = int(event.error_code or 0)
        if self.answers_pings:
            self.flush()
        else:
            self.h2.data_to_send()


class Backend:
    """An h2 server; `peers` are its connections. `settings` go into each one's SETTINGS.

    Fields that came are read in `encoding`: latin-1 shows octets as they are.
    """

    started: ClassVar[list[Backend]] = []

    def __init__(
        self,
        settings: dict[h2.settings.SettingCodes | int, int] | None = None,
        tls: ssl.SSLContext | None = None,
        encoding: str = "utf-8",
    ) -> None:
        self.encoding = encoding
        self.peers: list[Peer] = []
        self.settings = settings or {}
        self.tls = tls
        self.port = 0
        self._server: asyncio.Server | None = None
        self._came = asyncio.Condition()

    async def start(self) -> Backend:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        Backend.started.append(self)
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, is_client=False, settings=self.settings, encoding=self.encoding)
        self.peers.append(peer)
        async with self._came:
            self._came.notify_all()

    async def connected(self, count: int = 1) -> Peer:
        """Wait until so many connections came; the last of them."""
        async with asyncio.timeout(PATIENCE), self._came:
            await self._came.wait_for(lambda: len(self.peers) >= count)
        return self.peers[count - 1]

    async def stop(self) -> None:
        """Close all."""
        if self._server is not None:
            self._server.close()
        for peer in self.peers:
            await peer.close()


class Gateway:
    """A Relay that serves `config` on a free port."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.port = 0
        self.clients: list[Peer] = []
        self._server: asyncio.Server | None = None

    async def client(
        self,
        prefix: bytes = b"",
        *,
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
        server_name: str = "grpc.example.com",
    ) -> Peer:
        """A new client connection, over TLS where `tls` is given; `prefix` goes before its HTTP/2.

        A small `receive_buffer` (octets) fills soon.
        """
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        name = server_name if tls is not None else None
        reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name)
        writer.write(prefix)
        self.clients.append(Peer(reader, writer, is_client=True))
        return self.clients[-1]

    def count(self, name: str, **labels: str) -> float:
        """The sum of a counter over all its series that have these labels."""
        values: list[float] = [
            value
            for counter, series, value in self.relay.metrics()["counters"]
            if counter == name and labels.items() <= series.items()
        ]
        return sum(values)

    def apply(self, config: GatewayConfig, version: int = 1) -> None:
        """Serve a configuration."""
        image = tables.compile_image(config)
        backends = [(key, config.backends[key].endpoints) for key in image.backend_keys]
        self.relay.apply(version, image.octets, backends, tables.compile_tls(config))


async def unread_response(served: Gateway, backend: Backend, fields: Fields = REQUEST) -> tuple[Peer, int, Peer, int]:
    """A client that has stopped reading when its response begins: it, its stream, and both at the backend."""
    client = await served.client(receive_buffer=4096)
    client.widen(2**26)
    await client.until(lambda: client.unacknowledged == 0)
    stream_id = client.request(fields, body=message(b""))
    peer = await backend.connected()
    number = (await peer.open(1))[0]
    client.stop_reading()
    peer.headers(number, RESPONSE)
    return client, stream_id, peer, number


def one_route(
    backends: Iterable[Backend] = (), *, ports: Iterable[int] = (), rule: dict[str, Any] | None = None,
    extra: dict[str, Iterable[Backend]] | None = None,
) -> GatewayConfig:
    """One listener on port 80, one route, one rule to `default/main:1`; `extra` names more backends for mirrors."""
    endpoints = tuple(("127.0.0.1", port) for port in [*(backend.port for backend in backends), *ports])
    known = {"default/main:1": BackendConfig("default/main:1", "default", "main", 1, endpoints)}
    for name, others in (extra or {}).items():
        key = f"default/{name}:1"
        known[key] = BackendConfig(key, "default", name, 1, tuple(("127.0.0.1", other.port) for other in others))
    values: dict[str, Any] = {
        "matches": (MatchConfig(),),
        "backends": (BackendRefConfig("default/main:1", "default", "main", 1),),
    }
    route = RouteConfig("default", "route", (), (RuleConfig(0, **(values | (rule or {}))),))
    listener = ListenerConfig("default/gateway", "grpc", 80, routes=(route.key,))
    return GatewayConfig((listener,), {route.key: route}, known)


@contextlib.asynccontextmanager
async def gateway(config: GatewayConfig, settings: Settings | None = None, **options: Any) -> AsyncIterator[Gateway]:
    """A running Gateway; at the end everything is closed and nothing may be left over."""
    loop = asyncio.get_running_loop()
    relay = Relay(loop, settings or Settings(), 0, **options)
    served = Gateway(relay)
    served.apply(config)
    server = await loop.create_server(relay.protocol_factory("127.0.0.1", 80), "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for client in served.clients:
            await client.close()
        relay.abort_calls()
        relay.close()
        async with asyncio.timeout(PATIENCE):
            while relay.open_connections or relay.context.pool.used:
                await asyncio.sleep(0)
    assert (relay.open_calls, relay.context.call_count, relay.context.mirror_count) == (0, 0, 0)
