"""A worker process: the Relay on a uvloop loop, and the channels that tell it what to do.

The launcher hands it listening sockets, the control process routes and endpoints (pygw/launcher.py and
pygw/control/controller.py list the messages). It reads no configuration, imports nothing of control, and lives no
longer than its launcher. Without a control process it goes on serving what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import uvloop

from pygw import logs
from pygw.backend_list import Backends, backends_of, read_backends
from pygw.channel import Channel, ChannelError, Message, check_sealed
from pygw.child import inherited_channel, join_launcher
from pygw.errors import PygwError
from pygw.listen_sockets import BACKLOG, received_socket
from pygw.logs import LineWriter
from pygw.run_options import RunOptions
from pygw.settings import Settings
from pygw.tls_snapshot import TlsSnapshot

log = logging.getLogger(__name__)

GOAWAY_GAP = 1.0  # seconds between the two GOAWAYs of a drain: a round trip (RFC 9113 §6.8)
DRAIN_POLL = 0.02  # seconds between two looks whether all client connections have ended
ACCEPT_RETRY = 1.0  # seconds; where accepting has stopped, it is tried again though no client has left

class RelayLike(Protocol):
    """What a worker needs of pygw.proxy.relay.Relay."""

    @property
    def open_calls(self) -> int: ...
    @property
    def open_connections(self) -> int: ...
    def steps_to(
        self, version: int, image: object, chunks: Iterable[Backends], tls: TlsSnapshot | None
    ) -> Iterator[None]: ...
    def update_endpoints(self, backends: Backends) -> None: ...
    def protocol_factory(self, address: str, port: int) -> Callable[[], asyncio.BaseProtocol]: ...
    def watch_accepting(self, on_accepting: Callable[[bool], None]) -> None: ...
    def accept_again(self) -> None: ...
    def start_drain(self) -> None: ...
    def finish_drain(self) -> None: ...
    def abort_calls(self) -> None: ...
    def metrics(self) -> dict[str, Any]: ...
    def endpoint_states(self) -> dict[str, list[dict[str, Any]]]: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Worker:
    """Carries out messages; `relay` is made by `make_relay` when the launcher has said how."""

    loop: asyncio.AbstractEventLoop
    make_relay: Callable[..., RelayLike]
    help_texts: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # (type, help) of the relay's metrics
    goaway_gap: float = GOAWAY_GAP
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    launcher: Channel | None = None
    control: Channel | None = None
    relay: RelayLike = field(init=False)
    access_log: LineWriter | None = None
    _listeners: dict[int, Listener] = field(default_factory=dict)
    # Until there is a configuration, connections wait in the accept queues: number -> (address, port, socket).
    _waiting: dict[int, tuple[str, int, socket.socket]] = field(default_factory=dict)
    _version: int = 0
    _accepts: bool = True
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)  # one change at a time, in the order of messages
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    # ===== from the launcher =====

    def on_launcher_message(self, message: Message, fds: list[int]) -> None:
        """Carry out one message of the launcher."""
        match message["type"]:
            case "start":
                self._start(message["worker"], RunOptions.from_json(message["options"]))
            case "control":
                self._connect(socket.socket(fileno=fds.pop(0)))
            case "listen":
                for number, address, port in message["sockets"]:
                    self._waiting[number] = (address, port, received_socket(fds.pop(0)))
                if self._version:
                    self._listen_to_waiting()
            case "unlisten":
                for number in message["numbers"]:
                    self._unlisten(number)
            case "snapshot":
                self._change(message, fds, None)
            case "reopen":
                self._reopen()
            case "drain":
                self._in_background(self._drain())
            case "abort":
                self.relay.abort_calls()
            case unknown:
                log.error("unknown message", extra={"message_type": unknown})

    def _start(self, number: int, options: RunOptions) -> None:
        self.access_log = None if options.access_log == "off" else _open_access_log(options.access_log)
        self.relay = self.make_relay(
            self.loop,
            Settings(**options.settings),
            number,
            options.trusted_proxies,
            options.proxy_protocol_from,
            None if self.access_log is None else self.access_log.write,
        )
        self.relay.watch_accepting(self._on_accepting)
        # What exists now lives as long as the process: keep the collector from walking it again and again.
        gc.collect()
        gc.freeze()
        assert self.launcher is not None
        self.launcher.send({"type": "started"})

    def _listen_to_waiting(self) -> None:
        for number, (address, port, sock) in self._waiting.items():
            self._in_background(self._listen(number, address, port, sock))
        self._waiting.clear()

    def _unlisten(self, number: int) -> None:
        if number in self._waiting:
            self._waiting.pop(number)[2].close()
        elif number in self._listeners:
            self._in_background(self._listeners.pop(number).close(self.loop))

    async def _listen(self, number: int, address: str, port: int, sock: socket.socket) -> None:
        self._listeners[number] = listener = Listener(sock, self.relay.protocol_factory(address, port))
        if self._accepts:
            await listener.open(self.loop)

    def _on_accepting(self, accepts: bool) -> None:
        """The relay has room for no more connections, or has room again: they wait in the accept queues."""
        self._accepts = accepts
        for listener in self._listeners.values():
            if accepts:
                self._in_background(listener.open(self.loop))
            else:
                listener.pause()
        if not accepts:
            self.loop.call_later(ACCEPT_RETRY, self._retry_accepting)

    def _retry_accepting(self) -> None:
        if not self._accepts:
            self.relay.accept_again()
        if not self._accepts:
            self.loop.call_later(ACCEPT_RETRY, self._retry_accepting)

    def _reopen(self) -> None:
        if self.access_log is not None:
            try:
                self.access_log.reopen()
            except OSError as error:
                log.error("cannot reopen the access log", extra={"path": self.access_log.path, "reason": str(error)})

    async def _drain(self) -> None:
        """GOAWAY twice, wait for the calls, end."""
        self.relay.start_drain()
        for number in list(self._waiting):
            self._unlisten(number)
        for number in list(self._listeners):
            await self._listeners.pop(number).close(self.loop)
        await asyncio.sleep(DRAIN_POLL)  # uvloop tells the relay of what it accepted only in its next turn
        deadline = self.loop.time() + self.goaway_gap
        while self.relay.open_connections and self.loop.time() < deadline:
            await asyncio.sleep(DRAIN_POLL)
        self.relay.finish_drain()
        while self.relay.open_connections:
            await asyncio.sleep(DRAIN_POLL)
        self.ended.set()

    # ===== from the control process =====

    def _connect(self, sock: socket.socket) -> None:
        """A control process, the first one or a new one, wants to talk to us."""
        if self.control is not None:
            self.control.close()
        channel = Channel(sock, self._on_control_message, lambda: self._on_control_end(channel), self.loop)
        self.control = channel
        self._in_background(self._greet(channel))

    async def _greet(self, channel: Channel) -> None:
        async with self._changing:  # it must hear of what the launcher left
            self._answer(channel, {"type": "hello", "version": self._version})

    def _on_control_end(self, channel: Channel) -> None:
        if channel is not self.control:
            return  # the end of the old one was noticed after the new one had come
        log.warning("the control process is gone; serving on with what it said last", extra={"version": self._version})
        self.control = None

    def _on_control_message(self, message: Message, fds: list[int]) -> None:
        answer: Message = {"type": "ack", "sequence": message["sequence"], "error": None}
        match message["type"]:
            case "snapshot" | "endpoints":
                self._change(message, fds, self.control)
                return
            case "metrics":
                answer.update(metrics=self._metrics())
            case "endpoint_states":
                answer.update(states=self.relay.endpoint_states())
            case unknown:
                answer["error"] = f"unknown message {unknown}"
        if self.control is not None:
            self.control.send(answer)

    def _change(self, message: Message, fds: list[int], asker: Channel | None) -> None:
        """Change what is served, when the changes before have been made, and tell the asker."""
        try:
            steps = self._steps_to(message, fds) if message["type"] == "snapshot" else self._update(message)
        except (ValueError, OSError, ChannelError) as error:  # no descriptors, or none that can be used
            steps = _failing(error)
        self._in_background(self._make_change(message, steps, asker))

    async def _make_change(self, message: Message, steps: Iterator[None], asker: Channel | None) -> None:
        error: str | None = None
        longest = 0.0
        async with self._changing:
            try:
                while True:
                    begun = time.perf_counter()
                    is_over = next(steps, self) is self
                    longest = max(longest, time.perf_counter() - begun)
                    if is_over:
                        break
                    await asyncio.sleep(0)  # calls go on
            except Exception as fault:  # whatever it is: the worker serves on, and says so
                expected = isinstance(fault, ValueError | OSError | ChannelError)
                log.error("cannot apply what it is told", exc_info=not expected, extra={"reason": str(fault)})
                error = str(fault) or type(fault).__name__
            answer = {
                "type": "ack", "sequence": message.get("sequence"), "version": message["version"], "error": error,
                "pause": longest,
            }  # fmt: skip
            if asker is not None:
                self._answer(asker, answer)

    def _answer(self, channel: Channel, message: Message) -> None:
        with contextlib.suppress(ChannelError):  # its end is being told, or there is another control process
            channel.send(message)

    def _steps_to(self, message: Message, fds: list[int]) -> Iterator[None]:
        """Take in the file descriptors now, the rest step by step."""
        image_fd, backends_fd = fds
        check_sealed(image_fd)
        # Private, though nobody writes: kernels before 6.7 refuse shared mappings of write-sealed files. The pages
        # are shared all the same, between all workers.
        image = mmap.mmap(image_fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        chunks = read_backends(backends_fd)

        def steps() -> Iterator[None]:
            tls = TlsSnapshot.from_json(message["tls"]) if message["tls"] else None
            yield from self.relay.steps_to(message["version"], image, chunks, tls)
            self._version = message["version"]
            self._listen_to_waiting()
            log.debug("configuration applied", extra={"version": self._version})

        return steps()

    def _update(self, message: Message) -> Iterator[None]:
        self.relay.update_endpoints(backends_of(message["backends"]))
        yield from ()

    def _metrics(self) -> dict[str, Any]:
        metrics = self.relay.metrics()
        metrics["help"] = {name: text for name, (_, text) in self.help_texts.items()}
        if self.access_log is not None:
            metrics["counters"].append(["pygw_access_log_dropped_total", {}, self.access_log.dropped])
        return metrics

    # ===== =====

    def _in_background(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close everything but the channel to the launcher, whose end tells it that we are gone."""
        self.relay.close()
        for listener in self._listeners.values():
            listener.pause()
            listener.sock.close()
        if self.control is not None:
            self.control.close()
        await asyncio.sleep(0)


