"""Routing tables of any size, in the language of each proxy that is measured with them. The last rule is the call's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HOST = "bench.example.com"
RULES_PER_ROUTE = 16  # the most that a GRPCRoute may have


@dataclass(frozen=True)
class Rules:
    """So many rules of one kind.

    exact: each has an exact host, an exact method of its own and one exact header; headers: all the same method, told
    apart by the header alone; regex: a regular expression for the service and one for the header's value.
    """

    kind: str = "plain"
    count: int = 1
    edition: int = 0  # each has other methods (exact only)

    def path(self, number: int) -> str:
        """The path of a call that rule `number` gets."""
        method = f"Call{self.edition or ''}"
        return f"/bench.S{number}/{method}" if self.kind in ("exact", "regex") else "/bench.Echo/Call"

    def fields(self, number: int) -> tuple[tuple[str, str], ...]:
        """The header that such a call needs."""
        return () if self.kind == "plain" else (("x-rule", f"r{number}"),)


PLAIN = Rules()


def pygw_files(rules: Rules) -> Iterator[tuple[str, str]]:
    """Name and text of one file for each GRPCRoute."""
    for first in range(0, rules.count, RULES_PER_ROUTE):
        yield f"route-{first:05}.yaml", _pygw_route(rules, first)


def _pygw_route(rules: Rules, first: int) -> str:
    """The GRPCRoute that begins with rule `first`."""
    lines = [
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n"
        f"metadata: {{name: route-{first}, namespace: default}}\nspec:\n"
        f"  parentRefs: [{{name: bench}}]\n  hostnames: [{HOST}]\n  rules:\n"
    ]
    for number in range(first, min(first + RULES_PER_ROUTE, rules.count)):
        lines.append(f"  - matches:\n    - {_pygw_match(rules, number)}\n")
        lines.append("    backendRefs: [{name: backend, port: 50051}]\n")
    return "".join(lines)


def _pygw_match(rules: Rules, number: int) -> str:
    kind = "RegularExpression" if rules.kind == "regex" else "Exact"
    service = f"bench[.]S{number}" if rules.kind == "regex" else rules.path(number)[1:].partition("/")[0]
    headers = [
        f"{{type: {kind}, name: {name}, value: '{value}'}}"
        for name, value in rules.fields(number)
    ]
    method = "Call" if rules.kind != "regex" else "C.*"
    return (
        f"{{method: {{type: {kind}, service: '{service}', method: '{method}'}}"
        + (f", headers: [{', '.join(headers)}]" if headers else "") + "}"
    )


def envoy_route_config(rules: Rules) -> str:
    """What belongs under route_config, or into a file of RDS."""
    return (
        "            virtual_hosts:\n            - name: bench\n"
        f'              domains: ["{HOST}", "{HOST}:*"]\n              routes:\n{envoy_routes(rules)}'
    )


def envoy_routes(rules: Rules) -> str:
    """The routes of the virtual host."""
    lines = []
    for number in range(rules.count):
        match = f"path: {rules.path(number)}"
        if rules.kind == "regex":
            match = f"safe_regex: {{regex: '/bench[.]S{number}/C.*'}}"
        way = "safe_regex: {regex: '%s'}" if rules.kind == "regex" else "exact: %s"
        headers = ", ".join(
            f"{{name: {name}, string_match: {{{way % value}}}}}" for name, value in rules.fields(number)
        )
        match += f", headers: [{headers}]" if headers else ""
        lines.append(
            f"              - {{match: {{{match}}}, route: {{cluster: backend, timeout: 0s, "
            "max_stream_duration: {grpc_timeout_header_max: 0s}}}\n"
        )
    return "".join(lines)


def nginx_map(rules: Rules) -> str:
    """The entries of the map that stands for routes with a header; nothing else in nginx looks one up."""
    return "".join(
        f'        "{HOST}|{rules.path(number)}|{rules.fields(number)[0][1]}" backend;\n'
        for number in range(rules.count)
    )


def haproxy_map(rules: Rules) -> str:
    """The lines of the map file."""
    return "".join(
        f"{HOST}{rules.path(number)}|{rules.fields(number)[0][1]} backend\n" for number in range(rules.count)
    )
