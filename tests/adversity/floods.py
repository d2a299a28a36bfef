"""Floods: what a hostile client sends as fast as it can, as data: the octets, and what must become of them.

Each is sent again and again over new connections while the victim calls. It must lose nothing, and the flood must end
the connection or cost next to nothing, must not fill memory, and must not be passed on to the backend.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tests.doubles import frames as wire

from .attack import Attack
from .case import add, case, expect
from .rig import SETTLE, LoadRig, Rig, request

CALM = "ENHANCE_YOUR_CALM"
MEGABYTE = 1e6
VICTIM_RATE = 50
MAX_GROWTH_MIB = 20.0
ATTACK = request(b"/adversity.Attack/Call")
BLOCK = wire.block(ATTACK)
BASIC = wire.block(ATTACK[:4])
FRAME = 16384


@dataclass(frozen=True, slots=True)
class Flood:
    """`octets` makes what one connection sends, as its frames; the first `within` of them must end the connection.

    `within` 0, or what costs no more than `cpu`, need not end. `cpu` is the goal in milliseconds for a megabyte,
    `reached` the largest share of its streams that may come to the backend.
    """

    name: str
    about: str
    octets: Callable[[], list[bytes]]
    within: int
    cpu: float
    reached: float = 0.0205     # 2 %, and what counting by the clock may be off
    streams: bool = False


def odd(count: int) -> Iterator[int]:
    """The ids of so many streams of a client."""
    return iter(range(1, 2 * count, 2))


def rapid_reset(between: Callable[[int], bytes] = lambda _: b"", *, end_stream: bool = False) -> list[bytes]:
    """Streams that are reset as soon as they are open (CVE-2023-44487)."""
    return [
        wire.headers(number, BLOCK, end_stream=end_stream) + between(number) + wire.rst_stream(number)
        for number in odd(10000)
    ]


def made_to_reset(*wrong: Callable[[int], bytes], block: bytes = BLOCK, end: bool = False) -> list[bytes]:
    """Streams on which we break a rule, so that the proxy resets them (MadeYouReset, CVE-2025-8671)."""
    return [
        wire.headers(number, block, end_stream=end) + b"".join(make(number) for make in wrong)
        for number in odd(4000)
    ]


def on_one_stream(frame: bytes | Callable[[int], bytes], count: int, *, end: bool = False) -> list[bytes]:
    """A stream and many frames on it, or on none."""
    octets = frame if isinstance(frame, bytes) else frame(1)
    return [wire.headers(1, BLOCK, end_stream=end), *([octets] * count)]


def continuations(fragment: bytes, count: int, first: bytes = BLOCK) -> list[bytes]:
    """A header block that never ends (CVE-2024-27316)."""
    return [wire.headers(1, first, end_headers=False), *([wire.continuation(1, fragment)] * count)]


def whole_block(stream_id: int, block: bytes) -> bytes:
    """A request whose header block takes several frames."""
    parts = [block[at : at + FRAME] for at in range(0, len(block), FRAME)]
    octets = wire.headers(stream_id, parts[0], end_stream=True, end_headers=len(parts) == 1)
    for number, part in enumerate(parts[1:], 2):
        octets += wire.continuation(stream_id, part, end_headers=number == len(parts))
    return octets


def blocks(block: bytes, count: int, first: bytes = b"") -> list[bytes]:
    """Requests with that header block; `first` goes before it on the first one."""
    return [whole_block(number, (first if number == 1 else b"") + block) for number in odd(count)]


def bomb_entry() -> list[bytes]:
    """A large entry in the dynamic table, then a reference of one octet for each field."""
    entry = b"\x40\x06x-bomb" + wire.integer(4000, 7, 0) + b"b" * 4000
    return blocks(BASIC + b"\xbe" * 15000, 8, entry)


def insertions(count: int) -> bytes:
    """So many fields that each join the dynamic table, and so throw others out."""
    return b"".join(b"\x40\x06x-%04x\x04%04x" % (number, number) for number in range(count))


def literals(count: int) -> bytes:
    """So many small fields."""
    return b"".join(b"\x00\x06x-%04x\x04%04x" % (number, number) for number in range(count))


def settings_windows() -> list[bytes]:
    """SETTINGS that change the windows of many open streams, each time."""
    opened = [wire.headers(number, BLOCK) for number in odd(90)]
    change = [wire.settings((wire.INITIAL_WINDOW_SIZE, 1000 + number % 2)) for number in range(3000)]
    return opened + change


def closed_stream(frame: Callable[[int], bytes]) -> list[bytes]:
    """Frames on a stream that is closed by its own reset."""
    return [wire.headers(1, BLOCK) + wire.rst_stream(1), *([frame(1)] * 5000)]


def padded_empty(stream_id: int) -> bytes:
    """DATA of nothing but padding."""
    return wire.data(stream_id, b"", padding=255)


SIZE_GAMES = b"\x20\x3f\xe1\x1f" * 4000 + BLOCK
OVERLONG_INTEGER = BLOCK + b"\x00" + b"\x7f" + b"\x80" * 200 + b"\x00"
FEW = 128 * 1024 // FRAME

FLOODS = [
    Flood("rapid-reset", "HEADERS and RST_STREAM", rapid_reset, 250, 20, streams=True),
    Flood("rapid-reset-data", "HEADERS, DATA, RST_STREAM",
          partial(rapid_reset, lambda n: wire.data(n, b"\0\0\0\0\0")), 250, 20, streams=True),
    Flood("rapid-reset-ended", "whole requests, each followed by RST_STREAM", partial(rapid_reset, end_stream=True),
          250, 20, streams=True),
    Flood("provoke-window-zero", "WINDOW_UPDATE of 0 on new streams",
          partial(made_to_reset, lambda n: wire.window_update(n, 0)), 100, 10, streams=True),
    Flood("provoke-window-overflow", "WINDOW_UPDATE over 2**31 - 1 on new streams",
          partial(made_to_reset, lambda n: wire.window_update(n, 2**31 - 1)), 100, 10, streams=True),
    Flood("provoke-half-closed", "HEADERS behind END_STREAM",
          partial(made_to_reset, lambda n: wire.headers(n, BLOCK, end_stream=True), end=True), 100, 10, streams=True),
    Flood("provoke-data-half-closed", "DATA behind END_STREAM",
          partial(made_to_reset, lambda n: wire.data(n, b"x"), end=True), 100, 10, streams=True),
    Flood("provoke-self-dependency", "PRIORITY of a stream on itself",
          partial(made_to_reset, lambda n: wire.priority(n, n)), 100, 10, streams=True),
    Flood("provoke-content-length", "less DATA than content-length says",
          partial(made_to_reset, lambda n: wire.data(n, b"x", end_stream=True),
                  block=wire.block([*ATTACK, (b"content-length", b"5")])), 100, 10, streams=True),
    Flood("provoke-trailers", "trailers with a pseudo-header field",
          partial(made_to_reset, lambda n: wire.headers(n, [(b":path", b"/x")], end_stream=True)), 100, 10,
          streams=True),
    Flood("provoke-malformed", "requests with an upper-case name",
          partial(made_to_reset, block=wire.block([*ATTACK, (b"X-Upper", b"1")]), end=True), 200, 10, streams=True),
    Flood("continuation-large", "a header block that does not end, in frames of 16 KiB",
          partial(continuations, b"\x00\x01a" + wire.integer(FRAME - 10, 7, 0) + bytes(FRAME - 10)[:-1], 60), FEW, 0.5),
    Flood("continuation-small", "a header block that does not end, in frames of 50 octets",
          partial(continuations, literals(4)[:48], 8000), 2000, 0.5),
    Flood("continuation-octet", "a header block that does not end, in frames of 1 octet",
          partial(continuations, b"\x82", 20000), 2000, 0.5),
    Flood("continuation-empty", "a header block that does not end, in empty frames",
          partial(continuations, b"", 20000), 2000, 0.5),
    Flood("hpack-bomb-entry", "references of one octet to an entry of 4,000", bomb_entry, 0, 4, 0.0, streams=True),
    Flood("hpack-bomb-cookie", "references of one octet to an empty cookie",
          lambda: blocks(BASIC + b"\xa0" * 15000, 8), 0, 4, 0.0, streams=True),
    Flood("hpack-insertions", "5,000 fields that join the dynamic table",
          lambda: blocks(BASIC + insertions(5000), 4), 0, 4, 0.0, streams=True),
    Flood("hpack-insertions-fewer", "2,000 fields that join the dynamic table",
          lambda: blocks(BASIC + insertions(2000), 60), 0, 4, 0.0, streams=True),
    Flood("hpack-literals", "5,000 small fields", lambda: blocks(BASIC + literals(5000), 4), 0, 4, 0.0, streams=True),
    Flood("hpack-literals-fewer", "2,000 small fields", lambda: blocks(BASIC + literals(2000), 60), 0, 4, 0.0,
          streams=True),
    Flood("hpack-empty-names", "12,000 fields of three octets",
          lambda: blocks(BASIC + b"\x00\x01a\x00" * 12000, 4), 0, 4, 0.0, streams=True),
    Flood("hpack-empty-names-fewer", "3,000 fields of three octets",
          lambda: blocks(BASIC + b"\x00\x01a\x00" * 3000, 60), 0, 4, 0.0, streams=True),
    Flood("hpack-size-games", "thousands of table size updates in front of a request",
          lambda: blocks(SIZE_GAMES, 60), 0, 4, 1.0, streams=True),
    Flood("hpack-overlong-integer", "an integer that does not end", lambda: blocks(OVERLONG_INTEGER, 1), 1, 0,
          0.0, streams=True),
    Flood("header-lists-over-limit", "header lists of 150 KB in well-formed blocks",
          lambda: blocks(BASIC + (b"\x00\x05x-big" + wire.integer(15000, 7, 0) + b"b" * 15000) * 7, 40), 0, 4, 0.0,
          streams=True),
    Flood("settings", "empty SETTINGS", partial(on_one_stream, wire.settings(), 20000), 2000, 1.5, 1.0),
    Flood("settings-windows", "SETTINGS that change the windows of 90 open streams", settings_windows, 2000, 5, 1.0),
    Flood("ping", "PING", partial(on_one_stream, wire.ping(), 20000), 2001, 1.5, 1.0),
    Flood("ping-ack", "PING with ACK that answer nothing",
          partial(on_one_stream, wire.ping(ack=True), 20000), 2001, 1.5, 1.0),
    Flood("priority", "PRIORITY of an open stream", partial(on_one_stream, wire.priority(1), 20000), 2001, 1.5, 1.0),
    Flood("priority-idle", "PRIORITY of streams that were never opened",
          lambda: [wire.priority(number) for number in odd(20000)], 2001, 1.5, 1.0),
    Flood("window-update", "WINDOW_UPDATE of 1 for the connection",
          partial(on_one_stream, wire.window_update(0, 1), 20000), 2001, 1.5, 1.0),
    Flood("window-update-stream", "WINDOW_UPDATE of 1 for a stream",
          partial(on_one_stream, lambda n: wire.window_update(n, 1), 20000), 2001, 1.5, 1.0),
    Flood("data-empty", "DATA without an octet", partial(on_one_stream, wire.data(1), 20000), 2001, 1.5, 1.0),
    Flood("data-padding", "DATA of nothing but padding", partial(on_one_stream, padded_empty, 4000), 2001, 1.5, 1.0),
    Flood("headers-empty", "requests without a field", lambda: [wire.headers(n, b"") for n in odd(5000)], 500, 10, 0.0,
          streams=True),
    Flood("unknown-frames", "frames of a type that nobody knows",
          partial(on_one_stream, wire.frame(0xBB, 0, 0, b"12345678"), 20000), 0, 1.5, 1.0),
    Flood("unknown-frames-empty", "empty frames of a type that nobody knows",
          partial(on_one_stream, wire.frame(0xBB, 0, 0), 40000), 0, 3, 1.0),
    Flood("goaway", "GOAWAY", partial(on_one_stream, wire.goaway(0), 10000), 0, 1.5, 1.0),
    Flood("closed-data", "DATA on a stream that is closed", partial(closed_stream, lambda n: wire.data(n, b"x")), 5000,
          1.5, 1.0),
    Flood("closed-window-update", "WINDOW_UPDATE on a stream that is closed",
          partial(closed_stream, lambda n: wire.window_update(n, 1)), 2001, 1.5, 1.0),
    Flood("closed-reset", "RST_STREAM on a stream that is closed", partial(closed_stream, wire.rst_stream), 2001, 1.5,
          1.0),
    Flood("streams-over-limit", "thousands of streams at once, none of them ended",
          lambda: [wire.headers(number, BLOCK) for number in odd(5000)], 0, 20, 1.0, streams=True),
]  # fmt: skip


def send_flood(rig: LoadRig, frames: list[bytes], seconds: float) -> tuple[int, int, set[str]]:
    """Send these frames over one connection after the other: octets, connections, how they ended."""
    octets = b"".join(frames)
    sent, connections, endings = 0, 0, set()
    deadline = time.monotonic() + seconds
    while connections == 0 or time.monotonic() < deadline:
        with Attack(rig.proxy.port) as attack:
            attack.send(octets, 3)
            attack.settle()
            endings.add("stuck" if not attack.is_over and not attack.is_fenced else attack.ending)
            sent += attack.sent
        connections += 1
    return sent, connections, endings


def measure_reached(rig: LoadRig, frames: list[bytes]) -> float:
    """The share of a whole flood's streams that comes to the backend."""
    # Of floods before, some may still be under way: until there is nothing but the victim.
    while rig.counts().get("streams", 0) > VICTIM_RATE * SETTLE * 2:
        time.sleep(SETTLE)
    start = time.monotonic()
    _, connections, _ = send_flood(rig, frames, rig.seconds / 4)
    time.sleep(SETTLE)  # what the proxy has taken and not yet passed on: it does not say how much that is
    # A little more than it can be: it calls by the clock, and those that had to wait came late.
    victims = (time.monotonic() - start) * VICTIM_RATE * 1.1 + 15
    reached = max(0.0, rig.counts().get("streams", 0) - victims) / (connections * len(frames))
    rig.measures["reached_share"] = round(reached, 4)
    return reached


