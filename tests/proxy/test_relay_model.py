"""Clients and backends that do anything at any time, through one Relay: whatever happens, each call ends once, each
octet is relayed once and in order, and nothing is left.

Both ends are PyPI's h2, so whatever the relay sends that HTTP/2 does not allow (windows over-spent among it) ends its
connection here, and the test. PYGW_EXAMPLES sets how many runs, then of random steps.
"""

import asyncio
import contextlib
import os
import random
import socket
from dataclasses import dataclass, field

import h2.exceptions
from h2.settings import SettingCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pygw.model import MirrorConfig
from pygw.settings import Settings
from tests.doubles.in_process import REQUEST, RESPONSE, TRAILERS, Backend, Peer, gateway, message, one_route, run

EXAMPLES = int(os.environ.get("PYGW_EXAMPLES", "25"))
LIMITS = Settings(
    pending_calls=3,
    pending_timeout=0.02,
    max_upstream_connections=2,
    max_concurrent_streams=6,
    write_high_water=2000,
    max_blocked_output=3000,
    mirror_buffer=2000,
    max_mirror_calls=3,
    keepalive_timeout=0.5,
    stream_stall_timeout=0.02,
    max_connection_age=0,
)


# Frames that are connection errors (RFC 9113 §6.1, §6.7, §6.9).
SHORT_PING = b"\0\0\1\x06\0\0\0\0\0x"
DATA_ON_STREAM_0 = b"\0\0\0\0\0\0\0\0\0"
EMPTY_UPDATE = b"\0\0\4\x08\0\0\0\0\0\0\0\0\0"


@dataclass
class Call:
    """What one client sent, and where."""

    client: Peer
    stream_id: int
    sent: bytes = b""
    ended: bool = False
    reset: bool = False

    @property
    def stream(self):
        return self.client.streams.get(self.stream_id)

    @property
    def is_ignored(self):
        """It came behind the last stream of a GOAWAY: nobody looks at it, and the client may send it elsewhere."""
        return any(self.stream_id > last for last, _ in self.client.goaways)

    @property
    def is_open(self):
        return not (self.client.closed or self.reset or self.is_ignored or (self.stream and self.stream.over))


@dataclass
class Answer:
    """What a backend sent on one of its streams."""

    begun: bool = False
    sent: bytes = b""
    over: bool = False


@dataclass
class World:
    """The ends, and what they have done."""

    served: object
    backends: list
    calls: list = field(default_factory=list)
    answers: dict = field(default_factory=dict)       # (peer, stream id) -> Answer
    last_ids: dict = field(default_factory=dict)      # peer -> the last stream id of its GOAWAY
    version: int = 1
    dead_port: int = 0  # nobody listens there
    drained: int = 0    # steps of a drain that were taken

    def clients(self):
        return [client for client in self.served.clients if is_up(client)]

    def peers(self):
        return [peer for backend in self.backends for peer in backend.peers if is_up(peer)]

    def upstreams(self):
        """Streams at backends that are not over, as far as a backend may act on them."""
        return [
            (peer, number)
            for peer in self.peers()
            for number, stream in peer.streams.items()
            if stream.reset is None
            and not self.answers.setdefault((peer, number), Answer()).over
            and number <= self.last_ids.get(peer, number)
        ]


def is_up(peer):
    return not (peer.closed or peer.writer.is_closing())


def chosen(things, number):
    return things[number % len(things)] if things else None


def goaway(last, code=0):
    return b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + code.to_bytes(4, "big")


# ===== what clients do =====


async def connect(world, a, b):
    if len(world.clients()) < 3:
        await world.served.client(receive_buffer=4096 if b % 3 == 0 else 0)


async def open_call(world, a, b):
    client = chosen(world.clients(), a)
    if client is None or client.h2.open_outbound_streams >= min(6, client.h2.remote_settings.max_concurrent_streams):
        return
    fields = [*REQUEST, ("x-call", str(len(world.calls)))]
    if b % 5 == 0:
        fields.append(("grpc-timeout", f"{5 + b % 40}m"))
    call = Call(client, client.h2.get_next_available_stream_id(), ended=b % 2 == 0)
    world.calls.append(call)
    if call.ended:
        call.sent = message(bytes([b % 256]) * (b % 50))
    client.headers(call.stream_id, fields)
    if call.ended:
        client.data(call.stream_id, call.sent, end=True)


