"""A worker's loop in a model with a clock of its own: what the judge of overload (pygw/proxy/overload.pyx) makes of it.

Calls come at a steady rate on some connections. A turn of the loop reads each connection that has something, in any
order, and all that it has; it ends by writing what has collected. Requests are answered by a backend that takes no
time, so their responses are read in the next turn, and go to their clients at its end.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pygw.proxy.overload import OverloadJudge

CONNECTIONS = 16
ONE_IN = 65536
POLL_US = 30  # between two turns
READ_US = 5  # to begin a read
START_US = 1_000_000_000
BACKEND = -1  # the connection on which responses come


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of the worker's time for reading a request, for its response, for refusing one."""

    request: int
    response: int
    refusal: int

    @property
    def capacity(self) -> float:
        """Calls a second."""
        return 1e6 / (self.request + self.response)


@dataclass(frozen=True, slots=True)
class Phase:
    """Calls a second, and for how many seconds."""

    rate: float
    seconds: float


@dataclass(slots=True)
class Outcome:
    """How the calls of a phase ended."""

    latencies: list[int] = field(default_factory=list)
    shed: int = 0
    last_shed_us: int = -1  # since the phase began

    @property
    def good(self) -> int:
        """How many were answered."""
        return len(self.latencies)

    @property
    def p99_us(self) -> int:
        """Of those."""
        return sorted(self.latencies)[self.good * 99 // 100]


@dataclass(slots=True)
class _Call:
    came: int
    phase_began: int
    outcome: Outcome


class _Worker:
    def __init__(self, limit_us: int, costs: Costs, calls: Iterable[_Call], seed: int) -> None:
        self.judge = OverloadJudge(limit_us)
        self.costs = costs
        self.coming = deque(calls)
        self.random = random.Random(seed)
        self.now = START_US
        self.queues: dict[int, list[_Call]] = {number: [] for number in range(CONNECTIONS)}
        self.next = 0
        self.responses: list[_Call] = []
        self.last_reads: dict[int, int] = {}

    def receive(self) -> None:
        """What has come until now lies in the sockets."""
        while self.coming and self.coming[0].came <= self.now:
            self.queues[self.next].append(self.coming.popleft())
            self.next = (self.next + 1) % CONNECTIONS

    def turn(self, pause: int, within_read: bool) -> None:
        """One turn, with a pause before or in one of its reads."""
        self.now += POLL_US
        self.receive()
        ready = [number for number, queue in self.queues.items() if queue] + [BACKEND] * bool(self.responses)
        self.random.shuffle(ready)
        paused = self.random.choice(ready)
        sent: list[_Call] = []
        answered: list[_Call] = []
        self.judge.begin_turn(self.now)
        for number in ready:
            self.now += READ_US + pause * (number == paused and not within_read)
            self.judge.begin_read(self.now, self.now - self.last_reads.get(number, 0))
            self.last_reads[number] = self.now
            self.now += pause * (number == paused and within_read)
            if number == BACKEND:
                answered += self.responses
                self.now += self.costs.response * len(self.responses)
            else:
                sent += self.read_calls(number)
        self.responses = sent
        for call in answered:
            call.outcome.latencies.append(self.now - call.came)
        self.judge.end_turn(self.now)

    def read_calls(self, number: int) -> list[_Call]:
        """Those on this connection that are taken on."""
        self.receive()
        calls, self.queues[number] = self.queues[number], []
        taken = []
        for call in calls:
            if self.judge.refuses(self.now, self.random.randrange(ONE_IN)):
                self.now += self.costs.refusal
                call.outcome.shed += 1
                call.outcome.last_shed_us = self.now - call.phase_began
            else:
                self.now += self.costs.request
                taken.append(call)
        return taken

    @property
    def has_work(self) -> bool:
        """Something is to be read."""
        return bool(self.responses) or any(self.queues.values())


def serve(
    limit_us: int, costs: Costs, phases: Sequence[Phase], *, pauses: Iterable[tuple[int, int]] = (),
    within_reads: bool = False, seed: int = 1,
) -> list[Outcome]:
    """What became of the calls of all phases, one behind the other; `pauses` are (when, how long), in microseconds."""
    outcomes = [Outcome() for _ in phases]
    calls, begin = [], START_US
    for phase, outcome in zip(phases, outcomes, strict=True):
        step = 1e6 / phase.rate
        count = round(phase.rate * phase.seconds)
        calls += [_Call(begin + int(number * step), begin, outcome) for number in range(count)]
        begin += int(phase.seconds * 1e6)
    worker = _Worker(limit_us, costs, calls, seed)
    waiting = deque(pauses)
    while worker.coming or worker.has_work:
        if not worker.has_work:
            worker.now = max(worker.now, worker.coming[0].came)
            worker.receive()
        pause = waiting.popleft()[1] if waiting and waiting[0][0] + START_US <= worker.now else 0
        worker.turn(pause, within_reads)
    return outcomes


def shares_after(limit_us: int, turns: Iterable[tuple[int, int]]) -> list[float]:
    """The share admitted after each of `turns`, pairs of idle time before it and its length in microseconds.

    Calls come until three quarters of a turn are over. Nothing is known of reads.
    """
    judge, now, shares = OverloadJudge(limit_us), START_US, []
    judge.begin_turn(now)
    judge.end_turn(now)
    for idle, length in turns:
        now += idle
        judge.begin_turn(now)
        judge.refuses(now + length * 3 // 4, 0)
        now += length
        judge.end_turn(now)
        shares.append(judge.share)
    return shares
