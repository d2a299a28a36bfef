"""Why each match of a configuration wins, loses or does not hold for a call: the long way, for people.

The winner comes from the compiled matcher; here are the words for the others. The steps are those of
the Gateway API (GRPCRouteRule.matches): hostname, service, method, number of headers, then age, name and order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pygw.local_address import canonical_address
from pygw.model import GatewayConfig, HeaderMatch, ListenerConfig, MatchConfig, RouteConfig, RuleConfig
from pygw.regex import matcher
from pygw.tables import precedence, sites

Candidate = dict[str, Any]
Fields = list[tuple[bytes, bytes]]

_NOT_A_CALL = re.compile(rb"[?#]|%2f", re.IGNORECASE)


def host_of(authority: str | None) -> str:
    """:authority as hostnames are compared with it: lower case, without port."""
    return re.sub(r":[0-9]*\Z", "", _ascii_lower(authority or ""))


def call_of(path: bytes) -> tuple[bytes, bytes] | None:
    """Service and method of a path, None where it is no gRPC call."""
    parts = path.split(b"/")
    if len(parts) != 3 or parts[0] or _NOT_A_CALL.search(path):
        return None
    if parts[1] in (b"", b".", b"..") or parts[2] in (b"", b".", b".."):
        return None
    return parts[1], parts[2]


def hostname_holds(hostname: str, host: str) -> bool:
    """Whether a hostname of a listener or route covers this host; "" covers all."""
    if hostname.startswith("*."):
        return host.endswith(hostname[1:]) and len(host) > len(hostname) - 1
    return hostname in ("", host)


def hostname_rank(hostname: str) -> tuple[int, int]:
    """Precedence steps 1 and 2."""
    return (0 if hostname.startswith("*.") else len(hostname), len(hostname))


def listeners_at(config: GatewayConfig, address: str, port: int, host: str) -> list[dict[str, Any]]:
    """The listeners that answer at this address and port, each with whether it was selected and why not."""
    found = _hostnames_at(config, address, port)
    holding = [hostname for hostname in found if hostname_holds(hostname, host)]
    chosen = max(holding, key=hostname_rank, default=None)
    listeners = []
    for hostname, places in found.items():
        if hostname == chosen:
            reason = ""
        elif hostname in holding:
            reason = f"hostname {_or_any(chosen or '')} is more specific"
        else:
            reason = f"hostname {hostname} does not match {host!r}"
        listeners += [
            {"listener": config.listeners[place].key, "hostname": hostname, "selected": not reason, "reason": reason}
            for place in places
        ]
    return listeners


def candidates_of(
    config: GatewayConfig, decision: Mapping[str, Any], path: bytes, fields: Fields
) -> list[Candidate]:
    """Every match of every route at the selected listeners: the winner, then those that lost, then the others.

    `decision` is decide()'s with `request`. A candidate has route, kind, rule, rule_name, match, hostname, `result`
    (won, lost, no match), `reason`, and where it lost `step`, 1 to 8.
    """
    call = call_of(path)
    request = decision["request"]
    listeners = _selected(config, request)
    routes = sorted(
        (config.routes[key] for key in {key for one in listeners for key in one.routes} if key in config.routes),
        key=precedence,
    )
    found = [
        _Checked(route, rule, place, match, request["host"], call, fields)
        for route in routes
        for rule in route.rules
        for place, match in enumerate(rule.matches)
    ]
    holding = sorted((one for one in found if not one.reason), key=lambda one: one.rank)
    winner = next((one for one in holding if one.is_winner(decision)), None)
    return [one.told(winner) for one in holding] + [one.told(None) for one in found if one.reason]


class _Checked:
    """One match of one rule, against the call."""

    def __init__(
        self,
        route: RouteConfig,
        rule: RuleConfig,
        place: int,
        match: MatchConfig,
        host: str,
        call: tuple[bytes, bytes] | None,
        fields: Fields,
    ) -> None:
        self.route, self.rule, self.place, self.match = route, rule, place, match
        holding = [hostname for hostname in route.hostnames or ("",) if hostname_holds(hostname, host)]
        self.hostname = max(holding, key=hostname_rank, default="")
        self.headers = list({header.name: header for header in reversed(match.headers)}.values())
        self.reason = "" if holding else f"hostnames {', '.join(route.hostnames)} do not match {host!r}"
        if not self.reason:
            self.reason = _why_not(match, self.headers, call, fields)

    @property
    def rank(self) -> tuple[Any, ...]:
        """Smaller wins; one item for each of the eight steps."""
        plain, total = hostname_rank(self.hostname)
        age = precedence(self.route)
        return (
            -plain, -total,
            _term_rank(self.match.service, self.match.service_is_regex),
            _term_rank(self.match.method, self.match.method_is_regex),
            -len(self.headers),
            age[:2],
            age[2:],
            (self.route.rules.index(self.rule), self.place),
        )  # fmt: skip

    def is_winner(self, decision: Mapping[str, Any]) -> bool:
        name = f"{self.route.namespace}/{self.route.name}"
        return (name, self.rule.index, self.place) == (
            decision.get("route"), decision.get("rule"), decision.get("match")
        )  # fmt: skip

    def told(self, winner: _Checked | None) -> Candidate:
        """As a member of `candidates`."""
        told: Candidate = {
            "route": f"{self.route.namespace}/{self.route.name}",
            "kind": self.route.kind,
            "rule": self.rule.index,
            "rule_name": self.rule.name,
            "match": self.place,
            "matches": describe_match(self.match),
            "hostname": self.hostname,
            "result": "no match" if self.reason else "won" if winner is self else "lost",
            "reason": self.reason,
        }
        if winner is not None and winner is not self:
            told["step"], told["reason"] = self._lost_to(winner)
        return told

    def _lost_to(self, winner: _Checked) -> tuple[int, str]:
        mine, theirs = self.rank, winner.rank
        step = next((place for place in range(8) if mine[place] != theirs[place]), 7) + 1
        return step, f"{_STEPS[step - 1]}: {_VALUES[step - 1](self)}; the winner's: {_VALUES[step - 1](winner)}"


_STEPS = (
    "characters in a non-wildcard hostname",
    "characters in the hostname",
    "service: Exact before RegularExpression, then characters",
    "method: Exact before RegularExpression, then characters",
    "number of headers",
    "age of the route",
    "namespace/name of the route",
    "order in the route",
)

_VALUES: tuple[Callable[[_Checked], str], ...] = (
    lambda one: _or_any(one.hostname),
    lambda one: _or_any(one.hostname),
    lambda one: _term(one.match.service, one.match.service_is_regex),
    lambda one: _term(one.match.method, one.match.method_is_regex),
    lambda one: str(len(one.headers)),
    lambda one: one.route.created or "no creationTimestamp",
    lambda one: f"{one.route.namespace}/{one.route.name}",
    lambda one: f"rule {one.rule.index}, match {one.place}",
)


def describe_match(match: MatchConfig) -> str:
    """`service pkg.Svc, method ~ Get.*, header x-env = prod`, or `every gRPC call`."""
    parts = []
    if match.service is not None:
        parts.append(f"service {_operator(match.service_is_regex)}{match.service}")
    if match.method is not None:
        parts.append(f"method {_operator(match.method_is_regex)}{match.method}")
    parts += [f"header {header.name} {'~' if header.is_regex else '='} {header.value}" for header in match.headers]
    return ", ".join(parts) or "every gRPC call"


def _why_not(
    match: MatchConfig, headers: list[HeaderMatch], call: tuple[bytes, bytes] | None, fields: Fields
) -> str:
    """The first thing that does not hold, in words; "": all holds."""
    if call is None:
        return "the path is not /service/method"
    service, method = call
    if not _holds(match.service, match.service_is_regex, service):
        return f"service {_text(service)} is not {_term(match.service, match.service_is_regex)}"
    if not _holds(match.method, match.method_is_regex, method):
        return f"method {_text(method)} is not {_term(match.method, match.method_is_regex)}"
    for header in headers:
        values = [value for name, value in fields if name == header.name.encode()]
        if not values:
            return f"there is no header {header.name}"
        if not _holds(header.value, header.is_regex, b",".join(values)):
            return f"header {header.name}: {_text(b','.join(values))} is not {_term(header.value, header.is_regex)}"
    return ""


def _holds(term: str | None, is_regex: bool, value: bytes) -> bool:
    if term is None:
        return True
    if is_regex:
        return _regex_holds(term, value)
    return term.encode("utf-8", "surrogatepass") == value


def _regex_holds(pattern: str, value: bytes) -> bool:
    match = _compiled(pattern)
    return match is not None and bool(match(value))


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Callable[[bytes], Any] | None:
    try:
        return matcher(pattern.encode())
    except ValueError:  # the matcher lets an invalid pattern match nothing
        return None


def _term_rank(term: str | None, is_regex: bool) -> tuple[int, int]:
    return (2, 0) if term is None else (1, -len(term)) if is_regex else (0, -len(term))


def _selected(config: GatewayConfig, request: Mapping[str, Any]) -> list[ListenerConfig]:
    found = _hostnames_at(config, request["address"], request["port"])
    chosen = max((one for one in found if hostname_holds(one, request["host"])), key=hostname_rank, default=None)
    return [] if chosen is None else [config.listeners[place] for place in found[chosen]]


def _hostnames_at(config: GatewayConfig, address: str, port: int) -> dict[str, list[int]]:
    found = sites(config.listeners)
    return found.get((canonical_address(address), port)) or found.get(("", port), {})


def _ascii_lower(text: str) -> str:
    return text.translate(_LOWER)


_LOWER = {ord(c): ord(c) + 32 for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def _or_any(hostname: str) -> str:
    return hostname or "(none)"


def _operator(is_regex: bool) -> str:
    return "~ " if is_regex else ""


def _term(term: str | None, is_regex: bool) -> str:
    return "(any)" if term is None else f"~ {term}" if is_regex else term


def _text(octets: bytes) -> str:
    return repr(octets.decode(errors="backslashreplace"))
