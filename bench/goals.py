"""The numbers to reach, as data, and what a run says about each: pass, short, or not measured and why."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from bench.measure import Reasons, Results
from bench.scenarios import SCENARIOS

OTHERS = ("nginx", "haproxy", "nghttpx")
PYGW = "pygw"


@dataclass(frozen=True)
class Verdict:
    """What is printed in a cell."""

    text: str
    is_pass: bool | None  # None: not measured

    def __str__(self) -> str:
        word = {True: "pass", False: "**short**", None: ""}[self.is_pass]
        return f"{self.text} {word}".strip()


@dataclass(frozen=True)
class Times:
    """pygw does `at_least` times better than the best of these peers: costs less, or (figure of a yield) gives more."""

    peers: tuple[str, ...]
    at_least: float
    figure: str = "cpu_us"

    def judge(self, scenario: str, results: Results, reasons: Reasons) -> Verdict:
        measured = results.get(scenario, {})
        present = [peer for peer in self.peers if peer in measured]
        if PYGW not in measured or not present:
            return not_measured(scenario, [PYGW, *self.peers], results, reasons)
        ratios = {peer: [self._ratio(*pair) for pair in pairs(measured, peer, PYGW, self.figure)] for peer in present}
        best = min(ratios, key=lambda peer: statistics.median(ratios[peer]))
        name = f" {best}" if len(self.peers) > 1 else ""
        missing = "".join(f", without {peer}" for peer in self.peers if peer not in present)
        value = statistics.median(ratios[best])
        text = f"{value:.3g}x{name}{spread(ratios[best])} of {self.at_least:g}x{missing}"
        return Verdict(text, value >= self.at_least)

    def _ratio(self, peer: float, ours: float) -> float:
        return ours / peer if self.figure == "gb_per_cpu_s" else peer / ours


@dataclass(frozen=True)
class Within:
    """pygw's figure is at most so many times another's (or, of a yield, at least that part of it)."""

    other: str
    bound: float
    figure: str = "cpu_us"
    ours: str = PYGW

    def judge(self, scenario: str, results: Results, reasons: Reasons) -> Verdict:
        measured = results.get(scenario, {})
        if self.ours not in measured or self.other not in measured:
            return not_measured(scenario, [self.ours, self.other], results, reasons)
        ratios = [ours / other for ours, other in pairs(measured, self.ours, self.other, self.figure)]
        value = statistics.median(ratios)
        is_yield = self.figure == "gb_per_cpu_s"
        word = "at least" if is_yield else "at most"
        return Verdict(
            f"{value:.3g}x{spread(ratios)}, {word} {self.bound:g}x",
            value >= self.bound if is_yield else value <= self.bound,
        )


@dataclass(frozen=True)
class AtMost:
    """The figure itself has a bound; `scale` and `unit` are for people. Other figures may be told beside it."""

    figure: str
    bound: float
    unit: str
    scale: float = 1.0
    beside: str = ""  # scenario/label/figure: name; ...

    def _beside(self, results: Results) -> str:
        if not self.beside:
            return ""
        told = []
        for item in self.beside.split("; "):
            path, name = item.split(": ")
            scenario, label, figure = path.split("/")
            values = [sample[figure] * self.scale for sample in results.get(scenario, {}).get(label, [])]
            told += [f"{name} {statistics.median(values):.3g}"] if values else []
        return f" ({', '.join(told)})" if told else ""

    def judge(self, scenario: str, results: Results, reasons: Reasons) -> Verdict:
        samples = results.get(scenario, {}).get(PYGW, [])
        values = [sample[self.figure] * self.scale for sample in samples if self.figure in sample]
        if not values:
            return not_measured(scenario, [PYGW], results, reasons)
        value = statistics.median(values)
        text = f"{value:.3g}{spread(values)} {self.unit}{self._beside(results)}, at most {self.bound:g}"
        return Verdict(text, value <= self.bound)


Cell = Times | Within | AtMost


@dataclass(frozen=True)
class Goal:
    """A row of the table: its scenarios, and its cells under Envoy, the others, the raw relay, and without peer."""

    title: str
    scenarios: tuple[str, ...]
    envoy: Cell | None = None
    others: Cell | None = None
    tcp: Cell | None = None
    alone: Cell | None = None  # what is compared with no peer


def _calls(title: str, *scenarios: str, envoy: float, others: float, tcp: float | None = None) -> Goal:
    return Goal(title, scenarios, Times(("envoy",), envoy), Times(OTHERS, others), Within("tcp", tcp) if tcp else None)


def _bulk(title: str, scenario: str, envoy: float) -> Goal:
    figure = "gb_per_cpu_s"
    return Goal(title, (scenario,), Times(("envoy",), envoy, figure), Times(OTHERS, 1.4, figure),
                Within("tcp", 0.55, figure))


def _reload(title: str, figure: str, bound: float, beside: str = "") -> Goal:
    return Goal(title, ("reload",), alone=AtMost(figure, bound, "s", beside=beside))


GOALS: tuple[Goal, ...] = (
    _calls("16 B unary, 50 connections x 100 streams", "unary-16b-50x100", envoy=30, others=5, tcp=3),
    _calls("16 B unary, 8 x 10", "unary-16b-8x10", envoy=8, others=1.6, tcp=2),
    _calls("16 B unary, 8 x 1 and 50 x 1", "unary-16b-8x1", "unary-16b-50x1", envoy=3, others=1.25, tcp=1.4),
    _calls("16 B unary, 1 x 1", "unary-16b-1x1", envoy=1.9, others=1.2, tcp=1.3),
    _calls("16 B unary, 8 x 10, ten metadata fields of which three change", "metadata", envoy=6, others=1.4),
    _calls("64 KiB unary, 8 x 10", "unary-64kib-8x10", envoy=2.3, others=1.1, tcp=1.4),
    _bulk("1 GiB download, bytes per CPU second", "download", 1.5),
    _bulk("1 GiB upload, bytes per CPU second", "upload", 1.25),
    Goal("10,000 rules against 1 rule: cost per call", ("rules-exact",),
         alone=Within("pygw, 1 rules", 1.05, ours="pygw, 10,000 rules")),
    Goal("p50 at 2,000 calls a second; p99 beside the raw relay's", ("latency",), Times(("envoy",), 1, "p50_us"),
         Times((*OTHERS, "pingora"), 1, "p50_us"), Within("tcp", 1.3, "p99_us")),
    Goal("bytes per idle connection", ("idle-connections",), alone=AtMost(
        "octets_each", 6, "KB", 1e-3, beside="idle-connections-tls/pygw, TLS/octets_each: over TLS")),
    Goal("bytes per open stream", ("open-streams",), alone=AtMost(
        "octets_each", 2, "KB", 1e-3, beside="open-streams-tls/pygw, TLS/octets_each: over TLS")),
    _reload("one route changed among 10,000 rules: from validated object to served by every worker",
            "one_object_s", 0.1),
    _reload("all 10,000 rules changed, likewise", "all_objects_s", 0.4,
            "; ".join(f"reload/{peer}/all_files_s: {peer} from its files" for peer in ("nginx", "haproxy", "envoy"))),
    _reload("one file of 625 changed: from the change of the file to served by every worker", "one_file_s", 0.4),
    _reload("all 625 files changed, likewise", "all_files_s", 3),
    Goal("longest pause in the relay during these changes", ("reload",), alone=AtMost(
        "pause_ms", 5, "ms", beside="reload/pygw/quiet_pause_ms: without a change")),
    Goal("two workers against one, same rate per worker, 400 connections: cost per call", ("workers",),
         alone=AtMost("growth", 1.05, "x")),
    Goal("calls of the two workers: how far from even", ("workers",), alone=AtMost("uneven_percent", 15, "%")),
)


def pairs(measured: dict[str, list[dict[str, float]]], a: str, b: str, figure: str) -> list[tuple[float, float]]:
    """The figures of two variants, round by round: they ran side by side, so that the machine's drift cancels."""
    return [(x[figure], y[figure]) for x, y in zip(measured[a], measured[b], strict=False)]


