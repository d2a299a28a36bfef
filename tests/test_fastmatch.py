"""The compiled matcher against the obvious one (doubles/reference_match.py), on small alphabets so that ties abound."""

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
    ListenerConfig,
    MatchConfig,
    RouteConfig,
    RuleConfig,
)
from pygw.tables import compile_image
from tests.doubles import reference_match

EXAMPLES = int(os.environ.get("PYGW_EXAMPLES", "300"))
REF = BackendRefConfig("default/b:1", "default", "b", 1)


def rule(*found: MatchConfig, index: int = 0) -> RuleConfig:
    return RuleConfig(index, found, (REF,))


def only(name: str, *rules: RuleConfig, hostnames: tuple[str, ...] = (), created: str = "") -> RouteConfig:
    return RouteConfig("default", name, hostnames, rules, created)


def headers(*pairs: tuple[str, str], regex: bool = False) -> tuple[HeaderMatch, ...]:
    return tuple(HeaderMatch(name, value, regex) for name, value in pairs)


def winner(made: list[RouteConfig], path: bytes, fields: list[tuple[bytes, bytes]] = [], authority: bytes = b"a.com"):  # noqa: B006
    """`route` or `route/rule/match`, decided by both matchers."""
    listener = ListenerConfig("default/gw", "l", 80, routes=tuple(one.key for one in made))
    config = GatewayConfig((listener,), {one.key: one for one in made})
    table = RouteTable(compile_image(config).octets)
    found = table.match_request(table.site("192.0.2.1", 80), authority, path, fields)
    _, expected = reference_match.match(config, "192.0.2.1", 80, authority, path, fields)
    assert found["route"] == (expected.route if expected else None)
    if expected is None:
        return None
    assert (found["rule"], found["match"]) == (expected.rule, expected.match)
    return f"{found['route'].removeprefix('default/')}/{found['rule']}/{found['match']}"


def test_a_regular_expression_of_nothing_is_no_term():
    """type: RegularExpression with one half absent: "any", not a regex beside it."""
    made = [only("a", rule(MatchConfig(None, True, None, True))), only("b", rule(MatchConfig()))]
    assert winner(made, b"/s/M") == winner(made[::-1], b"/s/M") == "a/0/0"
    made = [only("a", rule(MatchConfig(None, True, "M"))), only("b", rule(MatchConfig(None, False, "M")))]
    assert winner(made, b"/s/M") == winner(made[::-1], b"/s/M") == "a/0/0"


# --- precedence, step by step ---


@pytest.mark.parametrize(
    ("made", "fields", "expected"),
    [
        pytest.param(
            [only("exact", rule(MatchConfig()), hostnames=("a.com",)), only("any", rule(MatchConfig("s", False, "M")))],
            [], "exact/0/0", id="1 a non-wildcard hostname before a better method"),
        pytest.param(
            [only("short", rule(MatchConfig("s")), hostnames=("*.com",)),
             only("none", rule(MatchConfig("s", False, "M")))],
            [], "short/0/0", id="2 a wildcard hostname before none"),
        pytest.param(
            [only("a", rule(MatchConfig(None, False, "M"))), only("b", rule(MatchConfig("s")))],
            [], "b/0/0", id="3 service before method"),
        pytest.param(
            [only("a", rule(MatchConfig("s.{0,9}", True, "M"))), only("b", rule(MatchConfig("s")))],
            [], "b/0/0", id="3 an Exact service before a longer regex"),
        pytest.param(
            [only("a", rule(MatchConfig(".", True))), only("b", rule(MatchConfig("s|t", True)))],
            [], "b/0/0", id="3 the longer regex"),
        pytest.param(
            [only("a", rule(MatchConfig("s"))), only("b", rule(MatchConfig("s", False, "M")))],
            [], "b/0/0", id="4 more of the method"),
        pytest.param(
            [only("a", rule(MatchConfig("[st]", True, "M"))), only("b", rule(MatchConfig("s|t|u", True, ".", True)))],
            [], "b/0/0", id="3 before 4"),
        pytest.param(
            [only("a", rule(MatchConfig("s|t", True, "..?.?", True))), only("b", rule(MatchConfig("t|s", True, "M")))],
            [], "b/0/0", id="4 an Exact method before a longer regex"),
        pytest.param(
            [only("a", rule(MatchConfig("s", False, ".", True))), only("b", rule(MatchConfig("s", False, "M|", True)))],
            [], "b/0/0", id="4 the longer regex"),
        pytest.param(
            [only("a", rule(MatchConfig("s"))), only("b", rule(MatchConfig("s", headers=headers(("x", "1")))))],
            [(b"x", b"1")], "b/0/0", id="5 more headers"),
        pytest.param(
            [only("a", rule(MatchConfig("s", headers=headers(("x", "1"))))),
             only("b", rule(MatchConfig("s", headers=headers(("x", "."), ("y", "."), regex=True))))],
            [(b"x", b"1"), (b"y", b"2")], "b/0/0", id="5 regex headers count like Exact ones"),
        pytest.param(
            [only("a", rule(MatchConfig("s")), created="2025-01-01T00:00:00Z"),
             only("b", rule(MatchConfig("s")), created="2024-01-01T00:00:00Z")],
            [], "b/0/0", id="6 the older route"),
        pytest.param(
            [only("b", rule(MatchConfig("s"))), only("a", rule(MatchConfig("s")))],
            [], "a/0/0", id="7 the name"),
        pytest.param(
            [only("a", rule(MatchConfig("t"), MatchConfig("s")), rule(MatchConfig("s"), index=1))],
            [], "a/0/1", id="8 the first rule"),
        pytest.param(
            [only("a", rule(MatchConfig("t"), index=0), rule(MatchConfig("u"), MatchConfig("s"), index=4))],
            [], "a/4/1", id="a dropped rule leaves a gap"),
    ],
)  # fmt: skip
def test_precedence(made, fields, expected):
    assert winner(made, b"/s/M", fields) == expected
    assert winner(made[::-1], b"/s/M", fields) == expected


