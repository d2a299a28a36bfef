"""What the admin server shows: health, readiness, metrics, and the configuration, statuses and endpoints served now."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import mmap
import os
import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from pygw import __version__
from pygw.admin import Page, Request, Response
from pygw.channel import Message, sealed_memfd
from pygw.control.controller import Controller
from pygw.control.worker_link import WorkerLink
from pygw.metrics import Own, Totals, render

log = logging.getLogger(__name__)

WORKER_TIMEOUT = 2.0  # seconds for all workers to answer one question
METRICS_INTERVAL = 10.0  # seconds; what a worker counted since is lost when it is killed
REDACTED = "(redacted)"

_SECRET_NAME = re.compile(r"authorization|cookie|token|secret|passw|api-?key|credential|session", re.IGNORECASE)


@dataclass(slots=True)
class Pages:
    """The pages of one controller. `tell_launcher` as the controller's."""

    controller: Controller
    tell_launcher: Callable[..., None]
    restarts: dict[int, int] = field(default_factory=dict)  # by worker
    control_restarts: int = 0
    more_metrics: Callable[[], list[Own]] = list  # of the source
    _of_the_dead: Totals = field(default_factory=Totals)
    _help: dict[str, str] = field(default_factory=dict)

    def admin(self) -> dict[str, Page]:
        """All pages, for the admin server."""
        return {
            **self.probe(),
            "GET /config": self.config,
            "GET /status": self.status,
            "GET /endpoints": self.endpoints,
            "GET /explain": self.explain,
            "POST /drain": self.drain,
        }

    def probe(self) -> dict[str, Page]:
        """What --probe-address serves."""
        return {"GET /healthz": self.healthz, "GET /readyz": self.readyz, "GET /metrics": self.metrics}

    # ===== pages =====

    async def healthz(self, request: Request) -> Response:
        """This process lives, and so does the launcher."""
        return Response.text(200, "ok")

    async def readyz(self, request: Request) -> Response:
        """Whether every worker serves the first complete configuration and nobody drains."""
        reasons = self.controller.not_ready_reasons()
        if reasons:
            return Response.text(503, "not ready: " + "; ".join(reasons))
        warnings = [message for *_, message in self.controller.bind_failures] + self.controller.conflicts
        return Response.text(200, "\n".join(["ready", *warnings]))

    async def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        await self.collect()
        totals = Totals()
        totals.add(self._of_the_dead.to_json())
        for link in self.controller.links.values():
            totals.add(link.metrics)
        body, content_type = render(totals, self._help, self._own(), request.headers.get("accept", ""))
        return Response(200, body, content_type)

    async def config(self, request: Request) -> Response:
        """The GatewayConfig that is served, secrets redacted."""
        published = self.controller.published
        if published is None:
            return Response.json({"version": 0, "config": None})
        config = redact(asdict(published.config))
        return Response.json({"version": published.version, "config": config})

    async def status(self, request: Request) -> Response:
        """The conditions of all objects that are ours, and the problems that lie behind them."""
        controller = self.controller
        statuses = controller.resolution.statuses if controller.resolution is not None else {}
        return Response.json(
            {
                "version": controller.published.version if controller.published else 0,
                "ready": not controller.not_ready_reasons(),
                "objects": [
                    {"kind": kind, "namespace": namespace, "name": name, "status": status}
                    for (kind, namespace, name), status in sorted(statuses.items())
                ],
                "problems": [{**asdict(problem), "text": str(problem)} for problem in controller.problems],
                "listening": [
                    {"listenerPort": port, "address": host, "port": local} for _, port, host, local in controller.bound
                ],
                "bindFailures": [message for *_, message in controller.bind_failures] + controller.conflicts,
                "workers": [
                    {"worker": link.number, "pid": link.pid, "version": link.version, "error": link.refusal or None}
                    for _, link in sorted(controller.links.items())
                ],
            }
        )

    async def endpoints(self, request: Request) -> Response:
        """Where each backend's calls go, and how its endpoints do in each worker."""
        published = self.controller.published
        answers = await self._ask_workers("endpoint_states")
        workers = {str(number): answer["states"] for number, answer in answers.items()}
        backends = {}
        for key, backend in sorted(published.config.backends.items()) if published else ():
            backends[key] = {
                "source": "dns" if backend.dns and not backend.endpoints else "EndpointSlice",
                "endpoints": [list(endpoint) for endpoint in published.endpoints.get(key, ())] if published else [],
                "dns": [list(name) for name in backend.dns],
            }
        return Response.json({"backends": backends, "names": self.controller.names.states(), "workers": workers})

    async def explain(self, request: Request) -> Response:
        """Which listener, route, rule and backends a call would get, by what is served now."""
        published = self.controller.published
        if published is None:
            return Response.text(503, "no configuration is loaded yet")
        # Here and not above: only who asks pays for the compiled matcher.
        from pygw._fastmatch import RouteTable
        from pygw.explain.explainer import Query, explain

        try:
            query = Query.from_parameters(request.query)
        except ValueError as error:
            return Response.text(400, str(error))
        # The very image that the workers serve.
        image = mmap.mmap(published.image_fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        decision = await asyncio.to_thread(explain, RouteTable(image), published.config, query)
        return Response.json(redact(decision))

    async def drain(self, request: Request) -> Response:
        """As SIGTERM: drain, then exit."""
        self.tell_launcher({"type": "drain"})
        return Response.text(202, "draining")

    # ===== workers =====

    async def collect(self) -> None:
        """Ask all workers for their metrics; who does not answer in time keeps the last ones."""
        for number, answer in (await self._ask_workers("metrics")).items():
            metrics = answer["metrics"]
            self._help.update(metrics.pop("help", {}))
            if number in self.controller.links:
                self.controller.links[number].metrics = metrics

    async def collect_for_ever(self) -> None:
        """Keep what workers counted, in case they die."""
        while True:
            await asyncio.sleep(METRICS_INTERVAL)
            await self.collect()

    def worker_ended(self, link: WorkerLink) -> None:
        """A worker is dead: its counts stay in the totals, and with the launcher for our successor."""
        self._of_the_dead.add(link.metrics, with_gauges=False)
        self.keep()

    def keep(self) -> None:
        """Leave with the launcher what the next control process must know."""
        published = self.controller.published
        kept = {
            "metrics": self._of_the_dead.to_json(),
            "last_success": self.controller.last_success,
            "reloads": self.controller.reloads,
            "stale_since": self.controller.stale_since,
        }
        fd = sealed_memfd("pygw-kept", json.dumps(kept).encode())
        try:
            version = published.version if published else self.controller.first_version
            self.tell_launcher({"type": "keep", "version": version}, [fd])
        finally:
            os.close(fd)

    def recall(self, octets: bytes) -> None:
        """Take over what a former control process left."""
        kept = json.loads(octets)
        self._of_the_dead.add(kept["metrics"])
        self.controller.last_success = kept["last_success"]
        self.controller.reloads = kept["reloads"]
        self.controller.stale_since = kept["stale_since"] or self.controller.stale_since

    async def _ask_workers(self, question: str) -> dict[int, Message]:
        async def ask(link: WorkerLink) -> Message | None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WORKER_TIMEOUT):
                    return await link.ask(question)
            return None

        links = list(self.controller.links.values())
        answers = await asyncio.gather(*map(ask, links))
        return {
            link.number: answer for link, answer in zip(links, answers, strict=True) if answer and not answer["error"]
        }

    def _own(self) -> list[Own]:
        controller = self.controller
        links = sorted(controller.links.items())
        build = {"version": __version__, "python": platform.python_version()}
        return [
            Own("pygw_build_info", "Constant 1, with what this is.", [(build, 1)]),
            Own("pygw_ready", "1 while /readyz says 200.", [({}, not controller.not_ready_reasons())]),
            *self._own_of_configuration(),
            Own(
                "pygw_bind_failures",
                "Local ports that a listener wants and that cannot be bound.",
                [({}, len(controller.bind_failures) + len(controller.conflicts))],
            ),
            Own("pygw_workers", "Worker processes that should serve.", [({}, controller.options.workers)]),
            Own("pygw_workers_connected", "Worker processes that do.", [({}, len(links))]),
            Own(
                "pygw_worker_restarts_total",
                "How often a worker died and was replaced.",
                [({"worker": str(number)}, count) for number, count in sorted(self.restarts.items())],
            ),
            Own(
                "pygw_control_restarts_total",
                "How often the control process died or hung and was replaced.",
                [({}, self.control_restarts)],
            ),
            *self.more_metrics(),
        ]

    def _own_of_configuration(self) -> list[Own]:
        controller = self.controller
        published = controller.published
        kinds = {"error": 0, "warning": 0}
        for problem in controller.problems:
            kinds[problem.severity] += 1
        links = sorted(controller.links.items())
        return [
            Own(
                "pygw_config_version",
                "Version of the configuration last published; endpoint changes do not count.",
                [({}, published.version if published else controller.first_version)],
            ),
            Own(
                "pygw_worker_config_version",
                "Version of the configuration that a worker serves.",
                [({"worker": str(number)}, link.version or 0) for number, link in links],
            ),
            Own(
                "pygw_config_last_reload_success",
                "1 where the last reload found nothing that it could not accept, else 0.",
                [({}, not controller.last_reload_failed)],
            ),
            Own(
                "pygw_config_last_reload_success_timestamp_seconds",
                "When the source was last read without an error; since then the configuration may be stale.",
                [({}, controller.last_success)],
            ),
            Own(
                "pygw_config_stale_since_timestamp_seconds",
                "Since when what is served may be older than the source: it is broken or takes long, or the control "
                "process was not there; 0: it is not.",
                [({}, controller.stale_since)],
            ),
            Own(
                "pygw_config_last_apply_seconds",
                "How long the version last published took from its validated objects to the last worker's answer.",
                [({}, controller.apply_seconds)],
            ),
            Own("pygw_config_reloads_total", "How often the source was read.", [({}, controller.reloads)]),
            Own(
                "pygw_config_problems",
                "Problems in the configuration as it is now.",
                [({"severity": severity}, count) for severity, count in kinds.items()],
            ),
        ]


def redact(value: Any) -> Any:
    """A configuration or an explanation without the values of headers whose names look secret."""
    if isinstance(value, dict):
        if "name" in value and "value" in value and _SECRET_NAME.search(value["name"]):
            return {**value, "value": REDACTED}
        if "private_key" in value:
            value = {**value, "private_key": REDACTED}
        return {key: _redact_headers(inner) if key in ("set", "add") else redact(inner) for key, inner in value.items()}
    return [redact(inner) for inner in value] if isinstance(value, list | tuple) else value


def _redact_headers(headers: Any) -> Any:
    """What a header modifier sets or adds: pairs, or by name."""
    if isinstance(headers, dict):
        return {name: REDACTED if _SECRET_NAME.search(name) else text for name, text in headers.items()}
    return [[name, REDACTED if _SECRET_NAME.search(name) else text] for name, text in headers]
