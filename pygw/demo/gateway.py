"""`pygw run` as a child process: started, waited for, stopped."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pygw.errors import StartError

READY_TIMEOUT = 30.0  # seconds; the first start after an install also compiles Python's bytecode
STOP_TIMEOUT = 10.0
POLL_INTERVAL = 0.05
LOG_LINES_SHOWN = 20


class GatewayProcess:
    """A gateway that serves `config` on loopback; a context manager that returns when it is ready."""

    def __init__(self, config: Path, log_path: Path, resolve: Sequence[str]) -> None:
        self.port = free_port(preferred=18080)
        self.admin_port = free_port(preferred=9901)
        self.log_path = log_path
        self._log: IO[bytes] = log_path.open("wb")
        arguments = ["--port-map", f"80={self.port}", "--bind", "127.0.0.1", "--admin", f"127.0.0.1:{self.admin_port}"]
        arguments += ["--drain-delay", "0", "--drain-timeout", "2"]
        for target in resolve:
            arguments += ["--resolve", target]
        # A process group of its own, so that Ctrl-C reaches the demo alone, which then stops the gateway in order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pygw", "run", "-f", str(config), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            process_group=0,
        )

    def __enter__(self) -> GatewayProcess:
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End the gateway: a drain, then by force."""
        if not self.has_ended:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def last_log_lines(self) -> str:
        """The end of what the gateway logged, for an error message."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while time.monotonic() < deadline:
            if self.has_ended:
                raise StartError(
                    f"the gateway ended with exit code {self._process.returncode} before it was ready; it said:\n"
                    + self.last_log_lines()
                )
            if _answers_ok(f"http://127.0.0.1:{self.admin_port}/readyz"):
                return
            time.sleep(POLL_INTERVAL)
        raise StartError(f"the gateway was not ready after {READY_TIMEOUT:.0f} s; it said:\n" + self.last_log_lines())


def free_port(preferred: int = 0) -> int:
    """`preferred` if nothing listens there on loopback, else a port that the kernel chooses."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StartError("no free TCP port on 127.0.0.1")


def _answers_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as response:
            return int(response.status) == 200
    except (urllib.error.URLError, OSError):
        return False
