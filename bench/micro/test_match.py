"""What a match and a pick cost, and that it does not depend on the number of rules.

    python -m pytest bench/micro/test_match.py

Each round is 10,000 matches (bench/micro/match.py); "min" in microseconds divided by 10 is nanoseconds a match.
"""

from __future__ import annotations

import time

import pytest

from bench.micro.match import CALLS, FIELDS, KINDS, LOOP, ROUNDS, config_of, few_and_many, questions_of
from pygw._fastmatch import RouteTable
from pygw.model import BackendRefConfig, GatewayConfig, ListenerConfig, MatchConfig, RouteConfig, RuleConfig
from pygw.tables import compile_image


@pytest.mark.parametrize("count", [1, 10, 10_000])
@pytest.mark.parametrize("kind", KINDS)
def test_match(benchmark, kind, count):
    benchmark.group = f"match: {kind}"
    table = RouteTable(compile_image(config_of(kind, count)).octets)
    assert benchmark(table.match_times, ROUNDS, 0, questions_of(kind, count)) == LOOP


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_rules_cost_as_ten(kind):
    few, many = few_and_many(kind, 100)
    ratio = many / few
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
