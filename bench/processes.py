"""Programs that the suite starts: how they are placed, ended, and what they cost (CPU time, memory)."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(__file__).parent / "programs"
BUILD = ROOT / "build" / "bench"
TIMEOUT = 120  # seconds that one run of a load generator may take


class BenchError(Exception):
    """Something that the benchmark needs is not there, does not start or gives a wrong answer."""


class NotMeasurableError(BenchError):
    """This machine cannot show it; nothing has failed."""


def say(text: str) -> None:
    """Progress, on standard error: standard output is for the tables."""
    print(text, file=sys.stderr, flush=True)


def compile_programs() -> None:
    """Compiles the C programs that run beside a proxy into BUILD, where they are older than their sources."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchError("no C compiler (cc, gcc or clang) is on the PATH")
    BUILD.mkdir(parents=True, exist_ok=True)
    for program in (BUILD / name for name in ("backend", "load", "tcp_relay")):
        source = PROGRAMS / f"{program.name}.c"
        newest = max(source.stat().st_mtime, (PROGRAMS / "h2.h").stat().st_mtime)
        if not program.exists() or program.stat().st_mtime < newest:
            subprocess.run([compiler, "-D_GNU_SOURCE", "-O2", "-o", str(program), str(source)], check=True)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Placement:
    """The CPUs of the proxy and those of load and backend; None: anywhere."""

    proxy: frozenset[int] | None
    load: frozenset[int] | None

    @staticmethod
    def choose() -> Placement:
        """One CPU for the proxy, so that it is one core's worth that is measured; the others for the rest."""
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            return Placement(None, None)
        return Placement(frozenset(cpus[:1]), frozenset(cpus[1:]))


def pinned(cpus: frozenset[int] | None) -> Callable[[], None] | None:
    """What a new process does first: stay on these CPUs."""
    return (lambda: os.sched_setaffinity(0, cpus)) if cpus else None


@dataclass
class Running:
    """A started program and its port. `admin` and `folder` are the proxy's own, where it has them."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    admin: int = 0
    folder: Path = Path()

    def pids(self) -> list[int]:
        """The process and all its descendants."""
        return [self.process.pid, *descendants(self.process.pid)]

    def cpu_seconds(self) -> float:
        """CPU time of the whole process tree so far, from the scheduler's nanoseconds."""
        total = 0
        for pid in self.pids():
            for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
                try:
                    total += int(Path(path).read_text().split()[0])
                except OSError:
                    continue
        return total / 1e9

    def memory(self) -> int:
        """Octets of memory of the whole process tree: PSS, in which shared pages count once in all."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self) -> None:
        """Ends the program, with force if it does not go within 10 s."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in self.pids():
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def descendants(root: int) -> list[int]:
    """All processes below a process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, todo = [], [*children.get(root, [])]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def start_program(name: str, arguments: Sequence[str], cpus: frozenset[int] | None, log: Path) -> Running:
    """Starts one of our C programs, which say on which port they listen."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [str(BUILD / name), *arguments], stdout=subprocess.PIPE, stderr=errors, preexec_fn=pinned(cpus)
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchError(f"{name} did not start: {log.read_text()}")
    return Running(name, process, int(line))


def run_pinned(command: Sequence[str], cpus: frozenset[int] | None, timeout: float = TIMEOUT) -> str:
    """Runs a program to its end and returns what it printed."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, preexec_fn=pinned(cpus), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"no end after {timeout} s: {' '.join(command)}") from error
    if done.returncode != 0:
        raise BenchError(f"{command[0]} failed: {(done.stdout + done.stderr).strip()[-500:]}")
    return done.stdout
