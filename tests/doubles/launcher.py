"""`pygw run` with workers that speak lines (tests/doubles/relay.py), as a real process that tests steer and watch.

`python -m tests.doubles.launcher run …` takes what pygw takes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: any
  listeners:
  - {name: grpc, port: 80, protocol: HTTP}
"""
ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: r1}
spec:
  parentRefs: [{name: gw}]
  rules:
  - backendRefs: [{name: greeter, port: 50051}]
---
apiVersion: v1
kind: Service
metadata: {name: greeter}
spec: {ports: [{port: 50051}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: greeter-1, labels: {kubernetes.io/service-name: greeter}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.9], conditions: {ready: true}}]
ports: [{port: 50051}]
"""


class Line:
    """A connection to a FakeRelay."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), PATIENCE)
        self._file = self.socket.makefile("r")

    def say(self, command: str) -> None:
        self.socket.sendall(command.encode() + b"\n")

    def hear(self) -> str:
        """The next line; "" at the end."""
        return self._file.readline().strip()

    def who(self) -> dict[str, Any]:
        self.say("who")
        answer: dict[str, Any] = json.loads(self.hear())
        return answer

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Run:
    """A running launcher. It binds 127.0.0.1 and what `arguments` say, or where `everywhere` all addresses."""

    def __init__(
        self, *arguments: str, environment: dict[str, str] | None = None, stdin: str = "", everywhere: bool = False
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self._is_over = False
        self._changed = threading.Condition()
        defaults = [] if everywhere else ["--bind", "127.0.0.1"]
        defaults += ["--admin", "127.0.0.1:0", "--workers", "2"]
        if "--port-map" not in arguments:
            defaults += ["--port-map", "80=0"]
        defaults += ["--drain-delay", "0", "--drain-timeout", "5", "--log-format", "json"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.doubles.launcher", "run", *defaults, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.process.stdin is not None
        self.process.stdin.write(stdin)
        self.process.stdin.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.raw.append(line)
                with contextlib.suppress(ValueError):
                    self.lines.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def log(self, message: str, since: int = 0, **fields: Any) -> dict[str, Any]:
        """The first log line, from number `since` on, with this message and these fields; waits for it."""

        def found() -> dict[str, Any] | None:
            for line in self.lines[since:]:
                if line["message"] == message and all(line.get(key) == value for key, value in fields.items()):
                    return line
            return None

        with self._changed:
            self._changed.wait_for(lambda: found() or self._is_over, PATIENCE)
            line = found()
        assert line, f"never logged: {message} {fields}\n" + "".join(self.raw)
        return line

    def ready(self) -> Run:
        try:
            self.log("ready")
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def mark(self) -> int:
        return len(self.lines)

    @property
    def port(self) -> int:
        return int(self.log("listening", listener_port=80)["port"])

    @property
    def admin_port(self) -> int:
        return int(self.log("admin server listens", role="admin")["port"])

    def connect(self) -> Line:
        return Line(self.port)

    def get(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.admin_port}{path}", method=method, headers=headers or {}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, line_start: str) -> float:
        _, body = self.get("/metrics")
        line = next(line for line in body.splitlines() if line.startswith(line_start))
        return float(line.rpartition(" ")[2])

    def eventually(self, holds: Callable[[], bool], what: str) -> None:
        """For what no event tells: asked again and again, with patience."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, what + "\n" + "".join(self.raw)
            with self._changed:
                self._changed.wait(0.02)

    def get_until(self, path: str, expected: tuple[int, str]) -> None:
        """Ask again until the answer is this one: the control process hears of things a moment after the launcher."""
        deadline = time.monotonic() + PATIENCE
        while (answer := self.get(path)) != expected:
            assert time.monotonic() < deadline, answer

    def children(self) -> dict[str, int]:
        """Process ids by name: control, 0, 1, …"""
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
            if not words:
                continue  # dead, and not yet waited for
            found["control" if "control" in words[-1] else words[-1]] = int(pid)
        return found

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def stop(self) -> None:
        """End everything that this run started, whatever state it is in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Probes:
    """Asks for health and readiness again and again, as kubelet does, from a thread; a context manager.

    `answers` has each path with each status that it got: 0 where the connection was refused or reset.
    """

    def __init__(self, run: Run) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self._asked = run
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            for path in ("/healthz", "/readyz"):
                try:
                    status = self._asked.get(path)[0]
                except OSError:
                    status = 0
                self.answers[path, status] += 1

    def __enter__(self) -> Probes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join(PATIENCE)


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def main() -> int:
    from pygw import cli, launcher

    modules = {
        "worker_module": os.environ.get("TEST_WORKER", "tests.doubles.relay"),
        "control_module": os.environ.get("TEST_CONTROL", "pygw.control.main"),
    }
    launcher.Launcher = functools.partial(launcher.Launcher, **modules)  # type: ignore[assignment,misc,arg-type]
    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
