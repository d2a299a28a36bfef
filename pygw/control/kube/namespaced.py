"""What takes the place of cluster-wide rights, where pygw runs with --watch-namespace and rights in these alone.

GatewayClasses are cluster-scoped: the classes that --gateway-class names are then taken for ours, unseen, and their
status is somebody else's to write. Namespaces are, too, but RBAC lets a Role of a namespace permit to `get` that one
namespace: so its labels, which listeners may select by, are asked for again and again instead of watched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from pygw.control.cluster_state import Object
from pygw.control.kube.api import Api, ApiError
from pygw.control.kube.backoff import spread
from pygw.control.kube.kinds import NAMESPACE, trimmed

log = logging.getLogger(__name__)

PERIOD = 30.0  # seconds between two looks at the labels of a namespace


def assumed_class(name: str, controller_name: str) -> Object:
    """A GatewayClass that we may not read. Without a uid, so no status is ever written to it."""
    return {"kind": "GatewayClass", "metadata": {"name": name}, "spec": {"controllerName": controller_name}}


class NamespaceReader:
    """Asks for some namespaces again and again; `on_namespace(name, object)` gets each answer, None for "not there"."""

    def __init__(
        self,
        api: Api,
        namespaces: Iterable[str],
        on_namespace: Callable[[str, Object | None], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api, self._namespaces, self._on_namespace, self._sleep = api, tuple(namespaces), on_namespace, sleep
        self._known: dict[str, Object | None] = {}
        self._refused: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for name in self._namespaces:
                await self._read(name)
            await self._sleep(spread(PERIOD))

    async def _read(self, name: str) -> None:
        try:
            found: Object | None = trimmed(NAMESPACE, await self._api.call("GET", NAMESPACE.path("v1", name=name)))
        except ApiError as error:
            if error.status == 403 and name not in self._refused:
                self._refused.add(name)
                log.info(
                    "the labels of the namespace may not be read; listeners can select it by its name only",
                    extra={"namespace": name, "reason": error.message},
                )
            if error.status != 404:
                return
            found = None
        if name not in self._known or self._known[name] != found:
            self._known[name] = found
            self._on_namespace(name, found)
