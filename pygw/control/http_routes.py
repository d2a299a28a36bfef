"""HTTPRoute: its matches and timeouts (Gateway API, httproute_types.go)."""

from __future__ import annotations

import re
from typing import Any

from pygw.control.backends import Targets
from pygw.control.cluster_state import Object
from pygw.control.filters import HTTP_FORBIDDEN
from pygw.control.routes import CompiledRoute, RouteKind, check_pattern, compile_route, is_regex_match, read_headers
from pygw.model import HeaderMatch, HttpMatchConfig

# GEP-2257: up to four of hours, minutes, seconds and milliseconds.
_DURATION = re.compile(r"(?:[0-9]{1,5}(?:h|ms|m|s)){1,4}")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

_PATH_TYPES = ("Exact", "PathPrefix", "RegularExpression")


def compile_http_route(item: Object, targets: Targets) -> CompiledRoute:
    """Compile one HTTPRoute."""
    return compile_route(item, targets, _KIND)


def _read_matches(rule: dict[str, Any], path: str, faults: list[tuple[str, str]]) -> dict[str, Any]:
    matches = [
        _match(match, f"{path}.matches[{index}]", faults) for index, match in enumerate(rule.get("matches") or ())
    ]
    faults.extend(
        (f"{path}.{name}", f"{name} of HTTPRoute is not supported")
        for name in ("retry", "sessionPersistence")
        if rule.get(name)
    )
    _check_redirects(rule, path, matches, faults)
    return {
        "matches": (),
        "http_matches": tuple(matches) or (HttpMatchConfig(),),
        "timeout": _timeout(rule.get("timeouts") or {}, f"{path}.timeouts", faults),
    }


def _timeout(timeouts: dict[str, Any], path: str, faults: list[tuple[str, str]]) -> float:
    """Seconds for the whole request, 0 for no limit: there is one attempt, so both timeouts limit the same."""
    found: list[float] = []
    for name in ("request", "backendRequest"):
        text = timeouts.get(name)
        if text is None:
            continue
        if not isinstance(text, str) or not _DURATION.fullmatch(text):
            faults.append((f"{path}.{name}", f"{text} is not a duration such as 10s, 500ms or 1m30s"))
            continue
        seconds = sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)(h|ms|m|s)", text))
        if seconds:
            found.append(seconds)
    return min(found, default=0.0)


def _check_redirects(
    rule: dict[str, Any], path: str, matches: list[HttpMatchConfig], faults: list[tuple[str, str]]
) -> None:
    """ReplacePrefixMatch needs a prefix in every match (HTTPPathModifier.replacePrefixMatch)."""
    for index, entry in enumerate(rule.get("filters") or ()):
        modifier = (entry.get("requestRedirect") or {}).get("path") or {}
        if modifier.get("type") == "ReplacePrefixMatch" and any(match.path_type != "PathPrefix" for match in matches):
            where = f"{path}.filters[{index}].requestRedirect.path"
            faults.append((where, "ReplacePrefixMatch needs matches of type PathPrefix alone"))


def _match(match: dict[str, Any], path: str, faults: list[tuple[str, str]]) -> HttpMatchConfig:
    wanted = match.get("path") or {}
    kind, value = wanted.get("type") or "PathPrefix", wanted.get("value") or "/"
    if kind not in _PATH_TYPES:
        faults.append((f"{path}.path.type", f"match type {kind} is not supported"))
    elif kind == "RegularExpression":
        check_pattern(value, f"{path}.path.value", faults)
    return HttpMatchConfig(
        path=value,
        path_type=kind,
        method=match.get("method"),
        headers=read_headers(match.get("headers"), f"{path}.headers", faults),
        query=_query(match.get("queryParams") or (), f"{path}.queryParams", faults),
    )


def _query(params: Any, path: str, faults: list[tuple[str, str]]) -> tuple[HeaderMatch, ...]:
    found: dict[str, HeaderMatch] = {}
    for index, param in enumerate(params):
        name, where = param["name"], f"{path}[{index}]"
        if name not in found:  # of equal names only the first counts; case matters here
            found[name] = HeaderMatch(name, param["value"], is_regex_match(param, where, faults))
    return tuple(found.values())


_KIND = RouteKind(_read_matches, HTTP_FORBIDDEN, can_redirect=True, answers=("500", "500", "503"))