def test_conformance_of_header_matching():
    """The corner of the official suite: one header each is a tie, which the first rule wins."""
    version = rule(MatchConfig(headers=headers(("version", "two"))))
    both = rule(
        MatchConfig(headers=headers(("version", "two"), ("color", "orange"))),
        MatchConfig(headers=headers(("color", "blue"))),
        index=1,
    )
    made = [only("r", version, both)]
    assert winner(made, b"/s/M", [(b"version", b"two"), (b"color", b"blue")]) == "r/0/0"
    assert winner(made, b"/s/M", [(b"version", b"two"), (b"color", b"orange")]) == "r/1/0"


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        (b"/s/M", True), (b"/s/m", False), (b"/S/M", False), (b"/s/M/", False), (b"//M", False), (b"/s/", False),
        (b"/s", False), (b"s/M", False), (b"/s/M?", False), (b"/s/M#", False), (b"/s%2fM", False), (b"/s/%4d", False),
        (b"", False), (b"/", False), (b"/s//M", False),
    ],
)  # fmt: skip
def test_only_service_and_method_is_a_call(path, holds):
    assert (winner([only("r", rule(MatchConfig("s", False, "M")))], path) is not None) is holds


@pytest.mark.parametrize("path", [b"/./M", b"/../M", b"/s/.", b"/s/..", b"/s%2Fx/M", b"/s/M%2f", b"/s/M?x=1", b"/s/"])
def test_a_path_that_is_no_call_matches_not_even_a_rule_without_matches(path):
    assert winner([only("r", rule(MatchConfig()))], path) is None


@pytest.mark.parametrize(
    ("header", "fields", "holds"),
    [
        (("x", "1,2"), [(b"x", b"1"), (b"x", b"2")], True),
        (("x", "1"), [(b"x", b"1"), (b"x", b"2")], False),
        (("x", "1,,2"), [(b"x", b"1"), (b"y", b"3"), (b"x", b""), (b"x", b"2")], True),
        (("x", "a"), [(b"x", b"A")], False),
        (("x", "a"), [(b"X", b"a")], False),  # never on the wire: RFC 9113 §8.2.1 refuses it before
        ((":path", "/s/M"), [(b":path", b"/s/M")], False),
        (("k-bin", "AAEC"), [(b"k-bin", b"AAEC")], True),
    ],
)  # fmt: skip
def test_header_values(header, fields, holds):
    config = [only("r", rule(MatchConfig(headers=headers(header))))]
    listener = ListenerConfig("default/gw", "l", 80, routes=(config[0].key,))
    table = RouteTable(compile_image(GatewayConfig((listener,), {config[0].key: config[0]})).octets)
    assert (table.match_request(0, b"a", b"/s/M", fields)["route"] is not None) is holds


