"""What a case works with: a running proxy, the backend behind it and the victim beside it.

There are two kinds: LoadRig for floods, slow peers and drains (backend and victim are processes of their own, so that
they are not slowed down by the attacker), ScriptRig for single requests and backends that misbehave.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.doubles.frames import Field

from . import watch
from .attack import Attack
from .case import CaseError, expect
from .proxies import ROOT, Program, Proxy
from .raw import RawClient
from .scripted_backend import FENCE_PATH, ScriptedBackend

MESSAGE = b"\0\0\0\0\x05hello"
SETTLE = 0.3          # until memory that was freed after an attack shows
HEAL_PATIENCE = 5.0
IDLE_SPAN = 0.5
CONNECTIONS = 100


def request(path: bytes = b"/adversity.Test/Call", *extra: Field, **changed: bytes) -> list[Field]:
    """The fields of a well-formed call, with more behind; keyword arguments replace those of that name."""
    fields: list[Field] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"adversity.example.com"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    names = {name.lstrip(b":").replace(b"-", b"_").decode(): name for name, _ in fields}
    replaced = {names[key]: value for key, value in changed.items()}
    return [(name, replaced.get(name, value)) for name, value in fields] + list(extra)


class Helper:
    """A process that answers a line with a line: the victim, the backend of LoadRig."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.module = module
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True, process_group=0,
        )  # fmt: skip

    def tell(self, line: str) -> None:
        """Send a line."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """Take a line."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.module} has ended")
        return line

    def ask(self, line: str) -> Any:
        """Send a line and take the JSON that answers it."""
        self.tell(line)
        return json.loads(self.hear())

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # a line that it did not live to read
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Rig:
    """What both kinds have: the proxy, and what a case measured."""

    proxy: Proxy

    def __init__(
        self, program: Program, folder: Path, *, seconds: float, half_open: float, p99_ms: float = 1000.0,
        cpu_slack: float = 3.0,
    ) -> None:  # fmt: skip
        self.program = program
        self.folder = folder
        self.seconds = seconds      # how long a flood lasts
        self.half_open = half_open  # when a half-open connection must be gone
        self.p99_ms = p99_ms        # the most that the victim's p99 may become
        self.cpu_slack = cpu_slack  # by how much a flood may miss its goal of CPU: machines are noisy
        self.measures: dict[str, Any] = {}
        self.is_spent = False       # the case was about the end of the proxy: the next one gets another
        self.is_broken = False      # a case hung: nobody knows what state the rig is in
        self._starts = 0

    def start_proxy(self, backend: int) -> None:
        """A fresh proxy in front of that port."""
        self._starts += 1
        self.proxy = Proxy(self.program, backend, self.folder / f"{self.program.name}-{self._starts}")
        # Once a call passes, all its processes are there.
        self.heal()
        self.proxy.note_processes()

    def heal(self, seconds: float = HEAL_PATIENCE) -> float:
        """How long it takes until calls are answered well."""
        start = time.monotonic()
        while True:
            try:
                with self.client() as client:
                    self.check_serves(client, 1)
                    return time.monotonic() - start
            except (CaseError, OSError):
                if time.monotonic() - start > seconds:
                    raise
                time.sleep(0.05)  # no proxy says when it is well again: it is asked

    def client(self, *settings: tuple[int, int], **options: Any) -> RawClient:
        """A connection to the proxy."""
        return RawClient(self.proxy.port, *settings, **options)

    def prepare(self) -> None:
        """Before each case."""
        self.measures = {}
        if self.is_spent or not self.proxy.is_running:
            self.is_spent = False
            self.proxy.stop()
            self.start_proxy(self.proxy.backend)

    def check_alive(self) -> None:
        """After each case: no process of the proxy may have ended."""
        expect(self.is_spent or self.proxy.is_running, "a process of the proxy ended")

    def check_serves(self, client: RawClient, stream_id: int, what: str = "a good call after it") -> None:
        """A good call on the connection is answered well."""
        seen = client.call(stream_id, request(FENCE_PATH), MESSAGE)
        ended = seen.ended and seen.grpc_status == 0 and bytes(seen.data) == MESSAGE
        expect(ended, f"{what} got {seen.told()}; connection {client.ending()}")


class ScriptRig(Rig):
    """A proxy in front of a ScriptedBackend."""

    def __init__(self, program: Program, folder: Path, **options: float) -> None:
        super().__init__(program, folder, **options)
        self.backend = ScriptedBackend()
        try:
            self.start_proxy(self.backend.port)
        except BaseException:
            self.stop()
            raise

    def prepare(self) -> None:
        """A backend that answers well, and a proxy that has noticed."""
        self.backend.reset()
        super().prepare()
        try:
            self.heal()
        except (CaseError, OSError):
            # Else one case would fail all that follow.
            self.is_spent = True
            super().prepare()
        self.backend.reset()

    def stop(self) -> None:
        """End all that has begun."""
        if hasattr(self, "proxy"):
            self.proxy.stop()
        self.backend.__exit__()


