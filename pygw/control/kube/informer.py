"""Informer: lists one resource, then watches it, for ever; keeps its objects and tells each that changes.

The rules, most of them learnt by client-go's Reflector:

* A list comes in pages, and each page is trimmed before the next is asked for, so memory does not peak.
* A watch is resumed where it ended, by the resourceVersion of the last event or bookmark. Where that is too old (410)
  all is listed again, and only what differs from what is known is told.
* Nothing that an API server does not say makes an object go: refused, truncated and unreachable all leave things as
  they are. So does a 404, unless discovery confirms that the resource is no longer there (`Api.serves`).
* A CRD that is missing is no fault: the informer counts as listed, and looks again every few seconds.

The official client's SharedInformer does not stand the tests of this one (tests/control/kube): it knows neither
bookmarks nor pages nor custom resources (their list is a dict, whose `.items` is a method), tries again without a
pause when a watch fails, waits for ever on a stream that is dead, and has a thread for each resource.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from pygw.control.cluster_state import Key, Object
from pygw.control.kube.api import Api, ApiError, status_error
from pygw.control.kube.backoff import Backoff, spread
from pygw.control.kube.kinds import Kind, trimmed

log = logging.getLogger(__name__)

PAGE = 250  # objects of one answer to a list
WATCH_SECONDS = (300, 600)  # how long the server keeps a watch, at random so that not all are renewed at once
MISSING_RETRY = 10.0  # seconds until a CRD that is not there is looked for again
DENIED_RETRY = 10.0  # seconds until a list that RBAC forbids is tried again
SHORT_WATCH = 1.0  # seconds; a watch that ends sooner, without an event, counts as failed
FAILURES_TO_TELL = 3  # failures in a row of a server that is there, but in trouble itself, before that is logged
FAILURES_TO_RELIST = 4  # failed watches in a row after which the resourceVersion itself is suspected

OnObject = Callable[[Kind, Key, Object | None], None]
Sleep = Callable[[float], Awaitable[None]]


class Informer:
    """One resource, in one namespace or all, under a selector. run() it in the event loop.

    `on_object(kind, key, object)` gets each object that is new or different, and None for one that is gone;
    `on_change()` is called when what the attributes below say changes.
    """

    def __init__(
        self,
        api: Api,
        kind: Kind,
        on_object: OnObject,
        on_change: Callable[[], None],
        *,
        namespace: str = "",
        name: str = "",
        label_selector: str = "",
        may_be_denied: bool = False,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.kind, self.namespace, self.name = kind, namespace, name
        self.objects: dict[Key, Object] = {}
        self.is_listed = False  # at least once
        self.is_missing = False  # its CRD is not installed
        self.is_denied = False  # RBAC forbids it
        self.trouble: ApiError | None = None  # why the last request failed; None: it did not
        self.is_told = False  # whether that was worth a line in the log
        self.version = ""  # of the API, that in use
        self.lists = self.watches = self.events = 0  # how many there were
        self._api, self._on_object, self._on_change, self._sleep = api, on_object, on_change, sleep
        self._may_be_denied = may_be_denied
        self._selectors: dict[str, str] = {}
        if label_selector or kind.label_selector:
            self._selectors["labelSelector"] = label_selector or kind.label_selector
        if name:
            self._selectors["fieldSelector"] = f"metadata.name={name}"
        self._resource_version = ""  # "": list first
        self._page = PAGE
        self._backoff = Backoff()
        self._failures = self._failed_watches = 0
        self._retry = asyncio.Event()

    @property
    def is_cut_off(self) -> bool:
        """Whether the server is away or in trouble, so that what we hold may be of the past."""
        return self.trouble is not None and (self.trouble.status == 0 or self.trouble.status >= 500)

    @property
    def is_settled(self) -> bool:
        """Whether all is known that can be: what depends on these objects need not wait for them any longer."""
        return self.is_listed or self.is_missing or (self.is_denied and self._may_be_denied)

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                await self._round()
            except ApiError as error:
                await self._pause(self._failed(error))
            except Exception:  # a fault of ours must not end the watch for good
                log.exception("the informer failed; it starts again", extra={"resource": self.kind.resource})
                self._resource_version = ""
                await self._sleep(self._backoff.next())

    def retry_now(self) -> None:
        """The server is well again, as somebody else found out: do not wait any longer."""
        if self.is_cut_off:
            self._retry.set()

    async def _pause(self, seconds: float) -> None:
        self._retry.clear()
        waits = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._retry.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _round(self) -> None:
        if not self._resource_version:
            await self._list()
        if self._resource_version:
            await self._watch()
        else:  # the CRD is missing
            await self._sleep(spread(MISSING_RETRY))

    # ===== list =====

    async def _list(self) -> None:
        for version in self.kind.versions:
            try:
                found, resource_version = await self._pages(version)
            except ApiError as error:
                if error.status != 404 or not self.kind.is_custom:
                    raise
                if await self._api.serves(self.kind.group, version, self.kind.plural):
                    raise ApiError(0, "NotYet", f"{self.kind.resource} is there, but answers 404") from None
                continue
            self.version = version
            self.lists += 1
            self._replace(found)
            self._resource_version = resource_version
            self._worked(is_listed=True, is_missing=False)
            return
        if not self.is_missing:
            log.info(
                "not installed; it is picked up once it is",
                extra={"resource": f"{self.kind.resource}/{', '.join(self.kind.versions)}"},
            )
        self._replace({})
        self._worked(is_listed=self.is_listed, is_missing=True)

    async def _pages(self, version: str) -> tuple[dict[Key, Object], str]:
        """All objects, and the resourceVersion from which a watch goes on."""
        path = self.kind.path(version, self.namespace)
        query = {**self._selectors, "limit": str(self._page)}
        found: dict[Key, Object] = {}
        while True:
            try:
                answer = await self._api.call("GET", path, query)
            except ApiError as error:
                if error.reason == "TooLarge" and self._page > 1:
                    self._page = max(1, self._page // 8)
                elif error.status == 410 and "continue" in query:  # compacted amid the list: take it in one piece
                    return await self._unpaged(path)
                raise
            metadata = self._take_page(answer, found)
            if not metadata.get("continue"):
                return found, str(metadata["resourceVersion"])
            query["continue"] = metadata["continue"]

    async def _unpaged(self, path: str) -> tuple[dict[Key, Object], str]:
        found: dict[Key, Object] = {}
        answer = await self._api.call("GET", path, self._selectors)
        return found, str(self._take_page(answer, found)["resourceVersion"])

    def _take_page(self, answer: Object, found: dict[Key, Object]) -> Object:
        """Keep what is used of a page; its metadata."""
        metadata, items = answer.get("metadata"), answer.get("items")
        if not isinstance(metadata, dict) or not metadata.get("resourceVersion") or not isinstance(items, list | None):
            raise ApiError(0, "BadAnswer", "the answer is no list of objects")
        for item in items or ():
            taken = self._take(item)
            if taken is not None:
                found[taken[0]] = taken[1]
        return metadata

    def _replace(self, found: dict[Key, Object]) -> None:
        """Take a list for what is there; tell only what differs."""
        for key in [key for key in self.objects if key not in found]:
            self._set(key, None)
        for key, item in found.items():
            self._set(key, item)

    # ===== watch =====

    async def _watch(self) -> None:
        path = self.kind.path(self.version, self.namespace)
        query = {
            **self._selectors,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._resource_version,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),
        }
        loop = asyncio.get_running_loop()
        start, events = loop.time(), self.events
        self.watches += 1
        try:
            async with self._api.watch(path, query) as stream:
                self._worked(is_listed=True, is_missing=False)
                async for event in stream:
                    self._on_event(event)
            is_short = loop.time() - start < SHORT_WATCH and events == self.events
        finally:
            # All was well for a moment at least: the next failure is the first.
            if loop.time() - start >= SHORT_WATCH or events != self.events:
                self._backoff.reset()
                self._failures = self._failed_watches = 0
        if is_short:
            raise ApiError(0, "ShortWatch", "the watch ended at once, without an event")

    def _on_event(self, event: Object) -> None:
        kind, item = event.get("type"), event["object"]
        if kind == "ERROR":
            raise status_error(item)
        metadata = item.get("metadata")
        resource_version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if not resource_version or kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
            raise ApiError(0, "BadAnswer", f"a watch event of type {kind} without a resourceVersion")
        self.events += 1
        if kind != "BOOKMARK":
            taken = self._take(item)
            if taken is not None:
                self._set(taken[0], None if kind == "DELETED" else taken[1])
        self._resource_version = str(resource_version)

    # ===== both =====

    def _take(self, item: Any) -> tuple[Key, Object] | None:
        """Key and trimmed object. One that even the API server should not have let in is logged, and left as it was."""
        try:
            metadata = item["metadata"]
            namespace = str(metadata["namespace"]) if self.kind.is_namespaced else ""
            key = (namespace, str(metadata["name"]))
        except (KeyError, TypeError):
            log.error("an object without a name", extra={"resource": self._shown, "object": str(item)[:200]})
            return None
        try:
            return key, trimmed(self.kind, item)
        except Exception as error:  # whatever a shape that was never expected makes it raise
            log.error(
                "an object that cannot be read is left as it was",
                extra={"resource": self.kind.resource, "object": "/".join(key), "reason": repr(error)},
            )
            old = self.objects.get(key)
            return (key, old) if old is not None else None

    def _set(self, key: Key, item: Object | None) -> None:
        old = self.objects.get(key)
        if item is None:
            if self.objects.pop(key, None) is not None:
                self._on_object(self.kind, key, None)
        elif old != item:
            self.objects[key] = item
            self._on_object(self.kind, key, item)

    def _worked(self, is_listed: bool, is_missing: bool) -> None:
        """The server has answered as it should."""
        before = (self.is_listed, self.is_missing, self.is_denied, self.trouble)
        self.is_listed, self.is_missing, self.is_denied, self.trouble = is_listed, is_missing, False, None
        if self.is_told:
            self.is_told = False
            log.info("the API server lets us read it again", extra={"resource": self._shown})
        if before != (is_listed, is_missing, False, None):
            self._on_change()

    def _failed(self, error: ApiError) -> float:
        """Note a failure; how long to wait now."""
        if error.status == 410:
            log.info("the watch is too old to be resumed; listing again", extra={"resource": self._shown})
            self._resource_version = ""
            return self._backoff.next(error.retry_after)
        self._failures += 1
        if self._resource_version:
            self._failed_watches += 1
            if self._failed_watches >= FAILURES_TO_RELIST or error.status in (404, 504):
                self._resource_version = ""
                self._failed_watches = 0
        is_denied = error.status in (401, 403)
        is_passing = error.status >= 500 or error.status == 429  # more often than not
        is_news = self.trouble is None or is_denied != self.is_denied
        if error.status and (not is_passing or self._failures >= FAILURES_TO_TELL) and (is_news or not self.is_told):
            self.is_told = is_news = True
            log.warning(
                "the API server refuses to let us read it" if is_denied else "the API server fails to let us read it",
                extra={"resource": self._shown, "reason": str(error)},
            )
        self.trouble, self.is_denied = error, is_denied
        if is_news:
            self._on_change()
        delay = self._backoff.next(error.retry_after)
        return max(delay, spread(DENIED_RETRY)) if error.status == 403 else delay

    @property
    def _shown(self) -> str:
        place = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.kind.resource}{f' {self.name}' if self.name else ''}{place}"
