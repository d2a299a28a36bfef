"""What the benchmark suite makes of its figures: verdicts, tables, plots (bench/goals.py, page.py, svg.py)."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path

import pytest

from bench import goals, page, svg
from bench.goals import AtMost, Times, Verdict, Within
from bench.scenarios import SCENARIOS

MEASURED = {
    "work": {
        "pygw": [{"cpu_us": 2.0, "gb_per_cpu_s": 1.0}, {"cpu_us": 4.0, "gb_per_cpu_s": 1.0}],
        "tcp": [{"cpu_us": 1.0, "gb_per_cpu_s": 2.0}, {"cpu_us": 2.0, "gb_per_cpu_s": 2.0}],
        "nginx": [{"cpu_us": 20.0, "gb_per_cpu_s": 0.5}, {"cpu_us": 40.0, "gb_per_cpu_s": 0.5}],
        "haproxy": [{"cpu_us": 10.0, "gb_per_cpu_s": 0.4}, {"cpu_us": 24.0, "gb_per_cpu_s": 0.4}],
    }
}


def test_ratios_are_taken_within_rounds_and_the_best_peer_counts() -> None:
    verdict = Times(("nginx", "haproxy"), 5).judge("work", MEASURED, {})
    assert verdict == Verdict("5.5x haproxy (5-6) of 5x", True)
    assert Times(("nginx",), 11).judge("work", MEASURED, {}).is_pass is False


def test_of_a_yield_more_is_better() -> None:
    assert Times(("nginx", "haproxy"), 2, "gb_per_cpu_s").judge("work", MEASURED, {}).is_pass is True
    assert Within("tcp", 0.55, "gb_per_cpu_s").judge("work", MEASURED, {}).is_pass is False


def test_within_a_multiple_of_another() -> None:
    assert Within("tcp", 2).judge("work", MEASURED, {}).is_pass is True
    assert Within("tcp", 1.9).judge("work", MEASURED, {}) == Verdict("2x, at most 1.9x", False)


def test_a_bound_for_the_figure_itself() -> None:
    results: dict[str, dict[str, list[dict[str, float]]]] = {"idle": {"pygw": [{"octets_each": 5900.0}]}}
    assert AtMost("octets_each", 6, "KB", 1e-3).judge("idle", results, {}) == Verdict("5.9 KB, at most 6", True)
    results["tls"] = {"pygw, TLS": [{"octets_each": 40_000.0}]}
    beside = AtMost("octets_each", 5, "KB", 1e-3, beside="tls/pygw, TLS/octets_each: over TLS")
    assert beside.judge("idle", results, {}) == Verdict("5.9 KB (over TLS 40), at most 5", False)
    both = "tls/pygw, TLS/octets_each: over TLS; idle/pygw/octets_each: here"
    two = AtMost("octets_each", 5, "KB", 1e-3, beside=both)
    assert two.judge("idle", results, {}) == Verdict("5.9 KB (over TLS 40, here 5.9), at most 5", False)


@pytest.mark.parametrize(
    ("reasons", "text"),
    [
        ({"work": "needs 4 cores"}, "not measured: needs 4 cores"),
        ({"work/envoy": "calls failed"}, "not measured: calls failed"),
        ({"envoy": "envoy is not installed"}, "not measured: envoy is not installed"),
        ({}, "not measured: left out of this run"),
    ],
)
def test_a_missing_figure_has_its_reason(reasons: dict[str, str], text: str) -> None:
    assert Times(("envoy",), 2).judge("work", MEASURED, reasons) == Verdict(text, None)


def test_goals_name_scenarios_that_exist() -> None:
    names = {scenario.name for scenario in SCENARIOS}
    assert {name for goal in goals.GOALS for name in goal.scenarios} <= names
    assert len(names) == len(SCENARIOS)
    quick = {scenario.name for scenario in SCENARIOS if scenario.is_quick}
    assert {name for goal in goals.GOALS for name in goal.scenarios} <= quick, "make bench prints the whole table"


def test_the_table_of_goals_says_pass_short_or_why_not() -> None:
    results = {"unary-16b-50x100": {
        "pygw": [{"cpu_us": 1.0}], "tcp": [{"cpu_us": 0.2}], "envoy": [{"cpu_us": 31.0}], "nghttpx": [{"cpu_us": 4.0}],
    }}
    rows, verdicts = goals.goal_table(results, {}, ["unary-16b-50x100", "metadata"])
    assert rows[0] == [
        "16 B unary, 50 connections x 100 streams", "31x of 30x pass",
        "4x nghttpx of 5x, without nginx, without haproxy **short**", "5x, at most 3x **short**", "",
    ]
    assert [row[0] for row in rows] == [
        "16 B unary, 50 connections x 100 streams", "16 B unary, 8 x 10, ten metadata fields of which three change",
    ]
    assert verdicts == [True, False, False, None, None]


def test_the_page_has_figures_plots_and_reasons(tmp_path: Path) -> None:
    chosen = [scenario for scenario in SCENARIOS if scenario.name in ("unary-16b-8x10", "idle-connections")]
    results = {
        "unary-16b-8x10": {"pygw": [{"cpu_us": 3.0, "rate": 1000.0}, {"cpu_us": 5.0, "rate": 2000.0}]},
        "idle-connections": {"pygw": [{"octets_each": 4400.0}]},
    }
    reasons = {"envoy": "envoy is not installed"}
    written = page.write(tmp_path, "2026-01-02", "python -m bench", chosen, results, reasons)
    text = written.read_text()
    assert "| 16 B unary, 8 x 10 | 4 (3-5) |" in text
    assert "* envoy: envoy is not installed" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2026-01-02-cpu.svg", "2026-01-02-memory.svg", "2026-01-02.json", "2026-01-02.md",
    ]
    assert "![cpu](2026-01-02-cpu.svg)" in text


def test_a_plot_is_svg_whose_bars_are_as_long_as_their_values_say() -> None:
    text = svg.bar_chart("Costs & <more>", "us", [("work", [("a", 1.0), ("b", 10.0), ("c", 100.0)])])
    root = xml.etree.ElementTree.fromstring(text)
    bars = [rect for rect in root.iter("{http://www.w3.org/2000/svg}rect") if len(rect)]
    a, b, c = (float(bar.get("width", "")) for bar in bars)
    assert a == pytest.approx(1)  # at the left end of the axis, but to be seen
    assert c == pytest.approx(2 * b, abs=0.2)
