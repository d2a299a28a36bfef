"""TLS of a Gateway: the certificates of its HTTPS listeners, how clients are validated, and its own client certificate
(Gateway API, gateway_types.go: ListenerTLSConfig, FrontendTLSConfig, GatewayBackendTLS; GEP-91, GEP-3155, GEP-3567).

Takes listeners that `listeners` has judged and judges what TLS adds. Fails closed: a listener without a usable
certificate, or without any of the CA certificates that it should validate clients with, is not served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pygw.control import conditions
from pygw.control.certificates import NOT_PERMITTED, WRONG_KIND, Certificates, Fault
from pygw.control.cluster_state import Object
from pygw.control.conditions import Condition
from pygw.control.listeners import Listener
from pygw.model import Certificate, ClientValidation, TlsConfig

SECURED = frozenset({"HTTPS"})  # the protocols that terminate TLS

_NAMED = 8  # how many other listeners a message names

Note = tuple[str, str, str]  # field path, reason, message: a warning


@dataclass(frozen=True, slots=True)
class GatewayTls:
    """What spec.tls of a Gateway comes to, apart from its listeners."""

    resolved_refs: Condition  # of spec.tls.backend; that of the listeners is added by with_listeners()
    insecure: Condition | None = None  # InsecureFrontendValidationMode
    client_certificate: Certificate | None = None
    notes: tuple[Note, ...] = ()

    def with_listeners(self, listeners: Iterable[Listener]) -> Condition:
        """The Gateway's ResolvedRefs: a fault of its own, else a summary of its listeners'."""
        bad = [listener.name for listener in listeners if not listener.resolved_refs.is_true]
        if self.resolved_refs.is_true and bad:
            return conditions.gateway_unresolved_refs("ListenersNotResolved", f"ResolvedRefs is False: {_names(bad)}")
        return self.resolved_refs


@dataclass(frozen=True, slots=True)
class _Frontend:
    """How clients of one port are validated."""

    validation: ClientValidation | None = None
    resolved_refs: Condition | None = None  # set where a reference is bad
    accepted: Condition | None = None  # set where all are
    notes: tuple[Note, ...] = ()


def judge_gateway_tls(gateway: Object, certificates: Certificates) -> GatewayTls:
    """spec.tls of a Gateway."""
    tls = gateway["spec"].get("tls") or {}
    insecure = None
    modes = [(path, validation.get("mode")) for path, _, validation in _validations(gateway)]
    loose = [path for path, mode in modes if mode == "AllowInsecureFallback"]
    if loose:
        insecure = conditions.gateway_insecure_validation(
            f"{', '.join(loose)}: clients are served whether their certificate is valid or not"
        )
    reference = (tls.get("backend") or {}).get("clientCertificateRef")
    if not reference:
        return GatewayTls(conditions.gateway_resolved_refs(), insecure)
    path = "spec.tls.backend.clientCertificateRef"
    found = certificates.certificate("Gateway", gateway["metadata"]["namespace"], reference)
    if isinstance(found, Fault):
        reason = "RefNotPermitted" if found.kind == NOT_PERMITTED else "InvalidClientCertificateRef"
        return GatewayTls(conditions.gateway_unresolved_refs(reason, f"{path}: {found.message}"), insecure)
    return GatewayTls(
        conditions.gateway_resolved_refs(), insecure, found.certificate,
        _expiry(path, found.warning(certificates.now)),
    )  # fmt: skip


def secure_listeners(
    listeners: Sequence[Listener], owner: Object, gateway: Object, certificates: Certificates
) -> tuple[Listener, ...]:
    """The HTTPS listeners of `owner` (a Gateway or a ListenerSet of `gateway`) with their TLS; others as they are.

    `listeners` stand in the order of the owner's spec.listeners.
    """
    frontends: dict[int, _Frontend] = {}
    secured = []
    for listener, spec in zip(listeners, owner["spec"].get("listeners") or (), strict=True):
        if listener.protocol not in SECURED or not listener.accepted.is_true:
            secured.append(listener)
            continue
        if listener.port not in frontends:
            frontends[listener.port] = _frontend(gateway, listener.port, certificates)
        secured.append(_secure(listener, spec.get("tls") or {}, owner, frontends[listener.port], certificates))
    return tuple(secured)


def _secure(
    listener: Listener, spec: Mapping[str, Any], owner: Object, frontend: _Frontend, certificates: Certificates
) -> Listener:
    if (spec.get("mode") or "Terminate") != "Terminate":
        message = f"tls.mode {spec['mode']} is not served; HTTPS listeners terminate TLS"
        return replace(listener, accepted=conditions.listener_not_accepted("UnsupportedValue", message))
    good: list[Certificate] = []
    notes = list(frontend.notes)
    notes += [("tls.options", "OptionIgnored", f"{name} is not known") for name in spec.get("options") or ()]
    faults: list[tuple[str, str]] = []
    for index, reference in enumerate(spec.get("certificateRefs") or ()):
        path = f"tls.certificateRefs[{index}]"
        found = certificates.certificate(owner["kind"], owner["metadata"]["namespace"], reference)
        if isinstance(found, Fault):
            reason = "RefNotPermitted" if found.kind == NOT_PERMITTED else "InvalidCertificateRef"
            faults.append((reason, f"{path}: {found.message}"))
        else:
            good.append(found.certificate)
            notes.extend(_expiry(path, found.warning(certificates.now)))
    if not good and not faults:
        faults.append(("InvalidCertificateRef", "tls.certificateRefs: there is no certificate"))
    resolved_refs = listener.resolved_refs
    if faults:
        resolved_refs = _worse(resolved_refs, faults[0][0], [message for _, message in faults])
    if frontend.resolved_refs is not None:
        resolved_refs = _worse(resolved_refs, frontend.resolved_refs.reason, [frontend.resolved_refs.message])
    return replace(
        listener,
        accepted=frontend.accepted or listener.accepted,
        resolved_refs=resolved_refs,
        tls=TlsConfig(tuple(dict.fromkeys(good)), frontend.validation) if good and not frontend.accepted else None,
        notes=tuple(notes),
    )


def _worse(condition: Condition, reason: str, messages: list[str]) -> Condition:
    """ResolvedRefs=False with one more reason; the first one stands."""
    if not condition.is_true:
        return conditions.listener_unresolved_refs(
            condition.reason, conditions.join_messages([condition.message, *messages])
        )
    return conditions.listener_unresolved_refs(reason, conditions.join_messages(messages))


def _validations(gateway: Object) -> list[tuple[str, int | None, Mapping[str, Any]]]:
    """(path, port or None for the default, validation) wherever spec.tls.frontend has one."""
    frontend = (gateway["spec"].get("tls") or {}).get("frontend") or {}
    places = [("spec.tls.frontend.default", None, frontend.get("default") or {})]
    for index, entry in enumerate(frontend.get("perPort") or ()):
        places.append((f"spec.tls.frontend.perPort[{index}].tls", entry.get("port"), entry.get("tls") or {}))
    return [(f"{path}.validation", port, tls["validation"]) for path, port, tls in places if tls.get("validation")]


def _frontend(gateway: Object, port: int, certificates: Certificates) -> _Frontend:
    """How clients of a port are validated: as perPort says for it, even that they are not; else by the default."""
    frontend = (gateway["spec"].get("tls") or {}).get("frontend") or {}
    own = any(entry.get("port") == port for entry in frontend.get("perPort") or ())
    for path, place, validation in _validations(gateway):
        if place == (port if own else None):
            return _validation(path, validation, gateway, certificates)
    return _Frontend()


def _validation(path: str, validation: Mapping[str, Any], gateway: Object, certificates: Certificates) -> _Frontend:
    good: list[str] = []
    faults: list[tuple[str, str]] = []
    notes: list[Note] = []
    for index, reference in enumerate(validation.get("caCertificateRefs") or ()):
        where = f"{path}.caCertificateRefs[{index}]"
        found = certificates.authorities("Gateway", gateway["metadata"]["namespace"], reference)
        if isinstance(found, Fault):
            faults.append((_CA_REASONS.get(found.kind, "InvalidCACertificateRef"), f"{where}: {found.message}"))
            continue
        good.append(found.pem)
        if found.warning:
            notes.append((where, "CertificateIgnored", found.warning))
    unresolved = accepted = None
    if faults:
        message = conditions.join_messages([message for _, message in faults])
        unresolved = conditions.listener_unresolved_refs(faults[0][0], message)
        if not good:
            accepted = conditions.listener_not_accepted("NoValidCACertificate", message)
    insecure = validation.get("mode") == "AllowInsecureFallback"
    return _Frontend(ClientValidation("".join(good), insecure) if good else None, unresolved, accepted, tuple(notes))


_CA_REASONS = {NOT_PERMITTED: "RefNotPermitted", WRONG_KIND: "InvalidCACertificateKind"}


def _expiry(path: str, warning: str) -> tuple[Note, ...]:
    return ((path, "CertificateExpired", warning),) if warning else ()


def mark_overlaps(listeners: Sequence[Listener]) -> tuple[Listener, ...]:
    """Say on each HTTPS listener which others of the Gateway and port a client could reach over its connection."""
    hostnames = _overlaps(listeners, lambda listener: (listener.hostname,))
    names = _overlaps(listeners, _certificate_names)
    marked = []
    for place, listener in enumerate(listeners):
        overlapping = None
        if names[place]:
            others = _names([listeners[other].name for other in sorted(names[place])])
            message = f"the names of its certificates overlap with those of {others}"
            overlapping = conditions.listener_overlapping("OverlappingCertificates", message)
        elif hostnames[place]:
            others = _names([listeners[other].name for other in sorted(hostnames[place])])
            message = f"its hostname overlaps with those of {others}"
            overlapping = conditions.listener_overlapping("OverlappingHostnames", message)
        marked.append(replace(listener, overlapping=overlapping) if overlapping != listener.overlapping else listener)
    return tuple(marked)


def _certificate_names(listener: Listener) -> tuple[str, ...]:
    if listener.tls is None:
        return ()
    return tuple(name for certificate in listener.tls.certificates for name in certificate.names)


def _overlaps(listeners: Sequence[Listener], names_of: Any) -> list[set[int]]:
    """For each listener the places of others on its port that have a name in common with it."""
    found: list[set[int]] = [set() for _ in listeners]
    owners: dict[tuple[int, str], list[int]] = {}
    for place, listener in enumerate(listeners):
        if listener.protocol in SECURED:
            for name in set(names_of(listener)):
                owners.setdefault((listener.port, name), []).append(place)
    for (port, name), places in owners.items():
        for suffix in _covering(name):
            for other in owners.get((port, suffix), ()):
                for place in places:
                    if place != other:
                        found[place].add(other)
                        found[other].add(place)
    return found


def _covering(name: str) -> list[str]:
    """A name, and every pattern that stands for all of it."""
    labels = name.removeprefix("*.").split(".")
    start = 0 if name.startswith("*.") else 1
    return list(dict.fromkeys([name, *(f"*.{'.'.join(labels[i:])}" for i in range(start, len(labels))), ""]))


def _names(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
