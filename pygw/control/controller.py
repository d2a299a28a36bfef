"""The controller: from a changed source to workers that serve it.

One cycle: read the source, resolve, compile, look up the names of new backends, publish to all workers, wait for
their acknowledgements, have the launcher bind the ports, report. The slow parts run in a thread, so the event loop
goes on answering the admin server. Whatever fails leaves the workers with what they have.

Knows neither files nor Kubernetes (`Source`), nor how a worker serves what it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pygw.backend_list import Endpoints
from pygw.control.dns import Names
from pygw.control.problems import Problem
from pygw.control.resolve import Resolution, ResolveOptions, resolve, with_programmed
from pygw.control.sites import sites_of
from pygw.control.topology import Place
from pygw.control.worker_link import Published, WorkerLink
from pygw.listen_sockets import FATAL_AT_START, Site
from pygw.model import GatewayConfig
from pygw.run_options import RunOptions
from pygw.settings import Settings
from pygw.tables import Image, compile_image

log = logging.getLogger(__name__)

DEBOUNCE = 0.02  # seconds without a further change before a cycle begins: an endpoint that goes must not wait long, and
DEBOUNCE_MAX = 0.1  # a rolling update brings a change every few milliseconds. Files have settled before (file_watch)
NAMES_PATIENCE = 3.0  # seconds that a configuration waits for the first addresses of its names
ACK_PATIENCE = 10.0  # seconds that new ports wait for workers that do not acknowledge
BIND_RETRY = 10.0  # seconds until what could not be bound is tried again
SNAPSHOT_DELAY = 1.0  # seconds in which endpoint changes gather before the launcher's copy follows
RELOAD_RETRY = 5.0  # seconds until a cycle that broke is tried again
STALE_AFTER = 5.0  # seconds of a cycle after which what is served counts as older than the source


class Loaded(Protocol):
    """What a source gives."""

    @property
    def state(self) -> Any: ...
    @property
    def problems(self) -> Any: ...


class Source(Protocol):
    """Where the objects come from."""

    def read(self) -> Loaded: ...
    def place(self, problem: Problem) -> Problem: ...


@dataclass(slots=True)
class Controller:
    """Keeps the workers serving what the source says. `tell_launcher` sends a message (and fds) to the launcher."""

    options: RunOptions
    source: Source
    tell_launcher: Callable[..., None]
    make_names: Callable[[Callable[[str], None]], Names]
    is_restart: bool = False  # workers may serve already, what a former control process told them
    first_version: int = 0
    compile_image: Callable[[GatewayConfig], Image] = compile_image
    clock: Callable[[], float] = time.time
    stopwatch: Callable[[], float] = time.monotonic  # seconds, for durations

    gateway_addresses: Callable[[], tuple[str, ...]] | None = None  # None: those of the options
    zone: Callable[[], str] = str  # of our node, where the options do not say it
    bundle_version: Callable[[], str | None] | None = None  # of the installed Gateway API; None: nothing is installed
    on_resolved: Callable[[Resolution, list[Problem]], None] = lambda resolution, problems: None  # after each cycle
    waiting_for: Callable[[], list[str]] = list  # what the first cycle waits for

    resolution: Resolution | None = None
    published: Published | None = None
    problems: list[Problem] = field(default_factory=list)
    links: dict[int, WorkerLink] = field(default_factory=dict)
    bound: list[list[Any]] = field(default_factory=list)  # [address, listener port, host, local port]
    bind_failures: list[list[Any]] = field(default_factory=list)  # [address, listener port, errno name, message]
    conflicts: list[str] = field(default_factory=list)
    is_draining: bool = False
    was_ready: bool = False
    last_success: float = 0.0  # when the source was last read without an error, Unix time
    last_reload_failed: bool = False
    apply_seconds: float = 0.0  # that the version last published took from validated objects to the workers' answers
    stale_since: float = 0.0  # since when what is served may be older than the source, Unix time; 0: it is not
    is_takeover: bool = False  # an instance serves until we do: what is not whole must not follow it
    reloads: int = 0
    on_worker_end: Callable[[WorkerLink], None] = lambda link: None
    on_published: Callable[[int], None] = lambda version: None
    on_hang: Callable[[], None] = lambda: None  # a cycle does not end
    names: Names = field(init=False)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _progress: asyncio.Condition = field(default_factory=asyncio.Condition)
    _bind_answered: asyncio.Event = field(default_factory=asyncio.Event)
    _sites: list[Site] | None = None
    _retry: asyncio.TimerHandle | None = None
    _snapshot_timer: asyncio.TimerHandle | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.names = self.make_names(self._on_name_changed)
        self.was_ready = self.is_restart

    async def run(self) -> None:
        """Read, serve, and read again on every change, for ever."""
        await self._guarded_cycle()
        while True:
            await self._wake.wait()
            await self._settle_changes()
            await self._guarded_cycle()

    def changed(self) -> None:
        """The source may say something new."""
        self._wake.set()

    def not_ready_reasons(self) -> list[str]:
        """Why /readyz is 503; empty: ready."""
        if self.is_draining:
            return ["draining"]
        if self.was_ready:
            return []
        if self.published is None:
            return ["no configuration is loaded yet", *self.waiting_for()]
        waiting = [str(number) for number in range(self.options.workers) if not self._serves(number)]
        if waiting:
            return [f"workers without a configuration: {', '.join(waiting)}"]
        if self._sites is None or not self._bind_answered.is_set() or (self._sites and not self.bound):
            return ["no port is bound"]
        return []

    # ===== from the launcher =====

    def add_worker(self, number: int, pid: int, sock: socket.socket) -> None:
        """A worker process is there, the first or a replacement."""
        if number in self.links:
            self.links[number].close()
        self.links[number] = WorkerLink(
            number, pid, sock, lambda: self.published, self._on_worker_progress, self._on_link_end
        )

    def on_bound(self, sites: list[list[Any]], failures: list[list[Any]]) -> None:
        """What the launcher could bind and what not."""
        fresh = [failure for failure in failures if failure not in self.bind_failures]
        is_other = failures != self.bind_failures
        self.bound, self.bind_failures = sites, failures
        if self._sites is None:  # told on our start; we have not asked for anything yet
            return
        for *_, message in fresh:
            log.error("cannot bind", extra={"reason": message})
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if failures:
            self._retry = asyncio.get_running_loop().call_later(BIND_RETRY, self._ask_to_bind)
        if is_other:
            self.changed()  # the statuses say so
        self._bind_answered.set()
        if not self.was_ready and not self.options.kubernetes:  # there, statuses say it
            fatal = [failure[3] for failure in failures if failure[2] in FATAL_AT_START] + self.conflicts
            if fatal:
                self.tell_launcher({"type": "fatal", "message": fatal[0]})
                return
        self._check_ready()

    def drain(self) -> None:
        """The launcher drains: /readyz says no from now on."""
        self.is_draining = True

    # ===== the cycle =====

    async def _settle_changes(self) -> None:
        """Wait for the end of a burst of changes (a rollout, kubectl apply of a folder)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEBOUNCE_MAX):
                while self._wake.is_set():
                    self._wake.clear()
                    await asyncio.sleep(DEBOUNCE)
        self._wake.clear()

    async def _guarded_cycle(self) -> None:
        try:
            with _collector_at_rest(), self._watched():
                await self._cycle()
        except Exception:
            # A fault of ours, not of the configuration: the workers serve on, and it is tried again.
            self._judge_age(has_failed=True)
            if self.published is None and not self.is_restart:
                log.exception("cannot apply the configuration")
                message = "cannot start: a fault of pygw's own, see the log above"
                self.tell_launcher({"type": "fatal", "message": message})
                return
            log.exception("cannot apply the configuration; serving on as before")
            asyncio.get_running_loop().call_later(RELOAD_RETRY, self.changed)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """A cycle whose thread hangs would never end, while our loop and so the launcher's pings are well."""
        loop, began = asyncio.get_running_loop(), self.clock()
        timers = [loop.call_later(STALE_AFTER, self._grow_stale, began)]
        if patience := Settings(**self.options.settings).reload_timeout:
            timers.append(loop.call_later(patience, self.on_hang))
        try:
            yield
            if not self.last_reload_failed:
                self.stale_since = 0.0
        finally:
            for timer in timers:
                timer.cancel()

    def _grow_stale(self, since: float) -> None:
        self.stale_since = self.stale_since or since

    async def _cycle(self) -> None:
        loaded = await asyncio.to_thread(self.source.read)
        begun = self.stopwatch()
        resolution = await asyncio.to_thread(resolve, loaded.state, self._resolve_options())
        self._report([*loaded.problems, *map(self.source.place, resolution.problems)])
        self.reloads += 1
        errors = [problem for problem in loaded.problems if problem.is_error]
        if errors:
            self._judge_age(has_failed=True)
            if self.is_takeover and self.published is None and not self.options.kubernetes:
                message = f"the configuration is broken, so the running instance goes on: {errors[0]}"
                self.tell_launcher({"type": "fatal", "message": message})
                return
        config = resolution.config
        if self.published is None and not config.listeners and not self.options.kubernetes:
            self._refuse_to_start(loaded.state.objects("Gateway"))
            return
        if not errors:
            self._judge_age(has_failed=False)
        self.resolution = resolution
        if self.published is None or not _same_tables(self.published.config, config):
            await self._publish(config, begun)
        else:
            self._update_backends(config)
        self._judge_bind_failures()
        self.on_resolved(self.resolution, self.problems)

    def _judge_age(self, has_failed: bool) -> None:
        """Since when what is served is what the source says, or is not."""
        self.last_reload_failed = has_failed
        if not has_failed:
            self.last_success, self.stale_since = self.clock(), 0.0
        elif not self.stale_since:
            self.stale_since = self.clock()

    def _refuse_to_start(self, gateways: Mapping[Any, Any]) -> None:
        paths = ", ".join(self.options.paths)
        if gateways:
            errors = sum(problem.is_error for problem in self.problems)
            count = f"{errors} error{'' if errors == 1 else 's'}"
            message = f"nothing to serve: no valid Gateway in {paths}; the log above names {count}"
        else:
            message = (
                f"nothing to serve: no Gateway in {paths}; served are Gateways whose GatewayClass is absent or has the "
                f"controllerName {self.options.controller_name}"
            )
        if self.is_restart:
            log.error("keeping what the workers serve", extra={"reason": message})
            self._judge_age(has_failed=True)
        else:
            self.tell_launcher({"type": "fatal", "message": message})

    async def _publish(self, config: GatewayConfig, begun: float) -> None:
        """Have the workers serve it; its objects were read and validated at `begun` by the stopwatch."""
        image = await asyncio.to_thread(self.compile_image, config)
        old = self.published
        hosts = _hosts(config)
        self.names.watch(hosts | (_hosts(old.config) if old else set()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NAMES_PATIENCE):
                await self.names.settle(hosts)
        version = (old.version if old else self.first_version) + 1
        endpoints = {key: self.names.endpoints(backend) for key, backend in config.backends.items()}
        self.published = Published(version, config, image.octets, image.backend_keys, endpoints)
        self.names.watch(hosts)
        if old is not None:
            old.close()
        for link in self.links.values():
            link.poke()
        self.on_published(version)
        await self._wait_for_workers()
        self.apply_seconds = self.stopwatch() - begun
        self._leave_snapshot()
        log.info(
            "configuration published",
            extra={
                "version": version,
                "listeners": len(config.listeners),
                "routes": len(config.routes),
                "backends": len(config.backends),
                "problems": len(self.problems),
                "apply_ms": round(self.apply_seconds * 1000, 2),
                "worker_pause_ms": round(max((link.pause for link in self.links.values()), default=0.0) * 1000, 2),
            },
        )
        await self._bind(config)

    async def _wait_for_workers(self) -> None:
        """Until every worker that is there has answered; ports of new listeners open after that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACK_PATIENCE), self._progress:
                await self._progress.wait_for(lambda: not self._lagging())
        if lagging := self._lagging():
            log.warning("workers do not answer", extra={"workers": lagging})

    def _lagging(self) -> list[int]:
        assert self.published is not None
        version = self.published.version
        return [link.number for link in self.links.values() if version not in (link.version, link.refused)]

    def _leave_snapshot(self) -> None:
        """Leave with the launcher what a worker that replaces another must serve, whatever becomes of us."""
        if self._snapshot_timer is not None:
            self._snapshot_timer.cancel()
            self._snapshot_timer = None
        published = self.published
        if published is None or any(link.refused == published.version for link in self.links.values()):
            return
        self.tell_launcher(*published.snapshot())

    # ===== ports =====

    async def _bind(self, config: GatewayConfig) -> None:
        port_map = {int(port): local for port, local in self.options.port_map.items()}
        self._sites, conflicts = sites_of(config.listeners, self.options.bind, port_map)
        for conflict in conflicts:
            if conflict not in self.conflicts:
                log.error("cannot bind", extra={"reason": conflict})
        self.conflicts = conflicts
        self._bind_answered.clear()
        self._ask_to_bind()
        await self._bind_answered.wait()

    def _ask_to_bind(self) -> None:
        sites = [[site.address, site.port, site.host, site.local_port] for site in self._sites or ()]
        self.tell_launcher({"type": "bind", "sites": sites})

    def _judge_bind_failures(self) -> None:
        """Tell the statuses what could not be bound (Programmed=False)."""
        if self.resolution is None or not self.bind_failures:
            return
        ports = {port: message for address, port, _, message in self.bind_failures if not address}
        addresses = {address: message for address, _, _, message in self.bind_failures if address}
        self.resolution = with_programmed(self.resolution, ports, addresses, _now(self.clock()))

    # ===== endpoints =====

    def _on_name_changed(self, host: str) -> None:
        if self.published is not None:
            backends = self.published.config.backends.values()
            self._set_endpoints({b.key for b in backends if any(name == host for name, _ in b.dns)})

    def _update_backends(self, config: GatewayConfig) -> None:
        """The tables are the same; only where Services are found has changed, if anything."""
        published = self.published
        assert published is not None
        before = published.config.backends
        published.config = config
        self.names.watch(_hosts(config))
        self._set_endpoints({key for key, backend in config.backends.items() if before[key] != backend})

    def _set_endpoints(self, keys: set[str]) -> None:
        published = self.published
        assert published is not None
        changed: dict[str, Endpoints] = {}
        for key in keys:
            endpoints = self.names.endpoints(published.config.backends[key])
            if endpoints != published.endpoints.get(key):
                changed[key] = endpoints
        if changed:
            published.update_endpoints(changed)
            for link in self.links.values():
                link.endpoints_changed(changed)
            if self._snapshot_timer is None:
                self._snapshot_timer = asyncio.get_running_loop().call_later(SNAPSHOT_DELAY, self._leave_snapshot)
            log.info("endpoints changed", extra={"backends": sorted(changed)})

    # ===== workers =====

    def _serves(self, number: int) -> bool:
        link = self.links.get(number)
        return link is not None and bool(link.version)

    def _on_worker_progress(self) -> None:
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_link_end(self, link: WorkerLink) -> None:
        if self.links.get(link.number) is link:
            del self.links[link.number]
        self.on_worker_end(link)
        self._on_worker_progress()

    async def _notify(self) -> None:
        async with self._progress:
            self._progress.notify_all()
        self._check_ready()

    def _check_ready(self) -> None:
        if not self.was_ready and not self.not_ready_reasons():
            self.was_ready = True
            self.tell_launcher({"type": "ready"})

    # ===== reports =====

    def _report(self, problems: list[Problem]) -> None:
        """Log each problem when it comes up, not on every cycle."""
        known = set(self.problems)
        for problem in problems:
            if problem not in known:
                log.log(
                    logging.ERROR if problem.is_error else logging.WARNING,
                    "problem in the configuration",
                    extra={
                        "at": f"{problem.file}:{problem.line}" if problem.line else problem.file,
                        "object": problem.object,
                        "path": problem.path,
                        "reason": problem.reason,
                        "detail": problem.message,
                    },
                )
        if known and not problems:
            log.info("all problems of the configuration are solved")
        self.problems = problems

    def _resolve_options(self) -> ResolveOptions:
        return ResolveOptions(
            controller_name=self.options.controller_name,
            file_mode=not self.options.kubernetes,
            overrides={(namespace, name, port): (host, to) for namespace, name, port, host, to in self.options.resolve},
            gateway_addresses=(
                self.gateway_addresses() if self.gateway_addresses is not None else self.options.gateway_addresses
            ),
            previous=self.resolution,
            now=_now(self.clock()),
            allow_external_names=self.options.allow_external_names,
            here=Place(self.options.node, self.options.zone or self.zone()),
            bundle_version=self.bundle_version() if self.bundle_version is not None else None,
        )

    def close(self) -> None:
        """Let go of everything."""
        self.names.close()
        for link in self.links.values():
            link.close()
        for timer in (self._retry, self._snapshot_timer):
            if timer is not None:
                timer.cancel()
        if self.published is not None:
            self.published.close()


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Collect no cyclic garbage meanwhile.

    A cycle makes hundreds of thousands of objects that stay, and hardly a cycle among them: walking them again and
    again is a quarter of its time. What little there is to find is found after it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _same_tables(old: GatewayConfig, new: GatewayConfig) -> bool:
    """Whether the image of one would do for the other: only the endpoints differ, if anything."""
    return (
        old.listeners == new.listeners
        and old.routes == new.routes
        and old.backends.keys() == new.backends.keys()
        and all(old.backends[key].tls == backend.tls for key, backend in new.backends.items())
    )


def _hosts(config: GatewayConfig) -> set[str]:
    return {host for backend in config.backends.values() if not backend.endpoints for host, _ in backend.dns}


def _now(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
