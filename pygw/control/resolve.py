"""resolve: ClusterState -> GatewayConfig, statuses and problems. A pure function; files and Kubernetes share it.

The order is that of the objects: Gateways with their listeners (`gateways`, `listeners`), routes (`routes` for what a
rule says, `attach` for where it counts), Service ports (`backends`), and at last what all that means for `.status`
(`status`). No exception comes out of it for what a user wrote: faults are conditions and Problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pygw.control.attach import PARENT_KINDS, Attachments, ListenerKey, Parents, attach, collect_parents
from pygw.control.backend_tls import Policies, judge_policies, problems_of
from pygw.control.backends import Override, Targets, backend_of
from pygw.control.certificates import Certificates
from pygw.control.cluster_state import ClusterState, Key, Object
from pygw.control.gateway_problems import gateway_problems
from pygw.control.gateways import Gateway, Gateways, Parent, judge_gateways
from pygw.control.incremental import ROUTE_KINDS, Changes, Memory, RouteKey, RouteMemo, take_snapshot
from pygw.control.listener_sets import with_listener_sets
from pygw.control.problems import Problem
from pygw.control.references import Grants
from pygw.control.route_kinds import COMPILERS
from pygw.control.routes import CompiledRoute, Dependency, problem
from pygw.control.shared_ports import share_ports
from pygw.control.slices import SERVICE_NAME_LABEL, Slices
from pygw.control.status import (
    NO_FAILURES,
    BindFailures,
    Status,
    class_status,
    gateway_status,
    listener_set_status,
    policy_status,
    route_status,
    route_verdicts,
)
from pygw.control.topology import NOWHERE, Place
from pygw.model import BackendConfig, GatewayConfig, ListenerConfig, RouteConfig

CONTROLLER_NAME = "pygw.dev/gateway-controller"

_NO_PARENTS = Parents({}, frozenset(), {})

StatusKey = tuple[str, str, str]  # kind, namespace ("" for GatewayClass), name


@dataclass(frozen=True, slots=True)
class ResolveOptions:
    """What `resolve` has to know beside the objects."""

    controller_name: str = CONTROLLER_NAME
    file_mode: bool = True  # GatewayClasses may be absent, Services without EndpointSlices are DNS names
    overrides: Mapping[tuple[str, str, int], Override] = field(default_factory=dict)  # --resolve
    gateway_addresses: tuple[str, ...] = ()  # for status.addresses of Gateways that ask for no address of their own
    previous: Resolution | None = None  # the one before: unchanged parts are taken from it
    now: str = ""  # RFC 3339; lastTransitionTime of conditions that change
    bundle_version: str | None = None  # of the installed Gateway API definitions; "": they do not say; None: file mode
    allow_external_names: bool = False  # in Kubernetes mode; in file mode they always resolve
    here: Place = NOWHERE  # for endpoints that are near


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a state comes to."""

    config: GatewayConfig
    statuses: dict[StatusKey, Status]  # of the objects that are ours; treat as read-only
    problems: list[Problem]
    gateways: Gateways = field(repr=False, compare=False)
    attached: dict[ListenerKey, int] = field(repr=False, compare=False)  # by Gateway and listener name
    memory: Memory = field(repr=False, compare=False)
    # The statuses of Gateways and ListenerSets before this one, against which with_programmed() dates its conditions.
    earlier_statuses: dict[StatusKey, Status] = field(repr=False, compare=False)


def resolve(state: ClusterState, options: ResolveOptions) -> Resolution:
    """Resolve a state as a whole; with options.previous, only what differs from it is done anew."""
    previous = options.previous
    memory, changes = _remember(state, options)
    gateways = _judge_parents(state, options, memory)
    problems = gateway_problems(gateways, options.file_mode)
    statuses: dict[StatusKey, Status] = {}

    _resolve_routes(memory, changes, options)
    by_listener: dict[ListenerKey, list[str]] = {}
    attached: dict[ListenerKey, int] = {}
    routes: dict[str, RouteConfig] = {}
    used: set[tuple[str, str, int]] = set()
    served = {
        (parent.key, listener.name)
        for gateway in gateways.gateways
        for parent in gateway.parents
        for listener in parent.listeners
        if parent.is_served and listener.is_served
    }
    for key, memo in memory.routes.items():
        if memo.status is not None:
            statuses[key] = memo.status
        if memo.problems:
            problems.extend(memo.problems)
        _count(memo, served, by_listener, attached, routes, used)
    backends, backend_problems = _resolve_backends(memory, changes, options, used)
    problems.extend(backend_problems)
    problems.extend(problems_of(memory.policies))
    statuses.update(_policy_statuses(memory, gateways, options))
    if options.file_mode:
        problems.extend(_stray_slices(memory))
    memory.certificates.forget_previous()

    earlier = {key: status for key, status in (previous.statuses if previous else {}).items() if key[0] in PARENT_KINDS}
    for name, class_ in gateways.classes.items():
        before = previous.statuses.get(("GatewayClass", "", name)) if previous else None
        statuses["GatewayClass", "", name] = class_status(class_, options.now, before, options.bundle_version)
    for gateway in gateways.gateways:
        statuses.update(_parent_statuses(gateway, attached, options.now, earlier, NO_FAILURES))
    config = GatewayConfig(_listeners(gateways, by_listener), routes, backends)
    return Resolution(config, statuses, problems, gateways, attached, memory, earlier)


