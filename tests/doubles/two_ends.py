"""A client and a server end wired to each other, and what must hold whatever is done to them.

Driven by hypothesis (tests/http2/test_connection_model.py) and by the fuzzer (tests/fuzz/targets/connection.py). Each
method without an underscore is a step that may be taken at any time; check() may be called after each, finish() in the
end. Reads are cut anywhere, hooks act. Whatever happens:

* neither end ever finds fault with the other;
* no window is over-spent, as counted by a Wire that knows nothing of the engine;
* every section arrives as it was sent, every octet of DATA once and in order, and END_STREAM or trailers behind the
  last one;
* every stream ends with one on_closed() at each end, or none where its owner reset it;
* in the end all memory is given back: streams, buffers, what HPACK keeps.

Once an intruder has put a frame of his own on the wire (`intrude`), the ends may find fault and sections and octets
may be his; windows, single ends of streams and memory are as before.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from pygw.http2.stream import StreamPool

from . import frames
from .engine import new_client, new_server
from .frames import DATA, REQUEST, RESPONSE, SETTINGS, TRAILERS, WINDOW_UPDATE

BODY = bytes(range(251)) * 400
STREAMS = 8  # that are acted on, of all that were opened
MANY = 10**9
FIRST_WINDOWS = (0, 1, 30, 1000, 65535)
TABLE_SIZES = (0, 40, 200, 4096)
CLIENT, SERVER = 0, 1


def fields_of(kind: list[frames.Field], number: int) -> list[frames.Field]:
    """Some section of this kind. There are 32: one is longer than a frame, some fill the table of HPACK."""
    more = [(b"x-%d" % (n % 5), b"%d" % (number * n)) for n in range(number % 4)]
    if number % 8 == 5:
        more.append((b"x-long", bytes([65 + number]) * 5000))
    if number == 7:
        more += [(b"x-frame-%d" % n, b"%d" % n * 3000) for n in range(8)]
    return [*kind, *more]


class Wire:
    """Octets under way to one end, and the windows of the other end's DATA in them."""

    def __init__(self) -> None:
        self.octets = b""
        self.has_begun = False
        self.arrived = b""
        self.connection_window = 65535
        self.first_window = 65535
        self.stream_windows: dict[int, int] = {}

    def send(self, octets: bytes) -> None:
        """New output of the sender: its DATA must be within what has arrived at it."""
        self.octets += octets
        self.has_begun |= bool(octets)
        for type, _, stream_id, payload in frames.parse(octets):
            if type == DATA:
                assert len(payload) <= 16384
                self.connection_window -= len(payload)
                self.stream_windows[stream_id] = self._window_of(stream_id) - len(payload)
                if payload:
                    assert self.connection_window >= 0
                    assert self.stream_windows[stream_id] >= 0

    def pieces(self, octets: bytes) -> Iterator[bytes]:
        """`octets` cut before each SETTINGS in them: what a hook sends before is within the windows before."""
        known, before = self.arrived + octets, len(self.arrived)
        begin = at = 0  # in `known`
        while at + 9 <= len(known):
            head = at
            if known.startswith(b"PRI *", head):
                at += len(frames.PREFACE)
                continue
            at += 9 + int.from_bytes(known[head : head + 3], "big")
            if known[head + 3] == SETTINGS and head > before:
                yield known[max(begin, before) : head]
                begin = head
        yield known[max(begin, before) :]

    def learn(self, octets: bytes) -> None:
        """The sender has read these octets of its peer's."""
        self.arrived += octets
        if self.arrived.startswith(frames.PREFACE[:9]) and len(self.arrived) < len(frames.PREFACE):
            return
        self.arrived = self.arrived.removeprefix(frames.PREFACE)
        while len(self.arrived) >= 9:
            size = int.from_bytes(self.arrived[:3], "big") + 9
            if len(self.arrived) < size:
                return
            type, flags, stream_id, payload = next(frames.parse(self.arrived[:size]))
            self.arrived = self.arrived[size:]
            self._take(type, flags, stream_id & 0x7FFFFFFF, payload)

    def _take(self, type: int, flags: int, stream_id: int, payload: bytes) -> None:
        if type == WINDOW_UPDATE and stream_id == 0:
            self.connection_window += int.from_bytes(payload, "big") & 0x7FFFFFFF
        elif type == WINDOW_UPDATE:
            window = self._window_of(stream_id)
            self.stream_windows[stream_id] = window + (int.from_bytes(payload, "big") & 0x7FFFFFFF)
        elif type == SETTINGS and not flags & frames.ACK and len(payload) % 6 == 0:
            for setting, value in struct.iter_unpack(">HI", payload):
                if setting == frames.INITIAL_WINDOW_SIZE:
                    for known in self.stream_windows:
                        self.stream_windows[known] += value - self.first_window
                    self.first_window = value
        elif type == frames.HEADERS:
            self._window_of(stream_id)

    def _window_of(self, stream_id: int) -> int:
        return self.stream_windows.setdefault(stream_id, self.first_window)


