"""Why each match of an HTTPRoute wins, loses or does not hold for a request (Gateway API, HTTPRouteRule.matches)."""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes

from pygw.explain.checks import Checked, Fields, distinct, holds, named, term, text_of, why_no_header
from pygw.model import HeaderMatch, HttpMatchConfig, RouteConfig, RuleConfig

_KINDS = ("Exact", "RegularExpression", "PathPrefix")  # in the order of precedence


class HttpChecked(Checked):
    """One match of an HTTPRoute."""

    STEPS: ClassVar = (
        "path: Exact, RegularExpression, PathPrefix, then characters",
        "method",
        "number of headers",
        "number of query parameters",
    )

    def __init__(
        self, route: RouteConfig, rule: RuleConfig, place: int, host: str, target: bytes, fields: Fields, method: str
    ) -> None:
        super().__init__(route, rule, place, host)
        self.match = rule.http_matches[place]
        self.headers, self.query = distinct(self.match.headers), distinct(self.match.query)
        if not self.reason:
            self.reason = self._why_not(target, fields, method)

    def ranks(self) -> tuple[Any, ...]:
        """Precedence from the path on."""
        kind = self.match.path_type
        length = 0 if kind == "Exact" else -len(self.match.path)
        return (_KINDS.index(kind), length), self.match.method is None, -len(self.headers), -len(self.query)

    def values(self) -> tuple[str, ...]:
        """Path, method, numbers of headers and query parameters."""
        path = f"{self.match.path_type} {self.match.path}"
        return path, self.match.method or "(any)", str(len(self.headers)), str(len(self.query))

    def description(self) -> str:
        """As describe_http_match()."""
        return describe_http_match(self.match)

    def _why_not(self, target: bytes, fields: Fields, method: str) -> str:
        path, _, query = target.partition(b"?")
        if not path.startswith(b"/") or b"#" in target or _has_dot_segments(path):
            return "the path has dot segments or a fragment, or does not begin with a slash"
        if not _path_holds(self.match, path):
            return f"path {text_of(path)} is not {self.match.path_type} {self.match.path}"
        if self.match.method is not None and self.match.method != method:
            return f"method {method} is not {self.match.method}"
        return why_no_header(self.headers, fields) or _why_no_param(self.query, query)


def describe_http_match(match: HttpMatchConfig) -> str:
    """`GET, path prefix /shop, header x-env = prod, query beta = 1`."""
    kind = {"Exact": "path", "PathPrefix": "path prefix", "RegularExpression": "path ~"}[match.path_type]
    parts = [*([match.method] if match.method else []), f"{kind} {match.path}"]
    return ", ".join([*parts, *named(match.headers, "header"), *named(match.query, "query")])


def _has_dot_segments(path: bytes) -> bool:
    return any(re.fullmatch(rb"(?:\.|%2e){1,2}", segment, re.IGNORECASE) for segment in path.split(b"/"))


def _path_holds(match: HttpMatchConfig, path: bytes) -> bool:
    if match.path_type != "PathPrefix":
        return holds(match.path, match.path_type == "RegularExpression", path)
    prefix = match.path.rstrip("/").encode("utf-8", "surrogatepass")
    return path == prefix or path.startswith(prefix + b"/")


def _why_no_param(params: list[HeaderMatch], query: bytes) -> str:
    given: dict[bytes, bytes] = {}
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        given.setdefault(unquote_to_bytes(name), unquote_to_bytes(value))  # the first of a name counts
    for param in params:
        if param.name.encode() not in given:
            return f"there is no query parameter {param.name}"
        value = given[param.name.encode()]
        if not holds(param.value, param.is_regex, value):
            return f"query parameter {param.name}: {text_of(value)} is not {term(param.value, param.is_regex)}"
    return ""


def location_part(rule: RuleConfig) -> str:
    """What a redirect of a rule changes, in words."""
    redirect = rule.redirect
    if redirect is None:
        return ""
    changes = {
        "scheme": redirect.scheme, "hostname": redirect.hostname, "port": str(redirect.port or "") or None,
        "path": redirect.full_path, "prefix": redirect.prefix,
    }  # fmt: skip
    shown = [f"{name} {value or '(empty)'}" for name, value in changes.items() if value is not None]
    return f"redirects to {', '.join(shown) or 'the same URL'}"