def test_regexes_match_joined_values_in_full():
    made = [only("r", rule(MatchConfig(headers=headers(("x", "a|b,c"), regex=True))))]
    assert winner(made, b"/s/M", [(b"x", b"b"), (b"x", b"c")]) == "r/0/0"
    assert winner(made, b"/s/M", [(b"x", b"a,c")]) is None


def test_many_fields_and_long_values():
    """More fields than any buffer starts with, and a joined value of 100 KiB."""
    made = [only("r", rule(MatchConfig(headers=headers(("x", ",".join(["v" * 100] * 1000))))))]
    fields = [(b"x", b"v" * 100), (b"f", b"")] * 1000
    assert winner(made, b"/s/M", fields) == "r/0/0"
    assert winner(made, b"/s/M", fields[:-2]) is None


def test_a_call_that_is_not_grpc_selects_a_listener_only():
    one = only("r", rule(MatchConfig()))
    listener = ListenerConfig("default/gw", "l", 80, routes=(one.key,))
    table = RouteTable(compile_image(GatewayConfig((listener,), {one.key: one})).octets)
    assert table.match_request(0, b"a", b"/s/M", [], is_grpc=False) == {"listener": "default/gw/l", "route": None}


def test_decisions_and_compiled_regexes_go_on_to_the_next_table():
    one = only("r", rule(MatchConfig("s+", True)))
    listener = ListenerConfig("default/gw", "l", 80, routes=(one.key,))
    image = compile_image(GatewayConfig((listener,), {one.key: one})).octets
    table = RouteTable(image, regex_cache=8)
    # (The path is too short for the memo of whole decisions.)
    assert table.match_times(10, 0, [(b"a", b"/ss/M", [])]) == 10
    assert (table.regexes.cache.misses, table.regexes.cache.hits) == (1, 9)
    after = RouteTable(image, table)
    assert after.match_times(10, 0, [(b"a", b"/ss/M", [])]) == 10
    assert (after.regexes.cache.misses, after.regexes.cache.hits) == (1, 19)


def test_what_no_header_decides_is_not_looked_up_again():
    by_path = MatchConfig("p.S+", True, "Method", False, ())
    by_header = MatchConfig("p.S+", True, "Method", False, (HeaderMatch("x", "1"),))
    one = RouteConfig("default", "one", (), (RuleConfig(0, (by_path,), (REF,)),))
    listener = ListenerConfig("default/gw", "l", 80, routes=(one.key,))
    table = RouteTable(compile_image(GatewayConfig((listener,), {one.key: one})).octets)
    assert table.match_times(10, 0, [(b"a", b"/p.SS/Method", [])]) == 10
    assert (table.regexes.cache.misses, table.regexes.cache.hits) == (1, 0)
    # The rule with a header is asked again and again: its answer depends on more than the path.
    rules = (RuleConfig(0, (by_path,), (REF,)), RuleConfig(1, (by_header,), (REF,)))
    two = RouteConfig("default", "one", (), rules)
    table = RouteTable(compile_image(GatewayConfig((listener,), {two.key: two})).octets)
    for _ in range(3):
        assert table.match_request(0, b"a", b"/p.SS/Method", [])["rule"] == 0
        assert table.match_request(0, b"a", b"/p.SS/Method", [(b"x", b"1")])["rule"] == 1


# --- against the obvious matcher ---

