"""A model test: a client and a server end wired to each other, anything done to them in any order, reads cut anywhere,
hooks that act. Whatever happens:

* neither end ever finds fault with the other;
* no window is over-spent, as counted by a Wire that knows nothing of the engine;
* every octet of DATA arrives once, in order, and END_STREAM or trailers behind the last one;
* every stream ends with one on_closed() at each end, or none where its owner reset it;
* in the end the pool has all its streams back.
"""

import struct
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pygw.http2.stream import StreamPool
from tests.doubles import frames
from tests.doubles.engine import new_client, new_server
from tests.doubles.frames import DATA, REQUEST, RESPONSE, SETTINGS, TRAILERS, WINDOW_UPDATE

BODY = bytes(range(251)) * 400
sides = st.sampled_from([0, 1])
numbers = st.integers(0, 7)
lengths = st.one_of(st.integers(0, 40), st.sampled_from([100, 1000, 16384, 16385, 50000]))


class Wire:
    """Octets under way to one end, and the windows of the other end's DATA in them."""

    def __init__(self):
        self.octets = b""
        self.has_begun = False
        self.arrived = b""
        self.connection_window = 65535
        self.first_window = 65535
        self.stream_windows = {}

    def send(self, octets):
        """New output of the sender: its DATA must be within what has arrived at it."""
        self.octets += octets
        self.has_begun |= bool(octets)
        for type, _, stream_id, payload in frames.parse(octets):
            if type == DATA:
                assert len(payload) <= 16384
                self.connection_window -= len(payload)
                self.stream_windows[stream_id] = self.window_of(stream_id) - len(payload)
                if payload:
                    assert self.connection_window >= 0
                    assert self.stream_windows[stream_id] >= 0

    def window_of(self, stream_id):
        return self.stream_windows.setdefault(stream_id, self.first_window)

    def learn(self, octets):
        """The sender has read these octets of its peer's."""
        self.arrived += octets.removeprefix(frames.PREFACE)
        while len(self.arrived) >= 9:
            size = int.from_bytes(self.arrived[:3], "big") + 9
            if len(self.arrived) < size:
                return
            type, flags, stream_id, payload = next(frames.parse(self.arrived[:size]))
            self.arrived = self.arrived[size:]
            if type == WINDOW_UPDATE and stream_id == 0:
                self.connection_window += int.from_bytes(payload, "big")
            elif type == WINDOW_UPDATE:
                self.stream_windows[stream_id] = self.window_of(stream_id) + int.from_bytes(payload, "big")
            elif type == SETTINGS and not flags & frames.ACK:
                for setting, value in struct.iter_unpack(">HI", payload):
                    if setting == frames.INITIAL_WINDOW_SIZE:
                        for known in self.stream_windows:
                            self.stream_windows[known] += value - self.first_window
                        self.first_window = value
            elif type == frames.HEADERS:
                self.window_of(stream_id)


