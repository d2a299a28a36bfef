"""The regression gate (bench/gate.py): its arithmetic, its trailers, what it reads; and the relay that it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import gate
from bench.gate import Costs, compare, parse_counts, read_costs, show
from bench.micro.memory_relay import MemoryRelay

BASE = {"relay": 1000.0, "hpack-decode": 500.0, "hpack-encode": 500.0}


def failures(now: dict[str, float | None], costs: list[Costs] | None = None) -> list[str]:
    return [line.name for line in compare(BASE, now, costs or [], 2.0) if line.is_failure]


def test_what_costs_over_two_percent_more_fails_by_its_name() -> None:
    assert failures({"relay": 1019.0, "hpack-decode": 500.0, "hpack-encode": 400.0}) == []
    assert failures({"relay": 1021.0, "hpack-decode": 511.0, "hpack-encode": 509.0}) == ["relay", "hpack-decode"]


def test_a_commit_may_say_what_it_costs_and_why() -> None:
    now: dict[str, float | None] = {"relay": 1049.0, "hpack-decode": 500.0, "hpack-encode": 500.0}
    assert failures(now, [Costs("relay", 3.0, "deadlines")]) == []
    assert failures(now, [Costs("relay", 2.0, "deadlines")]) == ["relay"]
    assert failures(now, [Costs("relay", 2.0, "deadlines"), Costs("relay", 1.0, "counters")]) == []
    assert failures(now, [Costs("hpack", 9.0, "another operation")]) == ["relay"]


def test_a_family_is_named_by_its_beginning() -> None:
    now: dict[str, float | None] = {"hpack-decode": 520.0, "hpack-encode": 520.0}
    assert failures(now, [Costs("hpack", 3.0, "checks")]) == []


def test_what_does_not_run_any_more_fails_and_what_is_new_does_not() -> None:
    assert failures({"relay": None, "match": 10.0}) == ["relay"]


def test_trailers_of_commit_messages() -> None:
    text = """Check the path twice

Costs: relay 3% because a deadline is kept for mirrors
costs: relay 9% because it is not written so
Costs: hpack-decode 1.5 % because RFC 7541 §2.3.3 asks for a check
Costs: match 5%
"""
    assert read_costs(text) == [
        Costs("relay", 3.0, "a deadline is kept for mirrors"),
        Costs("hpack-decode", 1.5, "RFC 7541 §2.3.3 asks for a check"),
    ]


def test_the_table_says_what_to_do() -> None:
    text = show(compare(BASE, {"relay": 1100.0, "hpack-decode": 500.0, "pick": 7.0}, [], 2.0))
    assert "FAILED: relay costs 10.0 % more instructions, 2 % are allowed." in text
    assert '"Costs: relay 10% because ..."' in text
    assert "pick" in text
    assert "new" in text
    assert text.count("FAILED") == 1


def test_counts_are_read_from_what_callgrind_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "callgrind.out.1").write_text("desc: Trigger: Client Request: relay\nevents: Ir\nsummary: 5000\n")
    (tmp_path / "callgrind.out.2").write_text("desc: Trigger: Program termination\nevents: Ir\ntotals: 99\n")
    counts = parse_counts("relay 500\nmatch 0 AttributeError: no such thing\n", tmp_path)
    assert counts == {"relay": 10.0, "match": None}
    assert "match: AttributeError: no such thing" in capsys.readouterr().err


def test_the_base_is_the_commit_before_where_there_is_no_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(*command: str, cwd: Path = Path()) -> str:
        asked.append(command)
        return "head"

    class Nothing:
        returncode = 1
        stdout = ""

    monkeypatch.setattr(gate, "run", run)
    monkeypatch.setattr(gate.subprocess, "run", lambda *arguments, **options: Nothing())
    assert gate.default_base() == "head"
    assert asked[-1] == ("git", "rev-parse", "HEAD^")


@pytest.mark.parametrize("changing", [False, True])
def test_the_relay_in_memory_relays(changing: bool) -> None:
    relay = MemoryRelay(16, changing)
    try:
        relay.relay_prepared(relay.prepare(50))
        assert relay.completed() == 51
        assert relay.written() > 50 * 2 * 21
    finally:
        relay.close()
