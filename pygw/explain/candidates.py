"""Why each match of a configuration wins, loses or does not hold for a call: the long way, for people.

The winner comes from the compiled matcher; here are the words for the others (`grpc`, `http`). The
steps are those of the Gateway API: for a GRPCRoute hostname (2), service, method, number of headers, then age, name and
order; for an HTTPRoute hostname (2), path, method, number of headers and of query parameters, then the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pygw.explain.checks import Candidate, Checked, Fields, hostname_holds, hostname_rank, or_any
from pygw.explain.grpc import GrpcChecked, describe_grpc_match
from pygw.explain.http import HttpChecked, describe_http_match
from pygw.local_address import canonical_address
from pygw.model import GatewayConfig, ListenerConfig, RouteConfig, RuleConfig
from pygw.tables import precedence, sites


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
            reason = f"hostname {or_any(chosen or '')} is more specific"
        else:
            reason = f"hostname {hostname} does not match {host!r}"
        listeners += [
            {"listener": config.listeners[place].key, "hostname": hostname, "selected": not reason, "reason": reason}
            for place in places
        ]
    return listeners


def serves_http(config: GatewayConfig, address: str, port: int, host: str) -> bool:
    """Whether an HTTPRoute is attached to the listeners that are selected."""
    return any(key.startswith("HTTPRoute/") for one in selected(config, address, port, host) for key in one.routes)


def candidates_of(
    config: GatewayConfig, decision: Mapping[str, Any], path: bytes, fields: Fields, is_grpc: bool = True
) -> list[Candidate]:
    """Every match of every route at the selected listeners: the winner, then those that lost, then the others.

    `decision` is decide()'s with `request`. A candidate has route, kind, rule, rule_name, match, hostname, `result`
    (won, lost, no match), `reason`, and where it lost `step`: 1 and up, or 0 where the kind of route decided.
    """
    request = decision["request"]
    listeners = selected(config, request["address"], request["port"], request["host"])
    routes = sorted(
        (config.routes[key] for key in {key for one in listeners for key in one.routes} if key in config.routes),
        key=precedence,
    )
    found: list[Checked] = []
    for route in routes:
        for rule in route.rules:
            found += [
                GrpcChecked(route, rule, place, request["host"], path, fields, is_grpc)
                for place in range(len(rule.matches))
            ]
            found += [
                HttpChecked(route, rule, place, request["host"], path, fields, request["http_method"])
                for place in range(len(rule.http_matches))
            ]
    # What holds, the GRPCRoutes' first; only matches of one kind have ranks that compare.
    holding = [
        one
        for kind in ("GRPCRoute", "HTTPRoute")
        for one in sorted((one for one in found if not one.reason and one.route.kind == kind), key=lambda one: one.rank)
    ]
    winner = next((one for one in holding if one.is_winner(decision)), None)
    return [one.told(winner) for one in holding] + [one.told(None) for one in found if one.reason]


def describe_match(route: RouteConfig, rule: RuleConfig, place: int) -> str:
    """A match of a rule, in words."""
    if route.kind == "HTTPRoute":
        return describe_http_match(rule.http_matches[place])
    return describe_grpc_match(rule.matches[place])


def selected(config: GatewayConfig, address: str, port: int, host: str) -> list[ListenerConfig]:
    """The listeners of the most specific hostname that covers the host."""
    found = _hostnames_at(config, address, port)
    chosen = max((one for one in found if hostname_holds(one, host)), key=hostname_rank, default=None)
    return [] if chosen is None else [config.listeners[place] for place in found[chosen]]


def _hostnames_at(config: GatewayConfig, address: str, port: int) -> dict[str, list[int]]:
    found = sites(config.listeners)
    return found.get((canonical_address(address), port)) or found.get(("", port), {})
