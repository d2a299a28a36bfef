"""The results page: the table of goals, tables of all figures, plots, machine and versions. Markdown and SVG."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.goals import goal_table
from bench.measure import Reasons, Results, uses_h2load
from bench.processes import ROOT
from bench.proxies import HTTP_PROXIES, version_of
from bench.scenarios import Scenario
from bench.svg import bar_chart

GOAL_COLUMNS = ("Work", "Envoy", "best of nginx, HAProxy, nghttpx", "raw TCP relay", "by itself")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> list[str]:
    """What it was measured on and with, one line each."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    peers = [f"{name} {version}" for name in HTTP_PROXIES if (version := version_of(name))]
    h2load = subprocess.run(["sh", "-c", "h2load --version"], capture_output=True, text=True, check=False)
    load = h2load.stdout.strip() or "programs/load.c alone: h2load is not installed"
    return [
        f"pygw {commit.stdout.strip() or 'outside git'}, Python {platform.python_version()}",
        f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} CPUs usable, {memory:.0f} GiB, "
        f"Linux {platform.release()}; load average {os.getloadavg()[2]:.2f} over 15 minutes",
        f"Peers: {', '.join(peers) or 'none'}",
        f"Load: {load}",
    ]


def figure_cell(samples: Sequence[dict[str, float]], figure: str, scale: float = 1.0) -> str:
    """Median (least - greatest) of a figure over the rounds."""
    values = [sample[figure] * scale for sample in samples if figure in sample]
    if not values:
        return ""
    text = f"{_number(statistics.median(values))}"
    return text if len(values) == 1 else f"{text} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def figure_table(scenarios: Sequence[Scenario], results: Results, reasons: Reasons,
                 cell: Callable[[Sequence[dict[str, float]]], str]) -> str:
    """Scenarios down, variants across; empty columns are left out."""
    labels = list(dict.fromkeys(label for item in scenarios for label in results.get(item.name, {})))
    rows = []
    for item in scenarios:
        cells = [
            cell(results[item.name][label]) if label in results.get(item.name, {})
            else reasons.get(f"{item.name}/{label}", "")
            for label in labels
        ]
        if any(cells):
            rows.append([item.title, *cells])
    return table(["", *labels], rows) if rows else ""


def latency_cell(samples: Sequence[dict[str, float]]) -> str:
    """p50, p99 and p99.9 in milliseconds."""
    return ", ".join(
        f"{statistics.median(sample[name] for sample in samples) / 1000:.3g}"
        for name in ("p50_us", "p99_us", "p999_us") if all(name in sample for sample in samples)
    )


def match_cell(samples: Sequence[dict[str, float]]) -> str:
    """Both figures and their ratio."""
    [sample] = samples
    return f"{sample['ns_10']:.0f}, {sample['ns_10000']:.0f} ({sample['ratio']:.2f}x)"


def sections(scenarios: Sequence[Scenario], results: Results, reasons: Reasons) -> list[tuple[str, str]]:
    """Title and table of every section that has something in it."""
    plain = [item for item in scenarios if all(isinstance(proxy, str) for proxy in item.proxies)]
    own = [item for item in scenarios if item not in plain]
    made = []

    def add(title: str, chosen: Sequence[Scenario], cell: Callable[[Sequence[dict[str, float]]], str]) -> None:
        text = figure_table(chosen, results, reasons, cell)
        if text:
            made.append((title, text))

    calls = [item for item in plain if item.kind in ("calls", "ghz", "latency", "fairness")]
    add("CPU time of the proxy per call, microseconds: median (least-greatest)", calls,
        lambda samples: figure_cell(samples, "cpu_us"))
    for item in (item for item in own if item.kind == "calls"):
        add(f"{item.title}: CPU time per call, microseconds", [item], lambda samples: figure_cell(samples, "cpu_us"))
    add("Calls (in ping-pong: messages each way) per second", calls, lambda samples: figure_cell(samples, "rate"))
    add("Latency, milliseconds: p50, p99, p99.9", calls, latency_cell)
    add("Bulk: 10^9 octets per second of the proxy's CPU time; per second", [i for i in plain if i.kind == "bulk"],
        lambda samples: f"{figure_cell(samples, 'gb_per_cpu_s')}; {figure_cell(samples, 'gb_per_s')}")
    add("Memory: octets for each", [i for i in plain if i.kind == "memory"],
        lambda samples: figure_cell(samples, "octets_each"))
    add("Memory over TLS: octets for each", [i for i in own if i.kind == "memory"],
        lambda samples: figure_cell(samples, "octets_each"))
    add("A match alone, nanoseconds: among 10 rules, among 10,000 (ratio), by what tells the rules apart",
        [i for i in plain if i.kind == "match"], match_cell)
    add("A change of 10,000 rules: seconds until one changed file, all 625, are served; longest pause, milliseconds",
        [i for i in plain if i.kind == "reload"],
        lambda samples: "; ".join(figure_cell(samples, name) for name in ("one_file_s", "all_files_s", "pause_ms")))
    return made