def run_flood(flood: Flood, rig: Rig) -> None:
    """The case: a connection that sends just enough to be ended, many that send some more, then whole floods."""
    assert isinstance(rig, LoadRig)
    frames = flood.octets()
    first, reached = "", 0.0
    with rig.victim_beside():
        if flood.within:
            with Attack(rig.proxy.port) as attack:
                attack.send(b"".join(frames[: flood.within]), 3)
                attack.settle()
                first = attack.ending
        # Not much more than it takes: what lies unread in a socket that the proxy has closed has cost it nothing.
        sent, connections, endings = send_flood(rig, frames[: 2 * flood.within or None], rig.seconds)
        rig.note_cpu(connections)
        if flood.streams:
            reached = measure_reached(rig, frames)
    measure_cost(rig, sent, endings)
    if flood.within:
        cheap = rig.measures["cpu_ms_per_mb"] <= flood.cpu
        expect(first != "open" or cheap, f"{flood.within} of them did not end the connection, and they are not cheap")
    expect("stuck" not in endings, "the proxy neither took it, nor ended the connection")
    expect(reached <= flood.reached, f"{reached:.1%} of its streams reached the backend")
    check_bounds(rig, flood.cpu)


def measure_cost(rig: Rig, sent: int, endings: set[str]) -> None:
    """What the attack has cost, as measures of the case."""
    rig.measures["attack_mb"] = round(sent / MEGABYTE, 2)
    rig.measures["cpu_ms_per_mb"] = round(rig.measures["cpu_s"] * 1000 / max(sent / MEGABYTE, 1e-6), 2)
    rig.measures["ended_by"] = ", ".join(sorted(endings))


