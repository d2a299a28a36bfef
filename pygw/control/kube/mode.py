"""KubernetesMode: joins the source, the election, the writers of statuses and Events, and the addresses.

All replicas read and serve; the elected one also writes. Nothing that fails here touches what is served.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pygw.control.kube.addresses import GatewayAddresses
from pygw.control.kube.api import Api
from pygw.control.kube.credentials import configuration_loader
from pygw.control.kube.events import Recorder
from pygw.control.kube.informer import Informer
from pygw.control.kube.infrastructure import Infrastructure
from pygw.control.kube.kinds import BUNDLE_VERSION, DEFINITION, GATEWAY_CLASS, SERVICE_ACCOUNT
from pygw.control.kube.lease import Election, identity, lease_name
from pygw.control.kube.source import KubernetesSource, Scope
from pygw.control.kube.status_writer import StatusWriter
from pygw.control.problems import Problem
from pygw.control.resolve import Resolution
from pygw.metrics import Own
from pygw.run_options import RunOptions

log = logging.getLogger(__name__)


class KubernetesMode:
    """Everything that Kubernetes mode has beside the controller. `on_change`: read the source again."""

    def __init__(self, options: RunOptions, on_change: Callable[[], None], api: Api | None = None) -> None:
        self._options = options
        self.api = api or Api(configuration_loader(options.kubeconfig, options.context))
        scope = Scope(options.controller_name, options.watch_namespaces, options.gateway_classes, options.node)
        self.source = KubernetesSource(self.api, scope, on_change)
        self.addresses = GatewayAddresses(self.api, options.gateway_addresses, options.gateway_service, on_change)
        name = lease_name(options.controller_name, options.watch_namespaces)
        self.election = Election(self.api, "", name, identity(), self._on_leadership)
        self.writer = StatusWriter(self.api, self.election)
        self.recorder = Recorder(self.api, self.election, options.controller_name, self.election.identity)
        self._accounts = [
            Informer(
                self.api, SERVICE_ACCOUNT, lambda *_: self.infrastructure.poke(), lambda: None,
                namespace=namespace, may_be_denied=True,
            )
            for namespace in options.watch_namespaces or ("",)
        ]  # fmt: skip
        self.infrastructure = Infrastructure(
            self.api, self.election, options.controller_name, [informer.objects for informer in self._accounts]
        )
        self._definition = Informer(
            self.api, DEFINITION, lambda *_: on_change(), lambda: self._settled.set(),
            name=GATEWAY_CLASS.resource, may_be_denied=True,
        )  # fmt: skip
        self._settled = asyncio.Event()
        self._is_open = False

    async def open(self, run: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Connect, and return once all that can be listed has been. `run` starts what runs beside.

        Raises StartError where there is no usable configuration. An API server that is away is waited for.
        """
        await self.api.connect()
        # The namespace of the Lease: that of the Pod, of the kubeconfig's context, or the first that is watched.
        self.election.namespace = self.api.namespace or (self._options.watch_namespaces or ("default",))[0]
        log.info("reading the Kubernetes API", extra={"server": self.api.host, "lease": self.election.shown})
        run(self.addresses.run())
        run(self._say_what_is_waited_for())
        run(self._definition.run())
        await self.source.open()
        while not self._definition.is_settled:
            self._settled.clear()
            await self._settled.wait()
        await self.addresses.known()
        self._is_open = True
        for work in (self.election.run(), self.writer.run(), self.recorder.run()):
            run(work)
        for informer in self._accounts:
            run(informer.run())
        run(self.infrastructure.run())

    def bundle_version(self) -> str | None:
        """Of the Gateway API that is installed ("": its CRDs do not say); None where we may not read that."""
        if not self._definition.is_listed:
            return None
        definition = self._definition.objects.get(("", GATEWAY_CLASS.resource))
        return (definition["metadata"]["annotations"].get(BUNDLE_VERSION) or "") if definition is not None else None

    def waiting_for(self) -> list[str]:
        """What keeps the first configuration from being served; for /readyz."""
        if self._is_open:
            return []
        reasons = self.source.waiting_for()
        return [f"not listed yet: {', '.join(reasons)}"] if reasons else ["connecting to the Kubernetes API"]

    def on_resolved(self, resolution: Resolution, problems: list[Problem]) -> None:
        """What the controller has made of what read() gave last; called before the next read()."""
        find = self.source.state.find
        self.writer.offer(resolution.statuses, find)
        self.recorder.offer(problems, find)
        self.infrastructure.offer(gateway.item for gateway in resolution.gateways.gateways)

    async def drain(self) -> None:
        """We go: another replica shall write."""
        await self.election.release()

    async def close(self) -> None:
        """Stop reading and close all connections."""
        await self.source.close()
        await self.api.close()

    def _on_leadership(self, is_leader: bool) -> None:
        for part in (self.writer, self.recorder, self.infrastructure):
            part.poke()

    async def _say_what_is_waited_for(self) -> None:
        while True:
            await asyncio.sleep(10.0)
            if self._is_open:
                return
            log.warning("nothing is served yet", extra={"reason": "; ".join(self.waiting_for())})

    def metrics(self) -> list[Own]:
        """For /metrics."""
        informers, requests = self.source.informers, self.api.requests
        now = asyncio.get_running_loop().time()
        age = now - self.api.last_answer if self.api.last_answer else 0.0
        return [
            Own(
                "pygw_kubernetes_requests_total",
                "Requests to the Kubernetes API by method (WATCH is one) and status; error: no answer.",
                [({"method": method, "status": status}, count) for (method, status), count in requests.items()],
            ),
            Own(
                "pygw_kubernetes_last_answer_timestamp_seconds",
                "When the Kubernetes API server answered last; a quiet watch is answered about once a minute.",
                [({}, time.time() - age if self.api.last_answer else 0.0)],
            ),
            Own(
                "pygw_kubernetes_objects",
                "Objects known.",
                [({"kind": kind}, len(self.source.state.objects(kind))) for kind in self.source.state.kinds()],
            ),
            Own(
                "pygw_kubernetes_events_received_total",
                "Watch events, bookmarks included.",
                [({"kind": i.kind.name, "namespace": i.namespace}, i.events) for i in informers],
            ),
            Own(
                "pygw_kubernetes_lists_total",
                "How often a kind was listed as a whole.",
                [({"kind": i.kind.name, "namespace": i.namespace}, i.lists) for i in informers],
            ),
            Own("pygw_kubernetes_leader", "1 while this replica writes statuses.", [({}, self.election.is_leader)]),
            Own(
                "pygw_kubernetes_status_writes_total",
                "Statuses written, by kind and result; it stands still once all statuses are settled.",
                [({"kind": kind, "result": result}, count) for (kind, result), count in self.writer.writes.items()],
            ),
            Own(
                "pygw_kubernetes_status_pending",
                "Objects whose status is not yet what it should be, as this replica sees it.",
                [({}, self.writer.pending)],
            ),
            Own(
                "pygw_kubernetes_events_recorded_total",
                "Kubernetes Events written about objects that somebody must mend.",
                [({"result": result}, count) for result, count in self.recorder.results.items()],
            ),
        ]
