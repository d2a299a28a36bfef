"""The table "When a backend breaks" of docs/decisions.md, cell by cell: what it says is what a caller gets.

More of each kind is in test_broken_backends.py, what is sent again in test_retry.py, TLS in test_tls_relay.py.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from h2.settings import SettingCodes

from pygw.model import TlsUpstream
from pygw.settings import Settings
from tests.doubles import frames
from tests.doubles.certificates import Authority
from tests.doubles.frames import data, headers, rst_stream
from tests.doubles.in_process import REQUEST, Backend, gateway, message, one_route, run
from tests.doubles.raw_peers import black_hole, refused_port, speak_http1, tcp_server

TABLE = Path(__file__).parents[2] / "docs" / "decisions.md"
NONE, BETWEEN, INSIDE, OTHERS = "No response yet", "Between messages", "Inside a message", "Its other calls"
CALL, ANSWER = message(b"ask"), message(b"answer")
HEAD = headers(3, frames.RESPONSE)
BEGUN = {NONE: b"", BETWEEN: HEAD + data(3, ANSWER), INSIDE: HEAD + data(3, ANSWER[:-1])}
RECEIVED = {NONE: b"", BETWEEN: ANSWER, INSIDE: ANSWER[:-1]}
OK = (b"grpc-status", b"0")


def table() -> dict[str, dict[str, str]]:
    """The cells by row and column."""
    text = TABLE.read_text().partition("## When a backend breaks\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


# ===== what a backend does on a connection that stands =====


@dataclass
class Scene:
    """A call under way: the client's stream `call`, and stream 3 of the backend's connection `peer`."""

    served: Any
    client: Any
    peer: Any
    call: int
    stage: str


Act = Callable[[Scene], Awaitable[None]]


@dataclass
class Fault:
    """Ways in which a backend does what a row says; `wanted` is what "as it is" means."""

    acts: list[Act]
    settings: dict[str, Any] = field(default_factory=dict)
    fields: tuple[tuple[str, str], ...] = ()
    wanted: str | None = None


def sends(*octets: bytes, **by_stage: bytes) -> Act:
    """Writes these octets, or those of the stage: `none`, `between` or `inside`."""

    async def act(scene: Scene) -> None:
        name = {NONE: "none", BETWEEN: "between", INSIDE: "inside"}[scene.stage]
        scene.peer.writer.write(b"".join(octets) or by_stage[name])

    return act


async def close(scene: Scene) -> None:
    scene.peer.writer.close()


async def reset(scene: Scene) -> None:
    sock = scene.peer.writer.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    scene.peer.writer.transport.abort()


async def take_nothing(scene: Scene) -> None:
    """Stops to read, with windows so large that only the kernel's buffers are full in the end."""
    scene.peer.widen(2**26)
    await scene.peer.until(lambda: scene.peer.unacknowledged == 0)
    scene.peer.stop_reading()
    while not scene.client.streams.get(scene.call) or not scene.client.streams[scene.call].over:
        room = min(scene.client.h2.local_flow_control_window(scene.call), 16384)
        if room:
            scene.client.data(scene.call, bytes(room))
        await asyncio.sleep(0.001)


async def give_no_window(scene: Scene) -> None:
    """Does not acknowledge what it reads, to the call: its connection has a large window."""
    scene.peer.reads = False
    scene.peer.h2.increment_flow_control_window(2**20)
    scene.peer.flush()
    body = bytes(2 * 65_535)  # twice HTTP/2's own first window
    while body:
        room = min(scene.client.h2.local_flow_control_window(scene.call), 16384)
        scene.client.data(scene.call, body[:room])
        body = body[room:]
        await asyncio.sleep(0)


async def ignore_pings(scene: Scene) -> None:
    scene.peer.answers_pings = False


async def nothing(scene: Scene) -> None:
    """Says nothing more."""


def ends_with(*fields: tuple[bytes, bytes]) -> Act:
    """Trailers with these fields, or a Trailers-Only response."""
    trailers = headers(3, list(fields), end_stream=True)
    return sends(none=headers(3, [*frames.RESPONSE, *fields], end_stream=True), between=trailers, inside=trailers)


