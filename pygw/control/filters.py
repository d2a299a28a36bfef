"""Filters of rules and backendRefs (Gateway API: GRPCRouteFilter, HTTPRouteFilter).

Header modifiers, mirrors and redirects become plain data. Whatever else stands in `filters` is a fault that must not be
passed over: a filter that is not applied could have been the one that refuses the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pygw.control.backends import Target
from pygw.model import HeaderModifier, MirrorConfig, RedirectConfig

# What a modifier may not touch: gRPC's own protocol (every "grpc-" name, te, content-type), where the call goes (host)
# and the framing of the message (RFC 9113 §8.2.2 and content-length, §8.1.1). Pseudo-headers start with ":".
HTTP_FORBIDDEN = frozenset({
    "te", "content-length", "host",
    "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade",
})  # fmt: skip
GRPC_FORBIDDEN = HTTP_FORBIDDEN | {"content-type"}

# ASCII-Value of the gRPC protocol. Blanks around a value are no part of it (RFC 9110 §5.5) and are dropped.
_VALUE = re.compile(r"[ -~]*")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# What may stand in a path of the location field: what RFC 3986 §3.3 and §3.4 allow, so that no octet of a route can
# end the field or the URL's path.
_URL_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*")

_MODIFIERS = {"RequestHeaderModifier": "requestHeaderModifier", "ResponseHeaderModifier": "responseHeaderModifier"}


@dataclass(slots=True)
class Filters:
    """What a list of filters comes to."""

    request_headers: HeaderModifier | None = None
    response_headers: HeaderModifier | None = None
    mirrors: list[MirrorConfig] = field(default_factory=list)
    redirect: RedirectConfig | None = None
    targets: list[tuple[str, Target]] = field(default_factory=list)  # (path, target) of every mirror, bad ones too
    failure: str = ""  # a filter that cannot be applied; "": none
    failure_path: str = ""
    ignored: list[tuple[str, str]] = field(default_factory=list)  # (path, why) of entries that are left out


def read_filters(
    filters: Iterable[dict[str, Any]],
    path: str,
    find: Any,
    forbidden: frozenset[str] = GRPC_FORBIDDEN,
    can_redirect: bool = False,
) -> Filters:
    """Compile the filters at `path`; `find` turns a mirror's backendRef into a Target."""
    found = Filters()
    for index, entry in enumerate(filters):
        kind, where = entry.get("type", ""), f"{path}[{index}]"
        if kind in _MODIFIERS:
            name = _MODIFIERS[kind]
            modifier = _modifier(entry.get(name) or {}, f"{where}.{name}", forbidden, found.ignored)
            if kind == "RequestHeaderModifier":
                found.request_headers = found.request_headers or modifier
            else:
                found.response_headers = found.response_headers or modifier
        elif kind == "RequestMirror":
            _mirror(entry.get("requestMirror") or {}, f"{where}.requestMirror", find, found)
        elif kind == "RequestRedirect" and can_redirect:
            fault = _redirect(entry.get("requestRedirect") or {}, found)
            if fault and not found.failure:
                found.failure, found.failure_path = fault, f"{where}.requestRedirect"
        elif not found.failure:
            found.failure, found.failure_path = _unsupported(kind, entry), where
    return found


def _unsupported(kind: str, entry: dict[str, Any]) -> str:
    if kind != "ExtensionRef":
        return f"filter {kind} is not supported"
    reference = entry.get("extensionRef") or {}
    group = reference.get("group") or ""
    what = f"{group}/{reference.get('kind', '')}" if group else reference.get("kind", "")
    return f"filter ExtensionRef {what} {reference.get('name', '')} is not supported"


def _redirect(spec: dict[str, Any], found: Filters) -> str:
    """Why this redirect cannot be given (values of a future API); "" if it can."""
    path = spec.get("path") or {}
    kind, scheme, status = path.get("type"), spec.get("scheme"), spec.get("statusCode") or 302
    if kind not in (None, "ReplaceFullPath", "ReplacePrefixMatch"):
        return f"filter RequestRedirect with path.type {kind} is not supported"
    if scheme not in (None, "http", "https"):
        return f"filter RequestRedirect with scheme {scheme} is not supported"
    if status not in _REDIRECTS:
        return f"filter RequestRedirect with statusCode {status} is not supported"
    found.redirect = RedirectConfig(
        status=status,
        scheme=scheme,
        hostname=spec.get("hostname") or None,
        port=spec.get("port") or 0,
        full_path=path.get("replaceFullPath", "") if kind == "ReplaceFullPath" else None,
        prefix=path.get("replacePrefixMatch", "") if kind == "ReplacePrefixMatch" else None,
    )
    bad = [text for text in (found.redirect.full_path, found.redirect.prefix) if not _URL_PATH.fullmatch(text or "")]
    return f"filter RequestRedirect to the path {bad[0]!r} is not supported: it is no part of a URL" if bad else ""


def _mirror(mirror: dict[str, Any], path: str, find: Any, found: Filters) -> None:
    target: Target = find(mirror.get("backendRef") or {})
    found.targets.append((f"{path}.backendRef", target))
    fraction = mirror.get("fraction")
    numerator, denominator = mirror.get("percent", 100), 100
    if fraction is not None:
        denominator = fraction.get("denominator") or 100
        numerator = min(fraction.get("numerator", 0), denominator)
    # A bad reference is reported (ResolvedRefs) and the mirror left out; the call itself is not affected.
    if target.is_usable and numerator > 0:
        found.mirrors.append(MirrorConfig(target.key, numerator, denominator))


def _modifier(
    spec: dict[str, Any], path: str, forbidden: frozenset[str], ignored: list[tuple[str, str]]
) -> HeaderModifier | None:
    edits = {
        kind: tuple(_entries(spec.get(kind) or (), f"{path}.{kind}", forbidden, ignored)) for kind in ("set", "add")
    }
    remove: list[str] = []
    for index, name in enumerate(spec.get("remove") or ()):
        lower = name.lower()
        if lower in remove:
            continue
        fault = _name_fault(lower, forbidden)
        if fault:
            ignored.append((f"{path}.remove[{index}]", fault))
        else:
            remove.append(lower)
    if not (edits["set"] or edits["add"] or remove):
        return None
    return HeaderModifier(set=edits["set"], add=edits["add"], remove=tuple(remove))


def _entries(
    entries: Iterable[dict[str, Any]], path: str, forbidden: frozenset[str], ignored: list[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        name, value = entry.get("name", "").lower(), entry.get("value", "").strip(" \t")
        if name in seen:  # equivalent names: the first counts
            ignored.append((f"{path}[{index}]", f"{name} stands here already; the first entry counts"))
            continue
        seen.add(name)
        fault = _name_fault(name, forbidden) or _value_fault(name, value)
        if fault:
            ignored.append((f"{path}[{index}]", fault))
        else:
            yield name, value


def _name_fault(name: str, forbidden: frozenset[str]) -> str:
    if name.startswith("grpc-"):
        return f"{name} is reserved by gRPC and cannot be modified"
    if name in forbidden or name.startswith(":"):
        return f"{name} belongs to HTTP/2 or gRPC itself and cannot be modified"
    return ""


def _value_fault(name: str, value: str) -> str:
    if _VALUE.fullmatch(value):
        return ""
    return f"the value of {name} is not printable ASCII and cannot travel as metadata"