def check_bounds(rig: Rig, cpu_goal: float = 0.0) -> None:
    """Cost, memory and the victim's latency within what is allowed."""
    measures = rig.measures
    cost, growth, p99 = measures.get("cpu_ms_per_mb", 0.0), measures["growth_mib"], measures["victim_p99_ms"]
    allowed = cpu_goal * rig.cpu_slack
    expect(not cpu_goal or cost <= allowed, f"{cost} ms of CPU for a MB; {allowed:g} allowed")
    expect(growth <= MAX_GROWTH_MIB, f"memory grew by {growth} MiB")
    expect(p99 <= rig.p99_ms, f"the victim's p99 rose to {p99} ms")


for row in FLOODS:
    add("floods", row.name, partial(run_flood, row), f"A flood of {row.about} harms nobody.")


# ===== what looks like a flood and is legal =====


def legal_upload(rig: Rig, frames: list[bytes], cpu_per_frame_us: float = 0.0) -> None:
    """A call whose request comes in these frames is answered well, however odd they are."""
    assert isinstance(rig, LoadRig)
    with rig.victim_beside(), rig.client() as client:
        start = b"".join([wire.headers(1, BLOCK), *frames])
        client.send(start)
        seen = client.finish(1, 10)
    rig.measures |= {"frames": len(frames), "us_per_frame": round(rig.measures["cpu_s"] * 1e6 / len(frames), 3)}
    expect(seen.ended and seen.grpc_status == 0, f"it got {seen.told()}; connection {client.ending()}")
    check_bounds(rig)


