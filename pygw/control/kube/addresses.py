"""GatewayAddresses: what Gateways without addresses of their own get in status.addresses.

The same on every replica, so that the status does not change with the leader: what --gateway-address says, else the
load balancer of --gateway-service, else the nodes of all ready replicas, which each replica reads from the Pods that
have its own labels.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
from collections.abc import Callable, Iterable, Mapping

from pygw.control.cluster_state import Object
from pygw.control.gateways import MAX_ADDRESSES
from pygw.control.kube.api import Api, ApiError
from pygw.control.kube.backoff import Backoff
from pygw.control.kube.informer import Informer
from pygw.control.kube.kinds import KINDS, POD, Kind

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds that the first configuration waits for addresses

_SERVICE = next(kind for kind in KINDS if kind.name == "Service")

# Labels that differ between the Pods of one installation: of the versions of its Deployment or DaemonSet.
_FLEETING_LABELS = frozenset(
    {"pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name"}
)


class GatewayAddresses:
    """current() at any time; run() in the background, for what has to be watched."""

    def __init__(
        self,
        api: Api,
        static: tuple[str, ...],
        service: str,
        on_change: Callable[[], None],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """`static` is --gateway-address, `service` the NAMESPACE/NAME of --gateway-service or ""."""
        self._api, self._on_change = api, on_change
        self._service = service
        self._pod = environment.get("POD_NAMESPACE", ""), environment.get("POD_NAME", "")
        self._addresses = static[:MAX_ADDRESSES]
        self._is_static = bool(static)
        self._informer: Informer | None = None
        self._known = asyncio.Event()
        if self._is_static or not (service or all(self._pod)):
            self._known.set()

    def current(self) -> tuple[str, ...]:
        """The addresses now; () where there are none."""
        return self._addresses

    async def known(self) -> None:
        """Until there is a first answer, PATIENCE seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._known.wait()

    async def run(self) -> None:
        """Watch what the addresses hang on, until cancelled."""
        if self._is_static:
            return
        if self._service:
            namespace, _, name = self._service.partition("/")
            self._informer = Informer(
                self._api, _SERVICE, self._on_object, self._judge, namespace=namespace, name=name
            )
        elif all(self._pod):
            namespace = self._pod[0]
            selector = await self._own_labels()
            self._informer = Informer(
                self._api, POD, self._on_object, self._judge, namespace=namespace, label_selector=selector
            )
        else:
            log.info(
                "Gateways get no addresses: neither --gateway-address nor --gateway-service is given, and POD_NAME and "
                "POD_NAMESPACE do not say which Pod this is"
            )
            return
        await self._informer.run()

    async def _own_labels(self) -> str:
        """The selector of all replicas: our Pod's labels, but for those of its version."""
        backoff = Backoff(first=1.0)
        said = ""
        while True:
            try:
                pod = await self._api.call("GET", POD.path("v1", *self._pod))
            except ApiError as error:
                if error.status and str(error) != said:
                    said = str(error)
                    log.warning("our own Pod cannot be read, so Gateways get no addresses", extra={"reason": said})
                await asyncio.sleep(backoff.next(error.retry_after))
                continue
            labels = {
                name: value
                for name, value in (pod["metadata"].get("labels") or {}).items()
                if name not in _FLEETING_LABELS
            }
            return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))

    def _on_object(self, kind: Kind, key: tuple[str, str], item: Object | None) -> None:
        self._judge()

    def _judge(self) -> None:
        if self._informer is None or not self._informer.is_listed:
            return
        items = self._informer.objects.values()
        found = _of_services(items) if self._service else _of_pods(items)
        self._known.set()
        # Nobody ready for a moment is no reason to take the addresses of every Gateway away.
        if found and found != self._addresses:
            self._addresses = found
            self._on_change()


def _of_services(services: Iterable[Object]) -> tuple[str, ...]:
    entries = [
        entry
        for service in services
        for entry in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    ]
    return _sorted(entry.get("ip") or entry.get("hostname") or "" for entry in entries)


def _of_pods(pods: Iterable[Object]) -> tuple[str, ...]:
    found: list[str] = []
    for pod in pods:
        status = pod["status"]
        is_ready = any(condition.get("status") == "True" for condition in status["conditions"])
        if is_ready and not pod["metadata"].get("deletionTimestamp"):
            found += [entry.get("ip", "") for entry in status.get("hostIPs") or ()] or [status.get("hostIP", "")]
    return _sorted(found)


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    """Without repeats; IPv4 before IPv6 before names, each in its own order."""

    def order(text: str) -> tuple[int, int, str]:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return 9, 0, text
        return address.version, int(address), ""

    return tuple(sorted({address for address in addresses if address}, key=order)[:MAX_ADDRESSES])
