"""Which listener, route, rule and backends a call gets: decided by the matcher that the relay uses, then explained.

decide() is one line of `pygw explain --batch`; explain() adds the listeners and every candidate that lost, with the
step of precedence at which it lost (candidates.py). Both follow the relay's order of decision: malformed by
RFC 9113 §8, gRPC but not POST, nothing matches, a rule. Knows no files and no network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pygw._fastmatch import RouteTable
from pygw.explain.candidates import candidates_of, describe_match, listeners_at, serves_http
from pygw.explain.checks import host_of
from pygw.explain.grpc import call_of
from pygw.explain.http import location_part
from pygw.http2.message import request_head
from pygw.model import BackendRefConfig, GatewayConfig, HeaderModifier, MirrorConfig, RouteConfig, RuleConfig
from pygw.tables import compile_image

Decision = dict[str, Any]

UNIMPLEMENTED = 12
UNAVAILABLE = 14


@dataclass(frozen=True, slots=True)
class Query:
    """A call to decide on. Headers are as on the wire; gRPC is assumed unless they give a content-type.

    An empty content-type stands for a request that has none.
    """

    port: int
    path: str
    authority: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    address: str = ""
    method: str = "POST"
    scheme: str = "http"

    MEMBERS: ClassVar[frozenset[str]] = frozenset(
        ("id", "port", "path", "authority", "headers", "address", "method", "scheme")
    )

    def __post_init__(self) -> None:
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise ValueError(f"port: {self.port!r} is no port number")
        for name in ("path", "authority", "address", "method", "scheme"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name == "authority"):
                raise ValueError(f"{name}: {value!r} is no text")

    @classmethod
    def from_json(cls, question: Mapping[str, Any]) -> Query:
        """A line of `explain --batch`; members beyond MEMBERS are ignored. Raises ValueError with what is wrong."""
        missing = [name for name in ("port", "path") if name not in question]
        if missing:
            raise ValueError(f"no {missing[0]!r}")
        headers = question.get("headers") or []
        if not isinstance(headers, list):
            raise ValueError("headers: not a list of [name, value]")
        for header in headers:
            if not (isinstance(header, list) and len(header) == 2 and all(isinstance(part, str) for part in header)):
                raise ValueError(f"headers: {header!r} is not [name, value]")
        given = {name: question[name] for name in cls.__slots__ if name in question and name != "headers"}
        return cls(headers=tuple((name, value) for name, value in headers), **given)

    @classmethod
    def from_parameters(cls, parameters: Iterable[tuple[str, str]]) -> Query:
        """A query string (port, authority, path, address, method, scheme, header=`k: v` repeated), decoded.

        Raises ValueError with what is wrong.
        """
        headers: list[tuple[str, str]] = []
        given: dict[str, Any] = {}
        for name, value in parameters:
            if name == "header":
                headers.append(header_of(value))
            elif name not in cls.__slots__ or name == "headers":
                raise ValueError(f"unknown parameter {name!r}")
            elif name in given:
                raise ValueError(f"{name}: given twice")
            else:
                given[name] = value
        if not given.get("port", "").isdecimal() or "path" not in given:
            raise ValueError("port and path are due, as in ?port=80&authority=example.com&path=/pkg.Service/Method")
        return cls(**{**given, "port": int(given["port"])}, headers=tuple(headers))


def header_of(text: str) -> tuple[str, str]:
    """`k: v` as a field; names in lower case, as clients send them. Raises ValueError."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"header {text!r} is not 'name: value'")
    return name.strip().lower(), value.strip()