def _parent_statuses(
    gateway: Gateway,
    attached: dict[ListenerKey, int],
    now: str,
    earlier: Mapping[StatusKey, Status],
    failures: BindFailures,
) -> dict[StatusKey, Status]:
    """The status of a Gateway and of its ListenerSets."""
    key = gateway.parent.key
    statuses = {key: gateway_status(gateway, _counts(gateway.parent, attached), now, earlier.get(key), failures)}
    for listener_set in gateway.listener_sets:
        key = listener_set.parent.key
        counts = _counts(listener_set.parent, attached)
        statuses[key] = listener_set_status(listener_set, gateway, counts, now, earlier.get(key), failures)
    return statuses


def with_programmed(
    resolution: Resolution,
    failed_ports: Mapping[int, str],
    failed_addresses: Mapping[str, str] | None = None,
    now: str = "",
) -> Resolution:
    """The resolution after the data plane told what it could not bind: ports (all Gateways), addresses of Gateways.

    Call it after every `resolve` while a failure lasts. `config` stays, so that binding can be tried again.
    """
    failures = BindFailures(dict(failed_ports), dict(failed_addresses or {}))
    if not failures.ports and not failures.addresses:
        return resolution
    statuses = dict(resolution.statuses)
    for gateway in resolution.gateways.gateways:
        statuses.update(
            _parent_statuses(gateway, resolution.attached, now, resolution.earlier_statuses, failures)
        )
    return replace(resolution, statuses=statuses)


def _remember(state: ClusterState, options: ResolveOptions) -> tuple[Memory, Changes]:
    """A Memory that holds what of the previous one still stands."""
    bearing = (
        options.controller_name, options.file_mode, dict(options.overrides), options.allow_external_names,
        options.here,
    )  # fmt: skip
    old = options.previous.memory if options.previous is not None else None
    if old is not None and old.options != bearing:
        old = None
    snapshot, changes = take_snapshot(state, old.snapshot if old is not None else None)
    grants = old.grants if old is not None and not changes.of("ReferenceGrant") else None
    grants = grants or Grants(snapshot.objects["ReferenceGrant"].values())
    certificates = Certificates(
        state.objects("Secret"), state.objects("ConfigMap"), grants, _moment(options.now),
        old.certificates if old is not None else None,
    )  # fmt: skip
    policies = judge_policies(state.objects("BackendTLSPolicy"), snapshot.objects["Service"], certificates)
    if old is None:
        slices = Slices.of(snapshot.objects["EndpointSlice"])
        return Memory(snapshot, bearing, _NO_PARENTS, grants, slices, certificates, policies), changes
    return Memory(
        snapshot=snapshot,
        options=bearing,
        parents=old.parents,
        grants=grants,
        slices=old.slices.updated(snapshot.objects["EndpointSlice"], changes.of("EndpointSlice")),
        certificates=certificates,
        policies=policies,
        routes=old.routes,
        backends=old.backends,
    ), changes


def _moment(now: str) -> datetime:
    return datetime.fromisoformat(now) if now else datetime.now(UTC)


def _judge_parents(state: ClusterState, options: ResolveOptions, memory: Memory) -> Gateways:
    """The Gateways with their ListenerSets; `memory` learns what routes can attach to."""
    judged = judge_gateways(
        state, options.controller_name, options.file_mode, options.gateway_addresses, memory.certificates
    )
    gateways = share_ports(with_listener_sets(judged, state, memory.certificates))
    foreign = frozenset(("Gateway", *key) for key in gateways.foreign) | frozenset(
        ("ListenerSet", *key) for key in gateways.foreign_sets
    )
    parents = collect_parents(
        tuple(parent for gateway in gateways.gateways for parent in gateway.parents), foreign,
        state.objects("Namespace"),
    )  # fmt: skip
    if memory.parents != parents:
        memory.parents = parents
    return gateways


