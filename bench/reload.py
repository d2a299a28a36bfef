"""From a change of the configuration to its being served: 10,000 rules in 625 files, while calls go on.

    python -m bench.reload [--workers N] [--files N] [--services N] [--changes N] [--stages] [--peers NAME,...]

Starts `pygw run -f FOLDER`, keeps a victim calling at a fixed rate, changes one file, then all of them, and asks by
real calls, on so many connections that every worker is among them, when the new rules are served; the gateway's log
says how much of that was from the validated objects to the last worker's answer. Prints one JSON object (`measure`).
`--stages` times the parts of one change in this process instead (`measure_stages`): what the control process does up
to the image, and how long a worker takes to open it. `--peers` adds the seconds of others until so many rules that all
changed are served (bench/peer_reload.py). How to read it: bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.caller import Caller, CallError
from bench.peer_reload import PEERS, measure_peers
from bench.processes import ROOT, Running, compile_programs, free_port, start_program

RULES_PER_FILE = 16  # the most that a GRPCRoute may have
VICTIM = ("victim.example.com", "/victim.Service/Call")
PATIENCE = 120.0  # seconds
CONNECTIONS_PER_WORKER = 8  # of the calls that look for a change: each worker is to be among those that are asked
POLL = 0.002  # seconds between two calls of one that is not served yet

_GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bench, namespace: default}
spec:
  gatewayClassName: pygw
  listeners:
  - {name: grpc, port: 80, protocol: HTTP}
"""
_SERVICE = """\
---
apiVersion: v1
kind: Service
metadata: {{name: backend-{number}, namespace: default}}
spec:
  ports:
  - {{port: 50051}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: backend-{number}-1
  namespace: default
  labels: {{kubernetes.io/service-name: backend-{number}}}
addressType: IPv4
ports:
- {{name: '', port: {port}}}
endpoints:
- addresses: [127.0.0.1]
"""
_ROUTE = """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: {name}
  namespace: default
spec:
  parentRefs:
  - name: bench
  hostnames: [{host}]
  rules:
"""
_RULE = """\
  - matches:
    - method: {{service: {service}, method: {method}}}
      headers:
      - {{name: {header}, value: {value}}}
    backendRefs:
    - {{name: {backend}, port: 50051}}
"""


class Folder:
    """The files of a configuration: each route an exact hostname, each rule an exact method and one header."""

    def __init__(self, path: Path, port: int, files: int, services: int) -> None:
        """`port` is the backend's; `services` Services lead to it."""
        self.path, self.files, self.services = path, files, services
        self._edition = [0] * files
        victim = _ROUTE.format(name="victim", host=VICTIM[0])
        victim += _RULE.format(
            service="victim.Service", method="Call", header="x-tenant", value="victim", backend="backend-0"
        )
        backends = "".join(_SERVICE.format(number=number, port=port) for number in range(services))
        (path / "gateway.yaml").write_text(_GATEWAY + victim + backends)
        for number in range(files):
            self._write(number)

    def change(self, numbers: range) -> None:
        """Give all rules of these files another method, as an editor would: each file is replaced at once."""
        for number in numbers:
            self._edition[number] += 1
            self._write(number)

    def question(self, number: int) -> tuple[str, str, tuple[str, str]]:
        """Authority, path and header of a call for the last rule of a file as it is now."""
        rule = RULES_PER_FILE - 1
        path = f"/pkg{number}.Service/{self._method(number, rule)}"
        return f"host{number}.example.com", path, ("x-tenant", f"tenant-{number}-{rule}")

    def _method(self, number: int, rule: int) -> str:
        return f"Method{rule}v{self._edition[number]}"

    def _write(self, number: int) -> None:
        text = _ROUTE.format(name=f"route-{number}", host=f"host{number}.example.com")
        text += "".join(
            _RULE.format(
                service=f"pkg{number}.Service", method=self._method(number, rule), header="x-tenant",
                value=f"tenant-{number}-{rule}", backend=f"backend-{number % self.services}",
            )
            for rule in range(RULES_PER_FILE)
        )  # fmt: skip
        fresh = self.path / f".route-{number:04}.tmp"
        fresh.write_text(text)
        fresh.rename(self.path / f"route-{number:04}.yaml")


