"""KubernetesSource: the Kubernetes API -> ClusterState, with the same read() as file mode's YamlSource.

The informers live in the event loop and only note what changed; read(), which the controller calls in a thread,
takes it over into the ClusterState. So `resolve` never sees objects change under its feet.

Nothing is given out before all that can be listed has been listed, the Secrets and ConfigMaps included: half a
configuration would be served as if the other half had been deleted.

Each kind has a watch of its own, and what one brings may come before what it refers to in another. So an object that
newly refers to a Secret is held back until that Secret has been read, and a change of a route to a Service of which no
endpoint is known yet until there is one; not for long (HOLD), since there may be none. And when the API server comes
back after it was away, nothing is told before all watches are back (RECOVERY at most).

Objects come validated from the API server; no schema or CEL rule is run on them again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pygw.control.backends import takes_calls
from pygw.control.cluster_state import ClusterState, Key, Object
from pygw.control.incremental import ROUTE_KINDS
from pygw.control.kube.api import Api
from pygw.control.kube.informer import Informer
from pygw.control.kube.kinds import CONFIG_MAP, GATEWAY_CLASS, KINDS, NAMESPACE, SECRET, Kind
from pygw.control.kube.namespaced import NamespaceReader, assumed_class
from pygw.control.kube.referenced import DECIDING, REFERRING, Reference, References
from pygw.control.problems import Problem, object_name
from pygw.control.slices import SERVICE_NAME_LABEL
from pygw.control.topology import zone_of
from pygw.control.yaml_source import LoadResult

log = logging.getLogger(__name__)

HOLD = 3.0  # seconds that an object waits at most for a Secret or ConfigMap that it newly refers to
HOLD_ROUTE = 0.5  # seconds that a change of a route waits for the first endpoint of a Service
RECOVERY = 2.0  # seconds that changes wait, after the API server was away, until all watches are back

_Wants = tuple[str, str, str]  # kind (Secret, ConfigMap or Service), namespace, name

_Place = tuple[str, str, str]  # kind, namespace, name


@dataclass(frozen=True, slots=True)
class Scope:
    """What to read."""

    controller_name: str
    namespaces: tuple[str, ...] = ()  # empty: all
    assumed_classes: tuple[str, ...] = ("pygw",)  # ours, where GatewayClasses may not be read
    node: str = ""  # where we run, if known


@dataclass(slots=True)
class _Held:
    """An object that waits for what it refers to."""

    waits_for: frozenset[_Wants]
    timer: asyncio.TimerHandle


@dataclass(slots=True)
class KubernetesSource:
    """Use it in one event loop, but for read(). `on_change` is called when read() may have something new."""

    api: Api
    scope: Scope
    on_change: Callable[[], None]
    state: ClusterState = field(default_factory=ClusterState)
    informers: list[Informer] = field(default_factory=list)
    _by_reference: dict[Reference, tuple[Informer, asyncio.Task[None]]] = field(default_factory=dict)
    _objects: dict[str, dict[Key, Object]] = field(default_factory=dict)
    _references: References = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pending: dict[_Place, Object | None] = field(default_factory=dict)  # by the loop and by read(): under the lock
    _held: dict[_Place, _Held] = field(default_factory=dict)
    _problems: list[Problem] = field(default_factory=list)
    _endpoints: Counter[Key] = field(default_factory=Counter)  # slices with endpoints, by Service
    _zone: str = ""
    _recovery: asyncio.TimerHandle | None = None
    _is_stale: bool = False  # whether references are yet to be followed
    _must_refresh: bool = False  # ...all of them
    _is_open: bool = False  # whether on_change is to be called
    _progress: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._objects = {kind.name: {} for kind in KINDS}
        self._references = References(self.scope.controller_name, self._objects)
        for kind in KINDS:
            for namespace in (self.scope.namespaces if kind.is_namespaced else ()) or ("",):
                # With --watch-namespace rights in these namespaces must do.
                is_optional = bool(self.scope.namespaces) and not kind.is_namespaced
                self.informers.append(
                    Informer(
                        self.api, kind, self._on_object, self._on_state, namespace=namespace, may_be_denied=is_optional
                    )
                )

    async def open(self) -> None:
        """Start, and return once everything has been listed."""
        for informer in self.informers:
            self._start(informer.run())
        if self.scope.namespaces:
            self._start(NamespaceReader(self.api, self.scope.namespaces, self._on_namespace).run())
        while not self.is_complete():
            self._progress.clear()
            await self._progress.wait()
        self._is_open = True

    async def close(self) -> None:
        """Stop all informers."""
        tasks = [*self._tasks, *(task for _, task in self._by_reference.values())]
        for timer in (self._recovery, *(held.timer for held in self._held.values())):
            if timer is not None:
                timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def is_complete(self) -> bool:
        """Whether everything has been listed once, as far as it exists."""
        return not self._is_stale and not self.waiting_for()

    def waiting_for(self) -> list[str]:
        """What has not been listed yet, with the reason where there is one; for /readyz."""
        return [
            f"{informer.kind.resource}" + (f" ({informer.trouble})" if informer.trouble else "")
            for informer in self._all_informers()
            if not informer.is_settled
        ]

    # ===== the controller's side; read() runs in a thread =====

    def read(self) -> LoadResult:
        """Take in what changed."""
        with self._lock:
            taken = {place: item for place, item in self._pending.items() if place not in self._held}
            for place in taken:
                del self._pending[place]
            problems = self._problems
        changed = False
        for (kind, namespace, name), item in taken.items():
            changed |= self.state.delete(kind, namespace, name) if item is None else self.state.apply(item)
        return LoadResult(self.state, problems, changed)

    def zone(self) -> str:
        """Of our node, as the first EndpointSlice with an endpoint there told it; no right to read Nodes is needed."""
        return self._zone

    def place(self, problem: Problem) -> Problem:
        """As it is: an object in a cluster has no file."""
        return problem

    # ===== the informers' side =====

    def _on_object(self, kind: Kind, key: Key, item: Object | None) -> None:
        place = (kind.name, *key)
        objects = self._objects.get(kind.name, {})
        old = objects.get(key)
        if item is None:
            objects.pop(key, None)
        else:
            objects[key] = item
        with self._lock:
            self._pending[place] = item
        if kind.name in DECIDING:
            self._references_changed(must_refresh=True)
        elif kind.name in REFERRING:
            wanted = {one for one in self._references.update(kind.name, key) if self._is_in_scope(one)}
            for reference in wanted - self._by_reference.keys():
                self._watch(reference)
            self._references_changed()
            self._hold(place, frozenset(wanted), HOLD)
        elif kind.name in ROUTE_KINDS:
            self._hold(place, _services(item) - _services(old) if old is not None else frozenset(), HOLD_ROUTE)
        elif kind.name == "EndpointSlice":
            self._endpoints.update(_served(item))
            self._endpoints.subtract(_served(old))
            if self.scope.node and not self._zone and item is not None:
                self._zone = zone_of(self.scope.node, item)
            self._release_settled()
        self._tell()

    def _on_namespace(self, name: str, item: Object | None) -> None:
        """From the NamespaceReader; a list or watch, where we may, knows better."""
        if all(not informer.is_listed for informer in self.informers if informer.kind is NAMESPACE):
            self._on_object(NAMESPACE, ("", name), item)

    def _on_state(self) -> None:
        """An informer has listed, or is in trouble, or out of it."""
        if self.scope.namespaces:
            classes = next(informer for informer in self.informers if informer.kind is GATEWAY_CLASS)
            if classes.is_denied and not classes.is_listed:
                self._assume_classes()
        problems = [problem for informer in self._all_informers() if (problem := _problem(informer)) is not None]
        with self._lock:
            is_news = problems != self._problems
            self._problems = problems
        self._progress.set()
        if any(not informer.is_cut_off for informer in self.informers):
            for informer in self.informers:
                informer.retry_now()
        self._release_settled()
        if is_news or self._recovery is not None:
            self._tell()

    def _assume_classes(self) -> None:
        for name in self.scope.assumed_classes:
            if ("", name) not in self._objects["GatewayClass"]:
                log.info(
                    "GatewayClasses may not be read: Gateways of this class are taken for ours",
                    extra={"gateway_class": name},
                )
                self._on_object(GATEWAY_CLASS, ("", name), assumed_class(name, self.scope.controller_name))

    def _tell(self) -> None:
        """Have what is pending read, unless more of it is about to come."""
        if not self._is_open:
            return
        if any(informer.is_cut_off for informer in self.informers):
            if self._recovery is None:
                self._recovery = asyncio.get_running_loop().call_later(RECOVERY, self._recover)
            return
        self._recover()

    def _recover(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
        self.on_change()

    def _all_informers(self) -> Iterator[Informer]:
        yield from self.informers
        yield from (informer for informer, _ in self._by_reference.values())

    # ===== Secrets and ConfigMaps =====

    def _references_changed(self, must_refresh: bool = False) -> None:
        """Follow them once this burst of changes is over: a page of a list may bring hundreds of grants."""
        self._must_refresh |= must_refresh
        if not self._is_stale:
            self._is_stale = True
            asyncio.get_running_loop().call_soon(self._follow_references)

    def _follow_references(self) -> None:
        """Watch what is referred to, and nothing else."""
        if self._must_refresh:
            self._references.refresh()
        self._is_stale = self._must_refresh = False
        wanted = {reference for reference in self._references.all() if self._is_in_scope(reference)}
        for reference in self._by_reference.keys() - wanted:
            informer, task = self._by_reference.pop(reference)
            task.cancel()
            for key in informer.objects:
                self._on_object(informer.kind, key, None)
        for reference in wanted - self._by_reference.keys():
            self._watch(reference)
        self._progress.set()

    def _is_in_scope(self, reference: Reference) -> bool:
        return not self.scope.namespaces or reference[1] in self.scope.namespaces

    def _watch(self, reference: Reference) -> None:
        kind, namespace, name = reference
        informer = Informer(
            self.api,
            SECRET if kind == "Secret" else CONFIG_MAP,
            self._on_object,
            self._on_state,
            namespace=namespace,
            name=name,
            may_be_denied=True,  # the role may name single Secrets; one that it does not name is as good as absent
        )
        self._by_reference[reference] = informer, self._start(informer.run())

    def _is_settled(self, wanted: _Wants) -> bool:
        """Whether there is no point in waiting for it."""
        kind, namespace, name = wanted
        if kind == "Service":
            return self._endpoints[namespace, name] > 0
        found = self._by_reference.get(wanted)
        return found is None or found[0].is_settled

    def _hold(self, place: _Place, wanted: frozenset[_Wants], seconds: float) -> None:
        """Keep an object back until what it wants is there, or the time is up; nothing wanted: let it go."""
        held = self._held.pop(place, None)
        if held is not None:
            held.timer.cancel()
        wanted = frozenset(one for one in wanted if not self._is_settled(one))
        if wanted and self._is_open:
            timer = asyncio.get_running_loop().call_later(seconds, self._release, place)
            self._held[place] = _Held(wanted, timer)

    def _release_settled(self) -> None:
        for place in [place for place, held in self._held.items() if all(map(self._is_settled, held.waits_for))]:
            self._release(place)

    def _release(self, place: _Place) -> None:
        held = self._held.pop(place, None)
        if held is not None:
            held.timer.cancel()
            self._tell()

    def _start(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _services(route: Object | None) -> frozenset[_Wants]:
    """The Services that a route's rules send calls to."""
    if route is None:
        return frozenset()
    return frozenset(
        ("Service", reference.get("namespace") or route["metadata"]["namespace"], reference["name"])
        for rule in route["spec"].get("rules") or ()
        for reference in rule.get("backendRefs") or ()
        if reference.get("kind", "Service") == "Service" and not reference.get("group") and reference.get("weight") != 0
    )


def _served(item: Object | None) -> list[Key]:
    """The Service that an EndpointSlice gives endpoints to, if any."""
    if item is None or not any(takes_calls(endpoint) for endpoint in item["endpoints"]):
        return []
    return [(item["metadata"]["namespace"], item["metadata"]["labels"].get(SERVICE_NAME_LABEL, ""))]


def _problem(informer: Informer) -> Problem | None:
    """What a user has to mend about one informer: not a server that is away, but one that refuses."""
    error = informer.trouble
    if error is None or not informer.is_told or (informer.is_denied and informer.is_settled and not informer.name):
        return None
    kind = informer.kind
    subject = object_name(kind.name, informer.namespace, informer.name) if informer.name else ""
    if error.status == 403:
        hint = f"the role needs list and watch on {kind.resource}"
        return Problem("warning", "", 0, subject, "", "Forbidden", f"{error.message}; {hint}")
    return Problem("warning", "", 0, subject, "", error.reason, f"{kind.resource} cannot be read: {error}")
