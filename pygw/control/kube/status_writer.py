"""StatusWriter: brings the statuses that `resolve` gives to the API server, and only what differs.

Level-triggered: offer() compares what should stand in each object with what stands there, and whatever differs is
written once. A conflict means that a newer version of the object is on its way to us; the next offer() is made from
that one, so what others wrote in the meantime is kept. The rules of the Gateway API hold by construction: `resolve`
starts from the object's own status (conditions and parents of others stay, a newer observedGeneration is kept), and
the patch names the resourceVersion that it was made from.

Statuses settle: an object is written again only when what it should say, or what it says, has changed. Where the API
server stores something other than it was given (a field that its CRD does not know), that counts as written.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pygw.control.cluster_state import Object
from pygw.control.kube.api import MERGE_PATCH, Api, ApiError
from pygw.control.kube.backoff import Backoff
from pygw.control.kube.kinds import KINDS

log = logging.getLogger(__name__)

WRITERS = 8  # writes under way at a time; the API server's fairness sees to the rest
CONFLICT_PAUSE = 1.0  # seconds that a newer version may take to reach us; then the same is tried again

_Key = tuple[str, str, str]  # kind, namespace, name
Status = dict[str, Any]
Find = Callable[[str, str, str], Object | None]

_KINDS = {kind.name: kind for kind in KINDS if kind.has_status}


class Leadership(Protocol):
    """Whether we may write."""

    leading: asyncio.Event

    @property
    def is_leader(self) -> bool: ...


@dataclass(slots=True)
class _Wish:
    """What an object should say."""

    item: Object  # the version that the status was made from
    status: Status


@dataclass(slots=True)
class _Done:
    """What was written, from which version, and what the API server made of it."""

    wish: _Wish
    stored: Status | None  # None: it refused it for good


class StatusWriter:
    """offer() after each resolution, run() in the background."""

    def __init__(self, api: Api, leadership: Leadership) -> None:
        self._api, self._leadership = api, leadership
        self._wishes: dict[_Key, _Wish] = {}  # to be written, the oldest first
        self._busy: set[_Key] = set()
        self._done: dict[_Key, _Done] = {}
        self._settled: dict[_Key, tuple[Status, Object]] = {}  # compared already
        self._timers: dict[_Key, asyncio.TimerHandle] = {}
        self._backoffs: dict[_Key, Backoff] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.writes: Counter[tuple[str, str]] = Counter()  # (kind, result)

    @property
    def pending(self) -> int:
        """How many objects do not say yet what they should."""
        return len(self._wishes) + len(self._busy)

    def offer(self, statuses: Mapping[_Key, Status], find: Find) -> None:
        """What every object of ours should say; `find` gives the very versions that it was resolved from."""
        wishes: dict[_Key, _Wish] = {}
        settled: dict[_Key, tuple[Status, Object]] = {}
        for key, status in statuses.items():
            item = find(*key)
            if item is None or "uid" not in item["metadata"]:
                continue
            before = self._settled.get(key)
            if before is not None and before[0] is status and before[1] is item:
                settled[key] = before
            elif (item.get("status") or {}) == status or self._is_done(key, item, status):
                settled[key] = status, item
            else:
                wishes[key] = _Wish(item, status)
        self._settled = settled
        for key in [key for key in self._wishes if key not in wishes]:
            del self._wishes[key]
        for key in [key for key in self._done if key not in settled and key not in wishes]:
            del self._done[key]
        for key in [key for key in self._timers if key in wishes and self._is_newer(key, wishes[key])]:
            self._timers.pop(key).cancel()
        self._wishes.update(wishes)
        self._note_idle()
        self._wake.set()

    def poke(self) -> None:
        """The leadership has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Write while we lead, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(self._work())

    async def settled(self) -> None:
        """Until nothing is left to write."""
        await self._idle.wait()

    # ===== own =====

    def _is_done(self, key: _Key, item: Object, status: Status) -> bool:
        """Whether this was written already, and only has not come back to us, or came back as another than it went."""
        done = self._done.get(key)
        if done is None or done.wish.status != status:
            return False
        if item["metadata"]["resourceVersion"] == done.wish.item["metadata"]["resourceVersion"]:
            return True
        return done.stored is not None and (item.get("status") or {}) == done.stored

    def _is_newer(self, key: _Key, wish: _Wish) -> bool:
        old = self._wishes.get(key)
        return old is None or old.item is not wish.item

    async def _work(self) -> None:
        while True:
            key = await self._next()
            wish = self._wishes.pop(key)
            if self._is_done(key, wish.item, wish.status):  # while this one waited
                self._note_idle()
                continue
            self._busy.add(key)
            try:
                await self._write(key, wish)
            finally:
                self._busy.discard(key)
                self._note_idle()
                self._wake.set()

    async def _next(self) -> _Key:
        """The next object that can be written now."""
        while True:
            await self._leadership.leading.wait()
            if self._leadership.is_leader:
                for key in self._wishes:
                    if key not in self._busy and key not in self._timers:
                        return key
            self._wake.clear()
            await self._wake.wait()

    async def _write(self, key: _Key, wish: _Wish) -> None:
        kind = _KINDS[key[0]]
        try:
            answer = await self._api.call(
                "PATCH", f"{kind.path('v1', key[1], key[2])}/status", body=_patch(wish), content_type=MERGE_PATCH
            )
        except ApiError as error:
            self._failed(key, wish, error)
            return
        self._backoffs.pop(key, None)
        self._done[key] = _Done(wish, answer.get("status") or {})
        self.writes[key[0], "success"] += 1

    def _failed(self, key: _Key, wish: _Wish, error: ApiError) -> None:
        result = {404: "gone", 409: "conflict", 0: "error"}.get(error.status, str(error.status))
        self.writes[key[0], result] += 1
        if error.status == 404:
            return
        name = f"{key[0]} {key[1]}/{key[2]}"
        if error.status in (400, 413, 422):
            # The same again would be refused again: wait until the object or its status is another.
            self._done[key] = _Done(wish, None)
            log.error("the API server refuses a status", extra={"object": name, "reason": str(error)})
            return
        if error.status == 409:
            delay = CONFLICT_PAUSE
        else:
            backoff = self._backoffs.setdefault(key, Backoff())
            delay = backoff.next(error.retry_after)
            if error.status:
                log.warning("a status cannot be written yet", extra={"object": name, "reason": str(error)})
        self._wishes.setdefault(key, wish)  # unless there is a newer one
        if error.status == 409 and self._wishes[key] is not wish:
            return
        self._timers[key] = asyncio.get_running_loop().call_later(delay, self._due, key)

    def _due(self, key: _Key) -> None:
        self._timers.pop(key, None)
        self._wake.set()

    def _note_idle(self) -> None:
        if self.pending:
            self._idle.clear()
        else:
            self._idle.set()


def _patch(wish: _Wish) -> Object:
    """The JSON merge patch (RFC 7386) from what the object says to what it should, for that version alone."""
    metadata = wish.item["metadata"]
    existing = wish.item.get("status") or {}
    status = {name: value for name, value in wish.status.items() if existing.get(name) != value}
    status |= {name: None for name in existing if name not in wish.status}
    return {"metadata": {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}, "status": status}