class Gateway:
    """A running `pygw run -f`."""

    def __init__(self, folder: Path, log: Path, workers: int) -> None:
        self.port, self.admin, self.workers = free_port(), free_port(), workers
        self._log = log
        command = [
            sys.executable, "-m", "pygw", "run", "-f", str(folder), "--bind", "127.0.0.1", "--port-map",
            f"80={self.port}", "--workers", str(workers), "--admin", f"127.0.0.1:{self.admin}", "--drain-delay", "0",
            "--log-format", "json",
        ]  # fmt: skip
        started = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT)
        self.running = Running("pygw", process, self.port)
        wait_for(self._is_ready, "the gateway to become ready")
        self.seconds_to_ready = time.monotonic() - started

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def published(self) -> list[dict[str, Any]]:
        """What the log says of each version that was published."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if "apply_ms" in line]

    def processes(self) -> dict[str, tuple[float, float]]:
        """CPU seconds so far and MiB of memory (RSS) of the control process and of each worker."""
        found = {}
        workers = 0
        for pid in sorted(self.running.pids()):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"pygw.worker" in command:
                name = f"worker {workers}"
                workers += 1
            elif b"pygw.control" in command:
                name = "control"
            else:
                continue
            nanoseconds = sum(
                int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()
            )
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found[name] = nanoseconds / 1e9, pages * os.sysconf("SC_PAGESIZE") / 2**20
        return found


class Victim:
    """Calls at a fixed rate, from a process of its own."""

    def __init__(self, port: int, rate: float) -> None:
        command = [sys.executable, "-m", "bench.caller", str(port), *VICTIM, str(rate)]
        self._process = subprocess.Popen(
            [*command, "x-tenant", "victim"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"calling\n":
            raise CallError("the victim's calls are not served")

    def stop(self) -> list[tuple[float, int]]:
        """End it; (when, microseconds) of each call."""
        output, _ = self._process.communicate()
        samples: list[tuple[float, int]] = json.loads(output)
        return samples


def measure(
    workers: int = 1, files: int = 625, services: int = 1, changes: int = 5, rate: float = 1000.0
) -> dict[str, Any]:
    """Start a gateway, change one file and all files, `changes` times each. Times in seconds, of all changes."""
    compile_programs()
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="pygw-reload-") as name:
        folder = Path(name) / "config"
        folder.mkdir()
        backend = start_program("backend", [], None, Path(name) / "backend.log")
        stack.callback(backend.stop)
        config = Folder(folder, backend.port, files, services)
        gateway = Gateway(folder, Path(name) / "pygw.log", workers)
        stack.callback(gateway.running.stop)
        result: dict[str, Any] = {
            "rules": files * RULES_PER_FILE, "files": files, "services": services, "workers": workers,
            "ready": round(gateway.seconds_to_ready, 3),
            "memory_mib": {name: round(memory, 1) for name, (_, memory) in gateway.processes().items()},
        }  # fmt: skip
        asking = [Caller(gateway.port) for _ in range(workers * CONNECTIONS_PER_WORKER)]
        victim = Victim(gateway.port, rate)
        windows = {"quiet": [_window(lambda: time.sleep(2.0))]}  # a span to compare with, in which nothing changes
        for what, numbers in (("one_file", range(files // 2, files // 2 + 1)), ("all_files", range(files))):
            windows[what] = []
            found = [_change(config, gateway, asking, numbers, windows[what]) for _ in range(changes)]
            result[what] = _merged(found)
        samples = victim.stop()
        for connection in asking:
            connection.close()
        result["victim_us"] = {what: _latencies(samples, spans) for what, spans in windows.items()}
        result["worker_pause_ms"] = [version["worker_pause_ms"] for version in gateway.published()]
        return result


def _change(
    config: Folder, gateway: Gateway, asking: list[Caller], numbers: range, windows: list[tuple[float, float]]
) -> dict[str, Any]:
    """Change some files; when the last of them is served, and what that cost."""
    before, versions = gateway.processes(), len(gateway.published())
    begun = time.monotonic()
    config.change(numbers)
    written = time.monotonic()
    authority, path, header = config.question(numbers[-1])
    waiting = list(asking)
    while waiting:
        if time.monotonic() - written > PATIENCE:
            raise CallError("the change is not served")
        waiting = [connection for connection in waiting if not connection.call(authority, path, header)]
        time.sleep(POLL if waiting else 0)  # only a call shows what is served
    served = time.monotonic()
    time.sleep(0.3)  # what the workers and the control process still do about it belongs to it
    windows.append((begun, time.monotonic()))
    wait_for(lambda: len(gateway.published()) > versions, "the log line of the version that is served")
    # A change that was read in several parts was applied in as many versions: all of them are its own.
    applied = sum(version["apply_ms"] for version in gateway.published()[versions:]) / 1000
    cpu = {name: seconds - before[name][0] for name, (seconds, _) in gateway.processes().items() if name in before}
    return {"written": written - begun, "served": served - written, "applied": applied, "cpu": cpu}


def _merged(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "written": [round(one["written"], 3) for one in found],
        "served": [round(one["served"], 3) for one in found],
        "applied": [round(one["applied"], 3) for one in found],
        "cpu": {name: [round(one["cpu"].get(name, 0.0), 3) for one in found] for name in found[0]["cpu"]},
    }


def _window(action: Callable[[], None]) -> tuple[float, float]:
    begun = time.monotonic()
    action()
    return begun, time.monotonic()


def _latencies(samples: list[tuple[float, int]], spans: list[tuple[float, float]]) -> dict[str, int]:
    """Median, 99th percentile and the worst of the victim's calls in some spans of time."""
    inside = sorted(us for when, us in samples if any(begun <= when < ended for begun, ended in spans))
    return {
        "calls": len(inside), "p50": inside[len(inside) // 2], "p99": inside[len(inside) * 99 // 100],
        "worst": inside[-1],
    }  # fmt: skip


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Until it is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise CallError(f"waited in vain for {what}")
        time.sleep(0.01)  # what is waited for is in files of another process


def measure_stages(files: int = 625, services: int = 1) -> dict[str, dict[str, float]]:
    """Milliseconds of CPU time for each stage of a change, in this process."""
    import gc

    from pygw._fastmatch import RouteTable
    from pygw.control.resolve import Resolution, ResolveOptions, resolve
    from pygw.control.yaml_source import YamlSource
    from pygw.tables import compile_image

    with tempfile.TemporaryDirectory(prefix="pygw-reload-") as name:
        config = Folder(Path(name), 1, files, services)
        source = YamlSource([name])
        previous: Resolution | None = None
        table: RouteTable | None = None
        found: dict[str, dict[str, float]] = {}
        for what, numbers in (("start", range(0)), ("one file", range(files // 2, files // 2 + 1)),
                              ("all files", range(files))):  # fmt: skip
            config.change(numbers)
            stages = found[what] = {}
            gc.collect()
            gc.disable()  # as the controller does
            with _timed(stages, "read"):
                loaded = source.read()
            with _timed(stages, "resolve"):
                previous = resolve(loaded.state, ResolveOptions(previous=previous))
            with _timed(stages, "compile"):
                image = compile_image(previous.config)
            with _timed(stages, "open"):
                table = RouteTable(image.octets, table)
            gc.enable()
        return found


@contextmanager
def _timed(stages: dict[str, float], name: str) -> Iterator[None]:
    begun = time.process_time()
    yield
    stages[name] = round((time.process_time() - begun) * 1000, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--files", type=int, default=625, help="files of 16 rules (default: 625)")
    parser.add_argument("--services", type=int, default=1, help="Services that the rules lead to (default: 1)")
    parser.add_argument("--changes", type=int, default=5, help="changes of each kind (default: 5)")
    parser.add_argument("--rate", type=float, default=1000.0, help="the victim's calls per second (default: 1000)")
    parser.add_argument("--peers", default="", metavar="NAME,...",
                        help=f"change all rules of these too, by reload or xDS: {', '.join(PEERS)}")
    parser.add_argument("--only-peers", action="store_true", help="of these alone")
    parser.add_argument("--stages", action="store_true", help="time the stages in this process")
    arguments = parser.parse_args()
    peers = [name for name in arguments.peers.split(",") if name]
    for name in set(peers) - set(PEERS):
        parser.error(f"--peers: {name}: there are {', '.join(PEERS)}")
    result: dict[str, Any] = {}
    if arguments.stages:
        result = measure_stages(arguments.files, arguments.services)
    elif not arguments.only_peers:
        result = measure(
            arguments.workers, arguments.files, arguments.services, arguments.changes, arguments.rate
        )
    if peers:
        compile_programs()
        result["peers"] = measure_peers(peers, arguments.files * RULES_PER_FILE, arguments.changes)
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