class Explainer:
    """A GatewayConfig compiled as for the relay, to ask many questions."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.table = RouteTable(compile_image(config).octets)
        self._backends: dict[tuple[str, int], list[dict[str, Any]]] = {}

    def decide(self, query: Query) -> Decision:
        """As the function decide(). The lists of backends in it are shared between answers: do not change them."""
        return decide(self.table, self.config, query, self._backends)

    def explain(self, query: Query) -> Decision:
        """As the function explain()."""
        return explain(self.table, self.config, query)


def decide(
    table: RouteTable,
    config: GatewayConfig,
    query: Query,
    known_backends: dict[tuple[str, int], list[dict[str, Any]]] | None = None,
) -> Decision:
    """What becomes of the call: outcome `route`, `none` or `reject`.

    With `route`, `grpc_status` is null where calls go to the backends, and else what the rule answers every call
    with (an unsupported filter, no backendRefs, all weights 0); `message` says why. `none` has grpc_status 12, or
    http_status 405 (gRPC, but not POST), or where it is not gRPC 404 or 415 (no HTTPRoute there). What a rule answers a
    request that is not gRPC with is in http_status too: a redirect, 500, 503. `config` is what `table` was compiled
    from.
    """
    fields = fields_of(query)
    try:
        head = request_head(fields)
    except ValueError as error:
        return _answer("reject", message=str(error))
    is_grpc = head["is_grpc"]
    if is_grpc and head["method"] != b"POST":
        return _answer("none", http_status=405, message="gRPC calls use the POST method")
    found = table.match_request(
        table.site(query.address, query.port), head["authority"], head["path"], fields, is_grpc, head["method"]
    )
    if found["route"] is None:
        why = _why_nothing(config, query, found["listener"], is_grpc)
        if is_grpc:
            return _answer("none", UNIMPLEMENTED, why, listener=found["listener"])
        is_http = serves_http(config, query.address, query.port, host_of(_authority(query)))
        return _answer("none", message=why, listener=found["listener"], http_status=404 if is_http else 415)
    route = config.routes[f"{found['kind']}/{found['route']}"]
    rule = _rule(route, found["rule"])
    key = (route.key, rule.index)
    if known_backends is None:
        backends = backends_of(rule, route.kind)
    else:
        backends = known_backends.get(key) or known_backends.setdefault(key, backends_of(rule, route.kind))
    decision = _answer(
        "route", **own_answer(rule, is_grpc), listener=found["listener"], route=found["route"], rule=rule.index,
        match=found["match"], backends=backends,
    )  # fmt: skip
    if route.kind != "GRPCRoute":
        decision["kind"] = route.kind
    return decision


def explain(table: RouteTable, config: GatewayConfig, query: Query) -> Decision:
    """decide(), and with it `request`, `listeners` of the port, `filters` and `candidates`: the winner, those that
    match and lost (with the `step` of precedence), those that do not match (with the reason)."""
    decision = decide(table, config, query)
    authority = _authority(query)
    path = _octets(query.path)
    call = call_of(path)
    is_grpc = _is_grpc(query)
    decision["request"] = {
        "port": query.port,
        "address": query.address,
        "authority": authority,
        "host": host_of(authority),
        "path": query.path,
        "service": call[0].decode(errors="replace") if call and is_grpc else None,
        "method": call[1].decode(errors="replace") if call and is_grpc else None,
        "http_method": query.method,
    }
    decision["listeners"] = listeners_at(config, query.address, query.port, host_of(authority))
    decision["candidates"] = []
    if decision["outcome"] == "reject" or decision.get("http_status") in (405, 415):
        return decision
    decision["candidates"] = candidates_of(config, decision, path, fields_of(query), is_grpc)
    if decision["outcome"] == "route":
        route = config.routes[f"{decision.get('kind', 'GRPCRoute')}/{decision['route']}"]
        rule = _rule(route, decision["rule"])
        decision["rule_name"] = rule.name
        decision["matched"] = describe_match(route, rule, decision["match"])
        decision["filters"] = filters_of(rule)
    return decision


def fields_of(query: Query) -> list[tuple[bytes, bytes]]:
    """The header section of the call."""
    fields = [(b":method", _octets(query.method)), (b":scheme", _octets(query.scheme))]
    if query.authority is not None:
        fields.append((b":authority", _octets(query.authority)))
    fields.append((b":path", _octets(query.path)))
    has_content_type = False
    for name, value in query.headers:
        has_content_type |= name == "content-type"
        if name != "content-type" or value:
            fields.append((_octets(name), _octets(value)))
    if not has_content_type:
        fields.append((b"content-type", b"application/grpc"))
    return fields


def backends_of(rule: RuleConfig, kind: str = "GRPCRoute") -> list[dict[str, Any]]:
    """The backendRefs of a rule; `valid` is false where that share of calls gets 14 UNAVAILABLE.

    What is not gRPC gets `http_status` in its place, which only those of an HTTPRoute have.
    """
    backends = [_backend(ref) for ref in rule.backends]
    if kind == "HTTPRoute":
        for backend in backends:
            if not backend["valid"]:
                backend["http_status"] = 502 if backend["reason"] == "UnsupportedProtocol" else 500
    return backends


def own_answer(rule: RuleConfig, is_grpc: bool = True) -> dict[str, Any]:
    """What every call of this rule gets from the gateway itself: grpc_status (None: relayed), message, http_status."""
    if rule.redirect is not None:
        return {"grpc_status": None, "http_status": rule.redirect.status, "message": location_part(rule)}
    answer: tuple[int, str] | None = rule.failure
    http_status = 500
    if answer is None and not rule.backends:
        answer = UNIMPLEMENTED, "the rule that matches has no backendRefs"
    elif answer is None and not any(ref.weight for ref in rule.backends):
        answer, http_status = (UNAVAILABLE, "all backendRefs of the rule have weight 0"), 503
    if answer is None:
        return {"grpc_status": None}
    if is_grpc:
        return {"grpc_status": answer[0], "message": answer[1]}
    return {"grpc_status": None, "http_status": http_status, "message": answer[1]}


def filters_of(rule: RuleConfig) -> dict[str, Any]:
    """The filters of a rule, and those of its backendRefs by their place."""
    filters = _filters(rule.request_headers, rule.response_headers, rule.mirrors)
    for place, ref in enumerate(rule.backends):
        own = _filters(ref.request_headers, ref.response_headers, ref.mirrors)
        if own:
            filters.setdefault("backends", {})[str(place)] = own
    return filters


def _answer(outcome: str, grpc_status: int | None = None, message: str | None = None, **members: Any) -> Decision:
    decision = {"outcome": outcome, **members, "grpc_status": grpc_status}
    if message is not None:
        decision["message"] = message
    return decision


def _backend(ref: BackendRefConfig) -> dict[str, Any]:
    backend: dict[str, Any] = {
        "namespace": ref.namespace,
        "name": ref.name,
        "port": ref.port,
        "weight": ref.weight,
        "valid": ref.reason is None and ref.failure is None,
    }
    if ref.reason is not None:
        backend.update(reason=ref.reason, message=ref.message)
    elif ref.failure is not None:
        backend.update(reason="UnsupportedFilter", message=ref.failure)
    return backend


def _filters(
    request: HeaderModifier | None, response: HeaderModifier | None, mirrors: Sequence[MirrorConfig]
) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    for name, modifier in (("requestHeaders", request), ("responseHeaders", response)):
        if modifier is not None:
            steps = {"remove": list(modifier.remove), "set": dict(modifier.set), "add": dict(modifier.add)}
            filters[name] = {step: value for step, value in steps.items() if value}
    if mirrors:
        filters["mirrors"] = [
            {"backend": mirror.backend, "numerator": mirror.numerator, "denominator": mirror.denominator}
            for mirror in mirrors
        ]
    return filters


def _rule(route: RouteConfig, index: int) -> RuleConfig:
    return next(rule for rule in route.rules if rule.index == index)


def _octets(text: str) -> bytes:
    # A lone surrogate can come from an escape in JSON; no request has its octets.
    return text.encode("utf-8", "surrogatepass")


def _authority(query: Query) -> str | None:
    """:authority, or what stands for it."""
    if query.authority is not None:
        return query.authority
    return next((value for name, value in query.headers if name == "host"), None)


def _is_grpc(query: Query) -> bool:
    types = [value for name, value in query.headers if name == "content-type"]
    return not types or re.match(r"application/grpc(?:[+;]|\Z)", types[0], re.IGNORECASE) is not None


def _why_nothing(config: GatewayConfig, query: Query, listener: str | None, is_grpc: bool) -> str:
    if not any(one.port == query.port for one in config.listeners):
        return f"no listener has port {query.port}"
    if listener is None:
        where = f" at {query.address}" if query.address else ""
        return f"no listener on port {query.port}{where} has a hostname that matches {host_of(_authority(query))!r}"
    if not is_grpc or call_of(_octets(query.path)) is None:
        is_http = serves_http(config, query.address, query.port, host_of(_authority(query)))
        if not is_grpc and not is_http:
            return f"content-type is not gRPC's, and listener {listener} has no HTTPRoute"
        if is_grpc and not is_http:
            return "the path is not /service/method"
    return f"no rule of a route at listener {listener} matches this {'call' if is_grpc else 'request'}"
