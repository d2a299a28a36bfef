"""explain of HTTPRoutes: the decision, what the gateway answers itself, why others lost; words that fit the matcher."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from pygw.control.resolve import ResolveOptions, resolve
from pygw.control.yaml_source import load
from pygw.explain.explainer import Explainer, Query
from pygw.explain.table import table_lines
from pygw.model import (
    BackendRefConfig,
    GatewayConfig,
    HeaderMatch,
    HttpMatchConfig,
    ListenerConfig,
    MatchConfig,
    RedirectConfig,
    RouteConfig,
    RuleConfig,
)
from tests import test_http_match

WEB = BackendRefConfig("default/web:80", "default", "web", 80)
OLD = BackendRefConfig("default/old:80", "default", "old", 80, reason="UnsupportedProtocol", message="needs HTTP/1.1")
GONE = BackendRefConfig("default/gone:80", "default", "gone", 80, reason="BackendNotFound", message="is not there")
PLAIN = [["content-type", ""]]
HEADER, PARAM = (HeaderMatch("h", "v"),), (HeaderMatch("q", "1"),)
ROOT = Path(__file__).parents[2]


def rule(index: int, *matches: HttpMatchConfig, backends=(WEB,), **rest) -> RuleConfig:
    return RuleConfig(index, (), backends, http_matches=matches or (HttpMatchConfig(),), **rest)


def config(*rules: RuleConfig, grpc: bool = True) -> GatewayConfig:
    routes = [RouteConfig("default", "web", (), rules, kind="HTTPRoute")] if rules else []
    if grpc:
        routes.append(RouteConfig("default", "calls", (), (RuleConfig(0, (MatchConfig("s"),), (WEB,)),)))
    listener = ListenerConfig("default/gw", "main", 80, routes=tuple(sorted(route.key for route in routes)))
    return GatewayConfig((listener,), {route.key: route for route in routes})


def ask(made: GatewayConfig, path: str, **changes) -> dict:
    question = {"port": 80, "authority": "a.com", "path": path, "method": "GET", "headers": PLAIN, **changes}
    return Explainer(made).explain(Query.from_json(question))


def test_a_request_and_its_backends():
    explained = ask(config(rule(3, HttpMatchConfig("/shop"), backends=(WEB, OLD, GONE))), "/shop/1?x=2")
    assert {name: explained[name] for name in ("outcome", "kind", "listener", "route", "rule", "match")} == {
        "outcome": "route", "kind": "HTTPRoute", "listener": "default/gw/main", "route": "default/web", "rule": 3,
        "match": 0,
    }  # fmt: skip
    assert explained["matched"] == "path prefix /shop"
    assert (explained["grpc_status"], "http_status" in explained) == (None, False)
    assert [one.get("http_status") for one in explained["backends"]] == [None, 502, 500]
    assert explained["request"]["service"] is None
    table = "\n".join(table_lines(explained))
    assert "HTTPRoute default/web" in table
    assert "UnsupportedProtocol: these requests get 502, gRPC calls 14 UNAVAILABLE" in table


@pytest.mark.parametrize(
    ("rule_", "http_status", "says"),
    [
        (rule(0, backends=(), failure=(14, "filter CORS is not supported")), 500, "CORS"),
        (rule(0, backends=(), failure=(12, "no backendRefs")), 500, "no backendRefs"),
        (rule(0, backends=(BackendRefConfig("b", "default", "b", 1, weight=0),)), 503, "weight 0"),
        (rule(0, backends=(), redirect=RedirectConfig(308, "https", port=8443)), 308, "scheme https, port 8443"),
        (rule(0, backends=(), redirect=RedirectConfig(prefix="")), 302, "prefix (empty)"),
        (rule(0, backends=(), redirect=RedirectConfig()), 302, "the same URL"),
    ],
)
def test_what_the_gateway_answers_itself(rule_, http_status, says):
    explained = ask(config(rule_), "/")
    assert (explained["outcome"], explained["grpc_status"], explained["http_status"]) == ("route", None, http_status)
    assert says in explained["message"]
    assert f"HTTP {http_status}" in "\n".join(table_lines(explained))


def test_nothing_matches():
    explained = ask(config(rule(0, HttpMatchConfig("/shop"))), "/x")
    assert (explained["outcome"], explained["http_status"]) == ("none", 404)
    assert "no rule of a route at listener default/gw/main matches this request" in explained["message"]
    assert [(one["kind"], one["reason"]) for one in explained["candidates"]] == [
        ("GRPCRoute", "the request is not gRPC"),
        ("HTTPRoute", "path '/x' is not PathPrefix /shop"),
    ]
    without = ask(config(), "/x")
    assert (without["http_status"], without["candidates"]) == (415, [])
    assert "has no HTTPRoute" in without["message"]


def test_grpc_goes_to_grpc_routes_first():
    made = config(rule(0))
    call = {"method": "POST", "headers": []}
    first = ask(made, "/s/M", **call)
    assert (first["route"], "kind" in first) == ("default/calls", False)
    assert [(one["kind"], one["result"], one.get("step")) for one in first["candidates"]] == [
        ("GRPCRoute", "won", None), ("HTTPRoute", "lost", 0),
    ]  # fmt: skip
    assert "a gRPC call goes to GRPCRoutes first" in "\n".join(table_lines(first))
    assert ask(made, "/t/M", **call)["kind"] == "HTTPRoute"
    assert ask(config(rule(0, backends=(), failure=(14, "x"))), "/t/M", **call)["grpc_status"] == 14


@pytest.mark.parametrize(
    ("match", "reason"),
    [
        (HttpMatchConfig("/a", "Exact"), "path '/a/b' is not Exact /a"),
        (HttpMatchConfig("/.", "RegularExpression"), "path '/a/b' is not RegularExpression /."),
        (HttpMatchConfig("/a/", method="PUT"), "method GET is not PUT"),
        (HttpMatchConfig(headers=(HeaderMatch("x", "1"),)), "there is no header x"),
        (HttpMatchConfig(headers=(HeaderMatch("h", "1"),)), "header h: 'v' is not 1"),
        (HttpMatchConfig(query=(HeaderMatch("r", "1"),)), "there is no query parameter r"),
        (HttpMatchConfig(query=(HeaderMatch("q", "[0-9]", True),)), "query parameter q: 'a b' is not ~ [0-9]"),
    ],
)
def test_why_a_match_does_not_hold(match, reason):
    explained = ask(config(rule(0, match), grpc=False), "/a/b?q=a%20b&q=1", headers=[*PLAIN, ["h", "v"]])
    assert [one["reason"] for one in explained["candidates"]] == [reason]


@pytest.mark.parametrize(
    ("winner", "loser", "step", "says"),
    [
        (HttpMatchConfig("/a/b", "Exact"), HttpMatchConfig("/a/b"), 3, "path: Exact"),
        (HttpMatchConfig("/a/b"), HttpMatchConfig("/a", method="GET"), 3, "/a; the winner's: PathPrefix /a/b"),
        (HttpMatchConfig(method="GET"), HttpMatchConfig(headers=HEADER), 4, "method: (any)"),
        (HttpMatchConfig(headers=HEADER), HttpMatchConfig(query=PARAM), 5, "headers: 0"),
        (HttpMatchConfig(query=PARAM), HttpMatchConfig(), 6, "query parameters: 0"),
        (HttpMatchConfig(), HttpMatchConfig(), 9, "order in the route"),
    ],
)
def test_the_step_at_which_a_match_lost(winner, loser, step, says):
    explained = ask(config(rule(0, winner), rule(1, loser), grpc=False), "/a/b?q=1", headers=[*PLAIN, ["h", "v"]])
    lost = next(one for one in explained["candidates"] if one["result"] == "lost")
    assert lost["step"] == step
    assert says in lost["reason"]


def test_a_match_in_words():
    headers, query = (HeaderMatch("x", "1"),), (HeaderMatch("q", "a|b", True),)
    match = HttpMatchConfig("/v.", "RegularExpression", "GET", headers, query)
    explained = ask(config(rule(0, match)), "/v1?q=b", headers=[*PLAIN, ["x", "1"]])
    assert explained["matched"] == "GET, path ~ /v., header x = 1, query q ~ a|b"


@settings(max_examples=test_http_match.EXAMPLES, suppress_health_check=list(HealthCheck))
@given(test_http_match.configs(), test_http_match.requests)
def test_the_words_fit_the_matcher(made, request):
    authority, target, fields, method = request
    if authority is None or not target.startswith(b"/"):
        return
    explained = ask(
        made, target.decode(), authority=authority.decode("latin-1"), method=method.decode(),
        headers=[*PLAIN, *([name.decode(), value.decode()] for name, value in fields)],
    )  # fmt: skip
    if explained["outcome"] == "reject" or explained.get("http_status") == 415:
        return
    results = [one["result"] for one in explained["candidates"]]
    holding = [result for result in results if result != "no match"]
    # The first of those that hold is the matcher's winner, and there is one only where the matcher found one.
    assert holding == (["won"] + ["lost"] * (len(holding) - 1) if explained["outcome"] == "route" else [])


@pytest.mark.parametrize(
    ("path", "method", "rule_number", "http_status"),
    [
        ("/old?x=1", "GET", 0, 301),
        ("/items?beta=1", "GET", 1, None),
        ("/items/7", "GET", 2, None),
        ("/items", "PUT", None, 404),
    ],
)
def test_the_example(path, method, rule_number, http_status):
    """docs/httproute.md sends people here."""
    loaded = load([str(ROOT / "examples" / "httproute.yaml")])
    resolution = resolve(loaded.state, ResolveOptions())
    assert [*loaded.problems, *resolution.problems] == []
    explained = ask(resolution.config, path, authority="shop.example.com", method=method)
    assert (explained.get("rule"), explained.get("http_status")) == (rule_number, http_status)


def test_the_example_of_a_listener_set():
    loaded = load([str(ROOT / "examples" / "listenerset.yaml")])
    resolution = resolve(loaded.state, ResolveOptions())
    assert [*loaded.problems, *resolution.problems] == []
    explained = ask(resolution.config, "/s/M", authority="team-a.example.com", method="POST", headers=[])
    assert (explained["listener"], explained["route"]) == ("platform/shared/team-a/team-a/main", "team-a/greeter")