LARGE = [(b"x" * 90, b"y" * 90) for _ in range(20)]
END = headers(3, frames.TRAILERS, end_stream=True)
NOT_KEPT = {"retry_buffer": 0}  # so that it is not sent again
FAULTS = {
    "closes or resets the connection": Fault([close, reset]),
    "leaves a frame half-sent for `frame_timeout`": Fault(
        [sends(headers(3, frames.TRAILERS, end_headers=False))], {"frame_timeout": 0.05}),
    "takes nothing for `write_timeout`": Fault([take_nothing], {"write_timeout": 0.3}),
    "does not answer a PING within `keepalive_timeout`": Fault(
        [ignore_pings], {"upstream_keepalive_time": 0.05, "keepalive_timeout": 0.05}),
    "breaks HTTP/2 on the connection (HPACK, PUSH_PROMISE, frames out of place, floods)": Fault([
        sends(headers(3, b"\xff\xff\xff\xff\xff\xff")),
        sends(frames.frame(frames.PUSH_PROMISE, 4, 3, b"\0\0\0\2" + frames.block(frames.REQUEST))),
        sends(data(99, b"x")),
        sends(frames.ping() * 1500),
    ]),
    "says with GOAWAY that it did not process the call": Fault([sends(frames.goaway(1))], NOT_KEPT),
    "refuses the call (REFUSED_STREAM)": Fault([sends(rst_stream(3, frames.REFUSED_STREAM))], NOT_KEPT),
    "resets the call with ENHANCE_YOUR_CALM": Fault([sends(rst_stream(3, frames.ENHANCE_YOUR_CALM))]),
    "resets the call with any other code": Fault(
        [sends(rst_stream(3, code)) for code in (frames.NO_ERROR, frames.INTERNAL_ERROR, frames.CANCEL, 0xFFFF)]),
    "gives the request no flow-control window for `stream_stall_timeout`": Fault(
        [give_no_window], {"stream_stall_timeout": 0.1}),
    "sends what is malformed (RFC 9113 §8.1.1)": Fault([
        sends(frames.window_update(3, 0)),
        sends(none=data(3, ANSWER), between=headers(3, frames.TRAILERS), inside=headers(3, frames.TRAILERS)),
        sends(headers(3, [*frames.RESPONSE, (b"X-Upper", b"a")], end_stream=True)),
    ]),
    "sends more than `max_interim_responses`": Fault([sends(headers(3, [(b":status", b"103")]) * 33)]),
    "sends headers or trailers over `max_header_list_size`": Fault([ends_with(OK, *LARGE)]),
    "ends without grpc-status": Fault([ends_with((b"x-a", b"b"))]),
    "ends with several grpc-status": Fault([ends_with(OK, (b"grpc-status", b"5"))]),
    "ends with grpc-status 0": Fault([ends_with(OK)], wanted="0"),
    "ends with another grpc-status": Fault([ends_with((b"grpc-status", b"5"))], wanted="5"),
    "sends more after the end": Fault([
        sends(none=BEGUN[BETWEEN] + END + data(3, ANSWER), between=END + data(3, ANSWER)),
    ], wanted="0"),
    "answers with another `:status` than 200": Fault([sends(headers(3, [(b":status", b"503")], end_stream=True))]),
    "says nothing until the deadline": Fault([nothing], fields=(("grpc-timeout", "150m"),)),
}  # fmt: skip


async def begin(served: Any, backend: Backend, fault: Fault, stage: str) -> tuple[Scene, int]:
    """A call that has come to the stage, and another one on the same connections."""
    client = await served.client()
    beside = client.request()
    peer = await backend.connected()
    await peer.open(1)
    call = client.request((*REQUEST, *fault.fields))
    client.data(call, CALL)
    await peer.until(lambda: 3 in peer.streams and peer.streams[3].data == CALL)
    peer.writer.write(BEGUN[stage])
    if RECEIVED[stage]:
        await client.until(lambda: call in client.streams and client.streams[call].data == RECEIVED[stage])
    return Scene(served, client, peer, call, stage), beside


async def check_other_call(scene: Scene, beside: int, cell: str) -> None:
    """Another call on the same connections, which had no response yet."""
    if cell == "go on":
        scene.client.data(beside, CALL, end=True)
        await scene.peer.over(1)
        scene.peer.respond(1)
        assert (await scene.client.over(beside)).status == "0"
    else:
        assert cell == "14"
        assert (await scene.client.over(beside)).status == "14"