def spread(values: Sequence[float]) -> str:
    """Least and greatest, where they differ."""
    return f" ({min(values):.3g}-{max(values):.3g})" if min(values) < max(values) else ""


def not_measured(scenario: str, labels: Sequence[str], results: Results, reasons: Reasons) -> Verdict:
    """The first reason that is known."""
    missing = [label for label in labels if label not in results.get(scenario, {})]
    for key in (scenario, *(f"{scenario}/{label}" for label in missing), *missing):
        if key in reasons:
            return Verdict(f"not measured: {reasons[key]}", None)
    return Verdict("not measured: left out of this run", None)


def judge_goal(goal: Goal, column: Callable[[Goal], Cell | None], results: Results, reasons: Reasons) -> list[Verdict]:
    """The verdicts of one cell: one for each scenario of the row."""
    cell = column(goal)
    return [cell.judge(scenario, results, reasons) for scenario in goal.scenarios] if cell else []


def goal_table(
    results: Results, reasons: Reasons, chosen: Collection[str]
) -> tuple[list[list[str]], list[bool | None]]:
    """Rows of text for the table of goals, and all verdicts; only the goals that a chosen scenario belongs to."""
    columns: tuple[Callable[[Goal], Cell | None], ...] = (
        lambda goal: goal.envoy, lambda goal: goal.others, lambda goal: goal.tcp, lambda goal: goal.alone)
    rows, verdicts = [], []
    titles = {scenario.name: scenario.title for scenario in SCENARIOS}
    for goal in (goal for goal in GOALS if set(goal.scenarios) & set(chosen)):
        cells = []
        for column in columns:
            judged = judge_goal(goal, column, results, reasons)
            verdicts += [verdict.is_pass for verdict in judged]
            names = [titles[name].rpartition(", ")[2] + ": " if len(judged) > 1 else "" for name in goal.scenarios]
            cells.append("; ".join(f"{name}{verdict}" for name, verdict in zip(names, judged, strict=False)))
        rows.append([goal.title, *cells])
    return rows, verdicts