def _resolve_routes(memory: Memory, changes: Changes, options: ResolveOptions) -> None:
    """Bring memory.routes up to date, in the order of kind, namespace and name."""
    previous, old = options.previous, memory.routes
    all_move = previous is None or previous.memory.parents is not memory.parents
    touched = _touched(changes, memory.policies, previous.memory.policies if previous is not None else Policies())
    targets = _all_targets(memory, options)
    stale = _stale_routes(memory, changes, touched, all_move)
    routes = dict(old)
    for key in stale:
        item = memory.snapshot.objects[key[0]].get(key[1:])
        if item is None:
            del routes[key]
        else:
            routes[key] = _route(item, old.get(key), targets, touched, memory.parents, options)
    if routes.keys() != old.keys():
        routes = {key: routes[key] for key in sorted(routes)}
    memory.routes = routes


def _stale_routes(
    memory: Memory, changes: Changes, touched: frozenset[Dependency], all_move: bool
) -> list[RouteKey]:
    """The routes that came, went, changed, or hang on something that did."""
    if all_move:
        kept = {(kind, *place) for kind in ROUTE_KINDS for place in memory.snapshot.objects[kind]}
        return [*kept.union(memory.routes)]
    stale = {(kind, *place) for kind in ROUTE_KINDS for place in changes.of(kind)}
    if touched:
        stale.update(
            key
            for key, memo in memory.routes.items()
            if memo.compiled is not None and not memo.compiled.dependencies.isdisjoint(touched)
        )
    return [*stale]


def _all_targets(memory: Memory, options: ResolveOptions) -> Targets:
    return Targets(
        memory.snapshot.objects["Service"], memory.grants, options.overrides,
        options.file_mode or options.allow_external_names, memory.policies,
    )  # fmt: skip


def _touched(changes: Changes, policies: Policies, earlier: Policies) -> frozenset[Dependency]:
    services = {("Service", *key) for key in changes.of("Service") | policies.changed_services(earlier)}
    return frozenset(services | {("ReferenceGrant", namespace, "") for namespace, _ in changes.of("ReferenceGrant")})


def _route(
    item: Object,
    memo: RouteMemo | None,
    targets: Targets,
    touched: frozenset[Dependency],
    parents: Parents,
    options: ResolveOptions,
) -> RouteMemo:
    compiler = COMPILERS.get(item["kind"])
    compiled = memo.compiled if memo is not None and _says_the_same(memo.item, item) else None
    if compiled is not None and not compiled.dependencies.isdisjoint(touched):
        compiled = None
    if compiled is None and compiler is not None:
        compiled = compiler(item, targets)
        if memo is not None and memo.compiled is not None and memo.compiled.config == compiled.config:
            compiled = replace(compiled, config=memo.compiled.config)  # "unchanged" stays visible as `is`
    attachments = attach(item, parents)
    key = (item["kind"], item["metadata"]["namespace"], item["metadata"]["name"])
    before = options.previous.statuses.get(key) if options.previous is not None else None
    status = route_status(item, attachments, compiled, options.controller_name, options.now, before)
    problems = _route_problems(item, attachments, compiled, options.file_mode)
    return RouteMemo(item, compiled, attachments, status, problems)


def _says_the_same(old: Object, new: Object) -> bool:
    """Whether two versions of a route differ in nothing that rules are made of (a new status, say)."""
    return bool(
        old["spec"] == new["spec"]
        and old["metadata"].get("creationTimestamp") == new["metadata"].get("creationTimestamp")
    )


def _route_problems(
    item: Object, attachments: Attachments, compiled: CompiledRoute | None, file_mode: bool
) -> tuple[Problem, ...]:
    found: list[Problem] = []
    if file_mode:  # in a cluster, what names no Gateway of ours is none of our business
        found += [
            problem(item, "error", f"spec.parentRefs[{index}]", "NoMatchingParent", message)
            for index, message in attachments.unknown
        ]
        if not item["spec"].get("parentRefs"):
            found.append(problem(item, "warning", "spec", "NoParent", "there are no parentRefs, so nothing serves it"))
    for attachment in attachments.ours:
        accepted = route_verdicts(attachment.refusal, compiled)[0]
        if attachment.refusal is not None:
            path = f"spec.parentRefs[{attachment.index}]"
            found.append(problem(item, "error", path, accepted.reason, accepted.message))
    if compiled is not None and (attachments.ours or found):
        found.extend(compiled.problems)
    return tuple(found)


def _count(
    memo: RouteMemo,
    served: set[ListenerKey],
    by_listener: dict[ListenerKey, list[str]],
    attached: dict[ListenerKey, int],
    routes: dict[str, RouteConfig],
    used: set[tuple[str, str, int]],
) -> None:
    """Book one route on the listeners that it attaches to."""
    compiled = memo.compiled
    if compiled is None:
        return
    route, is_used = compiled.config, False
    route_key = route.key
    for place in memo.attachments.places:
        if compiled.has_rule:
            attached[place] = attached.get(place, 0) + 1
        # A route whose every rule fails still takes its calls: they must not fall to another route.
        if route.rules and place in served:
            by_listener.setdefault(place, []).append(route_key)
            is_used = True
    if is_used:
        routes[route_key] = route
        used.update(compiled.targets)


