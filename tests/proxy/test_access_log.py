"""The access log: any octets become one line of valid JSON, and lines are handed out once per loop turn."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygw.proxy.access_log import AccessLog, write_entry

TEXT_MAX = 2048
FLUSH_SIZE = 65536
TEXTS = [
    "client", "method", "authority", "path", "listener", "route", "rule_name", "backend", "endpoint", "user_agent",
]


class FakeLoop:
    """Collects what is to run in the next turn."""

    def __init__(self):
        self.soon = []

    def call_soon(self, callback):
        self.soon.append(callback)

    def turn(self):
        callbacks, self.soon = self.soon, []
        for callback in callbacks:
            callback()


def lines_of(*entries: dict[str, Any]) -> list[bytes]:
    chunks: list[bytes] = []
    log = AccessLog(FakeLoop(), chunks.append)
    for entry in entries:
        write_entry(log, entry)
    log.flush()
    return b"".join(chunks).splitlines(keepends=True)


def shown(text: bytes) -> str:
    """What a text must read as."""
    cut = text[:TEXT_MAX].decode("utf-8", "replace")
    return cut + "…" if len(text) > TEXT_MAX else cut


def test_a_whole_line():
    entry = {name: name.encode() for name in TEXTS} | {
        "time": 1795575600.0625, "rule": 3, "http_status": 200, "grpc_status": 14, "ended_by": "gateway",
        "reason": b"no ready endpoint", "attempts": 2, "duration_us": 1234567, "upstream_us": 1001,
        "request_bytes": 5, "response_bytes": 2**64 - 1, "request_messages": 1, "response_messages": 0,
    }
    [line] = lines_of(entry)
    assert line.endswith(b"}\n")
    assert json.loads(line) == {name: name for name in TEXTS} | {
        "time": "2026-11-25T03:00:00.062Z", "rule": 3, "http_status": 200, "grpc_status": 14, "ended_by": "gateway",
        "reason": "no ready endpoint", "attempts": 2, "duration_ms": 1234.567, "upstream_ms": 1.001,
        "request_bytes": 5, "response_bytes": 2**64 - 1, "request_messages": 1, "response_messages": 0,
    }


def test_what_is_unknown_is_left_out():
    [line] = lines_of({})
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000Z", "ended_by": "backend", "attempts": 0, "duration_ms": 0.0,
        "request_bytes": 0, "response_bytes": 0, "request_messages": 0, "response_messages": 0,
    }


@pytest.mark.parametrize("ended_by", ["client", "backend", "gateway"])
def test_who_ended_it(ended_by):
    [line] = lines_of({"ended_by": ended_by})
    assert json.loads(line)["ended_by"] == ended_by


@pytest.mark.parametrize("status", range(17))
def test_every_grpc_status(status):
    [line] = lines_of({"grpc_status": status})
    assert json.loads(line)["grpc_status"] == status


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (0.9999, "1970-01-01T00:00:00.999Z"),
        (951782400.5, "2000-02-29T00:00:00.500Z"),
        (4102444799.25, "2099-12-31T23:59:59.250Z"),
        (253402300799.5, "9999-12-31T23:59:59.500Z"),
        (-1.0, "1970-01-01T00:00:00.000Z"),
        (float("nan"), "1970-01-01T00:00:00.000Z"),
        (1e300, "1970-01-01T00:00:00.000Z"),
    ],
)
def test_times(seconds, text):
    [line] = lines_of({"time": seconds})
    assert json.loads(line)["time"] == text


def test_the_clock_moves_with_the_second():
    lines = lines_of({"time": 59.0}, {"time": 59.5}, {"time": 60.0}, {"time": 59.0})
    assert [json.loads(line)["time"][17:23] for line in lines] == ["59.000", "59.500", "00.000", "59.000"]


@pytest.mark.parametrize(
    "octets",
    [
        b'"', b"\\", b'\\"', bytes(range(32)), b"\x7f", b"\x80", b"\xc2\x9b31m", "é€😀".encode(),
        b"\xc0\xaf", b"\xe0\x9f\x80", b"\xed\xa0\x80", b"\xf0\x8f\x80\x80", b"\xf4\x90\x80\x80", b"\xf5", b"\xff",
        b"\xe2\x82", b"\xf0\x9f\x98", b"\xf0\x9f\x98a", b"\xe2\x82\xe2\x82\xac", "\u2028\ufeff\ufffd".encode(),
    ],
)
def test_hostile_texts(octets):
    [line] = lines_of({"path": octets})
    assert json.loads(line)["path"] == shown(octets)
    assert json.loads(lines_of({"user_agent": b"a" + octets + b"z"})[0])["user_agent"] == shown(b"a" + octets + b"z")


@given(path=st.binary(min_size=1, max_size=40), agent=st.binary(max_size=40))
def test_any_octets_make_valid_json(path, agent):
    [line] = lines_of({"path": path, "user_agent": agent})
    parsed = json.loads(line)
    assert parsed["path"] == shown(path)
    assert parsed.get("user_agent", "") == shown(agent)
    # Nothing in a line moves a terminal: C0 controls, DEL and C1 controls are escaped.
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in line.decode().rstrip("\n"))


@given(st.lists(st.sampled_from([0x41, 0x80, 0x90, 0xA0, 0xBF, 0xC2, 0xE0, 0xE2, 0xED, 0xF0, 0xF4]), min_size=1))
def test_broken_utf8_is_replaced_as_python_does(octets):
    [line] = lines_of({"path": bytes(octets)})
    assert json.loads(line)["path"] == shown(bytes(octets))


@pytest.mark.parametrize("length", [TEXT_MAX - 1, TEXT_MAX, TEXT_MAX + 1, 100_000])
@pytest.mark.parametrize("octet", [b"a", b"\0", b"\xff", "é".encode()])
def test_long_texts_are_cut(length, octet):
    text = (octet * length)[:length]
    [line] = lines_of({"path": text})
    assert json.loads(line)["path"] == shown(text)
    assert len(line) < 6 * TEXT_MAX + 300


def test_lines_are_handed_out_once_a_turn():
    loop, chunks = FakeLoop(), []
    log = AccessLog(loop, chunks.append)
    for _ in range(3):
        write_entry(log, {"path": b"/a"})
    assert len(loop.soon) == 1
    assert chunks == []
    loop.turn()
    assert [chunk.count(b"\n") for chunk in chunks] == [3]
    loop.turn()
    log.flush()
    assert len(chunks) == 1
    write_entry(log, {})
    assert len(loop.soon) == 1
    assert log.line_count == 4


def test_much_is_handed_out_at_once():
    loop, chunks = FakeLoop(), []
    log = AccessLog(loop, chunks.append)
    write_entry(log, {"path": b"p" * 1000}, 200)
    assert len(chunks) >= 3
    assert all(FLUSH_SIZE <= len(chunk) < FLUSH_SIZE + 2000 for chunk in chunks)
    assert len(loop.soon) == 1
    loop.turn()
    assert b"".join(chunks).count(b"\n") == 200


def test_a_sink_that_fails_loses_lines_and_says_so():
    def full(octets):
        raise OSError(28, "No space left on device")

    log = AccessLog(FakeLoop(), full)
    write_entry(log, {}, 5)
    log.flush()
    assert (log.line_count, log.lost) == (5, 5)
