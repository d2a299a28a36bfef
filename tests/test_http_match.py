"""HTTPRoutes in the compiled matcher, against the obvious one (doubles/reference_http_match.py)."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pygw._fastmatch import RouteTable
from pygw.model import (
    BackendRefConfig,
    GatewayConfig,
    HeaderMatch,
    HttpMatchConfig,
    ListenerConfig,
    MatchConfig,
    RouteConfig,
    RuleConfig,
)
from pygw.tables import compile_image
from tests.doubles import reference_http_match, reference_match
from tests.test_fastmatch import AUTHORITIES, CREATED, HOSTNAMES

EXAMPLES = int(os.environ.get("PYGW_EXAMPLES", "300"))
REF = BackendRefConfig("default/b:1", "default", "b", 1)
HTTP = "HTTPRoute"

Pairs = list[tuple[bytes, bytes]]


def rule(*found: HttpMatchConfig, index: int = 0) -> RuleConfig:
    return RuleConfig(index, (), (REF,), http_matches=found)


def only(name: str, *rules: RuleConfig, hostnames: tuple[str, ...] = (), created: str = "") -> RouteConfig:
    return RouteConfig("default", name, hostnames, rules, created, HTTP)


def grpc(name: str, *found: MatchConfig) -> RouteConfig:
    return RouteConfig("default", name, (), (RuleConfig(0, found or (MatchConfig(),), (REF,)),))


def pairs(*items: tuple[str, str], regex: bool = False) -> tuple[HeaderMatch, ...]:
    return tuple(HeaderMatch(name, value, regex) for name, value in items)


def config_of(*made: RouteConfig) -> GatewayConfig:
    listener = ListenerConfig("default/gw", "l", 80, routes=tuple(one.key for one in made))
    return GatewayConfig((listener,), {one.key: one for one in made})


def ask(config: GatewayConfig, target: bytes, fields: Pairs = [], method: bytes = b"GET", is_grpc: bool = False):  # noqa: B006
    table = RouteTable(compile_image(config).octets)
    return table.match_request(table.site("192.0.2.1", 80), b"a.com", target, fields, is_grpc, method)


def winner(made: list[RouteConfig], target: bytes, fields: Pairs = [], method: bytes = b"GET") -> str | None:  # noqa: B006
    """`route/rule/match`, decided by both matchers."""
    config = config_of(*made)
    found = ask(config, target, fields, method)
    expected = reference_http_match.match(config, "192.0.2.1", 80, b"a.com", target, fields, method)
    assert found["route"] == (expected.route if expected else None)
    if expected is None:
        return None
    assert found["kind"] == HTTP
    assert (found["rule"], found["match"]) == (expected.rule, expected.match)
    return f"{found['route'].removeprefix('default/')}/{found['rule']}/{found['match']}"


def path(value: str, kind: str = "PathPrefix", **rest: object) -> HttpMatchConfig:
    return HttpMatchConfig(value, kind, **rest)  # type: ignore[arg-type]


EXACT, REGEX = "Exact", "RegularExpression"


@pytest.mark.parametrize(
    ("match", "takes", "leaves"),
    [
        pytest.param(path("/abc"), [b"/abc", b"/abc/", b"/abc/d", b"/abc?x", b"/abc//"], [b"/abcd", b"/ab", b"/ABC"],
                     id="a prefix ends with a segment"),
        pytest.param(path("/abc/"), [b"/abc", b"/abc/", b"/abc/d"], [b"/abcd"], id="a slash at its end is ignored"),
        pytest.param(path("/"), [b"/", b"/x", b"//", b"/?"], [b"*", b"", b"x"], id="everything"),
        pytest.param(path("/abc", EXACT), [b"/abc", b"/abc?x=1", b"/abc?"], [b"/abc/", b"/abc/d", b"/Abc", b"/%61bc"],
                     id="exact"),
        pytest.param(path("/", EXACT), [b"/", b"/?q"], [b"/x", b"//"], id="exactly the root"),
        pytest.param(path("/v[0-9]+/.*", REGEX), [b"/v1/x", b"/v10/", b"/v1/x?y"], [b"/v1", b"/v/x", b"x/v1/x"],
                     id="a regular expression is matched in full, without the query"),
        pytest.param(path("/", method="PUT"), [], [b"/"], id="another method"),
    ],
)  # fmt: skip
def test_paths(match, takes, leaves):
    made = [only("r", rule(match))]
    assert [winner(made, target) for target in takes] == ["r/0/0"] * len(takes)
    assert [winner(made, target) for target in leaves] == [None] * len(leaves)


@pytest.mark.parametrize(
    "target",
    [b"/a/../b", b"/..", b"/.", b"/./", b"/a/.", b"/a/..?x", b"/%2e%2e/b", b"/a/.%2E", b"/%2e", b"/a#b", b"/a?b#c"],
)
def test_a_path_that_means_another_one_matches_nothing(target):
    made = [only("r", rule(path("/")), rule(path(".*", REGEX), index=1))]
    assert winner(made, target) is None


@pytest.mark.parametrize("target", [b"/...", b"/a/..b", b"/.well-known/x", b"/a?x=/../b", b"/%2e%2e%2e", b"/%2ea"])
def test_other_dots_are_names(target):
    assert winner([only("r", rule(path("/")))], target) == "r/0/0"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param([only("a", rule(path("/a/b", EXACT)), hostnames=("*.com",)),
                      only("b", rule(path("/")), hostnames=("a.com",))], "b/0/0", id="hostname before path"),
        pytest.param([only("a", rule(path("/a/b"))), only("b", rule(path("/a/b", EXACT)))], "b/0/0",
                     id="exact before an equal prefix"),
        pytest.param([only("a", rule(path("/.{3}", REGEX))), only("b", rule(path("/a/b", EXACT)))], "b/0/0",
                     id="exact before a longer regular expression"),
        pytest.param([only("a", rule(path("/a/b"))), only("b", rule(path("/.*", REGEX)))], "b/0/0",
                     id="a regular expression before a longer prefix"),
        pytest.param([only("a", rule(path("/.*", REGEX))), only("b", rule(path("/a.*", REGEX)))], "b/0/0",
                     id="the longer regular expression"),
        pytest.param([only("a", rule(path("/a", method="GET"))), only("b", rule(path("/a/b")))], "b/0/0",
                     id="the longer prefix before a method"),
        pytest.param([only("a", rule(path("/a"))), only("b", rule(path("/a/")))], "b/0/0",
                     id="the characters of a prefix, as written"),
        pytest.param([only("a", rule(path("/a", headers=pairs(("x", "1"), ("y", "1"))))),
                      only("b", rule(path("/a", method="GET")))], "b/0/0", id="a method before headers"),
        pytest.param([only("a", rule(path("/a", query=pairs(("q", "1"), ("r", "1"))))),
                      only("b", rule(path("/a", headers=pairs(("x", "1")))))], "b/0/0", id="headers before the query"),
        pytest.param([only("a", rule(path("/a"))), only("b", rule(path("/a", query=pairs(("q", "1")))))], "b/0/0",
                     id="more query parameters"),
        pytest.param([only("a", rule(path("/.", REGEX, headers=pairs(("x", "1"))))),
                      only("b", rule(path("/a..", REGEX))), only("c", rule(path("/..b", REGEX, method="GET")))],
                     "c/0/0", id="regular expressions of one length are told apart by what comes next"),
        pytest.param([only("a", rule(path("/a")), created="2025-01-01T00:00:00Z"),
                      only("b", rule(path("/a")), created="2024-01-01T00:00:00Z")], "b/0/0", id="the older route"),
        pytest.param([only("b", rule(path("/a"))), only("a", rule(path("/a")))], "a/0/0", id="the name"),
        pytest.param([only("a", rule(path("/x"), path("/a")), rule(path("/a"), index=1))], "a/0/1", id="first rule"),
    ],
)  # fmt: skip
def test_precedence(made, expected):
    fields = [(b"x", b"1"), (b"y", b"1")]
    assert winner(made, b"/a/b?q=1&r=1", fields) == expected
    assert winner(made[::-1], b"/a/b?q=1&r=1", fields) == expected


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        (b"q=1", True), (b"q=1&q=2", True), (b"q=2&q=1", False), (b"x=0&q=1&y", True), (b"Q=1", False), (b"q", False),
        (b"q=", False), (b"q=11", False), (b"%71=%31", True), (b"q=%3", False), (b"q=1%", False), (b"", False),
        (b"&&q=1&&", True), (b"q=1=", False), (b"?q=1", False), (b"q=1?", False), (b"=1", False), (b"q%3d1", False),
        (b"q=%31&" + b"&" * 5000, True),
    ],
)  # fmt: skip
def test_query_parameters(query, holds):
    made = [only("r", rule(path("/", query=pairs(("q", "1")))))]
    assert (winner(made, b"/?" + query) is not None) is holds


@pytest.mark.parametrize(
    ("value", "query", "holds"),
    [("a b", b"a%20b", True), ("a b", b"a+b", False), ("a+b", b"a+b", True), ("é", b"%C3%A9", True), ("%", b"%", True),
     ("%zz", b"%zz", True), ("a=b", b"a=b", True), ("a&b", b"a%26b", True)],
)  # fmt: skip
def test_query_values_are_percent_decoded_and_no_more(value, query, holds):
    made = [only("r", rule(path("/", query=pairs(("q", value)))))]
    assert (winner(made, b"/?q=" + query) is not None) is holds


def test_a_query_parameter_is_no_header_and_a_header_is_no_query_parameter():
    made = [only("r", rule(path("/", query=pairs(("q", "1")), headers=pairs(("h", "1")))))]
    assert winner(made, b"/?q=1", [(b"h", b"1")]) == "r/0/0"
    assert winner(made, b"/?h=1", [(b"q", b"1")]) is None
    assert winner(made, b"/?h=1&q=1") is None


def test_regular_expressions_of_headers_and_query_parameters():
    match = path("/", headers=pairs(("h", "a|b"), regex=True), query=pairs(("q", "[0-9]+"), regex=True))
    made = [only("r", rule(match))]
    assert winner(made, b"/?q=%31%32", [(b"h", b"b")]) == "r/0/0"
    assert winner(made, b"/?q=12x", [(b"h", b"b")]) is None
    assert winner(made, b"/?q=12", [(b"h", b"ab")]) is None


@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 128, 1023, 1087, 1088, 5000])
def test_prefixes_of_any_length(length):
    """Up to what the definition allows; a longer one, which it does not, matches nothing and breaks nothing."""
    prefix = "/" + "p" * (length - 1)
    made = [only("long", rule(path(prefix))), only("short", rule(path("/")))]
    table = ask(config_of(*made), prefix.encode() + b"/x" if length > 1 else b"/x")
    assert table["route"] == ("default/long" if length <= 1087 else "default/short")


def test_long_paths_with_many_slashes_are_looked_at_once():
    made = [only("r", *(rule(path("/" + "x/" * n + "y"), index=n) for n in range(100))), only("root", rule(path("/")))]
    assert ask(config_of(*made), b"/x" * 50_000)["route"] == "default/root"


class TestBesideGrpc:
    def test_grpc_goes_to_grpc_routes_first(self):
        config = config_of(grpc("g"), only("h", rule(path("/s/M", EXACT))))
        assert ask(config, b"/s/M", is_grpc=True, method=b"POST")["kind"] == "GRPCRoute"
        assert ask(config, b"/s/M", method=b"POST")["kind"] == HTTP

    def test_grpc_that_no_grpc_route_takes_goes_to_http_routes(self):
        config = config_of(grpc("g", MatchConfig("other")), only("h", rule(path("/"))))
        for target in (b"/s/M", b"/not-a-call", b"/s/M?x=1"):
            assert ask(config, target, is_grpc=True)["kind"] == HTTP
        assert ask(config, b"/other/M", is_grpc=True)["kind"] == "GRPCRoute"

    def test_a_more_specific_hostname_of_an_http_route_does_not_take_grpc_away(self):
        config = config_of(grpc("g"), only("h", rule(path("/")), hostnames=("a.com",)))
        assert ask(config, b"/s/M", is_grpc=True)["kind"] == "GRPCRoute"

    def test_grpc_routes_take_nothing_else(self):
        assert ask(config_of(grpc("g")), b"/s/M")["route"] is None


# --- against the obvious matcher ---

PATHS = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/A"]
PATTERNS = ["/.*", "/a.*", "/[ab]", "/a|/b", "(", "/a/b", "/..b"]
VALUES = ["1", "2", "1,2", "a b"]
terms = st.one_of(
    st.builds(HeaderMatch, st.sampled_from(["x", "y"]), st.sampled_from(VALUES)),
    st.builds(HeaderMatch, st.sampled_from(["x", "y"]), st.sampled_from(["[12]", ".*", "1|2", "["]), st.just(True)),
)
matches = st.builds(
    lambda where, method, headers, query: HttpMatchConfig(*where, method, tuple(headers), tuple(query)),
    st.one_of(
        st.tuples(st.sampled_from(PATHS), st.sampled_from(["PathPrefix", "Exact"])),
        st.tuples(st.sampled_from(PATTERNS), st.just(REGEX)),
    ),
    st.sampled_from([None, None, "GET", "POST"]),
    st.lists(terms, max_size=2),
    st.lists(terms, max_size=2),
)


@st.composite
def routes(draw: st.DrawFn, place: int) -> RouteConfig:
    rules = draw(st.lists(st.lists(matches, min_size=1, max_size=3), min_size=1, max_size=3))
    hostnames = tuple(draw(st.lists(HOSTNAMES.filter(bool), max_size=3)))
    return RouteConfig(
        draw(st.sampled_from(["n", "n-a"])), f"{draw(st.sampled_from(['r', 'a']))}{place}", hostnames,
        tuple(RuleConfig(index, (), (REF,), http_matches=tuple(found)) for index, found in enumerate(rules)),
        draw(CREATED), HTTP,
    )  # fmt: skip


@st.composite
def configs(draw: st.DrawFn) -> GatewayConfig:
    made = [draw(routes(place)) for place in range(draw(st.integers(1, 4)))]
    if draw(st.booleans()):
        made.append(grpc("g", MatchConfig("a")))
    keys = [route.key for route in made]
    listeners = [
        ListenerConfig(
            "g/gw", f"l{place}", 80, draw(HOSTNAMES),
            routes=tuple(sorted(draw(st.lists(st.sampled_from(keys), unique=True)))),
        )
        for place in range(draw(st.integers(1, 3)))
    ]  # fmt: skip
    return GatewayConfig(tuple(listeners), {route.key: route for route in made})


targets = st.builds(
    lambda where, query: where + (b"?" + query if query is not None else b""),
    st.sampled_from(
        [b"/", b"/a", b"/a/", b"/a/b", b"/ab", b"/a/b/c", b"/b", b"//", b"/a//b", b"/a/./b", b"*", b"/%61"]
    ),
    st.sampled_from([None, b"", b"x=1", b"x=1&y=2", b"y=a%20b&x=2", b"x=2&x=1", b"x", b"%78=1&y=1,2", b"x=/.."]),
)
fields = st.lists(
    st.tuples(st.sampled_from([b"x", b"y", b"z"]), st.sampled_from([b"1", b"2", b"a b", b""])), max_size=4
)
requests = st.tuples(AUTHORITIES, targets, fields, st.sampled_from([b"GET", b"POST", b"PUT"]))


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(configs(), st.lists(requests, min_size=1, max_size=8))
def test_agrees_with_the_obvious_matcher(config, questions):
    table = RouteTable(compile_image(config).octets, regex_cache=16)
    for authority, target, found_fields, method in questions:
        for is_grpc in (False, True):
            expected = reference_http_match.match(config, "192.0.2.1", 80, authority, target, found_fields, method)
            if is_grpc:  # as a GRPCRoute decides, else as for any request
                _, by_grpc = reference_match.match(config, "192.0.2.1", 80, authority, target, found_fields)
                expected = by_grpc or expected
            found = table.match_request(
                table.site("192.0.2.1", 80), authority, target, found_fields, is_grpc, method
            )
            if expected is None:
                assert found["route"] is None
            else:
                assert (found["listener"], found["route"], found["rule"], found["match"]) == (
                    expected.listener, expected.route, expected.rule, expected.match,
                )  # fmt: skip
