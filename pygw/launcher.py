"""The launcher: parent of the control process and the workers. Sockets, spawning and signals, nothing else.

It parses no configuration and serves no call, so there is little in it that can fail: it is process 1 of a
container. A worker that dies is replaced and takes over the listening sockets of its predecessor; a control process
that dies or hangs is replaced while the workers go on serving.

What it says over its channels (pygw/channel.py):
  to control   start {options, restarts, was_ready, version, stale_since, takes_over, kept} + admin and probe sockets
               [+ kept memfd]; admin {sockets} + more of these; worker {worker, pid, restarts} + a new channel to that
               worker; bound {sites, failures}; reload; draining {is_handed_over}
  from control bind {sites}; ready; keep {version} + memfd; snapshot {version, tls} + image, backends; fatal {message};
               drain
  to a worker  start {worker, options}; snapshot, as control left it, so that a replacement serves at once whatever
               the control process does; control + a new channel to the control process;
               listen {sockets: [[number, address, port]…]} + sockets; unlisten {numbers}; reopen; drain; abort
  to both      ping; they answer alive, and say started once they have
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pygw.channel import MAX_FDS, Channel, ChannelError, Message, channel_pair
from pygw.child import spawn
from pygw.errors import PygwError
from pygw.listen_sockets import FATAL_AT_START, BindError, Bound, ListenSockets, Site, bind_admin, show_address
from pygw.run_options import RunOptions
from pygw.settings import Settings
from pygw.stand_in import StandIn, Standing
from pygw.takeover import Handover, Offer, Predecessor, enter

log = logging.getLogger(__name__)

PING_INTERVAL = 1.0  # seconds between two pings of a child; less where hang_timeout is short
PINGS_TO_HANG = 4  # that a child must leave unanswered at least to count as hung
START_TIMEOUT = 60.0  # seconds for a child to start, which a slow disk may make long
START_ATTEMPTS = 3  # of a process that never came up, before the whole start is given up
STABLE_AFTER = 5.0  # seconds that a process must live for its next death not to count as a crash loop
RESTART_DELAYS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)  # seconds, by deaths in a row
ABORT_GRACE = 3.0  # seconds for workers to write their last frames after the drain timeout
STOP_GRACE = 3.0  # seconds for children to end once their channel is closed
CHANNEL_END_GRACE = 0.5  # seconds between the end of a process's channel and the end of the process
SAME_SIGNAL = 0.1  # seconds; timeout(1) and some supervisors signal a process and then its whole group
MAX_DESCRIPTORS = 1_048_576  # of one process; the kernel's own default for fs.nr_open
FDS_PER_MESSAGE = MAX_FDS // 2


@dataclass(slots=True)
class Child:
    """The control process, or the worker of one number, through all its replacements."""

    name: str
    module: str
    worker: int | None  # None: the control process
    pid: int | None = None
    channel: Channel | None = None
    spawned_at: float = 0.0
    has_started: bool = False  # this process has come up
    was_up: bool = False  # any process of this name has
    deaths_in_row: int = 0
    restarts: int = 0
    silent_intervals: int = 0  # pings without an answer
    heard_at: float = 0.0  # Unix time

    def send(self, message: Message, fds: Iterable[int] = ()) -> None:
        """Send where the process lives; a death is noticed by its end, not here."""
        if self.channel is not None:
            with contextlib.suppress(ChannelError):
                self.channel.send(message, list(fds))


@dataclass(slots=True)
class Launcher:
    """One run, from the first socket to the exit code."""

    options: RunOptions
    has_stdin_copy: bool = False  # descriptor 0 is a file that each control process reads from its start
    control_module: str = "pygw.control.main"
    worker_module: str = "pygw.worker"
    sockets: ListenSockets = field(init=False)
    control: Child = field(init=False)
    workers: list[Child] = field(init=False)
    is_ready: bool = False
    is_draining: bool = False
    _is_handed_over: bool = False  # to a successor, which answers probes now
    is_accepting: bool = True
    is_stopping: bool = False
    version: int = 0  # of the configuration last published
    _settings: Settings = field(init=False)
    _admin_sockets: dict[str, socket.socket] = field(default_factory=dict)
    _handover: Handover | None = None  # to a successor, where there is a run directory
    _predecessor: Predecessor | None = None  # until we are ready
    _stand_in: StandIn = field(init=False)
    _kept: int | None = None  # a memfd that control processes hand on to their successors
    _snapshot: tuple[Message, list[int]] | None = None  # what the workers serve, with its memfds
    _bind_failures: list[list[Any]] = field(default_factory=list)
    _signalled_at: float | None = None
    _has_terminal: bool = False
    _exit_code: int = 0
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._settings = Settings(**self.options.settings)
        self._stand_in = StandIn(self._standing)
        self.sockets = ListenSockets(self.options.workers)
        self.control = Child("control", self.control_module, None)
        self.workers = [Child(f"worker {n}", self.worker_module, n) for n in range(self.options.workers)]

    def run(self) -> int:
        """Serve until a signal or a failed start; the exit code."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._has_terminal = not _terminal_is_gone()
        self._handle_signals()
        _raise_descriptor_limit()
        try:
            await self._enter_run_directory()
            self._bind_admin()
            for child in [self.control, *self.workers]:
                self._spawn(child)
            watch = self._loop.create_task(self._watch())
            await self._ended.wait()
            watch.cancel()
        except PygwError as error:
            log.error(str(error))
            self._exit_code = error.exit_code
        finally:
            await self._stand_in.stop()
            await self._stop_children()
            self._leave_run_directory()
            self.sockets.close_all()
            for sock in self._admin_sockets.values():
                sock.close()
            if self._kept is not None:
                os.close(self._kept)
            self._forget_snapshot()
            # The loop's handlers go with it; a late signal must not change the exit code.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1))
        return self._exit_code

    # ===== signals =====

    def _handle_signals(self) -> None:
        on: Callable[..., None] = self._loop.add_signal_handler
        on(signal.SIGTERM, self._on_stop_signal, signal.SIGTERM)
        on(signal.SIGINT, self._on_stop_signal, signal.SIGINT)
        on(signal.SIGHUP, self._on_hangup)
        on(signal.SIGUSR1, self._tell_workers, {"type": "reopen"})
        on(signal.SIGCHLD, self._reap)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        now = self._loop.time()
        if self._signalled_at is not None:
            if now - self._signalled_at < SAME_SIGNAL:
                return
            log.warning("second signal: exiting at once", extra={"signal": number.name})
            self._end(128 + number)
            return
        self._signalled_at = now
        self.drain(number.name)

    def _on_hangup(self) -> None:
        # Also sent when our terminal closes; `kill -HUP` asks for a reload.
        if self._has_terminal and _terminal_is_gone():
            self._on_stop_signal(signal.SIGHUP)
            return
        log.info("reloading", extra={"signal": "SIGHUP"})
        self.control.send({"type": "reload"})
        self._tell_workers({"type": "reopen"})

    def _tell_workers(self, message: Message) -> None:
        for worker in self.workers:
            worker.send(message)

    # ===== processes =====

    def _bind_admin(self) -> None:
        for role, option, address in (
            ("admin", "--admin", self.options.admin),
            ("probe", "--probe-address", self.options.probe),
        ):
            if address is not None:
                if self._predecessor is not None and address in self._predecessor.admin:
                    continue  # its control process answers there until we are ready
                sock = bind_admin(option, *address)
                self._admin_sockets[role] = sock
                host, port = sock.getsockname()[:2]
                log.info("admin server listens", extra={"role": role, "address": host, "port": port})

    def _spawn(self, child: Child) -> None:
        if self.is_stopping or (child.worker is not None and not self.is_accepting):
            return
        ours, theirs = channel_pair()
        with theirs:
            if child.worker is None and self.has_stdin_copy:
                os.lseek(0, 0, os.SEEK_SET)
            arguments = [] if child.worker is None else [str(child.worker)]
            try:
                child.pid = spawn(child.module, arguments, theirs, keep_stdin=child.worker is None)
            except OSError as error:
                ours.close()
                log.error("cannot start a process", extra={"child": child.name, "reason": str(error)})
                self._loop.call_later(RESTART_DELAYS[-1], self._spawn, child)
                return
        child.spawned_at, child.has_started, child.silent_intervals = self._loop.time(), False, 0
        child.heard_at = child.heard_at or time.time()
        child.channel = Channel(
            ours, lambda message, fds: self._on_message(child, message, fds), lambda: self._on_channel_end(child)
        )
        if child.worker is None:
            self._start_control()
        else:
            child.send({"type": "start", "worker": child.worker, "options": self.options.to_json()})
            if self._snapshot is not None:
                child.send(*self._snapshot)
            self._listen(child, list(self.sockets))
            self._connect(child)

    def _start_control(self) -> None:
        start = {
            "type": "start",
            "options": self.options.to_json(),
            "restarts": self.control.restarts,
            "was_ready": self.is_ready,
            "version": self.version,
            "stale_since": self.control.heard_at if self.is_ready else 0.0,
            "takes_over": self._predecessor is not None,
            "sockets": list(self._admin_sockets),
            "kept": self._kept is not None,
        }
        fds = [sock.fileno() for sock in self._admin_sockets.values()]
        self.control.send(start, fds if self._kept is None else [*fds, self._kept])
        self._report_bound()
        for worker in self.workers:
            self._connect(worker)
        if self.is_draining:
            self.control.send({"type": "draining", "is_handed_over": self._is_handed_over})

    def _connect(self, worker: Child) -> None:
        """A new channel between a worker and the control process, where both live."""
        if worker.channel is None or self.control.channel is None:
            return
        ends = channel_pair()
        with ends[0], ends[1]:
            worker.send({"type": "control"}, [ends[0].fileno()])
            self.control.send(
                {"type": "worker", "worker": worker.worker, "pid": worker.pid, "restarts": worker.restarts},
                [ends[1].fileno()],
            )

    def _on_channel_end(self, child: Child) -> None:
        """A process without a channel is of no use to us. Mostly it is ending by itself; else it is ended."""
        if child.pid is not None and child.channel is not None:
            reason = child.channel.close_reason
            child.channel = None
            self._loop.call_later(CHANNEL_END_GRACE, self._end_without_channel, child, child.pid, reason)

    def _end_without_channel(self, child: Child, pid: int, reason: str) -> None:
        if child.pid == pid:
            log.error("process lost its channel; it is killed", extra={"child": child.name, "reason": reason})
            _kill(pid)

    def _reap(self) -> None:
        """Collect all that ended; as process 1 of a container also what is not ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in [self.control, *self.workers]:
                if child.pid == pid:
                    self._on_death(child, os.waitstatus_to_exitcode(status))

    def _on_death(self, child: Child, code: int) -> None:
        pid, child.pid = child.pid, None
        if child.channel is not None:
            child.channel.close()
            child.channel = None
        if self.is_stopping:
            return
        if child.worker is not None and not self.is_accepting:
            if code != 0:
                log.error("worker died while draining", extra={"child": child.name, "pid": pid, "exit": _ending(code)})
            self._check_drained()
            return
        lived = self._loop.time() - child.spawned_at
        child.deaths_in_row = 1 if lived >= STABLE_AFTER else child.deaths_in_row + 1
        extra = {"child": child.name, "pid": pid, "exit": _ending(code), "lived": round(lived, 3)}
        if not child.was_up and child.deaths_in_row >= START_ATTEMPTS:
            log.error("process does not start", extra=extra)
            self._end(1)
            return
        child.restarts += 1
        delay = RESTART_DELAYS[min(child.deaths_in_row, len(RESTART_DELAYS)) - 1]
        log.error("process died; it is replaced", extra={**extra, "delay": delay})
        if delay:
            self._loop.call_later(delay, self._spawn, child)
        else:
            self._spawn(child)

    async def _watch(self) -> None:
        """Ping all children, kill what hangs, and answer probes for a control process that does not. Counted in
        intervals of our own, so that a machine that slept is no hang."""
        patience = self._settings.hang_timeout
        interval = min(PING_INTERVAL, patience / PINGS_TO_HANG or PING_INTERVAL)
        while True:
            await asyncio.sleep(interval)
            for child in [self.control, *self.workers]:
                child.silent_intervals += 1
                silence = child.silent_intervals * interval
                if child.pid is None:
                    continue
                if patience and silence > (patience if child.has_started else START_TIMEOUT):
                    log.error("process hangs; it is killed", extra={"child": child.name, "pid": child.pid})
                    _kill(child.pid)
                elif child.silent_intervals == 1:  # the last one is answered
                    child.send({"type": "ping"})
            is_silent = self.control.silent_intervals * interval > self._settings.control_silence
            await self._stand_in_for_control(is_silent)

    async def _stand_in_for_control(self, is_silent: bool) -> None:
        if is_silent and self.is_ready and not self._stand_in.is_serving and self._admin_sockets:
            log.warning("the control process does not answer; answering probes for it")
            await self._stand_in.start(self._admin_sockets)
        elif not is_silent and self.control.has_started and self._stand_in.is_serving:
            log.info("the control process answers again")
            await self._stand_in.stop()

    def _standing(self) -> Standing:
        up = [worker.pid is not None and worker.has_started for worker in self.workers]
        not_ready = "draining" if self.is_draining else "" if any(up) else "no worker lives"
        return Standing(any(up), not_ready, self.control.restarts, self.control.heard_at)

    # ===== messages =====

    def _on_message(self, child: Child, message: Message, fds: list[int]) -> None:
        child.silent_intervals, child.heard_at = 0, time.time()
        match message["type"]:
            case "alive":
                pass
            case "started":
                child.has_started = child.was_up = True
                log.info("process started", extra={"child": child.name, "pid": child.pid})
            case "bind" if child is self.control:
                self._bind([Site(*site) for site in message["sites"]])
            case "keep" if child is self.control and fds:
                if self._kept is not None:
                    os.close(self._kept)
                self._kept, self.version = fds.pop(0), message["version"]
            case "snapshot" if child is self.control and fds:
                self._forget_snapshot()
                self._snapshot = (message, fds.copy())
                fds.clear()  # they are ours now
            case "ready" if child is self.control:
                self._on_ready()
            case "drain" if child is self.control:
                self.drain("POST /drain")
            case "fatal" if child is self.control:
                log.error(message["message"])
                self._end(1)
            case unknown:
                log.error("unknown message", extra={"child": child.name, "message_type": unknown})

    def _forget_snapshot(self) -> None:
        for fd in self._snapshot[1] if self._snapshot is not None else ():
            os.close(fd)
        self._snapshot = None

    def _on_ready(self) -> None:
        if not self.is_ready and not self._ended.is_set():
            self.is_ready = True
            ports = sorted({show_address(bound.host, bound.port) for bound in self.sockets})
            log.info("ready", extra={"workers": len(self.workers), "listening": " ".join(ports)})
            if self._predecessor is not None:
                self._take_over(self._predecessor)

    # ===== takeover =====

    async def _enter_run_directory(self) -> None:
        if not self.options.run_dir:
            return
        directory, listener, self._predecessor = await enter(self.options.run_dir, self.options.takeover)
        self._handover = Handover(directory, listener, self._offer, self._on_taken_over)
        if self._predecessor is None:
            self._handover.start()
        else:
            self.sockets.inherited = self._predecessor.listening
            extra = {"pid": self._predecessor.pid, "release": self._predecessor.release}
            log.info("taking over from the running instance", extra=extra)

    def _leave_run_directory(self) -> None:
        if self._predecessor is not None:
            self._predecessor.close()
            self._predecessor = None
        if self._handover is not None:
            self._handover.close()
            self._handover = None

    def _take_over(self, predecessor: Predecessor) -> None:
        """We serve every port: the predecessor may drain, and its admin addresses are ours."""
        predecessor.tell_ready()
        log.info("taken over", extra={"pid": predecessor.pid, "was_gone": predecessor.is_gone})
        roles = []
        for role, address in (("admin", self.options.admin), ("probe", self.options.probe)):
            if address is not None and address in predecessor.admin:
                self._admin_sockets[role] = predecessor.admin[address].dup()
                roles.append(role)
        self.control.send({"type": "admin", "sockets": roles}, [self._admin_sockets[role].fileno() for role in roles])
        predecessor.close()
        self._predecessor, self.sockets.inherited = None, []
        if self._handover is not None:
            self._handover.start()

    def _offer(self) -> Offer:
        """All that a successor may want."""
        for bound in self.sockets:
            site = [bound.site.address, bound.site.port, bound.site.host, bound.site.local_port]
            message = {"type": "listening", "site": site, "host": bound.host, "port": bound.port}
            for start in range(0, len(bound.sockets), FDS_PER_MESSAGE):
                yield message, [sock.fileno() for sock in bound.sockets[start : start + FDS_PER_MESSAGE]]
        for sock in self._admin_sockets.values():
            host, port = sock.getsockname()[:2]
            yield {"type": "admin", "host": host, "port": port}, [sock.fileno()]

    def _on_taken_over(self, pid: int) -> None:
        """A successor serves on our sockets: no load balancer needs to notice, so there is no delay."""
        self._handover, self._is_handed_over = None, True
        self.control.send({"type": "draining", "is_handed_over": True})
        for sock in self._admin_sockets.values():
            sock.close()
        self._admin_sockets.clear()
        self.drain(f"taken over by pid {pid}", delay=0.0)

    # ===== listening sockets =====

    def _bind(self, sites: list[Site]) -> None:
        """Make exactly these sites listen; what cannot be bound is reported, the rest serves."""
        if self.is_draining:
            self._report_bound()
            return
        gone = [number for site in list(self.sockets.bound) if site not in sites for number in self.sockets.close(site)]
        if gone:
            self._tell_workers({"type": "unlisten", "numbers": gone})
        self._bind_failures = []
        fresh: list[Bound] = []
        # Shared addresses first: binding these claims the port as a whole.
        for site in sorted(sites, key=lambda site: site.address):
            if site in self.sockets.bound:
                continue
            try:
                fresh += self.sockets.bind(site)
            except BindError as error:
                name = errno.errorcode.get(error.errno or 0, "")
                self._bind_failures.append([site.address, site.port, name, str(error)])
        is_fatal = not self.options.kubernetes and any(failure[2] in FATAL_AT_START for failure in self._bind_failures)
        if is_fatal and self._predecessor is not None:
            # The control process gives up, and by then we must not have accepted anything.
            self._report_bound()
            return
        for bound in fresh:
            log.info("listening", extra={"address": bound.host, "port": bound.port, "listener_port": bound.site.port})
        for worker in self.workers:
            self._listen(worker, fresh)
        self._report_bound()

    def _listen(self, worker: Child, all_bound: list[Bound]) -> None:
        assert worker.worker is not None
        for start in range(0, len(all_bound), FDS_PER_MESSAGE):
            some = [bound for bound in all_bound[start : start + FDS_PER_MESSAGE] if worker.worker < len(bound.sockets)]
            worker.send(
                {"type": "listen", "sockets": [[bound.number, bound.site.address, bound.site.port] for bound in some]},
                [bound.sockets[worker.worker].fileno() for bound in some],
            )

    def _report_bound(self) -> None:
        sites = dict.fromkeys((bound.site.address, bound.site.port, bound.host, bound.port) for bound in self.sockets)
        self.control.send({"type": "bound", "sites": list(sites), "failures": self._bind_failures})

    # ===== the end =====

    def drain(self, cause: str, delay: float | None = None) -> None:
        """Stop gracefully: not ready, still accepting for a while, GOAWAY, calls end, exit 0."""
        if self.is_draining:
            return
        if delay is None:
            delay = self.options.drain_delay if self.is_ready else 0.0
        log.info("draining", extra={"cause": cause, "delay": delay, "timeout": self.options.drain_timeout})
        self.is_draining = True
        self.control.send({"type": "draining", "is_handed_over": self._is_handed_over})
        self._loop.call_later(delay, self._stop_accepting)

    def _stop_accepting(self) -> None:
        self.is_accepting = False
        self._leave_run_directory()  # who wants to take over now, starts as usual
        # Ours first: a worker that stops accepts what waits in its queue, and nothing may queue after that.
        self.sockets.close_all()
        self._tell_workers({"type": "drain"})
        self._loop.call_later(self.options.drain_timeout, self._abort)
        self._check_drained()

    def _abort(self) -> None:
        log.warning("drain timeout: ending the calls that are left", extra={"timeout": self.options.drain_timeout})
        self._tell_workers({"type": "abort"})
        self._loop.call_later(ABORT_GRACE, self._end, 0)

    def _check_drained(self) -> None:
        if all(worker.pid is None for worker in self.workers):
            self._end(0)

    def _end(self, code: int) -> None:
        if not self._ended.is_set():
            self._exit_code = code
            self._ended.set()

    async def _stop_children(self) -> None:
        """Close the channels, which ends the children; kill what is left after a moment."""
        self.is_stopping = True
        children = [self.control, *self.workers]
        for child in children:
            if child.channel is not None:
                child.channel.close()
                child.channel = None
        deadline = self._loop.time() + (STOP_GRACE if self._exit_code < 128 else 0)
        while any(child.pid is not None for child in children):
            if self._loop.time() > deadline:
                for child in children:
                    if child.pid is not None:
                        _kill(child.pid)
            await asyncio.sleep(0.01)
        log.info("stopped", extra={"exit_code": self._exit_code})


def _raise_descriptor_limit() -> None:
    """As many descriptors as we may have: each connection is one, and the usual 1,024 is for select(2)'s sake."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _terminal_is_gone() -> bool:
    """Whether we have no controlling terminal (tty(4): opening it fails with ENXIO)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return True
    return False
