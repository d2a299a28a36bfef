"""Routes: from spec.rules to RuleConfigs, and what has to be said about them (Gateway API).

What all kinds of routes share, one route at a time: filters, backendRefs, and the verdicts. The matches are those of
`grpc_routes` and `http_routes`; where a route attaches is `attach`'s business. Nothing here raises for what a user
wrote: a rule that cannot be served as written is dropped or made to fail, and named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pygw.control import conditions
from pygw.control.backends import Target, Targets
from pygw.control.cluster_state import Object, creation_time
from pygw.control.conditions import Condition
from pygw.control.filters import Filters, read_filters
from pygw.control.problems import Problem, object_name
from pygw.model import BackendRefConfig, HeaderMatch, RouteConfig, RuleConfig
from pygw.regex import check as regex_fault

UNIMPLEMENTED = 12
UNAVAILABLE = 14

Dependency = tuple[str, str, str]  # kind, namespace, name ("" for all of a kind in that namespace)


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """One route without its parents."""

    config: RouteConfig
    resolved_refs: Condition
    dropped: str  # message of PartiallyInvalid or UnsupportedValue; "": every rule is served as written
    has_rule: bool  # whether a rule is served as written (or there was none to serve)
    problems: tuple[Problem, ...]
    targets: tuple[tuple[str, str, int], ...]  # the valid Service ports that it uses
    dependencies: frozenset[Dependency]  # objects whose change may change this

    @property
    def key(self) -> tuple[str, str, str]:
        """(kind, namespace, name)."""
        return self.config.kind, self.config.namespace, self.config.name


@dataclass(slots=True)
class Findings:
    """Collected while one route is compiled."""

    item: Object
    targets: Targets
    kind: RouteKind
    dropped: list[str] = field(default_factory=list)
    lost_rules: int = 0  # rules that are not served at all as written
    problems: list[Problem] = field(default_factory=list)
    bad_references: list[tuple[str, Target]] = field(default_factory=list)
    used: dict[tuple[str, str, int], None] = field(default_factory=dict)
    dependencies: set[Dependency] = field(default_factory=set)

    @property
    def namespace(self) -> str:
        return str(self.item["metadata"]["namespace"])

    def find(self, reference: dict[str, Any]) -> Target:
        """The target of a reference; remembers what the answer hangs on."""
        target = self.targets.find(self.item["kind"], self.namespace, reference)
        self.dependencies.add(("Service", target.namespace, target.name))
        if target.namespace != self.namespace:
            self.dependencies.add(("ReferenceGrant", target.namespace, ""))
        return target

    def note(self, severity: str, path: str, reason: str, message: str) -> None:
        """Report something at a field path of the route."""
        self.problems.append(problem(self.item, severity, path, reason, message))

    def refer(self, path: str, target: Target) -> None:
        """Count a reference that stands at `path`, good or bad."""
        if target.is_usable:
            self.used[target.namespace, target.name, target.port] = None
        elif target.reason is not None:
            self.bad_references.append((path, target))
            self.note("error", path, target.reason, target.message)

    def read_filters(self, owner: dict[str, Any], path: str) -> Filters:
        """The filters of a rule or backendRef, with a report of what they brought."""
        kind = self.kind
        can_redirect = kind.can_redirect and "backendRefs[" not in path
        filters = read_filters(
            owner.get("filters") or (), f"{path}.filters", self.find, kind.forbidden_headers, can_redirect
        )
        for where, target in filters.targets:
            self.refer(where, target)
        for where, message in filters.ignored:
            self.note("warning", where, "HeaderIgnored", message)
        return filters


def problem(item: Object, severity: str, path: str, reason: str, message: str) -> Problem:
    """A Problem of an object; file and line are found later, from the path."""
    metadata = item["metadata"]
    name = object_name(item["kind"], metadata.get("namespace") or "", metadata["name"])
    return Problem(severity, "", 0, name, path, reason, message)


@dataclass(frozen=True, slots=True)
class RouteKind:
    """What sets one kind of route apart."""

    # The matches of a rule at a path, as members of RuleConfig; (path, fault) of what cannot be matched is appended.
    read_matches: Callable[[dict[str, Any], str, list[tuple[str, str]]], dict[str, Any]]
    forbidden_headers: frozenset[str]  # that modifiers may not touch
    can_redirect: bool
    # What a caller gets from a rule without backendRefs, one that cannot be applied, and one without weight.
    answers: tuple[str, str, str]


def compile_route(item: Object, targets: Targets, kind: RouteKind) -> CompiledRoute:
    """Compile one route against the Services and ReferenceGrants that `targets` holds."""
    findings = Findings(item, targets, kind)
    spec, metadata = item["spec"], item["metadata"]
    rules: list[RuleConfig] = []
    written = spec.get("rules") or ()
    for index, rule in enumerate(written):
        compiled = _rule(rule, index, findings)
        if compiled is not None:
            rules.append(compiled)
    if not written:
        findings.note("warning", "spec", "NoRules", "the route has no rules, so it serves nothing")
    config = RouteConfig(
        namespace=findings.namespace,
        name=metadata["name"],
        hostnames=tuple(dict.fromkeys(hostname.lower() for hostname in spec.get("hostnames") or ())),
        rules=tuple(rules),
        created=creation_time(item),
        kind=item["kind"],
    )
    return CompiledRoute(
        config=config,
        resolved_refs=_resolved_refs(findings.bad_references),
        dropped=conditions.join_messages(findings.dropped),
        has_rule=findings.lost_rules < len(written) or not written,
        problems=tuple(findings.problems),
        targets=tuple(findings.used),
        dependencies=frozenset(findings.dependencies),
    )


def _resolved_refs(bad: list[tuple[str, Target]]) -> Condition:
    if not bad:
        return conditions.route_resolved_refs()
    message = conditions.join_messages([f"{path}: {target.message}" for path, target in bad])
    return conditions.route_unresolved_refs(bad[0][1].reason or "", message)


def _rule(rule: dict[str, Any], index: int, findings: Findings) -> RuleConfig | None:
    path = f"spec.rules[{index}]"
    faults: list[tuple[str, str]] = []
    matches = findings.kind.read_matches(rule, path, faults)
    filters = findings.read_filters(rule, path)
    backends = _backends(rule.get("backendRefs") or (), path, findings)
    if faults:
        # Decision for invalid patterns: the rule matches nothing, rather than more or less than was meant.
        for where, message in faults:
            findings.note("error", where, "UnsupportedValue", message)
        findings.lost_rules += 1
        texts = [f"{where.removeprefix(path + '.')}: {message}" for where, message in faults]
        findings.dropped.append(f"Dropped Rule {index}: {'; '.join(texts)}")
        return None
    return RuleConfig(
        index=index,
        backends=backends,
        name=rule.get("name"),
        request_headers=filters.request_headers,
        response_headers=filters.response_headers,
        mirrors=tuple(filters.mirrors),
        failure=_failure(index, filters, backends, findings),
        redirect=None if filters.failure else filters.redirect,
        **matches,
    )


def _failure(
    index: int, filters: Filters, backends: tuple[BackendRefConfig, ...], findings: Findings
) -> tuple[int, str] | None:
    """What every call of the rule is answered with, if it cannot be relayed."""
    path = f"spec.rules[{index}]"
    where = f"{findings.item['kind']} {findings.namespace}/{findings.item['metadata']['name']} rule {index}"
    without_backends, failed, without_weight = findings.kind.answers
    if filters.failure:
        findings.note("error", filters.failure_path, "UnsupportedValue", filters.failure)
        findings.lost_rules += 1
        findings.dropped.append(f"Dropped Rule {index}: answers {failed.split()[0]}, {filters.failure}")
        return UNAVAILABLE, f"{where}: {filters.failure}"
    if filters.redirect is not None:
        return None
    if not backends:
        message = f"there are no backendRefs, so the calls of this rule get {without_backends}"
        findings.note("warning", f"{path}.backendRefs", "NoBackendRefs", message)
        return UNIMPLEMENTED, f"{where} has no backendRefs"
    if not any(backend.weight for backend in backends):
        message = f"all weights are 0, so the calls of this rule get {without_weight}"
        findings.note("warning", f"{path}.backendRefs", "NoWeight", message)
    failing = [(place, backend.failure) for place, backend in enumerate(backends) if backend.failure]
    if failing:
        findings.lost_rules += len(failing) == len(backends)
        parts = [f"backendRefs[{place}] answers {failed.split()[0]}, {failure}" for place, failure in failing]
        findings.dropped.append(f"Dropped Rule {index}: {'; '.join(parts)}")
    return None


def _backends(references: Any, path: str, findings: Findings) -> tuple[BackendRefConfig, ...]:
    backends: list[BackendRefConfig] = []
    for index, reference in enumerate(references):
        where = f"{path}.backendRefs[{index}]"
        target = findings.find(reference)
        findings.refer(where, target)
        filters = findings.read_filters(reference, where)
        if filters.failure:
            findings.note("error", filters.failure_path, "UnsupportedValue", filters.failure)
        weight = reference.get("weight")
        backends.append(
            BackendRefConfig(
                backend=target.key,
                namespace=target.namespace,
                name=target.name,
                port=target.port,
                weight=1 if weight is None else weight,
                reason=target.reason or target.blocked or None,
                message=target.message,
                request_headers=filters.request_headers,
                response_headers=filters.response_headers,
                mirrors=tuple(filters.mirrors),
                failure=filters.failure or None,
            )
        )
    return tuple(backends)


def read_headers(headers: Any, path: str, faults: list[tuple[str, str]]) -> tuple[HeaderMatch, ...]:
    """matches[].headers of either kind: of equivalent names only the first counts."""
    found: dict[str, HeaderMatch] = {}
    for index, header in enumerate(headers or ()):
        lower, where = header["name"].lower(), f"{path}[{index}]"
        if lower not in found:
            found[lower] = HeaderMatch(lower, header["value"], is_regex_match(header, where, faults))
    return tuple(found.values())


def is_regex_match(match: dict[str, Any], path: str, faults: list[tuple[str, str]]) -> bool:
    """Whether a match of a value at `path` is a RegularExpression; its pattern is checked too."""
    is_regex = is_regex_type(match, path, faults)
    if is_regex:
        check_pattern(match["value"], f"{path}.value", faults)
    return is_regex


def is_regex_type(match: dict[str, Any], path: str, faults: list[tuple[str, str]]) -> bool:
    """Whether the type of a match is RegularExpression; one that is not Exact either is a fault."""
    kind = match.get("type") or "Exact"
    if kind not in ("Exact", "RegularExpression"):
        faults.append((f"{path}.type", f"match type {kind} is not supported"))
    return bool(kind == "RegularExpression")


def check_pattern(pattern: str | None, path: str, faults: list[tuple[str, str]]) -> None:
    """Name what is wrong with a pattern, if anything."""
    fault = None if pattern is None else regex_fault(pattern)
    if fault is not None:
        faults.append((path, f"not a valid regular expression (RE2): {fault}"))