async def send(world, a, b):
    call = chosen([call for call in world.calls if call.is_open and not call.ended], a)
    if call is None:
        return
    octets = message(random.Random(b).randbytes(b * 7 % 9000))
    room = min(call.client.h2.local_flow_control_window(call.stream_id), 16384)
    if len(octets) <= room:
        call.client.data(call.stream_id, octets)
        call.sent += octets


async def end(world, a, b):
    call = chosen([call for call in world.calls if call.is_open and not call.ended], a)
    if call is None:
        return
    call.ended = True
    if b % 2:
        call.client.data(call.stream_id, b"", end=True)
    else:
        call.client.headers(call.stream_id, (("x-trailer", "1"),), end=True)


async def reset(world, a, b):
    call = chosen([call for call in world.calls if call.is_open], a)
    if call is not None:
        call.reset = True
        call.client.h2.reset_stream(call.stream_id, (0, 8)[b % 2])
        call.client.flush()


async def hang_up(world, a, b):
    client = chosen(world.clients(), a)
    if client is not None and b % 2:
        client.writer.transport.abort()
        client.closed = True


async def change_window(world, a, b):
    peer = chosen([*world.clients(), *world.peers()], a)
    if peer is not None and not peer.unacknowledged:
        peer.change({SettingCodes.INITIAL_WINDOW_SIZE: (0, 10, 1000, 65535, 1 << 20)[b % 5]})


async def stop_or_go_on(world, a, b):
    peer = chosen([*world.clients(), *world.peers()], a)
    if peer is not None:
        transport = peer.writer.transport
        if transport.is_reading():
            transport.pause_reading()
        else:
            transport.resume_reading()


