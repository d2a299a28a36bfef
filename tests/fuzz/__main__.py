"""`python -m tests.fuzz TARGET|all [--seconds N]`: builds what is fuzzed, fuzzes, keeps inputs that reach new code.

Prints executions and coverage. Ends with 1 where something was found; the input is then in build/fuzz/found/.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import build, corpora, targets

FOUND = build.COPY / "found"
LARGEST = 2048  # octets of an input; all that the targets look for fits
LARGEST_KEPT = 1024  # of an input that is kept
TIMEOUT = 10  # seconds that one input may take; a slower one is a finding


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    executions: int
    seconds: float
    edges: int  # of the compiled modules and of plain Python, as libFuzzer counts them
    features: int  # edges by how often they were passed
    inputs: int  # kept
    failed: bool

    def __str__(self) -> str:
        speed = self.executions / self.seconds if self.seconds else 0
        return (
            f"{self.executions} executions in {self.seconds:.0f} s ({speed:.0f}/s), {self.edges} edges, "
            f"{self.features} features, {self.inputs} inputs kept"
        )


def fuzz(name: str, seconds: int, *, keep: bool = True, quiet: bool = False) -> Outcome:
    """Fuzz one target that is built. With `keep`, the smallest set of inputs with all of its coverage is kept."""
    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pygw-fuzz-") as folder:
        inputs, least, words = Path(folder, "inputs"), Path(folder, "least"), Path(folder, "words")
        corpora.unpack(name, inputs)
        corpora.write_dictionary(name, words)
        options = [f"-max_total_time={seconds}", f"-dict={words}", f"-artifact_prefix={FOUND}/{name}-"]
        start = time.monotonic()
        log, failed = _run(name, [*options, str(inputs)], quiet)
        seconds_run = time.monotonic() - start
        if keep and not failed:
            least.mkdir()
            _, failed = _run(name, ["-merge=1", str(least), str(inputs)], True)
            if not failed:
                corpora.pack(name, least, LARGEST_KEPT)
        return Outcome(*_figures(log), seconds_run, *_coverage(log), len(corpora.read(name)), failed)


def _run(name: str, options: list[str], quiet: bool) -> tuple[str, bool]:
    """Start a fuzzing process; what it printed, and whether it ended badly."""
    limits = [f"-max_len={LARGEST}", f"-timeout={TIMEOUT}", "-rss_limit_mb=3000", "-print_final_stats=1"]
    command = [sys.executable, "-m", "tests.fuzz.runner", name, *limits, *options]
    lines = []
    with subprocess.Popen(
        command, cwd=build.COPY, env=build.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if not quiet and not line.startswith("#"):
                print(line, end="", flush=True)
    if process.returncode:
        print("".join(lines[-200:]) if quiet else "", flush=True)
    return "".join(lines), process.returncode != 0


def _figures(log: str) -> tuple[int]:
    found = re.search(r"number_of_executed_units:\s*(\d+)", log)
    return (int(found[1]) if found else 0,)


def _coverage(log: str) -> tuple[int, int]:
    found = re.findall(r"cov: (\d+) ft: (\d+)", log)
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=(*targets.NAMES, "all"))
    parser.add_argument("--seconds", type=int, default=60, help="of each target (default: 60)")
    parser.add_argument("--verbose", action="store_true", help="show what libFuzzer prints")
    arguments = parser.parse_args()
    if reason := build.why_not():
        print(f"fuzz: not run: {reason}")
        return 0
    build.build()
    failed = False
    for name in targets.NAMES if arguments.target == "all" else (arguments.target,):
        outcome = fuzz(name, arguments.seconds, quiet=not arguments.verbose)
        print(f"{name}: {outcome}", flush=True)
        failed |= outcome.failed
    if failed:
        print(f"found: see {FOUND}; `python -m tests.fuzz.replay TARGET FILE` runs one input without the fuzzer")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