def check(stream: Any, cell: str, wanted: str | None) -> None:
    """Whether a stream ended as a cell says."""
    resets = {"reset": frames.INTERNAL_ERROR, "reset (CANCEL)": frames.CANCEL}
    if cell in resets:
        assert (stream.status, stream.reset) == (None, resets[cell])
    else:
        # The request was not whole, and nobody needs the rest (RFC 9113 §8.1).
        assert stream.reset in (None, frames.NO_ERROR)
        assert stream.status == (wanted if cell == "as it is" else cell)


CELLS = [
    pytest.param(row, stage, act, id=f"{row} - {stage} - {place}")
    for row, cells in table().items()
    for stage in (NONE, BETWEEN, INSIDE)
    if cells[stage] and row in FAULTS
    for place, act in enumerate(FAULTS[row].acts)
]


@pytest.mark.parametrize(("row", "stage", "act"), CELLS)
def test_what_a_caller_gets(row: str, stage: str, act: Act) -> None:
    cells, fault = table()[row], FAULTS[row]

    async def test() -> None:
        backend = await Backend().start()
        settings = Settings(**{"max_header_list_size": 2000, **fault.settings})
        async with gateway(one_route([backend]), settings) as served:
            scene, beside = await begin(served, backend, fault, stage)
            await act(scene)
            check(await scene.client.over(scene.call), cells[stage], fault.wanted)
            await check_other_call(scene, beside, cells[OTHERS])
            assert not scene.client.closed

    run(test)


# ===== where there is no connection to a backend, or no room on one =====


def say_nothing(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.recv(1)


def hang_up(connection: socket.socket) -> None:
    connection.recv(65536)


async def through(config: Any, settings: Settings) -> Any:
    """How a call ends."""
    async with gateway(config, settings) as served:
        client = await served.client()
        return await client.over(client.request(body=CALL))


async def at(listening: Any, **settings: float) -> Any:
    with listening() as port:
        return await through(one_route(ports=[port]), Settings(**settings))


async def over_tls(listening: Any) -> Any:
    with listening() as port:
        config = one_route(ports=[port])
        tls = TlsUpstream("backend.test", Authority().pem.decode())
        backends = {key: replace(backend, tls=tls) for key, backend in config.backends.items()}
        return await through(replace(config, backends=backends), Settings(handshake_timeout=0.05))


async def full(**settings: float) -> Any:
    backend = await Backend({SettingCodes.MAX_CONCURRENT_STREAMS: 0}).start()
    return await through(one_route([backend]), Settings(max_upstream_connections=1, **settings))


UNREACHABLE: dict[str, list[Callable[[], Awaitable[Any]]]] = {
    "refuses connections, or takes none within `connect_timeout`": [
        partial(at, refused_port), partial(at, black_hole, connect_timeout=0.05),
    ],
    "ends connections before the HTTP/2 handshake, or speaks HTTP/1": [
        partial(at, partial(tcp_server, hang_up)), partial(at, partial(tcp_server, speak_http1)),
    ],
    "does not finish a handshake within `handshake_timeout`": [
        partial(at, partial(tcp_server, say_nothing), handshake_timeout=0.05),
        partial(over_tls, partial(tcp_server, say_nothing)),
    ],
    "fails the TLS handshake (certificate, name, no ALPN, no TLS)": [
        partial(over_tls, partial(tcp_server, hang_up)), partial(over_tls, partial(tcp_server, speak_http1)),
    ],
    "has no room for the call within `pending_timeout`": [partial(full, pending_timeout=0.05)],
    "has no room, and `pending_calls` wait already": [partial(full, pending_calls=0)],
}  # fmt: skip


ENDS = [
    pytest.param(row, end, id=f"{row} - {place}")
    for row, ends in UNREACHABLE.items()
    for place, end in enumerate(ends)
]


@pytest.mark.parametrize(("row", "end"), ENDS)
def test_what_a_caller_gets_without_a_connection(row: str, end: Callable[[], Awaitable[Any]]) -> None:
    cells = table()[row]
    assert cells[BETWEEN] == cells[INSIDE] == ""

    async def test() -> None:
        stream = await end()
        assert (stream.status, stream.reset) == (cells[NONE], None)
        assert stream.text

    run(test)


def test_every_row_is_tested() -> None:
    assert list(table()) == [*UNREACHABLE, *FAULTS]
