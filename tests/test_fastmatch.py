"""The compiled matcher against the obvious one (doubles/reference_match.py), on small alphabets so that ties abound."""

from __future__ import annotations

import os

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

# --- hypothesis ---

HOSTNAMES = st.sampled_from(["", "a.com", "b.a.com", "*.com", "*.a.com", "*.b.a.com", "c.b.a.com", "a.org"])
AUTHORITIES = st.sampled_from(
    [None, b"", b"a.com", b"A.com:80", b"b.a.com:", b"c.b.a.com", b"x.b.a.com:8080", b"z.com", b"a.com.", b".com",
     b"a.org", b"com", b"[::1]:80", b"[::1]", b"x..a.com", b".a.com", b"x" * 300 + b".a.com"]
)  # fmt: skip
SERVICES = ["s", "t", "p.s", ".s"]
METHODS = ["M", "N", "m"]
SERVICE_PATTERNS = ["s|t", ".*s", "p\\..*", "[st]", "(?i)S", "(", "s)|(t", ".", "..."]
METHOD_PATTERNS = ["M|N", ".*", "[MN]", "(?i)m", ".", "*"]
NAMES = ["x", "y", "z-bin"]
VALUES = ["1", "2", "1,2", "a"]
VALUE_PATTERNS = ["[12]", "1.*", ".*", "1|2", "1,2", "["]
CREATED = st.sampled_from(["", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2025-06-01T00:00:00Z"])


def terms(exact: list[str], patterns: list[str]) -> st.SearchStrategy[tuple[str | None, bool]]:
    return st.one_of(
        st.just((None, False)), st.sampled_from(exact).map(lambda value: (value, False)),
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
REF = BackendRefConfig("default/b:1", "default", "b", 1)


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


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(configs(), st.lists(requests, min_size=1, max_size=8))
def test_agrees_with_the_obvious_matcher(config, questions):
    table = RouteTable(compile_image(config).octets, regex_cache=16)
    for address, port, authority, path, headers in questions:
        listener, winner = reference_match.match(config, address, port, authority, path, headers)
        found = table.match_request(table.site(address, port), authority, path, headers)
        assert found["listener"] == listener
        if winner is None:
            assert found["route"] is None
        else:
            assert (found["route"], found["rule"], found["match"]) == (winner.route, winner.rule, winner.match)