def plots(scenarios: Sequence[Scenario], results: Results) -> list[tuple[str, str]]:
    """Name and SVG of each plot that there are figures for."""
    chosen = (
        ("cpu", "CPU time of the proxy per call (shorter is better)", "microseconds", "cpu_us", ("calls", "ghz")),
        ("latency", "p99 of latency at a fixed rate (shorter is better)", "microseconds", "p99_us",
         ("latency", "fairness")),
        ("bulk", "Octets relayed per second of CPU time (longer is better)", "GB", "gb_per_cpu_s", ("bulk",)),
        ("memory", "Memory for each connection or stream (shorter is better)", "octets", "octets_each", ("memory",)),
    )
    made = []
    for name, title, unit, figure, kinds in chosen:
        groups = [
            (item.title, [(label, statistics.median(sample[figure] for sample in samples))
                          for label, samples in results[item.name].items()])
            for item in scenarios
            if item.kind in kinds and item.name in results and all(isinstance(proxy, str) for proxy in item.proxies)
        ]
        if groups:
            made.append((name, bar_chart(title, unit, groups)))
    return made


def goals(scenarios: Sequence[Scenario], results: Results, reasons: Reasons) -> tuple[str, list[bool | None]]:
    """The table of goals for these scenarios, and its verdicts."""
    rows, verdicts = goal_table(results, reasons, [scenario.name for scenario in scenarios])
    return table(GOAL_COLUMNS, rows) if rows else "None of the scenarios that were chosen has one.", verdicts


def write(folder: Path, name: str, command: str, scenarios: Sequence[Scenario], results: Results,
          reasons: Reasons) -> Path:
    """Writes NAME.md, its plots NAME-*.svg and the samples themselves, NAME.json; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    text, verdicts = goals(scenarios, results, reasons)
    counts = [sum(verdict is wanted for verdict in verdicts) for wanted in (True, False, None)]
    h2load = [item.name for item in scenarios if uses_h2load(item)]
    parts = [
        f"# Benchmarks of {name}", "\n".join(f"* {line}" for line in [*machine(), f"Command: `{command}`"]),
        f"## The numbers to reach: {counts[0]} pass, {counts[1]} short, {counts[2]} not measured",
        "Ratios are medians of ratios within one round (least-greatest); how to read them: [README](../README.md).",
        text,
    ]
    pictures = plots(scenarios, results)
    for kind, picture in pictures:
        (folder / f"{name}-{kind}.svg").write_text(picture)
    for title, body in sections(scenarios, results, reasons):
        parts += [f"## {title}", body]
    parts += [f"![{kind}]({name}-{kind}.svg)" for kind, _ in pictures]
    missing = sorted(f"* {key}: {reason}" for key, reason in reasons.items())
    if missing:
        parts += ["## Not measured", "\n".join(missing)]
    parts.append("Driven by h2load: " + (", ".join(h2load) or "nothing") + "; all else by programs/load.c.")
    path = folder / f"{name}.md"
    path.write_text("\n\n".join(parts) + "\n")
    samples = {"machine": machine(), "results": results, "reasons": reasons}
    (folder / f"{name}.json").write_text(json.dumps(samples, indent=1) + "\n")
    return path
