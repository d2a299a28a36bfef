"""Election: which replica writes statuses, by a Lease (coordination.k8s.io/v1) that the leader renews.

The protocol is client-go's, so that any replica of any version understands it. Time is measured by each replica's own
monotonic clock from the moment it saw the Lease change; the times written in it are for people. A leader that cannot
renew stops before anybody else may start (DEADLINE < DURATION), and one that drains gives the Lease back at once.

Not the official client's `leaderelection`: its loop ends for good with the first request that gets no answer (an
exception of the transport, which it does not expect), and its asynchronous LeaseLock of release 37 cannot create a
Lease at all. It gives nothing back either, so each rolling update would leave nobody in charge for DURATION.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from pygw.control.cluster_state import Object
from pygw.control.kube.api import Api, ApiError
from pygw.control.kube.backoff import spread

log = logging.getLogger(__name__)

DURATION = 15  # seconds after which others may take over
DEADLINE = 10.0  # seconds without a renewal after which we stop by ourselves
RENEW = 5.0  # seconds between two renewals
RETRY = 2.0  # seconds between two attempts to become the leader, or to renew after a failure
PATIENCE = 4.0  # seconds for one request

_PATH = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


class Election:
    """One candidate. `on_change(is_leader)` is called in the event loop."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        on_change: Callable[[bool], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.namespace, self.name, self.identity = namespace, name, identity
        self.leading = asyncio.Event()  # set while we lead; ask is_leader right before a write
        self.holder = ""  # as last seen
        self.transitions = 0  # how often this replica became the leader
        self._api, self._on_change, self._sleep, self._clock = api, on_change, sleep, clock
        self._lease: Object | None = None
        self._seen: tuple[object, ...] = ()
        self._seen_at = 0.0
        self._leads_until = float("-inf")
        self._is_released = False
        self._is_held = False  # as the last answer had it
        self._asking = asyncio.Lock()  # one request at a time: giving back must not cross a renewal
        self._trouble = ""

    @property
    def is_leader(self) -> bool:
        """Whether we may write now."""
        return self._clock() < self._leads_until

    async def run(self) -> None:
        """Take part until cancelled."""
        while True:
            if not self._is_released:
                await self._attempt()
            self._judge()
            period = RENEW if self.is_leader and not self._trouble else RETRY
            await self._sleep(spread(period))

    async def release(self) -> None:
        """Give the Lease back, and do not ask for it again."""
        self._is_released = True
        self._leads_until = float("-inf")
        self._judge()
        async with self._asking:
            if not self._is_held or self._lease is None:
                return
            spec = {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._api.call("PUT", f"{self._path}/{self.name}", body={**self._lease, "spec": spec})
            except (ApiError, TimeoutError) as error:
                log.info("the lease could not be given back; it expires", extra={"reason": str(error)})

    # ===== own =====

    @property
    def _path(self) -> str:
        return _PATH.format(namespace=self.namespace)

    async def _attempt(self) -> None:
        start = self._clock()
        try:
            async with self._asking, asyncio.timeout(PATIENCE):
                if self._is_released:
                    return
                self._is_held = False
                self._is_held = is_ours = await self._acquire_or_renew()
        except (ApiError, TimeoutError) as error:
            self._lease = None  # read it again: somebody else may have written it
            trouble = str(error) or "no answer"
            if trouble != self._trouble and getattr(error, "status", 0) not in (0, 409):
                log.warning("the lease cannot be had", extra={"lease": self.shown, "reason": trouble})
            self._trouble = trouble
            return
        self._trouble = ""
        # Counted from before the request: what the server saw is at least that fresh.
        self._leads_until = start + DEADLINE if is_ours and not self._is_released else float("-inf")

    async def _acquire_or_renew(self) -> bool:
        lease = self._lease if self.is_leader else None
        if lease is None:
            try:
                lease = await self._api.call("GET", f"{self._path}/{self.name}")
            except ApiError as error:
                if error.status != 404:
                    raise
                return await self._create()
        if not self._may_take(lease):
            return False
        self._lease = await self._api.call("PUT", f"{self._path}/{self.name}", body=self._renewed(lease))
        self._note(self._lease)
        return True

    async def _create(self) -> bool:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {},
        }
        self._lease = await self._api.call("POST", self._path, body=self._renewed(lease))
        self._note(self._lease)
        return True

    def _may_take(self, lease: Object) -> bool:
        self._note(lease)
        spec = lease.get("spec") or {}
        if self.holder in ("", self.identity):
            return True
        duration = spec.get("leaseDurationSeconds")
        return self._clock() >= self._seen_at + (duration if isinstance(duration, int) and duration > 0 else DURATION)

    def _note(self, lease: Object) -> None:
        spec = lease.get("spec") or {}
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), lease["metadata"].get("resourceVersion"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        self.holder = spec.get("holderIdentity") or ""

    def _renewed(self, lease: Object) -> Object:
        spec, now = lease.get("spec") or {}, _now()
        is_new = spec.get("holderIdentity") != self.identity
        return {
            **lease,
            "spec": {
                **spec,
                "holderIdentity": self.identity,
                "leaseDurationSeconds": DURATION,
                "acquireTime": now if is_new or not spec.get("acquireTime") else spec["acquireTime"],
                "renewTime": now,
                "leaseTransitions": (spec.get("leaseTransitions") or 0) + bool(is_new and spec.get("holderIdentity")),
            },
        }

    def _judge(self) -> None:
        is_leader = self.is_leader
        if is_leader == self.leading.is_set():
            return
        if is_leader:
            self.transitions += 1
            self.leading.set()
            log.info("this replica writes statuses from now on", extra={"lease": self.shown})
        else:
            self.leading.clear()
            log.info("this replica does not write statuses any longer", extra={"lease": self.shown})
        self._on_change(is_leader)

    @property
    def shown(self) -> str:
        """NAMESPACE/NAME of the Lease."""
        return f"{self.namespace}/{self.name}"


def lease_name(controller_name: str, namespaces: tuple[str, ...] = ()) -> str:
    """One Lease for each set of objects that an installation is in charge of."""
    name = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in controller_name.lower())
    if namespaces or len(name) > 200:
        text = "\0".join([controller_name, *sorted(namespaces)])
        name = f"{name[:200]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return name.strip("-.")


def identity() -> str:
    """The name of this replica, the same for every control process that its launcher starts.

    So a control process that replaces a dead one takes its Lease over at once. The launcher's start time tells two
    apart that have the same process id on hosts of the same name, as in containers on the host's network.
    """
    launcher = os.getppid()
    try:
        # proc(5): field 22, after the command's closing parenthesis as it may hold blanks
        started = Path(f"/proc/{launcher}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = f"{random.getrandbits(32):08x}"
    name = os.environ.get("POD_NAME") or os.environ.get("HOSTNAME") or socket.gethostname()
    return f"{name}_{launcher}_{started}"


def _now() -> str:
    """MicroTime of the Kubernetes API."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