@case("floods", "legal-data-octets")
def legal_data_octets(rig: Rig) -> None:
    """A message in DATA frames of 1 octet is legal, and relayed."""
    message = b"\0" + (20000).to_bytes(4) + bytes(20000)
    frames = [wire.data(1, bytes([octet])) for octet in message]
    legal_upload(rig, [*frames, wire.data(1, b"", end_stream=True)])


@case("floods", "legal-data-padded")
def legal_data_padded(rig: Rig) -> None:
    """A message of 800 octets in DATA frames of 1 octet and 64 of padding, within the first window, is relayed."""
    message = b"\0" + (800).to_bytes(4) + bytes(800)
    frames = [wire.data(1, bytes([octet]), padding=64) for octet in message]
    legal_upload(rig, [*frames, wire.data(1, b"", end_stream=True)])


@case("floods", "legal-segments")
def legal_segments(rig: Rig) -> None:
    """Calls whose octets come one in each segment are answered well."""
    assert isinstance(rig, LoadRig)
    with rig.victim_beside(), rig.client() as client:
        for number in odd(10):
            octets = wire.headers(number, BLOCK) + wire.data(number, b"\0\0\0\0\1x", end_stream=True)
            for octet in octets:
                client.send(bytes([octet]))
            seen = client.finish(number)
            expect(seen.ended and seen.grpc_status == 0, f"call {number} got {seen.told()}")
    check_bounds(rig)