class TwoEnds(RuleBasedStateMachine):
    @initialize(window=st.sampled_from([1, 30, 1000, 65535, 200000]), limit=st.sampled_from([1, 3, 100]))
    def start(self, window, limit):
        pool = StreamPool(True)
        grown = max(window, 1048576)
        self.window = window
        # Number 0 is the client end, 1 the server end.
        self.ends = [
            new_client(pool, stream_window=window, stream_window_max=grown, connection_window=70000),
            new_server(pool, stream_window=window, stream_window_max=grown, connection_window=70000,
                       max_concurrent_streams=limit),
        ]  # fmt: skip
        self.wires = [Wire(), Wire()]  # number n: the output of end n
        self.streams = []
        self.sent = defaultdict(bytes)
        self.got = defaultdict(bytes)
        self.ended = {}  # (side, stream): how that side ended its half
        self.seen_end = {}
        self.opened = [set(), set()]
        self.closed = [defaultdict(int), defaultdict(int)]
        self.owner_ended = [set(), set()]
        self.answered = set()
        self.finished = set()
        self.refused = set()
        self.intent = [None, None]
        for side, end in enumerate(self.ends):
            end.on_event = lambda event, side=side: self.take(side, event)
        self.collect()

    # ===== what the ends tell =====

    def take(self, side, event):
        kind, *rest = event
        assert kind != "failed", event
        if kind in ("request", "response"):
            assert rest[0] not in self.closed[side]
            self.opened[side].add(rest[0])
        if kind == "data":
            self.got[side, rest[0]] += rest[1]
        if kind == "trailers" or (kind in ("request", "response", "data") and rest[-1]):
            assert (side, rest[0]) not in self.seen_end
            self.seen_end[side, rest[0]] = kind
        if kind == "closed":
            assert rest[0] not in self.owner_ended[side]
            assert rest[1] in ("complete", "by_peer", "unprocessed", "connection")
            self.closed[side][rest[0]] += 1
            if rest[1] == "unprocessed":
                self.refused.add(rest[0])
            assert self.closed[side][rest[0]] == 1
        act, self.intent[side] = self.intent[side], None
        if act is not None:
            act()

    def collect(self):
        for side, end in enumerate(self.ends):
            self.wires[side].send(end.output())

    def pick(self, number):
        return self.streams[number % len(self.streams)]

    def may_send(self, side, stream_id):
        return (
            self.ends[side].is_open(stream_id)
            and (side, stream_id) not in self.ended
            and (side == 0 or stream_id in self.answered)
        )

    # ===== what is done to them =====

    @rule(end_stream=st.booleans())
    def open(self, end_stream):
        stream_id = self.ends[0].open()
        if stream_id is None:
            return
        self.streams.append(stream_id)
        self.opened[0].add(stream_id)
        if end_stream:
            self.ended[0, stream_id] = "headers"
        self.ends[0].send_headers(stream_id, REQUEST, end_stream)

    @precondition(lambda self: self.streams)
    @rule(number=numbers, end_stream=st.booleans(), interim=st.booleans())
    def answer(self, number, end_stream, interim):
        stream_id = self.pick(number)
        if not self.ends[1].is_open(stream_id) or (1, stream_id) in self.ended or stream_id in self.answered:
            return
        if interim:
            self.ends[1].send_headers(stream_id, [(b":status", b"103")])
            if not self.ends[1].is_open(stream_id):  # a hook has reset it
                return
        self.answered.add(stream_id)
        if end_stream:
            self.ended[1, stream_id] = "headers"
        self.ends[1].send_headers(stream_id, RESPONSE, end_stream)

    @precondition(lambda self: self.streams)
    @rule(side=sides, number=numbers, length=lengths, end_stream=st.booleans())
    def send(self, side, number, length, end_stream):
        stream_id = self.pick(number)
        if not self.may_send(side, stream_id):
            return
        start = len(self.sent[side, stream_id]) % 251
        octets = BODY[start : start + length]
        self.sent[side, stream_id] += octets
        if end_stream:
            self.ended[side, stream_id] = "data"
        assert 0 <= self.ends[side].send(stream_id, octets, end_stream) <= length

    @precondition(lambda self: self.streams)
    @rule(side=sides, number=numbers)
    def send_trailers(self, side, number):
        stream_id = self.pick(number)
        if self.may_send(side, stream_id):
            self.ended[side, stream_id] = "trailers"
            self.ends[side].send_trailing(stream_id, TRAILERS)

    @precondition(lambda self: self.streams)
    @rule(side=sides, number=numbers)
    def reset(self, side, number):
        stream_id = self.pick(number)
        if self.ends[side].is_open(stream_id) and stream_id in self.opened[side]:
            self.owner_ended[side].add(stream_id)
            self.ends[side].reset(stream_id)

    @precondition(lambda self: self.streams)
    @rule(number=numbers)
    def finish(self, number):
        stream_id = self.pick(number)
        if self.ends[1].is_open(stream_id):
            self.finished.add(stream_id)
            self.ended.setdefault((1, stream_id), "reset")
            self.ends[1].finish(stream_id)

    @precondition(lambda self: self.streams)
    @rule(side=sides, number=numbers, octets=st.one_of(lengths, st.just(10**9)))
    def drain(self, side, number, octets):
        stream_id = self.pick(number)
        if self.ends[side].is_open(stream_id):
            self.ends[side].drain(stream_id, octets)

    @rule(side=sides, how=st.sampled_from(["block_writes", "resume_writes", "second_passes"]))
    def tell(self, side, how):
        getattr(self.ends[side], how)()

    @rule(side=sides)
    def ping(self, side):
        self.ends[side].send_ping(77)

    @rule(side=sides, part=st.floats(0, 1))
    def change_first_window(self, side, part):
        """SETTINGS in the stead of an end: less than it takes, so that it cannot find fault."""
        if not self.wires[side].has_begun:
            return
        self.wires[side].octets += frames.settings((frames.INITIAL_WINDOW_SIZE, int(min(self.window, 65535) * part)))

    @rule(side=sides, length=st.one_of(st.integers(1, 30), st.integers(1, 200000)))
    def carry(self, side, length):
        wire = self.wires[side]
        octets, wire.octets = wire.octets[:length], wire.octets[length:]
        self.wires[1 - side].learn(octets)
        self.ends[1 - side].feed(octets)

    @precondition(lambda self: self.streams)
    @rule(side=sides, number=numbers, act=st.sampled_from(["reset", "finish", "drain", "send", "answer", "open"]))
    def act_in_next_hook(self, side, number, act):
        acts = {
            "reset": lambda: self.reset(side, number),
            "finish": lambda: self.finish(number),
            "drain": lambda: self.drain(side, number, 10**9),
            "send": lambda: self.send(side, number, 1000, False),
            "answer": lambda: self.answer(number, True, False),
            "open": lambda: self.open(True),
        }
        self.intent[side] = acts[act]

    # ===== what must hold =====

    @invariant()
    def nothing_is_wrong(self):
        if not hasattr(self, "ends"):
            return
        self.collect()
        for side, end in enumerate(self.ends):
            assert not end.failed
            assert end.last_stream_error is None or "limit" in end.last_stream_error
            for stream_id in self.streams:
                octets = self.sent[1 - side, stream_id]
                assert octets.startswith(self.got[side, stream_id])

    def teardown(self):
        if not hasattr(self, "ends"):
            return
        self.intent = [None, None]
        for end in self.ends:
            end.auto_credit = True
            end.resume_writes()
        for _ in range(10):
            self.collect()
            for side in (0, 1):
                # Where an injected SETTINGS left a window of zero, nothing more could move.
                self.change_first_window(side, 1.0)
                for stream_id in self.streams:
                    self.drain(side, stream_id // 2, 10**9)
            for _ in range(400):
                self.collect()
                if not any(wire.octets for wire in self.wires):
                    break
                for side in (0, 1):
                    if self.wires[side].octets:
                        self.carry(side, 10**9)
                        self.ends[1 - side].second_passes(10)
        self.nothing_is_wrong()
        self.check_ends()

    def check_ends(self):
        cut_short = self.owner_ended[0] | self.owner_ended[1] | self.refused
        for side, end in enumerate(self.ends):
            for stream_id in self.streams:
                how = self.ended.get((1 - side, stream_id))
                # finish() cuts a request short, and a response that had no end.
                if how and not (how == "reset" or stream_id in cut_short or (side == 1 and stream_id in self.finished)):
                    assert (side, stream_id) in self.seen_end
                    assert self.got[side, stream_id] == self.sent[1 - side, stream_id]
                if (side, stream_id) in self.seen_end:
                    assert self.got[side, stream_id] == self.sent[1 - side, stream_id]
            end.lose()
            assert set(self.closed[side]) | self.owner_ended[side] == self.opened[side]
            assert end.stream_count == 0
        assert self.ends[0].streams_in_use == 0


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
def test_two_ends_for_long():
    run_state_machine_as_test(
        TwoEnds,
        settings=settings(
            max_examples=400, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