async def break_rules(world, a, b):
    """What HTTP/2 does not allow, so that the relay must end the connection."""
    peer = chosen([*world.clients(), *world.peers()], a)
    if peer is not None and b % 3 == 0:
        peer.writer.write((SHORT_PING, DATA_ON_STREAM_0, EMPTY_UPDATE)[b % 9 // 3])


async def ping(world, a, b):
    peer = chosen([*world.clients(), *world.peers()], a)
    if peer is not None:
        peer.h2.ping(b.to_bytes(8))
        peer.flush()


async def client_goes_away(world, a, b):
    client = chosen(world.clients(), a)
    if client is not None:
        client.writer.write(goaway(0))


# ===== what backends do =====


async def answer(world, a, b):
    """Head, DATA or trailers, whatever comes next."""
    found = chosen(world.upstreams(), a)
    if found is None:
        return
    peer, number = found
    state = world.answers[found]
    if not state.begun:
        if b % 7 == 0:
            peer.headers(number, ((":status", "103"), ("x-hint", "1")))
        elif b % 7 == 1:
            state.over = True
            peer.headers(number, (*RESPONSE, ("grpc-status", "0")), end=True)
        else:
            state.begun = True
            peer.headers(number, RESPONSE)
    elif b % 3 == 0:
        state.over = True
        peer.headers(number, TRAILERS, end=True)
    else:
        octets = message(random.Random(b).randbytes(b * 11 % 12000))
        if len(octets) <= min(peer.h2.local_flow_control_window(number), 16384):
            state.sent += octets
            peer.data(number, octets)


async def refuse(world, a, b):
    found = chosen(world.upstreams(), a)
    if found is not None:
        world.answers[found].over = True
        found[0].h2.reset_stream(found[1], (7, 8, 2, 11, 0)[b % 5])
        found[0].flush()


async def go_away(world, a, b):
    peer = chosen(world.peers(), a)
    if peer is not None:
        seen = sorted(peer.streams)
        last = (2**31 - 1, seen[-1] if seen else 0, seen[len(seen) // 2] if seen else 0)[b % 3]
        last = min(last, world.last_ids.get(peer, last))
        world.last_ids[peer] = last
        peer.writer.write(goaway(last))


async def break_down(world, a, b):
    peer = chosen(world.peers(), a)
    if peer is not None:
        peer.writer.transport.abort()
        peer.closed = True


async def limit_streams(world, a, b):
    peer = chosen(world.peers(), a)
    if peer is not None and not peer.unacknowledged:
        peer.change({SettingCodes.MAX_CONCURRENT_STREAMS: (0, 1, 3, 100)[b % 4]})


# ===== what the gateway is told =====


def config_of(world, b):
    main = [backend for n, backend in enumerate(world.backends[:2]) if b & (1 << n)]
    rule = {"mirrors": (MirrorConfig("default/shadow:1"),) * (1 + (b >> 3) % 2)} if b & 4 else {}
    return one_route(main, rule=rule, extra={"shadow": world.backends[1 + (b >> 4) % 2 :][:1]})


async def reload(world, a, b):
    world.version += 1
    world.served.apply(config_of(world, b), world.version)


async def change_endpoints(world, a, b):
    ports = [backend.port for n, backend in enumerate(world.backends) if b & (1 << n)]
    if b & 8:
        ports.append(world.dead_port)
    world.served.relay.update_endpoints([("default/main:1", [("127.0.0.1", port) for port in ports])])


async def drain(world, a, b):
    """The first GOAWAY, the second, and at last what is left is cut off."""
    if b % 4 == 0 and world.drained < 3:
        world.drained += 1
        (world.served.relay.start_drain, world.served.relay.finish_drain, world.served.relay.abort_calls)[
            world.drained - 1
        ]()


async def wait(world, a, b):
    for _ in range(a % 8):
        await asyncio.sleep(0)
    if b % 20 == 0:
        await asyncio.sleep(0.006)  # a timer may fire


STEPS = (
    connect, open_call, open_call, open_call, send, send, end, reset, hang_up, change_window, stop_or_go_on,
    answer, answer, answer, answer, refuse, go_away, break_down, limit_streams, reload, change_endpoints,
    break_rules, ping, client_goes_away, drain, wait, wait, wait,
)  # fmt: skip


# ===== what must hold =====


async def complete(world):
    """All that can still end well does: windows open, everybody reads, requests end, backends answer."""
    widened = set()
    for peer in [*world.clients(), *world.peers()]:
        peer.writer.transport.resume_reading()
    for call in world.calls:
        if call.is_open and not call.ended:
            call.ended = True
            with contextlib.suppress(h2.exceptions.StreamClosedError):
                call.client.data(call.stream_id, b"", end=True)
    async with asyncio.timeout(5):
        while any(call.is_open for call in world.calls):
            for peer in {*world.clients(), *world.peers()} - widened:
                if not peer.unacknowledged:
                    widened.add(peer)
                    peer.change({SettingCodes.MAX_CONCURRENT_STREAMS: 100})
                    peer.widen(1 << 20)
            for found in world.upstreams():
                state = world.answers[found]
                state.over = True
                if not state.begun:
                    found[0].headers(found[1], RESPONSE)
                found[0].headers(found[1], TRAILERS, end=True)
            await asyncio.sleep(0)


def check_octets(world):
    attempts = {}
    for backend in world.backends:
        for peer in backend.peers:
            for number, stream in peer.streams.items():
                call = world.calls[int(stream.sections[0]["x-call"])]
                assert call.sent.startswith(stream.data), "request octets lost, doubled or out of order"
                if stream.ended:
                    assert stream.data == call.sent
                attempts.setdefault(id(call), []).append(world.answers.get((peer, number), Answer()))
    for call in world.calls:
        stream = call.stream
        if stream is None:
            continue
        sent = [answer.sent for answer in attempts.get(id(call), ())]
        assert any(octets.startswith(stream.data) for octets in sent) or not stream.data
        if stream.ended and stream.status == "0":
            assert stream.data in sent


def check_ends(world):
    for peer in [*world.served.clients, *(peer for backend in world.backends for peer in backend.peers)]:
        if peer._task.done() and not peer._task.cancelled():
            peer._task.result()  # raises what h2 found wrong in what the relay sent
    for call in world.calls:
        if not (call.client.closed or call.reset or call.is_ignored):
            assert call.stream.ended or call.stream.reset is not None


async def play(steps, first):
    backends = [await Backend().start() for _ in range(3)]
    world = World(None, backends)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        world.dead_port = nobody.getsockname()[1]
        await play_in(world, steps, first)


async def play_in(world, steps, first):
    async with gateway(config_of(world, first), LIMITS) as served:
        world.served = served
        await served.client()
        for number, a, b in steps:
            with contextlib.suppress(h2.exceptions.ProtocolError):
                await STEPS[number](world, a, b)
        await complete(world)
        check_ends(world)
        check_octets(world)
        for client in served.clients:
            await client.close()
        async with asyncio.timeout(5):
            while served.relay.open_calls:
                await asyncio.sleep(0)
        assert served.count("pygw_calls_open") == 0
        assert served.count("pygw_calls_total") == served.count("pygw_calls_started_total")


@settings(
    max_examples=EXAMPLES, derandomize="PYGW_EXAMPLES" not in os.environ, database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 60), st.integers(0, 4095)), max_size=80),
    st.integers(1, 63),
)
def test_whatever_the_ends_do(steps, first):
    run(lambda: play(steps, first))
