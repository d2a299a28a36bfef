"""The obvious matcher: what the Gateway API's text says, with no thought of speed. The oracle of test_fastmatch.py.

Written from GRPCRouteSpec.hostnames, GRPCRouteRule.matches and Listener.hostname alone; shares no code with pygw but
the plain data of model.py and the regex library itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone

import re2  # type: ignore[import-untyped]

from pygw.model import GatewayConfig, HeaderMatch, ListenerConfig, MatchConfig, RouteConfig

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Winner:
    """Who gets the call."""

    listener: str
    route: str
    rule: int
    match: int


def host_of(authority: bytes | None) -> str:
    """Lower case, port stripped, trailing dot kept."""
    text = (authority or b"").decode("latin-1")
    lowered = "".join(c.lower() if c.isascii() else c for c in text)
    return re.sub(r":[0-9]*\Z", "", lowered)


def hostname_matches(hostname: str, host: str) -> bool:
    """No hostname matches all; "*." stands for one label or more."""
    if not hostname:
        return True
    if hostname.startswith("*."):
        return host.endswith(hostname[1:]) and len(host) > len(hostname[1:])
    return host == hostname


def hostname_rank(hostname: str) -> tuple[int, int]:
    """Characters of a non-wildcard hostname, then characters of any."""
    return (0 if hostname.startswith("*.") else len(hostname), len(hostname))


def call_of(path: bytes) -> tuple[bytes, bytes] | None:
    """Service and method, or None where this is no gRPC call."""
    if re.search(rb"[?#]|%2f", path, re.IGNORECASE):
        return None
    parts = path.split(b"/")
    if len(parts) != 3 or parts[0] != b"":
        return None
    _, service, method = parts
    if service in (b"", b".", b"..") or method in (b"", b".", b".."):
        return None
    return service, method


def regex_matches(pattern: str, value: bytes) -> bool:
    """RE2, full match, the part grouped; an invalid pattern matches nothing."""
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern.encode(), options)
    except re2.error:
        return False
    return re2.fullmatch(b"(?:" + pattern.encode() + b")", value, options) is not None


def term_matches(term: str | None, is_regex: bool, value: bytes) -> bool:
    if term is None:
        return True
    return regex_matches(term, value) if is_regex else term.encode() == value


def term_rank(term: str | None, is_regex: bool) -> tuple[bool, int]:
    """Exact before any regex, then more characters."""
    return (term is not None and not is_regex, len(term or ""))


def distinct_headers(match: MatchConfig) -> list[HeaderMatch]:
    """Of equivalent names only the first counts."""
    first: dict[str, HeaderMatch] = {}
    for header in match.headers:
        first.setdefault(header.name.lower(), header)
    return list(first.values())


def header_matches(header: HeaderMatch, fields: Fields) -> bool:
    values = [value for name, value in fields if name.decode().lower() == header.name.lower()]
    return bool(values) and term_matches(header.value, header.is_regex, b",".join(values))


def age_rank(created: str) -> float:
    """Smaller is older; none is newer than any."""
    if not created:
        return float("inf")
    moment = datetime.fromisoformat(created.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()  # noqa: UP017


def selected_listeners(config: GatewayConfig, address: str, port: int, host: str) -> list[ListenerConfig]:
    """Those of the most specific hostname, at the Gateways that bind this address, else at the shared ones."""
    there = [one for one in config.listeners if one.port == port and address in one.addresses]
    if not there:
        there = [one for one in config.listeners if one.port == port and not one.addresses]
    fitting = [one for one in there if hostname_matches(one.hostname, host)]
    best = max((hostname_rank(one.hostname) for one in fitting), default=None)
    return [one for one in fitting if hostname_rank(one.hostname) == best]


def match(
    config: GatewayConfig, address: str, port: int, authority: bytes | None, path: bytes, fields: Fields
) -> tuple[str | None, Winner | None]:
    """The listener that is selected (its key), and who wins there."""
    host = host_of(authority)
    listeners = selected_listeners(config, address, port, host)
    if not listeners:
        return None, None
    call = call_of(path)
    if call is None:
        return listeners[0].key, None
    best: tuple[object, Winner] | None = None
    for key, route in config.routes.items():
        via = [listener for listener in listeners if key in listener.routes]
        for rank, rule, place in candidates(route, host, call, fields) if via else ():
            if best is None or rank < best[0]:  # type: ignore[operator]
                best = (rank, Winner(via[0].key, f"{route.namespace}/{route.name}", rule, place))
    return (listeners[0].key, None) if best is None else (best[1].listener, best[1])


def candidates(
    route: RouteConfig, host: str, call: tuple[bytes, bytes], fields: Fields
) -> list[tuple[tuple[object, ...], int, int]]:
    """Every match of the route that holds: (rank, rule, match); the smaller rank wins, steps 1 to 8 in order."""
    service, method = call
    hostnames = [name for name in route.hostnames or ("",) if hostname_matches(name, host)]
    found: list[tuple[tuple[object, ...], int, int]] = []
    for hostname in hostnames:
        for order, rule in enumerate(route.rules):
            for place, item in enumerate(rule.matches):
                headers = distinct_headers(item)
                if (
                    term_matches(item.service, item.service_is_regex, service)
                    and term_matches(item.method, item.method_is_regex, method)
                    and all(header_matches(header, fields) for header in headers)
                ):
                    plain, total = hostname_rank(hostname)
                    service_exact, service_length = term_rank(item.service, item.service_is_regex)
                    method_exact, method_length = term_rank(item.method, item.method_is_regex)
                    rank = (
                        -plain, -total,
                        not service_exact, -service_length,
                        not method_exact, -method_length,
                        -len(headers),
                        age_rank(route.created),
                        f"{route.namespace}/{route.name}",
                        order, place,
                    )  # fmt: skip
                    found.append((rank, rule.index, place))
    return found