@dataclass(slots=True)
class Listener:
    """One listening socket that is being served."""

    sock: socket.socket  # uvloop closes the one that it serves, so it gets a duplicate of this one
    factory: Callable[[], asyncio.BaseProtocol]
    server: asyncio.AbstractServer | None = None  # None: connections wait in the queue
    _should_accept: bool = False

    async def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept connections."""
        self._should_accept = True
        if self.server is not None:
            return
        # It also listens anew: without the number the queue would shrink to 100.
        server = await loop.create_server(self.factory, sock=self.sock.dup(), backlog=BACKLOG)
        if self._should_accept and self.server is None:
            self.server = server
        else:
            server.close()

    def pause(self) -> None:
        """Leave connections in the queue from now on."""
        self._should_accept = False
        if self.server is not None:
            self.server.close()
            self.server = None

    async def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop accepting. Connections that wait in the queue are served: closing it would reset them."""
        self.pause()
        with self.sock:
            self.sock.setblocking(False)
            for _ in range(BACKLOG):  # a successor may listen on the same queue, so that it never ends
                try:
                    sock, _ = self.sock.accept()
                except OSError:  # BlockingIOError: the queue is empty
                    return
                await loop.connect_accepted_socket(self.factory, sock)


def main() -> int:
    """Run as a child of the launcher; the exit code."""
    try:
        sock = inherited_channel()
    except PygwError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    from pygw.proxy.call_metrics import HELP
    from pygw.proxy.relay import Relay

    return uvloop.run(serve(sock, lambda loop: Worker(loop, Relay, HELP)))


async def serve(sock: socket.socket, make_worker: Callable[[asyncio.AbstractEventLoop], Worker]) -> int:
    """Serve until the launcher says to drain and all is done."""
    worker = make_worker(asyncio.get_running_loop())

    def on_message(message: Message, fds: list[int]) -> None:
        if message["type"] == "start":
            options = RunOptions.from_json(message["options"])
            logs.set_up(f"worker {message['worker']}", options.log_format, options.log_level)
        worker.on_launcher_message(message, fds)

    worker.launcher = join_launcher(sock, on_message)
    await worker.ended.wait()
    await worker.close()
    return 0


def _failing(error: Exception) -> Iterator[None]:
    yield
    raise error


def _open_access_log(path: str) -> LineWriter | None:
    try:
        return LineWriter(None if path == "json" else path)
    except OSError as error:
        log.error("cannot open the access log; there will be none", extra={"path": path, "reason": str(error)})
        return None


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # at once: nothing is left to do, and the interpreter's own clean-up takes a while
