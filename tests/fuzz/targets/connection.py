"""The whole connection state machine: a client and a server end, as tests/doubles/two_ends.py has them.

The first two octets choose windows and limits; then steps, an octet and what it needs each. Where bit 7 of the first is
set, there are steps of an intruder too, who puts octets of his own between theirs.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.doubles import frames
from tests.doubles.two_ends import MANY, TwoEnds

INTRUDER = 0x80
MAX_STEPS = 150  # so that no flood is taken for one
WINDOWS = (1, 30, 1000, 65535, 200000)
LIMITS = (1, 3, 100)
LENGTHS = (0, 1, 40, 100, 1000, 16384, 16385, 50000)


class Input:
    """Octets, taken from the front; zeros behind the end."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.at = 0

    def byte(self) -> int:
        """The next octet."""
        self.at += 1
        return self.octets[self.at - 1] if self.at <= len(self.octets) else 0

    def some(self, length: int) -> bytes:
        """The next octets, as many as there are."""
        self.at += length
        return self.octets[self.at - length : self.at]

    @property
    def is_over(self) -> bool:
        """Nothing is left."""
        return self.at >= len(self.octets)


Step = Callable[[TwoEnds, Input, int, int], object]  # with a side and a number, both of the step's own octet

_STEPS: tuple[Step, ...] = (
    lambda world, octets, side, number: world.open(octets.byte() % 32, bool(side)),
    lambda world, octets, side, number: world.open(number, bool(side)),
    lambda world, octets, side, number: world.answer(number, bool(side), bool(octets.byte() & 1)),
    lambda world, octets, side, number: world.send(side, number, *_length(octets.byte())),
    lambda world, octets, side, number: world.send_trailers(side, number),
    lambda world, octets, side, number: world.reset(side, number),
    lambda world, octets, side, number: world.finish_stream(number),
    lambda world, octets, side, number: world.drain(side, number, (1, 40, 50000, MANY)[octets.byte() % 4]),
    lambda world, octets, side, number: (world.block_writes if number & 1 else world.resume_writes)(side),
    lambda world, octets, side, number: (
        world.second_passes if number & 1 else world.look_for_stalls if number & 2 else world.ping
    )(side),
    lambda world, octets, side, number: world.change_settings(side, octets.byte(), number),
    lambda world, octets, side, number: world.carry(side, octets.byte() * 7 + 1),
    lambda world, octets, side, number: world.carry(side, MANY),
    lambda world, octets, side, number: world.act_in_next_hook(side, number, octets.byte()),
    lambda world, octets, side, number: _seldom(world, side, octets.byte()),
    lambda world, octets, side, number: _intrude(world, octets, side, number),
)

SEEDS = (
    b"\x03\x02\x00\x05\x0c\x02\x01\x1c\x03\x05\x13\x06\x0c\x1c\x07\x03\x0c\x1c",
    b"\x02\x01\x01\x01\x01\x0c\x0c\x05\x06\x0c\x1c\x08\x18\x03\x07\x0e\x01\x0c\x1c",
    b"\x00\x00\x01\x0c\x02\x00\x13\x15\x1c\x0d\x03\x0c\x07\x03\x0b\x01\x0b\x02\x04\x14\x0c\x1c",
    b"\x04\x02\x21\x41\x61\x0c\x0a\x00\x2a\x01\x4a\x02\x0e\x00\x0c\x1c\x0e\x02",
    b"\x83\x02\x01\x0c\x0f\x04\x00\x01\x05\x0c\x1f\x00\x01\x00\x02ab\x1c",
)
WORDS = (*(bytes([step]) for step in range(32)), frames.block(frames.TRAILERS), b"\x0f\x04", b"\x1f\x08")


def check(data: bytes) -> None:
    """See the module."""
    octets = Input(data)
    first = octets.byte()
    world = TwoEnds(WINDOWS[(first & 0x7F) % len(WINDOWS)], LIMITS[octets.byte() % len(LIMITS)])
    steps = _STEPS if first & INTRUDER else _STEPS[:-1]
    for _ in range(MAX_STEPS):
        if octets.is_over:
            break
        step = octets.byte()
        steps[(step & 0xF) % len(steps)](world, octets, step >> 4 & 1, step >> 5)
        world.check()
    world.finish()


def _length(octet: int) -> tuple[int, bool]:
    """How much DATA, and whether it is the last."""
    return LENGTHS[octet % len(LENGTHS)], bool(octet & 0x80)


def _seldom(world: TwoEnds, side: int, octet: int) -> None:
    """What ends much of what could follow."""
    if octet % 3 == 0:
        world.announce_goaway(side)
    elif octet % 3 == 1:
        world.final_goaway(side)
    elif octet == 2:
        world.lose()


def _intrude(world: TwoEnds, octets: Input, side: int, number: int) -> None:
    """A frame, or octets that are none."""
    length = octets.byte() % 64
    if number == 7:
        world.intrude(side, octets.some(length))
    else:
        type, flags, stream_id = octets.byte() % 12, octets.byte(), octets.byte() % 16
        world.intrude(side, frames.frame(type, flags, stream_id, octets.some(length)))
