"""The regression gate: instructions of each operation of bench/micro/operations.py, now and at the merge base.

    python -m bench.gate [--base COMMIT] [--limit PERCENT]

Builds the base in a worktree of its own (kept in build/bench/base, so that a second run is quick), counts both under
callgrind in the same run, and fails where an operation costs over 2 % more, with its name. Instructions do not depend
on what else the machine does, so that no repetition is needed. A change that is worth its cost says so in its commit:

    Costs: relay 3% because a call now carries its deadline twice

NAME is an operation, or the beginning of several ("hpack"). Exit codes: 0, 1 something costs more, 2 could not run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BUILD, PROGRAMS, ROOT, BenchError, say

LIMIT = 2.0  # percent; what the same build differs by from run to run is below 0.1
COSTS = re.compile(r"^Costs: +(?P<name>[\w-]+) +(?P<percent>\d+(?:\.\d+)?) ?% +because +(?P<why>\S.*)$", re.MULTILINE)
BASE = BUILD / "base"


@dataclass(frozen=True)
class Costs:
    """A trailer of a commit message: what may cost how much more, and why."""

    name: str
    percent: float
    why: str


@dataclass(frozen=True)
class Line:
    """One operation: instructions for one at the base and now; None: it could not run there."""

    name: str
    base: float | None
    now: float | None
    allowed: float
    why: str

    @property
    def change(self) -> float | None:
        """Percent more."""
        return (self.now / self.base - 1) * 100 if self.base and self.now is not None else None

    @property
    def is_failure(self) -> bool:
        """Costs too much, or does not run any more."""
        return self.now is None or (self.change is not None and self.change > self.allowed)


def read_costs(messages: str) -> list[Costs]:
    """The trailers in commit messages."""
    return [Costs(found["name"], float(found["percent"]), found["why"]) for found in COSTS.finditer(messages)]


def compare(base: dict[str, float], now: dict[str, float | None], costs: list[Costs], limit: float) -> list[Line]:
    """Every operation of now. What several commits announce for it adds up."""
    lines = []
    for name, count in now.items():
        announced = [item for item in costs if name == item.name or name.startswith(f"{item.name}-")]
        allowed = limit + sum(item.percent for item in announced)
        lines.append(Line(name, base.get(name), count, allowed, "; ".join(item.why for item in announced)))
    return lines


def show(lines: list[Line]) -> str:
    """A table, and what is wrong."""
    rows = [f"{'operation':24}{'base':>12}{'now':>12}{'change':>10}"]
    for line in lines:
        base, now = (f"{value:,.1f}" if value is not None else "-" for value in (line.base, line.now))
        change = f"{line.change:+.2f} %" if line.change is not None else "new" if line.base is None else "broken"
        note = f"  (allowed: {line.why})" if line.why else ""
        rows.append(f"{line.name:24}{base:>12}{now:>12}{change:>10}{note}")
    for line in lines:
        if line.now is None:
            rows.append(f"FAILED: {line.name} does not run")
        elif line.is_failure:
            rows.append(
                f"FAILED: {line.name} costs {line.change:.1f} % more instructions, {line.allowed:g} % are allowed. "
                f'Make it cheaper, or say in the commit why it is worth it: "Costs: {line.name} {line.change:.0f}% '
                'because ..."'
            )
    return "\n".join(rows)


def parse_counts(printed: str, folder: Path) -> dict[str, float | None]:
    """Instructions for one of each operation, from what operations.py printed and callgrind wrote."""
    totals = {}
    for path in folder.glob("callgrind.out*"):
        text = path.read_text(errors="replace")
        trigger = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
        total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
        if trigger and total:
            totals[trigger[1].strip()] = int(total[1])
    counts: dict[str, float | None] = {}
    for line in printed.splitlines():
        name, count, *why = line.split(maxsplit=2)
        if name in totals and int(count):
            counts[name] = totals[name] / int(count)
        else:
            counts[name] = None
            say(f"{name}: {' '.join(why) or 'callgrind wrote nothing'}")
    return counts


def count_instructions(tree: Path, library: Path) -> dict[str, float | None]:
    """Runs our operations.py under callgrind, with the pygw of a tree."""
    with tempfile.TemporaryDirectory(prefix="pygw-gate-") as name:
        folder = Path(name)
        # The base's pygw, but the benchmarks and doubles of now: both sides do the same work.
        (folder / "path").mkdir()
        for part, home in (("pygw", tree), ("bench", ROOT), ("tests", ROOT)):
            (folder / "path" / part).symlink_to(home / part)
        command = [
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind.out", "--quiet",
            sys.executable, "-m", "bench.micro.operations", str(library),
        ]
        environment = os.environ | {
            "PYTHONPATH": str(folder / "path"), "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        if done.returncode:
            raise BenchError(f"the operations failed in {tree}:\n{done.stderr[-2000:]}")
        return parse_counts(done.stdout, folder)


def run(*command: str, cwd: Path = ROOT) -> str:
    """A command that has to succeed; its output."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()[-1500:]}")
    return done.stdout.strip()


def build_base(commit: str) -> Path:
    """The tree of a commit, compiled as ours is."""
    if not (BASE / ".git").exists():
        run("git", "worktree", "prune")
        run("git", "worktree", "add", "--force", "--detach", str(BASE), commit)
    run("git", "checkout", "--quiet", "--force", "--detach", commit, cwd=BASE)
    say(f"building {commit[:10]} in {BASE.relative_to(ROOT)}")
    run(sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", cwd=BASE)
    return BASE


def default_base() -> str:
    """The merge base with the main branch; on the main branch itself, the commit before."""
    for branch in ("origin/main", "main"):
        done = subprocess.run(
            ["git", "merge-base", "HEAD", branch], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() != run("git", "rev-parse", "HEAD"):
            return done.stdout.strip()
    return run("git", "rev-parse", "HEAD^")


def compile_library() -> Path:
    """programs/count.c."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or shutil.which("valgrind") is None:
        raise BenchError("a C compiler and valgrind are needed (Debian: apt install gcc valgrind)")
    BUILD.mkdir(parents=True, exist_ok=True)
    library = BUILD / "count.so"
    run(compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(PROGRAMS / "count.c"))
    return library


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="the commit to compare with (default: the merge base with the main branch)")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"percent that need no reason (default: {LIMIT:g})")
    arguments = parser.parse_args()
    library = compile_library()
    base = run("git", "rev-parse", "--verify", f"{arguments.base or default_base()}^{{commit}}")
    costs = read_costs(run("git", "log", "--format=%B", f"{base}..HEAD"))
    tree = build_base(base)
    say("counting the base's instructions")
    before = {name: count for name, count in count_instructions(tree, library).items() if count is not None}
    say("counting ours")
    lines = compare(before, count_instructions(ROOT, library), costs, arguments.limit)
    print(show(lines))
    return 1 if any(line.is_failure for line in lines) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        print(f"gate: {error}", file=sys.stderr)
        sys.exit(2)
