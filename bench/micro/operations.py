"""The operations whose instructions bench/gate.py counts: small, deterministic, one part of the hot path each.

As a program it runs all of them, each once to warm up and once counted, and tells callgrind (through
programs/count.c, whose library is the argument) where each begins and ends. The modules of pygw that it measures are
those on the path: the gate runs this same file against two builds. Prints NAME COUNT for each operation.
"""

from __future__ import annotations

import ctypes
import gc
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hpack

from bench.micro.memory_relay import REQUEST, MemoryRelay
from pygw._fastmatch import RouteTable
from pygw.http2.connection_options import ConnectionOptions
from pygw.http2.recording_connection import DiscardingConnection
from pygw.http2.recording_hpack import RecordingDecoder, RecordingEncoder
from pygw.http2.stream import StreamPool
from pygw.model import (
    BackendRefConfig,
    GatewayConfig,
    HeaderMatch,
    ListenerConfig,
    MatchConfig,
    RouteConfig,
    RuleConfig,
)
from pygw.tables import compile_image
from tests.doubles import frames

FIELDS = [(name.encode(), value.encode()) for name, value in REQUEST]
CHANGING = [
    (b"grpc-timeout", b"999873u"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    (b"authorization", b"Bearer " + b"eyJhbGciOiJSUzI1NiIs" * 5),
]


@dataclass(frozen=True)
class Operation:
    """`make` prepares and returns what runs it `count` times; it may be run twice."""

    name: str
    count: int
    make: Callable[[], Callable[[], object]]


def new_server() -> DiscardingConnection:
    """A server end behind the exchange of SETTINGS, with windows that never fill."""
    options = ConnectionOptions(max_concurrent_streams=2**31, connection_window=2**31 - 1, stream_window_max=2**31 - 1)
    connection = DiscardingConnection(options, StreamPool(), False)
    connection.begin()
    connection.feed(frames.PREFACE + frames.settings((frames.INITIAL_WINDOW_SIZE, 2**30)) + frames.settings_ack())
    connection.output()
    return connection


def _frames(octets: bytes, repeat: int) -> Callable[[], object]:
    connection = new_server()
    connection.feed(frames.headers(1))
    connection.output()
    return lambda: connection.measure_receive(octets, repeat)


def _decode(changing: bool) -> Callable[[], object]:
    decoder, block = _repeated(changing)
    return lambda: decoder.repeat_decode(block, 1000)


def _encode(changing: bool) -> Callable[[], object]:
    decoder, block = _repeated(changing)
    encoder = RecordingEncoder(4096)
    for _ in range(2):
        decoder.decode_block(block)
        encoder.relay_block(decoder)
    return lambda: encoder.repeat_relay(decoder, 1000)


def _repeated(changing: bool) -> tuple[Any, bytes]:
    """A decoder that has seen the request, and the block that repeats it (with fields that are not indexed)."""
    decoder = RecordingDecoder(4096, 131072, 1000)
    if changing:
        sender = RecordingEncoder(4096)
        decoder.decode_block(sender.encode_block(FIELDS, index=True))
        return decoder, sender.encode_block(FIELDS + CHANGING)
    plain = hpack.Encoder()
    decoder.decode_block(plain.encode(FIELDS))
    return decoder, plain.encode(FIELDS)


def _table(rules: int, backends: int = 1) -> RouteTable:
    refs = tuple(BackendRefConfig(f"d/b{n}:1", "d", f"b{n}", 1, weight=n + 1) for n in range(backends))
    routes = {}
    for number in range(rules):
        header = HeaderMatch("x-rule", f"r{number}")
        match = MatchConfig(f"bench.S{number}", False, "Call", False, (header,))
        route = RouteConfig("default", f"route-{number}", ("bench.example.com",), (RuleConfig(0, (match,), refs),))
        routes[route.key] = route
    listener = ListenerConfig("default/gateway", "grpc", 80, routes=tuple(sorted(routes)))
    return RouteTable(compile_image(GatewayConfig((listener,), routes)).octets)


def _match(rules: int) -> Callable[[], object]:
    table = _table(rules)
    # Different rules: how far a lookup has to go depends on the tables' random keys, which averages out.
    questions = [
        (b"bench.example.com", f"/bench.S{number}/Call".encode(), [*FIELDS, (b"x-rule", f"r{number}".encode())])
        for number in (place * 7919 % rules for place in range(100))
    ]
    return lambda: table.match_times(10, 0, questions)


def _pick() -> Callable[[], object]:
    table = _table(1, backends=4)
    return lambda: table.pick_times(0, 1000)


def _relay(message: int, changing: bool = False) -> Callable[[], object]:
    relay = MemoryRelay(message, changing)
    prepared = [[relay.prepare(100) for _ in range(5)] for _ in range(2)]

    def run() -> None:
        for calls in prepared.pop(0):
            relay.relay_prepared(calls)
        assert relay.written() > 2 * 500 * message, "calls were not relayed"

    return run


OPERATIONS = (
    Operation("frames-of-100-octets", 2000, lambda: _frames(frames.data(1, bytes(100)) * 20, 100)),
    Operation("frames-of-16-kib", 200, lambda: _frames(frames.data(1, bytes(16384)) * 10, 20)),
    Operation("hpack-decode-repeated", 1000, lambda: _decode(False)),
    Operation("hpack-decode-changing", 1000, lambda: _decode(True)),
    Operation("hpack-encode-repeated", 1000, lambda: _encode(False)),
    Operation("hpack-encode-changing", 1000, lambda: _encode(True)),
    Operation("match-1-rule", 1000, lambda: _match(1)),
    Operation("match-1000-rules", 1000, lambda: _match(1000)),
    Operation("pick", 1000, _pick),
    Operation("relay", 500, lambda: _relay(16)),
    Operation("relay-changing", 500, lambda: _relay(16, changing=True)),
    Operation("relay-8-kib", 500, lambda: _relay(8192)),
)


def main() -> int:
    counting = ctypes.CDLL(sys.argv[1])
    random.seed(1)
    for operation in OPERATIONS:
        try:
            run = operation.make()
            run()
        except Exception as error:  # the base may not have what this operation needs
            print(f"{operation.name} 0 {type(error).__name__}: {error}", flush=True)
            continue
        gc.collect()
        gc.disable()
        counting.begin()
        run()
        counting.end(operation.name.encode())
        gc.enable()
        print(f"{operation.name} {operation.count}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