@case("floods", "header-list-over-limit")
def header_list_over_limit(rig: Rig) -> None:
    """A header list over the limit costs that call alone: RESOURCE_EXHAUSTED (or HTTP 431), the connection lives on."""
    assert isinstance(rig, LoadRig)
    block = BASIC + (b"\x00\x05x-big" + wire.integer(14000, 7, 0) + b"b" * 14000) * 7
    with rig.victim_beside(), rig.client() as client:
        client.send(whole_block(1, block[:110000]) if len(block) < 110000 else whole_block(1, block))
        seen = client.finish(1)
        status = seen.value(b":status")
        rig.check_serves(client, 3)
    refused = seen.grpc_status == 8 or (status is not None and status >= b"400")
    expect(refused, f"it got {seen.told()}")
    check_bounds(rig)


@case("floods", "stream-limit")
def stream_limit(rig: Rig) -> None:
    """Streams over the limit that was announced are refused, and only they."""
    assert isinstance(rig, LoadRig)
    with rig.victim_beside(), rig.client() as client:
        client.wait(lambda: client.settings_acknowledged)
        limit = client.settings.get(wire.MAX_CONCURRENT_STREAMS, 0)
        expect(limit, "no SETTINGS_MAX_CONCURRENT_STREAMS")
        over = list(odd(limit + 20))
        client.send(*(wire.headers(number, BLOCK) for number in over))
        expect(client.fence(), f"the connection ended: {client.ending()}")
        refused = [seen.stream_id for seen in client.streams.values() if seen.reset == wire.REFUSED_STREAM]
        expect(refused == over[limit:], f"{len(refused)} were refused, not the last 20")
        client.send(wire.data(1, b"\0\0\0\0\0", end_stream=True))
        expect(client.finish(1).grpc_status == 0, f"the first got {client.finish(1).told()}")
    check_bounds(rig)


@case("floods", "unread-answers")
def unread_answers(rig: Rig) -> None:
    """Who sends PINGs and never reads the answers is cut off, or waits; memory stays."""
    assert isinstance(rig, LoadRig)
    pings = wire.ping() * 50000
    with rig.victim_beside(), Attack(rig.proxy.port, small_buffer=True) as attack:
        attack.socket.setblocking(True)
        attack.socket.settimeout(1)
        sent = 0
        try:
            while sent < 20_000_000:
                sent += attack.socket.send(pings)
        except OSError as error:
            rig.measures["ended_by"] = "waits" if isinstance(error, TimeoutError) else "closed"
    rig.measures["attack_mb"] = round(sent / MEGABYTE, 2)
    check_bounds(rig)


@case("floods", "connection-churn")
def connection_churn(rig: Rig) -> None:
    """Connections by the thousand that end as soon as they have begun leave nothing."""
    assert isinstance(rig, LoadRig)
    with rig.victim_beside():
        deadline, made = time.monotonic() + rig.seconds, 0
        while time.monotonic() < deadline:
            with Attack(rig.proxy.port) as attack:
                attack.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))
            made += 1
    rig.measures["connections"] = made
    rig.measures["us_per_connection"] = round(rig.measures["cpu_s"] * 1e6 / made, 1)
    check_bounds(rig)
    expect(rig.measures["kept_mib"] <= 4, f"{rig.measures['kept_mib']} MiB are kept")


@case("floods", "connections-idle")
def connections_idle(rig: Rig) -> None:
    """500 idle connections cost a few KiB each."""
    assert isinstance(rig, LoadRig)
    count, opened = 500, []
    try:
        with rig.victim_beside():
            for _ in range(count):
                opened.append(Attack(rig.proxy.port))  # noqa: PERF401 (those that are open are closed below)
            opened[-1].settle()
            expect(not opened[-1].is_over, f"the last connection: {opened[-1].ending}")
    finally:
        for attack in opened:
            attack.socket.close()
    rig.measures["kib_per_connection"] = round(rig.measures["growth_mib"] * 1024 / count, 2)
    check_bounds(rig)
