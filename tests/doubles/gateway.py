"""`pygw run` as a real process, with what a test needs to steer and watch it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from pygw.demo.gateway import free_port

ROOT = Path(__file__).parents[2]
# Generous, since a sanitizer build and a busy machine are slow; nothing waits longer than it must.
PATIENCE = 30.0
POLL_INTERVAL = 0.02


def _environment() -> dict[str, str]:
    """Ours, without the PYGW_ variables that `pygw run` would read as options."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYGW_")}
    return kept | {"PYTHONUNBUFFERED": "1"}


class Gateway:
    """A gateway serving the YAML in `folder` on loopback; a context manager that stops it and checks how it ended.

    `resolve` maps "namespace/name" of a Service (port 50051) to a local port, as --resolve does; `source` replaces
    `-f folder`.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        resolve: dict[str, int] | None = None,
        workers: int = 2,
        port: int | None = None,
        port_of_listener: int = 80,
        source: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.admin_port = free_port()
        self.log: list[str] = []
        self._log_changed = threading.Condition()
        command = [sys.executable, "-m", "pygw", "run", *(source or ("-f", str(folder)))]
        command += ["--port-map", f"{port_of_listener}={self.port}", "--bind", "127.0.0.1"]
        command += ["--admin", f"127.0.0.1:{self.admin_port}", "--workers", str(workers)]
        command += ["--log-format", "json", "--drain-delay", "0", "--drain-timeout", "10"]
        for service, target in (resolve or {}).items():
            command += ["--resolve", f"{service}:50051=127.0.0.1:{target}"]
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def __enter__(self) -> Gateway:
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, exception_type: object, *_: object) -> None:
        if self.process.poll() is not None:
            assert exception_type or self.process.returncode == 0, self._told("the gateway ended early")
            self.kill()
            return
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(self._told("the gateway did not stop on SIGTERM")) from None
        self.kill()
        assert exception_type or self.process.returncode == 0, self._told("the gateway ended badly")

    # ===== watching =====

    def wait_until_ready(self) -> None:
        """Until /readyz says 200. Raises AssertionError with the log if the gateway ends or takes too long."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self._told(f"the gateway ended: exit code {self.process.returncode}")
            return self.admin("/readyz")[0] == 200

        self.eventually(is_ready, "ready")

    def eventually(self, holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> float:
        """Seconds until `holds()`; asked again whenever something is logged, and a little later anyway."""
        start = time.monotonic()
        while not holds():
            waited = time.monotonic() - start
            assert waited < patience, self._told(f"not {what} after {waited:.1f} s")
            with self._log_changed:
                self._log_changed.wait(POLL_INTERVAL)
        return time.monotonic() - start

    def wait_for_log(self, text: str, since: int = 0) -> str:
        """The first log line with `text`, from line number `since` on, once it is there."""

        def found() -> str | None:
            return next((line for line in self.log[since:] if text in line), None)

        with self._log_changed:
            line = self._log_changed.wait_for(found, PATIENCE)
        assert line, self._told(f"never logged: {text!r}")
        return line

    def admin(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET to the admin server; status 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=PATIENCE) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def admin_json(self, path: str) -> Any:
        """The JSON at `path` of the admin server."""
        status, body = self.admin(path)
        assert status == 200, f"{path}: {status} {body!r}"
        return json.loads(body)

    def worker_pids(self) -> list[int]:
        """Process ids of the workers: children of the launcher, without the control process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if "worker" in Path(f"/proc/{pid}/cmdline").read_text()]

    # ===== steering =====

    def write(self, name: str, text: str) -> None:
        """Replace a file of the configuration, as an editor does: at once."""
        scratch = self.folder.parent / f".{name}.new"
        scratch.write_text(text)
        scratch.rename(self.folder / name)

    def reload(self) -> None:
        """SIGHUP: read the files again now."""
        self.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """End all processes of this gateway by force."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE)
        if self.process.stdout:
            self.process.stdout.close()

    def channel(
        self,
        authority: str | None = "grpc.example.com",
        options: Sequence[tuple[str, Any]] = (),
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
        port: int | None = None,
    ) -> grpc.Channel:
        """A channel of its own connection. Messages of any size; nothing is retried in secret.

        With `credentials` over TLS; `server_name` is then what it asks for (SNI), the authority if not given.
        """
        defaults: list[tuple[str, Any]] = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        if authority is not None:
            defaults.append(("grpc.default_authority", authority))
        target = f"127.0.0.1:{port or self.port}"
        if credentials is None:
            return grpc.insecure_channel(target, options=[*defaults, *options])
        defaults.append(("grpc.ssl_target_name_override", server_name or authority))
        return grpc.secure_channel(target, credentials, options=[*defaults, *options])

    # ===== own =====

    def _read_log(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._log_changed:
                self.log.append(line.rstrip("\n"))
                self._log_changed.notify_all()

    def _told(self, what: str) -> str:
        return "\n".join([what, "its log:", *self.log[-40:]])


StartGateway = Callable[..., Gateway]  # what the fixture start_gateway gives
