"""Infrastructure: the object that stands for a Gateway in its namespace (GEP-1762), one ServiceAccount each.

pygw serves all Gateways from one set of processes, so there is nothing to run for one of them. But spec.infrastructure
promises its labels and annotations on what is created for the Gateway, where inventories and policies look for them: a
ServiceAccount bears them, without rights and without a token. It belongs to the Gateway (ownerReference), so it goes
with it; where the Gateway stops being ours, we delete it. One of that name that is not ours is never touched.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import ChainMap
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from pygw.control.cluster_state import Key, Object
from pygw.control.kube.api import APPLY_PATCH, Api, ApiError
from pygw.control.kube.backoff import Backoff
from pygw.control.kube.kinds import MANAGED_BY, MANAGED_BY_LABEL, SERVICE_ACCOUNT
from pygw.control.kube.status_writer import Leadership
from pygw.control.references import GATEWAY_GROUP

log = logging.getLogger(__name__)

CONTROLLER_ANNOTATION = "pygw.dev/controller-name"
GATEWAY_NAME_LABEL = f"{GATEWAY_GROUP}/gateway-name"
CLASS_NAME_LABEL = f"{GATEWAY_GROUP}/gateway-class-name"


class Infrastructure:
    """offer() after each resolution, poke() when a ServiceAccount changes, run() in the background."""

    def __init__(
        self,
        api: Api,
        leadership: Leadership,
        controller_name: str,
        existing: Sequence[dict[Key, Object]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`existing` are the ServiceAccounts with our label, as informers keep them."""
        self._api, self._leadership, self._controller_name = api, leadership, controller_name
        self._existing: Mapping[Key, Object] = ChainMap(*existing)
        self._sleep = sleep
        self._wanted: dict[Key, Object] | None = None  # None: nothing is resolved yet
        self._applied: dict[Key, Object] = {}
        self._refused: dict[Key, Object] = {}  # not to be tried again in this form
        self._wake = asyncio.Event()
        self._backoff = Backoff(first=1.0)

    def offer(self, gateways: Iterable[Object]) -> None:
        """All Gateways of ours."""
        wanted = [self._account(item) for item in gateways if "uid" in item["metadata"]]
        self._wanted = {(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in wanted}
        self._wake.set()

    def poke(self) -> None:
        """Something about the existing ones changed, or the leadership."""
        self._wake.set()

    async def run(self) -> None:
        """Create, update and delete while we lead, until cancelled."""
        while True:
            await self._leadership.leading.wait()
            self._wake.clear()
            try:
                await self._reconcile()
                self._backoff.reset()
            except ApiError as error:
                if error.status:
                    log.warning("an infrastructure object cannot be kept up", extra={"reason": str(error)})
                await self._sleep(self._backoff.next(error.retry_after))
                continue
            await self._wake.wait()

    async def _reconcile(self) -> None:
        if self._wanted is None:
            return
        wanted = self._wanted
        for key, item in wanted.items():
            if not self._leadership.is_leader:
                return
            if self._refused.get(key) != item and not self._stands(key, item):
                await self._apply(key, item)
        for key in [key for key in self._existing if key not in wanted]:
            existing = self._existing.get(key)
            if existing is None:
                continue  # deleted while another one was being deleted
            metadata = existing["metadata"]
            if (metadata.get("annotations") or {}).get(CONTROLLER_ANNOTATION) != self._controller_name:
                continue
            if not self._leadership.is_leader:
                return
            await self._delete(key, metadata["uid"])

    def _stands(self, key: Key, item: Object) -> bool:
        """Whether the API server has it, as we applied it last; what others added to it is theirs."""
        existing = self._existing.get(key)
        if existing is None or self._applied.get(key) != item:
            return False
        metadata, have = item["metadata"], existing["metadata"]
        owners = [owner.get("uid") for owner in have.get("ownerReferences") or ()]
        return metadata["ownerReferences"][0]["uid"] in owners and all(
            (have.get(field) or {}).get(name) == value
            for field in ("labels", "annotations")
            for name, value in metadata[field].items()
        )

    async def _apply(self, key: Key, item: Object) -> None:
        path = SERVICE_ACCOUNT.path("v1", *key)
        if key not in self._existing and not await self._is_free(path, key, item):
            return
        try:
            # Server-side apply: what we no longer say goes, what others say stays.
            await self._api.call(
                "PATCH", path, {"fieldManager": MANAGED_BY, "force": "true"}, body=item, content_type=APPLY_PATCH
            )
        except ApiError as error:
            if error.status not in (400, 403, 404, 422):
                raise
            self._refused[key] = item  # it would be refused again
            is_going = error.status == 404 or "being terminated" in error.message  # the namespace, and all in it
            log.log(
                logging.DEBUG if is_going else logging.WARNING,
"an infrastructure object is refused",
                extra={"object": "/".join(key), "reason": str(error)},
            )
            return
        self._applied[key] = item

    async def _is_free(self, path: str, key: Key, item: Object) -> bool:
        """Whether the name is free, or taken by one of ours that the informer has yet to see."""
        try:
            found = await self._api.call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return True
            raise
        if (found["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGED_BY:
            return True
        self._refused[key] = item
        log.warning(
            "a ServiceAccount of somebody else has the name of a Gateway's infrastructure object; left alone",
            extra={"object": "/".join(key)},
        )
        return False

    async def _delete(self, key: Key, uid: str) -> None:
        try:
            await self._api.call("DELETE", SERVICE_ACCOUNT.path("v1", *key), body={"preconditions": {"uid": uid}})
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        self._applied.pop(key, None)

    def _account(self, gateway: Object) -> Object:
        metadata, spec = gateway["metadata"], gateway["spec"]
        infrastructure = spec.get("infrastructure") or {}
        return {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {
                "name": _short(f"{metadata['name']}-{spec['gatewayClassName']}", 253),
                "namespace": metadata["namespace"],
                "labels": {
                    **(infrastructure.get("labels") or {}),
                    GATEWAY_NAME_LABEL: _short(metadata["name"], 63),
                    CLASS_NAME_LABEL: _short(spec["gatewayClassName"], 63),
                    MANAGED_BY_LABEL: MANAGED_BY,
                },
                "annotations": {
                    **(infrastructure.get("annotations") or {}),
                    CONTROLLER_ANNOTATION: self._controller_name,
                },
                "ownerReferences": [
                    {
                        "apiVersion": gateway["apiVersion"], "kind": "Gateway",
                        "name": metadata["name"], "uid": metadata["uid"],
                    }
                ],
            },
            "automountServiceAccountToken": False,
        }  # fmt: skip


def _short(text: str, most: int) -> str:
    """A name cut to what fits, still its own: the end is a digest of the whole."""
    if len(text) <= most:
        return text
    return f"{text[: most - 9].rstrip('-.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
