"""GRPCRoute: its matches (Gateway API, grpcroute_types.go)."""

from __future__ import annotations

from typing import Any

from pygw.control.backends import Targets
from pygw.control.cluster_state import Object
from pygw.control.filters import GRPC_FORBIDDEN
from pygw.control.routes import CompiledRoute, RouteKind, check_pattern, compile_route, is_regex_type, read_headers
from pygw.model import MatchConfig


def compile_grpc_route(item: Object, targets: Targets) -> CompiledRoute:
    """Compile one GRPCRoute."""
    return compile_route(item, targets, _KIND)


def _read_matches(rule: dict[str, Any], path: str, faults: list[tuple[str, str]]) -> dict[str, Any]:
    matches = [
        _match(match, f"{path}.matches[{index}]", faults) for index, match in enumerate(rule.get("matches") or ())
    ]
    return {"matches": tuple(matches) or (MatchConfig(),)}  # none at all: every call


def _match(match: dict[str, Any], path: str, faults: list[tuple[str, str]]) -> MatchConfig:
    method = match.get("method") or {}
    service, name = method.get("service"), method.get("method")
    is_regex = is_regex_type(method, f"{path}.method", faults)
    if is_regex:
        for part, pattern in (("service", service), ("method", name)):
            check_pattern(pattern, f"{path}.method.{part}", faults)
    return MatchConfig(
        service=service,
        service_is_regex=is_regex and service is not None,
        method=name,
        method_is_regex=is_regex and name is not None,
        headers=read_headers(match.get("headers"), f"{path}.headers", faults),
    )


_KIND = RouteKind(
    _read_matches,
    GRPC_FORBIDDEN,
    can_redirect=False,
    answers=("12 UNIMPLEMENTED", "14 UNAVAILABLE", "14 UNAVAILABLE"),
)
