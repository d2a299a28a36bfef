"""A real worker process, driven by a launcher's and a control process's ends of channels."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import select
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from pygw.backend_list import write_backends
from pygw.channel import Channel, channel_pair, sealed_memfd
from pygw.child import spawn
from pygw.listen_sockets import BACKLOG
from pygw.model import GatewayConfig
from pygw.run_options import RunOptions
from pygw.tables import compile_image


class Driver:
    """Launcher and control process of one real worker, which may have so many `descriptors` (0: as many as we)."""

    def __init__(self, settings: Mapping[str, Any] | None = None, descriptors: int = 0) -> None:
        ours, theirs = channel_pair()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with theirs:
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, before[1]))
            try:
                self.pid = spawn("pygw.worker", ["0"], theirs)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        self.pidfd = os.pidfd_open(self.pid)
        self.told: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        self.launcher = Channel(ours, lambda message, fds: self._keep(self.told, message), lambda: None)
        options = RunOptions(("x",), 1, settings=dict(settings or {})).to_json()
        self.launcher.send({"type": "start", "worker": 0, "options": options})
        self.control = self.new_control()
        self.sequence = 0
        self.listener: socket.socket | None = None

    def new_control(self) -> Channel:
        """The control process's end of a new channel, whose other end the worker gets."""
        control, worker_end = channel_pair()
        with worker_end:
            self.launcher.send({"type": "control"}, [worker_end.fileno()])
        return Channel(control, lambda message, fds: self._keep(self.answers, message), lambda: None)

    def _keep(self, messages: list[dict[str, Any]], message: dict[str, Any]) -> None:
        messages.append(message)
        self.news.set()

    async def count(self, name: str, **labels: str) -> float:
        """A metric of the worker, summed over all series that have these labels."""
        rows = (await self.ask({"type": "metrics"}))["metrics"]["counters"]
        return sum(float(value) for row, series, value in rows if row == name and labels.items() <= series.items())

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self.news.clear()
                await self.news.wait()

    async def ask(self, message: dict[str, Any], fds: list[int] | None = None) -> dict[str, Any]:
        self.sequence += 1
        wanted = self.sequence
        self.control.send({**message, "sequence": wanted}, fds or [])
        await self.until(lambda: any(answer.get("sequence") == wanted for answer in self.answers))
        return next(answer for answer in self.answers if answer.get("sequence") == wanted)

    async def publish(self, config: GatewayConfig, version: int = 1, port: int = 9) -> dict[str, Any]:
        """Hand a configuration to the worker; all its endpoints are 127.0.0.1:`port`."""
        image = compile_image(config)
        fds = [
            sealed_memfd("image", image.octets),
            write_backends((key, (("127.0.0.1", port),)) for key in image.backend_keys),
        ]
        try:
            return await self.ask({"type": "snapshot", "version": version, "tls": None}, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def listen(self) -> int:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.launcher.send({"type": "listen", "sockets": [[1, "", 80]]}, [self.listener.fileno()])
        return int(self.listener.getsockname()[1])

    def waiting(self, port: int) -> int:
        """Connections in the accept queue: rx_queue of a listening socket (proc(5), /proc/net/tcp)."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].partition(":")[2], 16) == port:
                return int(words[4].partition(":")[2], 16)
        raise AssertionError("nobody listens")

    def memory(self) -> int:
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        assert found
        return int(found[1])

    def cpu_seconds(self) -> float:
        """User and system time that the worker has used."""
        words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def limit_descriptors(self, count: int) -> None:
        """Let the worker have no more than so many descriptors from now on."""
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (count, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def maps(self) -> str:
        return Path(f"/proc/{self.pid}/maps").read_text()

    async def ended(self) -> int:
        """The exit code."""

        def collect() -> int:
            assert select.select([self.pidfd], [], [], 20)[0]
            pid, self.pid = self.pid, 0
            return os.waitpid(pid, 0)[1]

        return os.waitstatus_to_exitcode(await asyncio.to_thread(collect))

    def close(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        if self.listener is not None:
            self.listener.close()
        self.launcher.close()
        self.control.close()


def drive(
    test: Callable[[Driver], Awaitable[None]], settings: Mapping[str, Any] | None = None, descriptors: int = 0
) -> None:
    """Run a test with a Driver whose worker has started."""

    async def main() -> None:
        driver = Driver(settings, descriptors)
        try:
            await driver.until(lambda: any(message["type"] == "started" for message in driver.told))
            await test(driver)
        finally:
            driver.close()

    asyncio.run(main())