class LoadRig(Rig):
    """A proxy between a victim and a backend, both in processes of their own."""

    def __init__(self, program: Program, folder: Path, **options: float) -> None:
        super().__init__(program, folder, **options)
        self.backend = Helper("tests.adversity.load_backend")
        try:
            self.start_proxy(int(self.backend.hear()))
            self._start_victim()
            self.idle_cpu = self._measure_idle()
            self.connection_cpu = self._measure_connections()
        except BaseException:
            self.stop()
            raise

    def _start_victim(self) -> None:
        self.victim = Helper("tests.adversity.victim", str(self.proxy.port))
        self.victim.hear()

    def _begin_calls(self) -> None:
        self.victim.tell("begin")
        self.victim.hear()

    def _measure_idle(self) -> float:
        """CPU seconds that a second of the victim alone costs; attacks are measured without them."""
        self._begin_calls()
        cpu = watch.cpu_seconds(self.proxy.pids)
        time.sleep(IDLE_SPAN)  # what is measured
        cpu = watch.cpu_seconds(self.proxy.pids) - cpu
        self.victim.ask("end")
        return cpu / IDLE_SPAN

    def _measure_connections(self) -> float:
        """CPU seconds of a connection that does nothing bad: a flood that ends many is measured without them."""
        cpu = watch.cpu_seconds(self.proxy.pids)
        for _ in range(CONNECTIONS):
            with Attack(self.proxy.port) as attack:
                attack.settle()
        return (watch.cpu_seconds(self.proxy.pids) - cpu) / CONNECTIONS

    def prepare(self) -> None:
        """A proxy that runs, counters at 0."""
        before = self.proxy.port
        super().prepare()
        if self.proxy.port != before:
            self.victim.stop()
            self._start_victim()
        self.backend.ask("count")

    def counts(self) -> dict[str, int]:
        """What has reached the backend since this was last asked; the victim's included."""
        counts: dict[str, int] = self.backend.ask("count")
        return counts

    @contextlib.contextmanager
    def victim_beside(self, *, may_lose: int | None = 0) -> Iterator[None]:
        """The victim calls while the body runs. It must lose nothing; its figures become measures of the case:

        `victim_calls`, `victim_lost` (`victim_refused` of them never had a connection), `victim_p50_ms`,
        `victim_p99_ms`, `growth_mib`, `kept_mib`, `cpu_s`.
        """
        memory = watch.MemoryWatch(self.proxy.pids)
        self._begin_calls()
        self._start, self._cpu = time.monotonic(), watch.cpu_seconds(self.proxy.pids)
        try:
            yield
            if "cpu_s" not in self.measures:
                self.note_cpu()
            time.sleep(SETTLE)  # no proxy says when it has given memory back
        finally:
            growth = memory.stop()
            told = self.victim.ask("end")
        self.measures |= {f"victim_{name}": value for name, value in told.items()}
        self.measures |= {"growth_mib": round(growth, 1), "kept_mib": round(memory.kept(), 1)}
        lost, calls = told["lost"], told["calls"]
        expect(may_lose is None or lost <= may_lose, f"the victim lost {lost:.0f} of {calls:.0f} calls")
        expect(calls, "the victim could not call")

    def note_cpu(self, connections: int = 0) -> None:
        """What the case has cost ends here (without it, with victim_beside()), over so many connections."""
        cpu = watch.cpu_seconds(self.proxy.pids) - self._cpu - self.idle_cpu * (time.monotonic() - self._start)
        cpu -= connections * self.connection_cpu
        self.measures["cpu_s"] = round(max(cpu, 0.0), 4)

    def stop(self) -> None:
        """End all that has begun."""
        for part in ("victim", "proxy", "backend"):
            if hasattr(self, part):
                getattr(self, part).stop()


RIGS: dict[str, type[ScriptRig] | type[LoadRig]] = {
    "floods": LoadRig,
    "slow": LoadRig,
    "drain": LoadRig,
    "protocol": ScriptRig,
    "headers": ScriptRig,
    "backend": ScriptRig,
    "grpc": ScriptRig,
}


def kinds(groups: Sequence[str]) -> dict[type[ScriptRig] | type[LoadRig], list[str]]:
    """The groups by the kind of rig that they need."""
    found: dict[type[ScriptRig] | type[LoadRig], list[str]] = {}
    for group in groups:
        found.setdefault(RIGS[group], []).append(group)
    return found
