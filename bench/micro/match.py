"""Routing tables whose rules differ in one thing, and what a match costs. As a program: 10 rules against 10,000.

    python -m bench.micro.match

The loops are in C (match_times): Python would be most of what is measured. Each round is 10,000 matches of 1,000
different calls spread over all rules, so that a large image does not sit in the cache for one rule's sake. Prints one
JSON object: for each kind, nanoseconds of CPU time for a match among 10 rules and among 10,000.
"""

from __future__ import annotations

import json
import sys
import time

from pygw._fastmatch import RouteTable
from pygw.model import (
    BackendRefConfig,
    GatewayConfig,
    HeaderMatch,
    ListenerConfig,
    MatchConfig,
    RouteConfig,
    RuleConfig,
)
from pygw.tables import compile_image

CALLS = 1000
ROUNDS = 10
LOOP = CALLS * ROUNDS
FIELDS = [
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"x"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"user-agent", b"grpc-go/1.70.0"),
    (b"grpc-timeout", b"9999m"), (b"authorization", b"Bearer abcdefghijklmnopqrstuvwxyz"),
]  # fmt: skip
KINDS = ["hosts", "services", "methods", "headers", "names", "two-headers", "everything"]


def config_of(kind: str, count: int) -> GatewayConfig:
    """`count` rules that differ in one thing."""
    routes = [_route(kind, number) for number in range(count)]
    listener = ListenerConfig("default/gateway", "grpc", 80, routes=tuple(sorted(route.key for route in routes)))
    return GatewayConfig((listener,), {route.key: route for route in routes})


def _route(kind: str, number: int) -> RouteConfig:
    every = kind == "everything"
    host = f"host{number}.example.com" if every or kind == "hosts" else "grpc.example.com"
    service = f"pkg{number}.Service" if every or kind == "services" else "pkg.Service"
    method = f"Method{number}" if every or kind == "methods" else "Method"
    headers: tuple[HeaderMatch, ...] = ()
    if every or kind == "headers":
        headers = (HeaderMatch("x-tenant-id", f"tenant-{number}"),)
    elif kind == "names":
        headers = (HeaderMatch(f"x-flag-{number}", "on"),)
    elif kind == "two-headers":
        headers = (HeaderMatch("x-environment", "staging"), HeaderMatch("x-tenant-id", f"tenant-{number}"))
    ref = BackendRefConfig("default/backend:50051", "default", "backend", 50051)
    rule = RuleConfig(0, (MatchConfig(service, False, method, False, headers),), (ref,))
    return RouteConfig("default", f"route-{number}", (host,), (rule,))


Question = tuple[bytes, bytes, list[tuple[bytes, bytes]]]


def question_of(kind: str, number: int) -> Question:
    """The call that the rule with this number gets."""
    route = _route(kind, number)
    match = route.rules[0].matches[0]
    headers = [(header.name.encode(), header.value.encode()) for header in match.headers]
    return f"{route.hostnames[0]}:80".encode(), f"/{match.service}/{match.method}".encode(), FIELDS + headers


def questions_of(kind: str, count: int) -> list[Question]:
    """CALLS calls, spread over `count` rules in no order."""
    return [question_of(kind, (place * 7919 + 13) % count) for place in range(CALLS)]


def best_of(table: RouteTable, questions: list[Question]) -> float:
    """CPU seconds for LOOP matches."""
    start = time.process_time()
    assert table.match_times(ROUNDS, 0, questions) == LOOP
    return time.process_time() - start


def few_and_many(kind: str, rounds: int) -> tuple[float, float]:
    """CPU seconds of LOOP matches among 10 rules and among 10,000: the least of interleaved rounds."""
    few, many = (
        (RouteTable(compile_image(config_of(kind, count)).octets), questions_of(kind, count)) for count in (10, 10_000)
    )
    # Interleaved, and the least of many rounds, so that a busy machine slows both.
    times = [(best_of(*few), best_of(*many)) for _ in range(rounds)]
    return min(time for time, _ in times), min(time for _, time in times)


def main() -> int:
    found = {}
    for kind in KINDS:
        few, many = (seconds / LOOP * 1e9 for seconds in few_and_many(kind, 30))
        found[kind] = {"ns_10": few, "ns_10000": many, "ratio": many / few}
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
