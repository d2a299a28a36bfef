"""Slow peers: connections that say nothing, half of something, or take an answer without reading it.

Whoever is half-open must be gone after a while; who reads slowly must not make the proxy hold what it does not read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial

from tests.doubles import frames as wire

from .attack import START, Attack
from .case import add, case, expect
from .floods import BLOCK, check_bounds, odd
from .rig import LoadRig, Rig

HALF_OPEN = 20               # connections of a kind
SLOW_READERS = 400
ANSWER = 1 << 20
STILL = 8192
# What may be taken from the backend for each stalled stream: its window, and what the sockets hold.
WINDOW = 65536 + 16384


def half_open(octets: Callable[[], bytes], rig: Rig) -> None:
    """Connections that send so much and no more; all must be gone in time, and the victim unharmed."""
    assert isinstance(rig, LoadRig)
    opened = []
    with rig.victim_beside():
        start = time.monotonic()
        try:
            for _ in range(HALF_OPEN):
                opened.append(Attack(rig.proxy.port, octets()))  # noqa: PERF401 (those that are open are closed below)
            for attack in opened:
                attack.wait(max(0.05, start + rig.half_open - time.monotonic()))
            rig.measures["seconds_to_close"] = round(time.monotonic() - start, 2)
            left = sum(not attack.is_closed for attack in opened)
        finally:
            for attack in opened:
                attack.socket.close()
    expect(not left, f"{left} of {HALF_OPEN} connections are still open after {rig.half_open:g} s")
    check_bounds(rig)


HALVES: list[tuple[str, Callable[[], bytes], str]] = [
    ("silent", lambda: b"", "that say nothing"),
    ("half-preface", lambda: wire.PREFACE[:10], "with half a preface"),
    ("preface-only", lambda: wire.PREFACE, "with a preface and no SETTINGS"),
    ("half-frame", lambda: wire.PREFACE + wire.settings((4, 100))[:11], "with half a SETTINGS frame"),
    ("half-header-block", lambda: START + wire.headers(1, BLOCK, end_headers=False),
     "with half a header block"),
    ("half-headers-frame", lambda: START + wire.headers(1, BLOCK)[:40], "with half a HEADERS frame"),
]  # fmt: skip
for name, make, words in HALVES:
    add("slow", name, partial(half_open, make), f"Connections {words} are closed in time.", is_waiting=True)


@contextlib.contextmanager
def stalled(rig: LoadRig, window: int) -> Iterator[None]:
    """400 streams, over 4 connections, that ask for a MiB each and open a window of that size."""
    message = b"size %d" % ANSWER
    body = b"\0" + len(message).to_bytes(4) + message
    start = wire.PREFACE + wire.settings((wire.INITIAL_WINDOW_SIZE, window)) + wire.settings_ack()
    calls = b"".join(
        wire.headers(number, BLOCK) + wire.data(number, body, end_stream=True) for number in odd(SLOW_READERS // 4)
    )
    opened = [Attack(rig.proxy.port, start, small_buffer=True) for _ in range(4)]
    try:
        for attack in opened:
            attack.send(calls, 5)
        yield
    finally:
        for attack in opened:
            attack.socket.close()


def slow_readers(window: int, rig: Rig) -> None:
    """What comes from the backend for streams that are not read is bounded by a window each."""
    assert isinstance(rig, LoadRig)
    with rig.victim_beside(), stalled(rig, window):
        taken, last = 0, STILL
        # Until nothing more is taken, the victim's few octets apart.
        while last >= STILL:
            time.sleep(0.2)  # only a span in which nothing came shows it
            last = rig.counts().get("sent", 0)
            taken += last
    rig.measures["kib_per_stream"] = round(taken / SLOW_READERS / 1024, 1)
    rig.measures.pop("cpu_s", None)
    expect(taken / SLOW_READERS <= WINDOW, f"{taken / SLOW_READERS / 1024:.0f} KiB taken for each stalled stream")
    # The octets of 400 windows, and as much again for what holds them.
    expect(rig.measures["growth_mib"] <= 2 * SLOW_READERS * WINDOW / 2**20, f"{rig.measures['growth_mib']} MiB held")
    expect(rig.measures["victim_p99_ms"] <= rig.p99_ms, f"the victim's p99 rose to {rig.measures['victim_p99_ms']} ms")


add("slow", "readers-no-window", partial(slow_readers, 0), "400 streams without a window hold a window each at most.")
add("slow", "readers-unread", partial(slow_readers, 1 << 20),
    "400 streams on sockets that are not read hold a window each at most.")  # fmt: skip


@case("slow", "writers")
def slow_writers(rig: Rig) -> None:
    """400 uploads that stop in the middle cost little, and healthy quiet streams are not ended."""
    assert isinstance(rig, LoadRig)
    with rig.victim_beside():
        opened = [Attack(rig.proxy.port) for _ in range(8)]
        try:
            for attack in opened:
                attack.send(
                    b"".join(
                        wire.headers(n, BLOCK) + wire.data(n, b"\0\0\1\0\0" + bytes(5000)) for n in odd(50)
                    ),
                    5,
                )
            for attack in opened:
                attack.settle()
            time.sleep(rig.seconds)  # for so long they do nothing: that is the attack
            ended = [attack.ending for attack in opened if attack.is_over or attack.resets]
        finally:
            for attack in opened:
                attack.socket.close()
    expect(not ended, f"{len(ended)} of 8 connections were ended or had streams reset")
    check_bounds(rig)


@case("slow", "octet-a-tick")
def octet_a_tick(rig: Rig) -> None:
    """50 connections that send their request an octet at a time harm nobody and are served."""
    assert isinstance(rig, LoadRig)
    octets = START + wire.headers(1, BLOCK) + wire.data(1, b"\0\0\0\0\1x", end_stream=True)
    with rig.victim_beside():
        opened = [Attack(rig.proxy.port, b"") for _ in range(50)]
        try:
            for at in range(len(octets)):
                for attack in opened:
                    attack.send(octets[at : at + 1], 2)
            for attack in opened:
                attack.settle()
            unserved = sum(attack.is_over or attack.received < 60 for attack in opened)
        finally:
            for attack in opened:
                attack.socket.close()
    expect(not unserved, f"{unserved} of 50 connections were not served")
    check_bounds(rig)
