"""The obvious matcher of HTTPRoutes: what the Gateway API's text says, with no thought of speed.

Written from HTTPRouteSpec.hostnames, HTTPRouteRule.matches and HTTPRouteMatch; shares no code with pygw but the plain
data of model.py and the regex library. Listeners and hostnames are those of reference_match.py.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from pygw.model import GatewayConfig, HeaderMatch, HttpMatchConfig, RouteConfig
from tests.doubles.reference_match import (
    Fields,
    Winner,
    age_rank,
    header_matches,
    host_of,
    hostname_matches,
    hostname_rank,
    regex_matches,
    selected_listeners,
    term_matches,
)


def match(
    config: GatewayConfig,
    address: str,
    port: int,
    authority: bytes | None,
    target: bytes,
    fields: Fields,
    method: bytes = b"GET",
) -> Winner | None:
    """Which HTTPRoute takes a request."""
    host = host_of(authority)
    listeners = selected_listeners(config, address, port, host)
    path, _, query = target.partition(b"?")
    if not path.startswith(b"/") or b"#" in target or has_dot_segments(path):
        return None
    best: tuple[tuple[object, ...], Winner] | None = None
    for key, route in config.routes.items():
        via = [listener for listener in listeners if key in listener.routes]
        if not via or route.kind != "HTTPRoute":
            continue
        for rank, rule, place in candidates(route, host, path, query, fields, method):
            if best is None or rank < best[0]:
                best = (rank, Winner(via[0].key, f"{route.namespace}/{route.name}", rule, place))
    return None if best is None else best[1]


def has_dot_segments(path: bytes) -> bool:
    """Also in disguise; anything else is left as it was sent."""
    return any(
        re.sub(rb"%2e", b".", segment, flags=re.IGNORECASE) in (b".", b"..") for segment in path.split(b"/")
    )


def candidates(
    route: RouteConfig, host: str, path: bytes, query: bytes, fields: Fields, method: bytes
) -> list[tuple[tuple[object, ...], int, int]]:
    """Every match of the route that holds: (rank, rule, match); the smaller rank wins."""
    found: list[tuple[tuple[object, ...], int, int]] = []
    for hostname in [name for name in route.hostnames or ("",) if hostname_matches(name, host)]:
        for order, rule in enumerate(route.rules):
            for place, item in enumerate(rule.http_matches):
                headers, params = distinct(item.headers), distinct(item.query)
                if (
                    path_matches(item, path)
                    and (item.method is None or item.method.encode() == method)
                    and all(header_matches(header, fields) for header in headers)
                    and all(param_matches(param, query) for param in params)
                ):
                    plain, total = hostname_rank(hostname)
                    rank = (
                        -plain, -total,
                        *path_rank(item),
                        item.method is None,
                        -len(headers),
                        -len(params),
                        age_rank(route.created),
                        f"{route.namespace}/{route.name}",
                        order, place,
                    )  # fmt: skip
                    found.append((rank, rule.index, place))
    return found


def distinct(matches: tuple[HeaderMatch, ...]) -> list[HeaderMatch]:
    """Of equal names only the first counts."""
    first: dict[str, HeaderMatch] = {}
    for item in matches:
        first.setdefault(item.name, item)
    return list(first.values())


def path_matches(item: HttpMatchConfig, path: bytes) -> bool:
    """Exact, whole segments of a prefix (a "/" at its end is ignored), or the whole of a regular expression."""
    if item.path_type == "Exact":
        return item.path.encode() == path
    if item.path_type == "RegularExpression":
        return regex_matches(item.path, path)
    prefix = item.path.rstrip("/").encode()
    return path == prefix or path.startswith(prefix + b"/")


def path_rank(item: HttpMatchConfig) -> tuple[int, int]:
    """Exact before any regular expression before any prefix, then more characters."""
    kinds = ("Exact", "RegularExpression", "PathPrefix")
    return kinds.index(item.path_type), -len(item.path) if item.path_type != "Exact" else 0


def param_matches(param: HeaderMatch, query: bytes) -> bool:
    """The first parameter of that name, both sides percent-decoded."""
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if unquote_to_bytes(name) == param.name.encode():
            return term_matches(param.value, param.is_regex, unquote_to_bytes(value))
    return False
