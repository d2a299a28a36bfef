"""BackendTLSPolicies: which Service ports are spoken to over TLS, and what their endpoints must show (Gateway API,
backendtlspolicy_types.go; GEP-1897; GEP-713 for conflicts).

A policy for a port (sectionName) comes before one for the whole Service; among those for one target the oldest counts,
then `namespace/name`. It counts even where it is not usable: connections then fail, rather than go on in cleartext.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pygw.control import conditions
from pygw.control.certificates import WRONG_KIND, Certificates, Fault
from pygw.control.cluster_state import Key, Object, by_age
from pygw.control.conditions import Condition
from pygw.control.problems import Problem, object_name
from pygw.model import TlsUpstream

_SAN_TYPES = {"Hostname": ("DNS", "hostname"), "URI": ("URI", "uri")}

_Target = tuple[str, str, str]  # namespace, Service, port name ("": the whole Service)


@dataclass(frozen=True, slots=True)
class Policy:
    """One BackendTLSPolicy, judged. `accepted` and `resolved_refs` hold towards every Gateway."""

    item: Object
    targets: tuple[_Target, ...]
    accepted: Condition
    resolved_refs: Condition
    tls: TlsUpstream | None  # None: connections must fail
    problems: tuple[Problem, ...] = ()

    @property
    def key(self) -> Key:
        """(namespace, name)."""
        metadata = self.item["metadata"]
        return metadata["namespace"], metadata["name"]

    @property
    def fault(self) -> tuple[str, str]:
        """(reason, message) of why connections must fail."""
        condition = self.accepted if self.resolved_refs.is_true else self.resolved_refs
        namespace, name = self.key
        return condition.reason, f"BackendTLSPolicy {namespace}/{name}: {condition.message}"


@dataclass(frozen=True, slots=True)
class Policies:
    """All policies of one state, and which of them counts for a Service port."""

    all: tuple[Policy, ...] = ()
    _winners: Mapping[_Target, Policy] = field(default_factory=dict)

    def find(self, namespace: str, service: str, port_name: str) -> Policy | None:
        """The policy for a port of a Service; `port_name` "" where the port has none."""
        if not self._winners:
            return None
        whole = self._winners.get((namespace, service, ""))
        return self._winners.get((namespace, service, port_name), whole) if port_name else whole

    def changed_services(self, other: Policies) -> set[Key]:
        """(namespace, name) of the Services for which the other ones say something else."""
        mine, theirs = self._winners, other._winners
        return {target[:2] for target in mine.keys() | theirs.keys() if mine.get(target) != theirs.get(target)}


def judge_policies(
    policies: Mapping[Key, Object], services: Mapping[Key, Object], certificates: Certificates
) -> Policies:
    """Judge all BackendTLSPolicies of a state."""
    if not policies:
        return Policies()
    winners: dict[_Target, Object] = {}
    ordered = sorted(policies.values(), key=by_age)
    for item in ordered:
        for target in _targets(item, services)[0]:
            winners.setdefault(target, item)
    judged = [_judge(item, winners, services, certificates) for item in ordered]
    by_key = {policy.key: policy for policy in judged}
    return Policies(
        tuple(sorted(judged, key=lambda policy: policy.key)),
        {target: by_key[_key(item)] for target, item in winners.items()},
    )


def _key(item: Object) -> Key:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _targets(item: Object, services: Mapping[Key, Object]) -> tuple[list[_Target], list[tuple[str, str]]]:
    """The Services and ports that a policy selects, and (path, fault) of references that select nothing."""
    found: list[_Target] = []
    faults: list[tuple[str, str]] = []
    namespace = item["metadata"]["namespace"]
    for index, reference in enumerate(item["spec"].get("targetRefs") or ()):
        path = f"spec.targetRefs[{index}]"
        kind, group = reference.get("kind"), reference.get("group") or ""
        name, section = reference.get("name", ""), reference.get("sectionName") or ""
        service = services.get((namespace, name))
        if kind != "Service" or group:
            what = f"{group}/{kind}" if group else kind
            faults.append((path, f"{what} {name} is not a Service"))
        elif service is None:
            faults.append((path, f"Service {namespace}/{name} does not exist"))
        elif section and section not in _port_names(service):
            faults.append((path, f"Service {namespace}/{name} has no port called {section}"))
        else:
            found.append((namespace, name, section))
    return found, faults


def _port_names(service: Object) -> list[str]:
    return [port.get("name") or "" for port in (service.get("spec") or {}).get("ports") or ()]


def _judge(
    item: Object, winners: Mapping[_Target, Object], services: Mapping[Key, Object], certificates: Certificates
) -> Policy:
    targets, unfound = _targets(item, services)
    findings: list[tuple[str, str, str, str]] = [
        ("warning" if targets else "error", path, "TargetNotFound", message) for path, message in unfound
    ]
    lost = [target for target in targets if winners[target] is not item]
    tls, accepted, resolved_refs = _judge_validation(item, certificates, findings)
    if lost:
        others = [f"{_target_text(target)}: {'/'.join(_key(winners[target]))} is older" for target in lost]
        message = conditions.join_messages(others)
        findings.append(("error" if len(lost) == len(targets) else "warning", "spec.targetRefs", "Conflicted", message))
        if len(lost) == len(targets):
            accepted = conditions.policy_not_accepted("Conflicted", message)
    if not targets:
        accepted = conditions.policy_not_accepted("TargetNotFound", "; ".join(message for _, message in unfound))
    namespace, name = _key(item)
    text = object_name("BackendTLSPolicy", namespace, name)
    problems = tuple(
        Problem(severity, "", 0, text, path, reason, message) for severity, path, reason, message in findings
    )
    return Policy(item, tuple(targets), accepted, resolved_refs, tls, problems)


def _target_text(target: _Target) -> str:
    namespace, name, section = target
    return f"Service {namespace}/{name}" + (f" port {section}" if section else "")


def _judge_validation(
    item: Object, certificates: Certificates, findings: list[tuple[str, str, str, str]]
) -> tuple[TlsUpstream | None, Condition, Condition]:
    """spec.validation: what endpoints must show, Accepted, ResolvedRefs."""
    validation = item["spec"].get("validation") or {}
    accepted, resolved_refs = conditions.policy_accepted(), conditions.policy_resolved_refs()
    names, fault = _names(validation.get("subjectAltNames") or ())
    authorities: list[str] = []
    references = validation.get("caCertificateRefs") or ()
    faults: list[tuple[str, str]] = []
    for index, reference in enumerate(references):
        path = f"spec.validation.caCertificateRefs[{index}]"
        found = certificates.authorities("BackendTLSPolicy", item["metadata"]["namespace"], reference)
        if isinstance(found, Fault):
            reason = "InvalidKind" if found.kind == WRONG_KIND else "InvalidCACertificateRef"
            faults.append((reason, f"{path}: {found.message}"))
            findings.append(("error", path, reason, found.message))
            continue
        authorities.append(found.pem)
        if found.warning:
            findings.append(("warning", path, "CertificateIgnored", found.warning))
    if faults:
        message = conditions.join_messages([message for _, message in faults])
        resolved_refs = conditions.policy_unresolved_refs(faults[0][0], message)
        if not authorities:
            accepted = conditions.policy_not_accepted("NoValidCACertificate", message)
    known = validation.get("wellKnownCACertificates") or ""
    if not references and known != "System":
        fault = fault or f"spec.validation.wellKnownCACertificates: {known or 'nothing'} is not known; System is"
    if fault:
        accepted = conditions.policy_not_accepted("Invalid", fault)
        findings.append(("error", "spec.validation", "Invalid", fault))
    options = item["spec"].get("options") or ()
    findings.extend(("warning", "spec.options", "OptionIgnored", f"{option} is not known") for option in options)
    usable = not fault and (authorities or not references)
    tls = TlsUpstream(validation.get("hostname", ""), "".join(authorities), names) if usable else None
    return tls, accepted, resolved_refs


def _names(entries: Sequence[Mapping[str, Any]]) -> tuple[tuple[tuple[str, str], ...], str]:
    """The subjectAltNames, and what is wrong with them."""
    names: list[tuple[str, str]] = []
    for index, entry in enumerate(entries):
        kind, attribute = _SAN_TYPES.get(entry.get("type", ""), ("", ""))
        value = entry.get(attribute) or ""
        if not value:
            return (), f"spec.validation.subjectAltNames[{index}]: {entry.get('type')} is not known, or has no value"
        names.append((kind, value))
    return tuple(dict.fromkeys(names)), ""


def problems_of(policies: Policies) -> Iterable[Problem]:
    """Everything that is wrong with the policies."""
    return (problem for policy in policies.all for problem in policy.problems)