class TwoEnds:
    """See the module. Sides are 0 (the client end) and 1; `number` picks one of the streams."""

    def __init__(self, window: int = 65535, limit: int = 100) -> None:
        pool = StreamPool(True)
        grown = max(window, 1048576)
        self.window, self.limit = window, limit
        self.ends = [
            new_client(pool, stream_window=window, stream_window_max=grown, connection_window=70000),
            new_server(pool, stream_window=window, stream_window_max=grown, connection_window=70000,
                       max_concurrent_streams=limit),
        ]  # fmt: skip
        self.wires = [Wire(), Wire()]  # number n: the output of end n
        self.streams: list[int] = []
        self.sections: dict[tuple[int, int], list[list[frames.Field]]] = defaultdict(list)  # sent, oldest first
        self.sections_seen: dict[tuple[int, int], int] = defaultdict(int)
        self.sent: dict[tuple[int, int], bytes] = defaultdict(bytes)  # (side, stream): DATA
        self.got: dict[tuple[int, int], bytes] = defaultdict(bytes)
        self.ended: dict[tuple[int, int], str] = {}  # (side, stream): how that side ended its half
        self.seen_end: dict[tuple[int, int], str] = {}
        self.opened: list[set[int]] = [set(), set()]
        self.closed: list[dict[int, int]] = [defaultdict(int), defaultdict(int)]
        self.owner_ended: list[set[int]] = [set(), set()]
        self.answered: set[int] = set()
        self.finished: set[int] = set()
        self.given_up: set[int] = set()
        self.intent: list[Callable[[], object] | None] = [None, None]
        self.has_intruder = False
        self.is_lost = False
        for side, end in enumerate(self.ends):
            end.on_event = lambda event, side=side: self._take(side, event)
        self._collect()

    # ===== steps =====

    def open(self, number: int, end_stream: bool) -> None:
        """A request's HEADERS."""
        stream_id = self.ends[CLIENT].open()
        if stream_id is None:
            return
        self.streams.append(stream_id)
        self.opened[CLIENT].add(stream_id)
        if end_stream:
            self.ended[CLIENT, stream_id] = "headers"
        self._send_section(CLIENT, stream_id, fields_of(REQUEST, number), end_stream)

    def answer(self, number: int, end_stream: bool, interim: bool) -> None:
        """A response's HEADERS, perhaps behind an interim one."""
        stream_id = self._pick(number)
        server = self.ends[SERVER]
        if stream_id is None or not server.is_open(stream_id):
            return
        if (SERVER, stream_id) in self.ended or stream_id in self.answered:
            return
        if interim:
            self._send_section(SERVER, stream_id, [(b":status", b"103")], False)
            if not server.is_open(stream_id) or (SERVER, stream_id) in self.ended or stream_id in self.answered:
                return  # a hook has reset or answered it
        self.answered.add(stream_id)
        if end_stream:
            self.ended[SERVER, stream_id] = "headers"
        self._send_section(SERVER, stream_id, fields_of(RESPONSE, number), end_stream)

    def send(self, side: int, number: int, length: int, end_stream: bool) -> None:
        """DATA, perhaps the last."""
        stream_id = self._pick_sendable(side, number)
        if stream_id is None:
            return
        start = len(self.sent[side, stream_id]) % 251
        octets = BODY[start : start + length]
        self.sent[side, stream_id] += octets
        if end_stream:
            self.ended[side, stream_id] = "data"
        assert 0 <= self.ends[side].send(stream_id, octets, end_stream) <= length

    def send_trailers(self, side: int, number: int) -> None:
        """Trailers behind all DATA."""
        stream_id = self._pick_sendable(side, number)
        if stream_id is not None:
            fields = fields_of(TRAILERS, number)
            self.ended[side, stream_id] = "trailers"
            self.sections[side, stream_id].append(fields)
            self.ends[side].send_trailing(stream_id, fields)

    def reset(self, side: int, number: int) -> None:
        """RST_STREAM by the owner of one end."""
        stream_id = self._pick(number)
        if stream_id in self.opened[side] and self.ends[side].is_open(stream_id):
            self.owner_ended[side].add(stream_id)
            self.ends[side].reset(stream_id)

    def finish_stream(self, number: int) -> None:
        """The server does not want the rest of a request."""
        stream_id = self._pick(number)
        if stream_id is not None and self.ends[SERVER].is_open(stream_id):
            self.finished.add(stream_id)
            self.ended.setdefault((SERVER, stream_id), "reset")
            self.ends[SERVER].finish(stream_id)

    def drain(self, side: int, number: int, octets: int) -> None:
        """The owner of an end has used so many octets."""
        stream_id = self._pick(number)
        if stream_id is not None and self.ends[side].is_open(stream_id):
            self.ends[side].drain(stream_id, octets)

    def block_writes(self, side: int) -> None:
        """The transport takes nothing more."""
        self.ends[side].block_writes()

    def resume_writes(self, side: int) -> None:
        """The transport takes octets again."""
        self.ends[side].resume_writes()

    def second_passes(self, side: int) -> None:
        """A second passes."""
        self.ends[side].second_passes()

    def look_for_stalls(self, side: int) -> None:
        """An end looks, for the second time, for streams whose windows stay shut."""
        self.ends[side].look_for_stalls(2)

    def ping(self, side: int) -> None:
        """A PING."""
        self.ends[side].send_ping(77)

    def announce_goaway(self, side: int) -> None:
        """The first GOAWAY of two: no new streams, please."""
        self.ends[side].announce_going_away()

    def final_goaway(self, side: int) -> None:
        """The GOAWAY that names the last stream."""
        self.ends[side].go_away()

    def change_settings(self, side: int, setting: int, number: int) -> None:
        """SETTINGS in the stead of an end, of less than it takes, so that it cannot find fault."""
        if not self.wires[side].has_begun:
            return
        if setting % 3 == 0:
            value = min(self.window, FIRST_WINDOWS[number % len(FIRST_WINDOWS)])
            pair = (frames.INITIAL_WINDOW_SIZE, value)
        elif setting % 3 == 1:
            pair = (frames.HEADER_TABLE_SIZE, TABLE_SIZES[number % len(TABLE_SIZES)])
        elif side == SERVER:
            pair = (frames.MAX_CONCURRENT_STREAMS, min(self.limit, number))
        else:
            return
        self.wires[side].octets += frames.settings(pair)

    def carry(self, side: int, length: int) -> None:
        """So many octets arrive."""
        wire = self.wires[side]
        octets, wire.octets = wire.octets[:length], wire.octets[length:]
        for piece in self.wires[1 - side].pieces(octets):
            self.wires[1 - side].learn(piece)
            self.ends[1 - side].feed(piece)
            self._collect()

    def act_in_next_hook(self, side: int, number: int, act: int) -> None:
        """Do something from inside of the next hook of an end."""
        acts: list[Callable[[], object]] = [
            lambda: self.reset(side, number),
            lambda: self.finish_stream(number),
            lambda: self.drain(side, number, MANY),
            lambda: self.send(side, number, 1000, False),
            lambda: self.answer(number, True, False),
            lambda: self.open(number, True),
            lambda: self.send_trailers(side, number),
            lambda: self.final_goaway(side),
        ]
        self.intent[side] = acts[act % len(acts)]

    def lose(self) -> None:
        """The connection breaks."""
        self.is_lost = True
        for end in self.ends:
            end.lose()

    def intrude(self, side: int, octets: bytes) -> None:
        """Octets that this end never sent."""
        self.has_intruder = True
        self.wires[side].octets += octets

    # ===== what must hold =====

    def check(self) -> None:
        """After any step."""
        self._collect()
        if self.has_intruder:
            return
        for side, end in enumerate(self.ends):
            assert self.is_lost or not end.failed
            assert end.last_stream_error is None or "limit" in end.last_stream_error
            for stream_id in self.streams:
                assert self.sent[1 - side, stream_id].startswith(self.got[side, stream_id])

    def finish(self) -> None:
        """Let all come to its end, and look whether it did."""
        self.intent = [None, None]
        if not self.is_lost:
            self._let_all_arrive()
        self.check()
        for side, end in enumerate(self.ends):
            if not (self.is_lost or self.has_intruder):
                self._check_completeness(side)
            end.on_event = None
            before = len(end.events)
            end.lose()
            for event in end.events[before:]:
                self._take(side, event)
            self._check_memory(side)
        assert self.ends[CLIENT].streams_in_use == 0

    def _let_all_arrive(self) -> None:
        for end in self.ends:
            end.auto_credit = True
            end.resume_writes()
        for _ in range(10):
            self._collect()
            for side in (CLIENT, SERVER):
                # Where injected SETTINGS left less than an end takes, nothing more could move: it returns a window by
                # halves of what it takes.
                if self.wires[side].has_begun:
                    self.wires[side].octets += frames.settings((frames.INITIAL_WINDOW_SIZE, self.window))
                for stream_id in filter(self.ends[side].is_open, self.streams):
                    self.ends[side].drain(stream_id, MANY)
            for _ in range(400):
                self._collect()
                if not any(wire.octets for wire in self.wires):
                    break
                for side in (CLIENT, SERVER):
                    if self.wires[side].octets:
                        self.carry(side, MANY)
                        self.ends[1 - side].second_passes(10)

    def _check_completeness(self, side: int) -> None:
        cut_short = self.owner_ended[CLIENT] | self.owner_ended[SERVER] | self.given_up
        for stream_id in self.streams:
            how = self.ended.get((1 - side, stream_id))
            # finish_stream() cuts a request short, and a response that had no end.
            is_cut = how == "reset" or stream_id in cut_short or (side == SERVER and stream_id in self.finished)
            if how and not is_cut:
                assert (side, stream_id) in self.seen_end
            if (side, stream_id) in self.seen_end:
                assert self.got[side, stream_id] == self.sent[1 - side, stream_id]
                assert self.sections_seen[side, stream_id] == len(self.sections[1 - side, stream_id])

    def _check_memory(self, side: int) -> None:
        end = self.ends[side]
        once = dict.fromkeys(self.opened[side] - self.owner_ended[side], 1)
        assert {stream_id: count for stream_id, count in self.closed[side].items() if count} == once
        assert end.stream_count == 0
        end.output()
        assert end.held_octets <= 4096, end.held_octets
        assert end.hpack_octets <= 8192, end.hpack_octets

    # ===== what the ends tell =====

    def _take(self, side: int, event: tuple[Any, ...]) -> None:
        kind, *rest = event
        assert kind != "failed" or self.has_intruder, event
        if kind in ("request", "response", "too_large"):
            assert rest[0] not in self.closed[side]
            self.opened[side].add(rest[0])
        if kind in ("request", "response", "trailers"):
            self._take_section(side, kind, rest)
        if kind == "data":
            self.got[side, rest[0]] += rest[1]
        if kind == "trailers" or (kind in ("request", "response", "data") and rest[-1]):
            assert (side, rest[0]) not in self.seen_end
            self.seen_end[side, rest[0]] = kind
        if kind == "closed":
            self._take_close(side, *rest)
        act, self.intent[side] = self.intent[side], None
        if act is not None:
            act()

    def _take_section(self, side: int, kind: str, rest: list[Any]) -> None:
        seen = self.sections_seen[side, rest[0]]
        self.sections_seen[side, rest[0]] += 1
        if not self.has_intruder:
            fields = rest[2] if kind == "response" else rest[1]
            assert fields == self.sections[1 - side, rest[0]][seen]

    def _take_close(self, side: int, stream_id: int, cause: str, code: int) -> None:
        assert stream_id not in self.owner_ended[side]
        self.closed[side][stream_id] += 1
        assert self.closed[side][stream_id] == 1
        if not self.has_intruder:
            assert cause in ("complete", "by_peer", "unprocessed", "connection", "stalled"), (cause, code)
        if cause in ("unprocessed", "stalled"):
            self.given_up.add(stream_id)

    # ===== own =====

    def _collect(self) -> None:
        for side, end in enumerate(self.ends):
            self.wires[side].send(end.output())

    def _pick(self, number: int) -> int | None:
        recent = self.streams[-STREAMS:]
        return recent[number % len(recent)] if recent else None

    def _pick_sendable(self, side: int, number: int) -> int | None:
        """A stream on which this side may send DATA or trailers."""
        stream_id = self._pick(number)
        if stream_id is None or not self.ends[side].is_open(stream_id) or (side, stream_id) in self.ended:
            return None
        return stream_id if side == CLIENT or stream_id in self.answered else None

    def _send_section(self, side: int, stream_id: int, fields: list[frames.Field], end_stream: bool) -> None:
        self.sections[side, stream_id].append(fields)
        self.ends[side].send_headers(stream_id, fields, end_stream)