def _resolve_backends(
    memory: Memory, changes: Changes, options: ResolveOptions, used: set[tuple[str, str, int]]
) -> tuple[dict[str, BackendConfig], list[Problem]]:
    touched = changes.of("Service") | memory.slices.changed
    services, old = memory.snapshot.objects["Service"], memory.backends
    resolved = {target: old[target] for target in used if target in old} if used != old.keys() else dict(old)
    for target in used:
        service = target[:2]
        if target in old and service not in touched:
            continue
        new = backend_of(
            target, services.get(service), memory.slices.get(service), options.overrides.get(target),
            options.file_mode, options.here,
        )  # fmt: skip
        before = old.get(target)
        resolved[target] = (before[0], new[1]) if before is not None and before[0] == new[0] else new
    if resolved.keys() != old.keys():
        resolved = {target: resolved[target] for target in sorted(resolved)}
    memory.backends = resolved = _with_tls(resolved, _all_targets(memory, options))
    # Two ports of one Service find the same fault in an EndpointSlice.
    problems = {(one.object, one.path, one.message): one for _, found in resolved.values() for one in found}
    return {backend.key: backend for backend, _ in resolved.values()}, list(problems.values())


def _with_tls(
    resolved: dict[tuple[str, str, int], tuple[BackendConfig, list[Problem]]], targets: Targets
) -> dict[tuple[str, str, int], tuple[BackendConfig, list[Problem]]]:
    """The backends, spoken to as the BackendTLSPolicies say now."""
    for target, (backend, found) in resolved.items():
        policy = targets.policy(*target)
        tls = None if policy is None else policy.tls
        if backend.tls != tls:
            resolved[target] = replace(backend, tls=tls), found
    return resolved


def _policy_statuses(
    memory: Memory, gateways: Gateways, options: ResolveOptions
) -> Iterator[tuple[StatusKey, Status]]:
    """The statuses of the policies whose Services a Gateway of ours reaches, or once reached."""
    if not memory.policies.all:
        return
    previous = options.previous
    owners = {parent.key: gateway.parent.key[1:] for gateway in gateways.gateways for parent in gateway.parents}
    users: dict[Key, set[Key]] = {}
    for memo in memory.routes.values():
        if memo.compiled is None:
            continue
        reached = {owners[attachment.parent.key] for attachment in memo.attachments.ours if attachment.listeners}
        for kind, namespace, name in memo.compiled.dependencies if reached else ():
            if kind == "Service":
                users.setdefault((namespace, name), set()).update(reached)
    for policy in memory.policies.all:
        # A reference that selects nothing still is about the Service that it names.
        named = {(policy.key[0], ref.get("name", "")) for ref in policy.item["spec"].get("targetRefs") or ()}
        ancestors = sorted({gateway for service in named for gateway in users.get(service, ())})
        key = ("BackendTLSPolicy", *policy.key)
        before = previous.statuses.get(key) if previous is not None else None
        status = policy_status(policy, ancestors, options.controller_name, options.now, before)
        if status is not None:
            yield key, status


def _stray_slices(memory: Memory) -> list[Problem]:
    """EndpointSlices that belong to no Service: in a file a forgotten label, in a cluster somebody's own affair."""
    slices, owners = memory.snapshot.objects["EndpointSlice"], memory.slices.owners
    if len(owners) == len(slices):
        return []
    message = f"the label {SERVICE_NAME_LABEL} is missing, so its endpoints belong to no Service"
    return [
        problem(slices[key], "warning", "metadata.labels", "EndpointIgnored", message)
        for key in sorted(slices)
        if key not in owners
    ]


def _counts(parent: Parent, attached: dict[ListenerKey, int]) -> dict[str, int]:
    return {listener.name: attached.get((parent.key, listener.name), 0) for listener in parent.listeners}


def _listeners(gateways: Gateways, by_listener: dict[ListenerKey, list[str]]) -> tuple[ListenerConfig, ...]:
    """Every listener that is served, with or without routes."""
    return tuple(
        ListenerConfig(
            gateway=f"{gateway.parent.namespace}/{gateway.parent.name}",
            name=listener.name,
            port=listener.port,
            hostname=listener.hostname,
            protocol=listener.protocol,
            addresses=gateway.bind_addresses,
            routes=tuple(sorted(by_listener.get((parent.key, listener.name), ()))),
            listener_set="" if parent is gateway.parent else f"{parent.namespace}/{parent.name}",
            tls=listener.tls,
            client_certificate=gateway.tls.client_certificate,
        )
        for gateway in gateways.gateways
        for parent in gateway.parents
        if parent.is_served
        for listener in parent.listeners
        if listener.is_served
    )