HOSTNAMES = st.sampled_from(["", "a.com", "b.a.com", "*.com", "*.a.com", "*.b.a.com", "c.b.a.com", "a.org"])
AUTHORITIES = st.sampled_from(
    [None, b"", b"a.com", b"A.com:80", b"b.a.com:", b"c.b.a.com", b"x.b.a.com:8080", b"z.com", b"a.com.", b".com",
     b"a.org", b"com", b"[::1]:80", b"[::1]", b"x..a.com", b".a.com", b"x" * 300 + b".a.com"]
)  # fmt: skip
SERVICES = ["s", "t", "pk.g.s", ".s"]
METHODS = ["M", "Nnn", "m"]
SERVICE_PATTERNS = ["s|t", ".*s", "p.*\\..*", "[st]", "(?i)S", "(", "s)|(t", ".", "..."]
METHOD_PATTERNS = ["M|Nnn", ".*", "[MN].*", "(?i)m", ".", "*"]
NAMES = ["x", "y", "z-bin"]
VALUES = ["1", "2", "1,2", "a"]
VALUE_PATTERNS = ["[12]", "1.*", ".*", "1|2", "1,2", "["]
CREATED = st.sampled_from(["", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2025-06-01T00:00:00Z"])


def terms(exact: list[str], patterns: list[str]) -> st.SearchStrategy[tuple[str | None, bool]]:
    return st.one_of(
        st.sampled_from([(None, False), (None, False), (None, True)]),
        st.sampled_from(exact).map(lambda value: (value, False)),
        st.sampled_from(patterns).map(lambda value: (value, True)),
    )  # fmt: skip


header_matches = st.one_of(
    st.builds(HeaderMatch, st.sampled_from(NAMES), st.sampled_from(VALUES)),
    st.builds(HeaderMatch, st.sampled_from(NAMES), st.sampled_from(VALUE_PATTERNS), st.just(True)),
)
matches = st.builds(
    lambda service, method, headers: MatchConfig(*service, *method, tuple(headers)),
    terms(SERVICES, SERVICE_PATTERNS), terms(METHODS, METHOD_PATTERNS), st.lists(header_matches, max_size=3),
)  # fmt: skip


@st.composite
def routes(draw: st.DrawFn, place: int) -> RouteConfig:
    rules = draw(st.lists(st.lists(matches, min_size=1, max_size=3), min_size=1, max_size=3))
    gap = draw(st.integers(0, 1))
    return RouteConfig(
        draw(st.sampled_from(["n", "n-a"])), f"{draw(st.sampled_from(['r', 'a', 'z']))}{place}",
        tuple(draw(st.lists(HOSTNAMES.filter(bool), max_size=3))),
        tuple(RuleConfig(index * (1 + gap), tuple(rule), (REF,)) for index, rule in enumerate(rules)),
        draw(CREATED),
    )  # fmt: skip


@st.composite
def configs(draw: st.DrawFn) -> GatewayConfig:
    made = [draw(routes(place)) for place in range(draw(st.integers(1, 4)))]
    keys = [route.key for route in made]
    listeners = [
        ListenerConfig(
            draw(st.sampled_from(["g/one", "g/two"])), f"l{place}", draw(st.sampled_from([80, 80, 81])),
            draw(HOSTNAMES), "HTTP", draw(st.sampled_from([(), (), (), ("10.0.0.1",), ("10.0.0.1", "::1")])),
            tuple(sorted(draw(st.lists(st.sampled_from(keys), unique=True, max_size=4)))),
        )
        for place in range(draw(st.integers(1, 4)))
    ]  # fmt: skip
    return GatewayConfig(tuple(listeners), {route.key: route for route in made})


paths = st.one_of(
    st.builds(lambda s, m: f"/{s}/{m}".encode(), st.sampled_from(SERVICES), st.sampled_from(METHODS)),
    st.sampled_from(
        [b"", b"/", b"s/M", b"/s", b"/s/", b"//M", b"/s/M/", b"/s/M?x", b"/s/M#x", b"/s%2fM", b"/s%2F/M", b"/./M",
         b"/s/..", b"/s/...", b"/%73/M", b"/../M", b"//s/M", b"*", b"/s/M%2", b"/\xff/M"]
    ),
)  # fmt: skip
values = st.sampled_from([b"1", b"2", b"a", b"1,2", b"", b"\xff"])
fields = st.lists(st.tuples(st.sampled_from([b"x", b"y", b"z-bin", b"w", b":path"]), values), max_size=5)
requests = st.tuples(
    st.sampled_from(["192.0.2.1", "10.0.0.1", "::1"]), st.sampled_from([80, 81, 82]), AUTHORITIES, paths, fields
)


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(configs(), st.lists(requests, min_size=1, max_size=8))
def test_agrees_with_the_obvious_matcher(config, questions):
    table = RouteTable(compile_image(config).octets, regex_cache=16)
    # Each call also with the headers of the others: what is remembered of a call must not depend on them.
    varied = [(*question[:4], other[4]) for question in questions for other in questions]
    for address, port, authority, path, headers in [*varied, *questions]:
        listener, winner = reference_match.match(config, address, port, authority, path, headers)
        found = table.match_request(table.site(address, port), authority, path, headers)
        assert found["listener"] == listener
        if winner is None:
            assert found["route"] is None
        else:
            assert (found["route"], found["rule"], found["match"]) == (winner.route, winner.rule, winner.match)
