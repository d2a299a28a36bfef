"""The control process: reads the configuration, publishes it to the workers, and answers the admin server.

Started by the launcher, and started again when it dies or hangs; the workers serve on in the meantime. The messages
are listed in pygw/launcher.py.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pygw import logs
from pygw.admin import AdminServer
from pygw.channel import Channel, ChannelError, Message
from pygw.child import inherited_channel, join_launcher
from pygw.control.controller import Controller, Source
from pygw.control.dns import Names, SystemLookup
from pygw.control.file_watch import watch
from pygw.control.pages import Pages
from pygw.control.yaml_source import YamlSource
from pygw.errors import PygwError, StartError
from pygw.listen_sockets import received_socket
from pygw.run_options import RunOptions

if TYPE_CHECKING:
    from pygw.control.kube.mode import KubernetesMode

log = logging.getLogger(__name__)


LEAVING_GRACE = 2.0  # seconds that giving the lease back may take once the launcher is done; less than its own


@dataclass(slots=True)
class Control:
    """Joins the launcher's channel, the controller and the admin server."""

    launcher: Channel = field(init=False)
    controller: Controller = field(init=False)
    pages: Pages = field(init=False)
    kubernetes: KubernetesMode | None = None
    _has_published: bool = False
    _servers: list[AdminServer] = field(default_factory=list)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _leaving: asyncio.Task[Any] | None = None  # gives back what this replica holds in the cluster
    _ending: asyncio.Future[None] | None = None

    def on_message(self, message: Message, fds: list[int]) -> None:
        """Carry out one message of the launcher."""
        match message["type"]:
            case "start":
                try:
                    self._start(message, fds)
                except Exception as error:
                    # Whatever it is: half a control process would answer nothing, and the launcher would wait for it.
                    log.critical("the control process cannot start", exc_info=True)
                    if message["was_ready"]:
                        os._exit(1)
                    self.tell_launcher({"type": "fatal", "message": f"the control process cannot start: {error}"})
            case "worker":
                self.pages.restarts[message["worker"]] = message["restarts"]
                self.controller.add_worker(message["worker"], message["pid"], socket.socket(fileno=fds.pop(0)))
            case "bound":
                self.controller.on_bound(message["sites"], message["failures"])
            case "reload":
                self.controller.changed()
            case "admin":
                self._serve_admin(message["sockets"], fds)
            case "draining":
                if message["is_handed_over"]:
                    # Who still asks on a connection made before asks about the address, where a successor is ready.
                    for server in self._servers:
                        server.stop_accepting()
                else:
                    self.controller.drain()
                if self.kubernetes is not None and self._leaving is None:
                    self._leaving = self._in_background(self.kubernetes.drain())
            case unknown:
                log.error("unknown message", extra={"message_type": unknown})

    def _on_published(self, version: int) -> None:
        if not self._has_published:
            # Most of what the first configuration made stays: keep the collector from walking it again and again.
            gc.freeze()
            self._has_published = True
        self.pages.keep()

    def _on_hang(self) -> None:
        """The launcher cannot see it, so we end ourselves, and leave with it what our successor must know."""
        log.critical("a change of the configuration hangs; the control process is replaced",
                     extra={"limit": "reload_timeout"})  # fmt: skip
        self.pages.keep()
        self.end()

    def tell_launcher(self, message: Message, fds: list[int] | None = None) -> None:
        """Send to the launcher; where it is gone, so are we in a moment."""
        try:
            self.launcher.send(message, fds or [])
        except ChannelError:
            self.end()

    def _start(self, message: Message, fds: list[int]) -> None:
        options = RunOptions.from_json(message["options"])
        logs.set_up("control", options.log_format, options.log_level)
        self.controller = Controller(
            options,
            self._source(options),
            self.tell_launcher,
            lambda on_change: Names(SystemLookup(), on_change),
            is_restart=message["was_ready"],
            first_version=message["version"],
        )
        self.pages = Pages(self.controller, self.tell_launcher, control_restarts=message["restarts"])
        self.controller.stale_since = message["stale_since"]
        self.controller.is_takeover = message["takes_over"]
        self.controller.on_worker_end = self.pages.worker_ended
        self.controller.on_published = self._on_published
        self.controller.on_hang = self._on_hang
        self._serve_admin(message["sockets"], fds)
        if message["kept"]:
            with open(fds.pop(0), "rb") as kept:
                kept.seek(0)
                self.pages.recall(kept.read())
        if self.kubernetes is not None:
            self._join(self.kubernetes)
            self._in_background(self._run_kubernetes(self.kubernetes))
        else:
            # Before the first read: a change that comes between would be lost otherwise.
            self._in_background(self._watch(options.paths))
            self._in_background(self.controller.run())
        self._in_background(self.pages.collect_for_ever())

    def _serve_admin(self, roles: list[str], fds: list[int]) -> None:
        for role in roles:
            server = AdminServer(self.pages.admin() if role == "admin" else self.pages.probe())
            self._servers.append(server)
            self._in_background(server.start(received_socket(fds.pop(0))))

    def _source(self, options: RunOptions) -> Source:
        if not options.kubernetes:
            return YamlSource(options.paths)
        # Here and not above: file mode needs none of it, and it takes half a second and 50 MB.
        from pygw.control.kube.mode import KubernetesMode

        self.kubernetes = KubernetesMode(options, lambda: self.controller.changed())
        return self.kubernetes.source

    def _join(self, kubernetes: KubernetesMode) -> None:
        self.controller.gateway_addresses = kubernetes.addresses.current
        self.controller.bundle_version = kubernetes.bundle_version
        self.controller.zone = kubernetes.source.zone
        self.controller.on_resolved = kubernetes.on_resolved
        self.controller.waiting_for = kubernetes.waiting_for
        self.pages.more_metrics = kubernetes.metrics

    async def _run_kubernetes(self, kubernetes: KubernetesMode) -> None:
        try:
            await kubernetes.open(self._in_background)
        except StartError as error:
            if self.controller.is_restart:  # the workers serve on; a kubeconfig that is broken now may be mended
                raise
            self.tell_launcher({"type": "fatal", "message": str(error)})
            return
        await self.controller.run()

    async def _watch(self, paths: tuple[str, ...]) -> None:
        async for _ in watch(paths):
            self.controller.changed()

    def _in_background(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def end(self) -> None:
        """We must end, mostly since the launcher is gone or done with us; but first answer who has asked, and give the
        lease back where that is under way."""
        asyncio.get_running_loop().call_later(LEAVING_GRACE, os._exit, 1)
        self._ending = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        await asyncio.gather(*(server.finish() for server in self._servers), return_exceptions=True)
        if self._leaving is not None:
            await asyncio.wait({self._leaving})
        os._exit(1)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Better a new control process than half a one: the launcher starts it at once.
            log.critical("control process failed", exc_info=task.exception())
            os._exit(1)


def main() -> int:
    """Run as a child of the launcher; it ends with the launcher's channel."""
    try:
        sock = inherited_channel()
    except PygwError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    asyncio.run(_serve(sock))
    return 0


async def _serve(sock: socket.socket) -> None:
    control = Control()
    control.launcher = join_launcher(sock, control.on_message, control.end)
    control.launcher.send({"type": "started"})
    await asyncio.Event().wait()


if __name__ == "__main__":
    raise SystemExit(main())
