"""What a match and a pick cost, and that it does not depend on the number of rules.

    python -m pytest bench/micro/test_match.py

The loops are in C (match_times, pick_times): Python would be most of what is measured. Each round is 10,000 matches of
1,000 different calls spread over all rules, so that a large image does not sit in the cache for one rule's sake; "min"
in microseconds divided by 10 is nanoseconds a match.
"""

from __future__ import annotations

import time

import pytest

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


@pytest.mark.parametrize("count", [1, 10, 10_000])
@pytest.mark.parametrize("kind", KINDS)
def test_match(benchmark, kind, count):
    benchmark.group = f"match: {kind}"
    table = RouteTable(compile_image(config_of(kind, count)).octets)
    assert benchmark(table.match_times, ROUNDS, 0, questions_of(kind, count)) == LOOP


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_rules_cost_as_ten(kind):
    few, many = (
        (RouteTable(compile_image(config_of(kind, count)).octets), questions_of(kind, count)) for count in (10, 10_000)
    )
    # Interleaved, and the least of many rounds, so that a busy machine slows both.
    times = [(best_of(*few), best_of(*many)) for _ in range(100)]
    ratio = min(time for _, time in times) / min(time for time, _ in times)
    # 10,000 different header *names* are looked up among themselves before their rules are: one table more.
    assert ratio < (2 if kind == "names" else 1.5)


@pytest.mark.parametrize("count", [1, 10, 100])
def test_match_of_regexes(benchmark, count):
    benchmark.group = "match: regexes, decisions cached"
    rules = tuple(
        RuleConfig(number, (MatchConfig(f".*[.]v{number}[.].*", True),), (BackendRefConfig("b", "d", "b", 1),))
        for number in range(count)
    )
    route = RouteConfig("default", "route", (), rules)
    listener = ListenerConfig("default/gateway", "grpc", 80, routes=(route.key,))
    table = RouteTable(compile_image(GatewayConfig((listener,), {route.key: route})).octets)
    questions = [(b"host", f"/pkg.v{count - 1}.Service/Method".encode(), FIELDS)] * CALLS
    assert benchmark(table.match_times, ROUNDS, 0, questions) == LOOP


@pytest.mark.parametrize("backends", [1, 2, 16])
def test_pick(benchmark, backends):
    benchmark.group = "pick"
    refs = tuple(BackendRefConfig(f"d/b{n}:1", "d", f"b{n}", 1, weight=n + 1) for n in range(backends))
    route = RouteConfig("default", "route", (), (RuleConfig(0, (MatchConfig(),), refs),))
    listener = ListenerConfig("default/gateway", "grpc", 80, routes=(route.key,))
    table = RouteTable(compile_image(GatewayConfig((listener,), {route.key: route})).octets)
    assert sum(benchmark(table.pick_times, 0, LOOP)) == LOOP


@pytest.mark.parametrize("kind", ["headers", "everything"])
def test_compile_and_open_10000_rules(benchmark, kind):
    benchmark.group = "compile 10,000 rules"
    config = config_of(kind, 10_000)
    image = benchmark(compile_image, config)
    start = time.perf_counter()
    RouteTable(image.octets)
    benchmark.extra_info["open_ms"] = round((time.perf_counter() - start) * 1000, 2)
