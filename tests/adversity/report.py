"""Outcomes as a line, a table, JSON and the page that is kept in results/."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from .case import GROUPS, Case, Outcome

SHOWN = (
    "victim_p99_ms", "cpu_ms_per_mb", "growth_mib", "kept_mib", "reached_share", "ended_by", "us_per_frame",
    "kib_per_connection", "kib_per_stream", "seconds_to_close", "seconds_to_end", "deliveries", "lost", "calls",
)  # fmt: skip
MARKS = {True: "ok", False: "FAIL", None: "n/a"}


def line(outcome: Outcome) -> str:
    """An outcome in a line."""
    measures = " ".join(f"{name}={outcome.measures[name]}" for name in SHOWN if name in outcome.measures)
    parts = [f"{MARKS[outcome.passed]:4} {outcome.proxy} {outcome.group}/{outcome.name}", measures, outcome.reason]
    return "  ".join(part for part in parts if part)


def as_json(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Everything, for programs."""
    return [asdict(outcome) for outcome in outcomes]


def names_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The proxies, in the order they ran."""
    return list(dict.fromkeys(outcome.proxy for outcome in outcomes))


def summary(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """The rows of the first table: cases passed by group, then the worst figures."""
    proxies = names_of(outcomes)
    rows = [["", *proxies]]
    for group in ("all cases", *GROUPS):
        row = [f"{group} passed" if group == "all cases" else group]
        for proxy in proxies:
            ran = [o for o in outcomes if o.proxy == proxy and o.passed is not None]
            mine = [outcome for outcome in ran if group in ("all cases", outcome.group)]
            row.append(f"{sum(bool(o.passed) for o in mine)}/{len(mine)}")
        if any(cell != "0/0" for cell in row[1:]):
            rows.append(row)
    floods = [outcome for outcome in outcomes if outcome.group == "floods"]
    for title, name, pick in (
        ("worst victim p99 under a flood, ms", "victim_p99_ms", max),
        ("median victim p99 under a flood, ms", "victim_p99_ms", median),
        ("victim's calls lost in floods", "victim_lost", sum),
        ("worst growth of memory under a flood, MiB", "growth_mib", max),
        ("most memory kept after one, MiB", "kept_mib", max),
        ("worst CPU for a MB of a flood, ms", "cpu_ms_per_mb", max),
        ("median CPU for a MB of a flood, ms", "cpu_ms_per_mb", median),
        ("CPU over all floods, s", "cpu_s", sum),
    ):
        row = [title]
        for proxy in proxies:
            values = [o.measures[name] for o in floods if o.proxy == proxy and name in o.measures]
            row.append(f"{pick(values):.4g}" if values else "-")
        if any(cell != "-" for cell in row[1:]):
            rows.append(row)
    return rows


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def table(outcomes: Sequence[Outcome]) -> str:
    """For a terminal: the summary, and what failed."""
    rows = summary(outcomes)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    failed = [line(outcome) for outcome in outcomes if outcome.passed is not True]
    return "\n".join([*lines, "", *failed])


def markdown(outcomes: Sequence[Outcome], cases: Sequence[Case], seconds: float) -> str:
    """The page: the summary, each flood's figures, and every case with each proxy."""
    proxies = names_of(outcomes)
    by_key = {(o.proxy, o.group, o.name): o for o in outcomes}
    command = f"python -m tests.adversity {' '.join(f'--proxy {name}' for name in proxies)} --seconds {seconds:g}"
    lines = [
        f"# Under attack and fault, {datetime.date.today()}",
        "",
        f"`{command} -o markdown`, {platform.system()} {platform.release()} on {platform.machine()}, "
        f"{os.cpu_count()} CPUs. One run of {len(cases)} cases on a shared machine: differences of 20 ms of CPU, or of "
        "p99 below 50 ms, are noise. What each case asks: `--list`.",
        "",
        *markdown_table(summary(outcomes)),
        "",
        "## Floods: victim's p99 in ms, CPU in ms for a MB of attack, growth of memory in MiB, how it ended",
        "",
    ]
    rows = [["", *proxies]]
    floods = [case for case in cases if case.group == "floods"]
    rows += [[c.name, *(flood_cell(by_key.get((name, c.group, c.name))) for name in proxies)] for c in floods]
    lines += [*markdown_table(rows), "", "## Every case", ""]
    rows = [["", *proxies]]
    rows += [[c.id, *(case_cell(by_key.get((name, c.group, c.name))) for name in proxies)] for c in cases]
    lines += [*markdown_table(rows), "", "## What failed, and why", ""]
    lines += [f"- {o.proxy} {o.group}/{o.name}: {o.reason}" for o in outcomes if o.passed is False]
    lines += [f"- {o.proxy} {o.group}/{o.name}: does not apply: {o.reason}" for o in outcomes if o.passed is None]
    return "\n".join(lines)


def flood_cell(outcome: Outcome | None) -> str:
    """A flood's figures."""
    if outcome is None:
        return "-"
    values = [outcome.measures.get(name, "-") for name in ("victim_p99_ms", "cpu_ms_per_mb", "growth_mib", "ended_by")]
    return " / ".join(str(value) for value in values) + ("" if outcome.passed else " **FAIL**")


def case_cell(outcome: Outcome | None) -> str:
    """How a case went."""
    return "-" if outcome is None else MARKS[outcome.passed]


def markdown_table(rows: list[list[str]]) -> list[str]:
    """A table in Markdown; the first row is its head."""
    head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [head, "|" + " --- |" * len(rows[0]), *body]
