"""Why each match of a GRPCRoute wins, loses or does not hold for a call (Gateway API, GRPCRouteRule.matches)."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pygw.explain.checks import (
    Checked,
    Fields,
    distinct,
    holds,
    named,
    operator,
    term,
    text_of,
    why_no_header,
)
from pygw.model import MatchConfig, RouteConfig, RuleConfig

_NOT_A_CALL = re.compile(rb"[?#]|%2f", re.IGNORECASE)


def call_of(path: bytes) -> tuple[bytes, bytes] | None:
    """Service and method of a path, None where it is no gRPC call."""
    parts = path.split(b"/")
    if len(parts) != 3 or parts[0] or _NOT_A_CALL.search(path):
        return None
    if parts[1] in (b"", b".", b"..") or parts[2] in (b"", b".", b".."):
        return None
    return parts[1], parts[2]


class GrpcChecked(Checked):
    """One match of a GRPCRoute."""

    STEPS: ClassVar = (
        "service: Exact before RegularExpression, then characters",
        "method: Exact before RegularExpression, then characters",
        "number of headers",
    )

    def __init__(
        self, route: RouteConfig, rule: RuleConfig, place: int, host: str, path: bytes, fields: Fields, is_grpc: bool
    ) -> None:
        super().__init__(route, rule, place, host)
        self.match = rule.matches[place]
        self.headers = distinct(self.match.headers)
        if not self.reason:
            self.reason = self._why_not(path, fields) if is_grpc else "the request is not gRPC"

    def ranks(self) -> tuple[Any, ...]:
        """Precedence steps 3 to 5."""
        return (
            _term_rank(self.match.service, self.match.service_is_regex),
            _term_rank(self.match.method, self.match.method_is_regex),
            -len(self.headers),
        )

    def values(self) -> tuple[str, ...]:
        """Service, method, number of headers."""
        return (
            term(self.match.service, self.match.service_is_regex),
            term(self.match.method, self.match.method_is_regex),
            str(len(self.headers)),
        )

    def description(self) -> str:
        """As describe_grpc_match()."""
        return describe_grpc_match(self.match)

    def _why_not(self, path: bytes, fields: Fields) -> str:
        call = call_of(path)
        if call is None:
            return "the path is not /service/method"
        service, method = call
        match = self.match
        if not holds(match.service, match.service_is_regex, service):
            return f"service {text_of(service)} is not {term(match.service, match.service_is_regex)}"
        if not holds(match.method, match.method_is_regex, method):
            return f"method {text_of(method)} is not {term(match.method, match.method_is_regex)}"
        return why_no_header(self.headers, fields)


def describe_grpc_match(match: MatchConfig) -> str:
    """`service pkg.Svc, method ~ Get.*, header x-env = prod`, or `every gRPC call`."""
    parts = []
    if match.service is not None:
        parts.append(f"service {operator(match.service_is_regex)}{match.service}")
    if match.method is not None:
        parts.append(f"method {operator(match.method_is_regex)}{match.method}")
    parts += named(match.headers, "header")
    return ", ".join(parts) or "every gRPC call"


def _term_rank(wanted: str | None, is_regex: bool) -> tuple[int, int]:
    return (2, 0) if wanted is None else (1, -len(wanted)) if is_regex else (0, -len(wanted))
