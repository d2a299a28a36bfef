"""Recorder: Events (events.k8s.io/v1) on the objects that a person must mend.

Conditions say what holds; an Event says that something has begun to hold, where `kubectl describe` and alerting look.
Each Problem is told once, when it comes up. The name of an Event follows from what it says, so another replica, or
this one after a restart, finds it told already for as long as the API server keeps it (an hour, as a rule). A problem
that was solved and comes back adds to the Event's series.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pygw.control.cluster_state import Object
from pygw.control.kube.api import MERGE_PATCH, Api, ApiError
from pygw.control.kube.status_writer import Find, Leadership
from pygw.control.problems import Problem

log = logging.getLogger(__name__)

# The kinds that people write for us; an odd EndpointSlice, say, is the work of a controller, and its owner's matter.
TOLD_KINDS = frozenset(
    {"GatewayClass", "Gateway", "ListenerSet", "GRPCRoute", "HTTPRoute", "BackendTLSPolicy", "GatewayConfig"}
)
RATE = 10.0  # Events a second; a thousand routes broken at once must not drown the API server
MAX_NOTE = 1024  # characters that an Event's note may have
MAX_QUEUE = 10_000


@dataclass(frozen=True, slots=True)
class _Told:
    """What one Event is about."""

    uid: str
    reason: str
    note: str

    @property
    def digest(self) -> str:
        return hashlib.sha256("\0".join([self.uid, self.reason, self.note]).encode()).hexdigest()[:16]


class Recorder:
    """offer() after each resolution, run() in the background."""

    def __init__(
        self,
        api: Api,
        leadership: Leadership,
        controller: str,
        instance: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api, self._leadership, self._sleep = api, leadership, sleep
        self._controller, self._instance = controller, instance[:128]
        self._current: dict[_Told, Object] = {}  # holds now; the object that it is about
        self._counts: Counter[_Told] = Counter()  # how often each was told here
        self._queue: dict[_Told, None] = {}
        self._wake = asyncio.Event()
        self.results: Counter[str] = Counter()

    def offer(self, problems: Iterable[Problem], find: Find) -> None:
        """All problems that hold now."""
        current: dict[_Told, Object] = {}
        for problem in problems:
            kind, _, rest = problem.object.partition(" ")
            namespace, _, name = rest.rpartition("/")
            item = find(kind, namespace, name) if kind in TOLD_KINDS else None
            if item is None or "uid" not in item["metadata"]:
                continue
            note = f"{problem.path}: {problem.message}" if problem.path else problem.message
            note = note if len(note) <= MAX_NOTE else note[: MAX_NOTE - 3] + "..."
            current[_Told(item["metadata"]["uid"], problem.reason, note)] = item
        for told in current:
            if told not in self._current and len(self._queue) < MAX_QUEUE:
                self._queue[told] = None
        self._current = current
        for told in [told for told in self._queue if told not in current]:
            del self._queue[told]  # solved before anybody was told
        if len(self._counts) > MAX_QUEUE:
            self._counts = Counter({told: count for told, count in self._counts.items() if told in current})
        self._wake.set()

    def poke(self) -> None:
        """The leadership has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Tell while we lead, until cancelled."""
        while True:
            await self._leadership.leading.wait()
            if not self._queue or not self._leadership.is_leader:
                self._wake.clear()
                await self._wake.wait()
                continue
            told = next(iter(self._queue))
            del self._queue[told]
            if told in self._current:
                await self._tell(told, self._current[told])
                await self._sleep(1 / RATE)

    async def _tell(self, told: _Told, item: Object) -> None:
        event = self._event(told, item)
        path = f"/apis/events.k8s.io/v1/namespaces/{event['metadata']['namespace']}/events"
        self._counts[told] += 1
        try:
            try:
                await self._api.call("POST", path, body=event)
            except ApiError as error:
                if error.status != 409:
                    raise
                if self._counts[told] > 1:  # told, solved, and here again
                    series = {"count": self._counts[told], "lastObservedTime": event["eventTime"]}
                    name = event["metadata"]["name"]
                    await self._api.call("PATCH", f"{path}/{name}", body={"series": series}, content_type=MERGE_PATCH)
        except ApiError as error:
            # The condition and our log say it, too: an Event is worth no second attempt.
            self.results["error"] += 1
            level = logging.WARNING if error.status == 403 and self.results["error"] == 1 else logging.DEBUG
            log.log(level, "an Event cannot be written", extra={"reason": str(error)})
        else:
            self.results["success"] += 1

    def _event(self, told: _Told, item: Object) -> Object:
        metadata = item["metadata"]
        namespace = metadata.get("namespace") or "default"  # where Events about cluster-scoped objects belong
        regarding = {
            "apiVersion": item["apiVersion"], "kind": item["kind"], "name": metadata["name"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        }  # fmt: skip
        if metadata.get("namespace"):
            regarding["namespace"] = metadata["namespace"]
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name'][:230]}.{told.digest}", "namespace": namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "action": "Resolve",
            "reason": told.reason[:128],
            "note": told.note,
            "type": "Warning",
            "regarding": regarding,
        }
