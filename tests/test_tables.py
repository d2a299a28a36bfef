"""Images: what compiles, how listeners are merged, and that a damaged image is refused and never read outside."""

from __future__ import annotations

import contextlib
import random
import struct
from dataclasses import replace

import pytest

from pygw._fastmatch import RouteTable
from pygw.local_address import canonical_address
from pygw.model import (
    BackendRefConfig,
    GatewayConfig,
    HeaderMatch,
    HeaderModifier,
    HttpMatchConfig,
    ListenerConfig,
    MatchConfig,
    MirrorConfig,
    RedirectConfig,
    RouteConfig,
    RuleConfig,
)
from pygw.tables import Image, compile_image, precedence

REF = BackendRefConfig("default/greeter:50051", "default", "greeter", 50051)
EVERY = MatchConfig()


def route(name: str, *hostnames: str, rules: tuple[RuleConfig, ...] = (RuleConfig(0, (EVERY,), (REF,)),), **more: str):
    return RouteConfig("default", name, hostnames, rules, **more)


def config(listeners: list[ListenerConfig], *routes: RouteConfig) -> GatewayConfig:
    return GatewayConfig(tuple(listeners), {one.key: one for one in routes})


def listener(name: str, *routes: RouteConfig, gateway: str = "default/gw", **more) -> ListenerConfig:
    return ListenerConfig(gateway, name, more.pop("port", 80), routes=tuple(one.key for one in routes), **more)


def found(made: GatewayConfig, authority: bytes | None = b"example.com", address: str = "192.0.2.1", port: int = 80):
    table = RouteTable(compile_image(made).octets)
    return table.match_request(table.site(address, port), authority, b"/s/M", [])


def test_an_empty_configuration_compiles():
    image = compile_image(GatewayConfig())
    assert image.backend_keys == ()
    table = RouteTable(image.octets)
    assert table.site("127.0.0.1", 80) == -1
    assert table.match_request(-1, b"x", b"/s/M", []) == {"listener": None, "route": None}


def test_backend_keys_are_numbered_in_order_of_use():
    refs = (
        REF,
        BackendRefConfig("b/two:2", "b", "two", 2, mirrors=(MirrorConfig("m/three:3"),)),
        BackendRefConfig("n/gone:4", "n", "gone", 4, reason="BackendNotFound"),
        REF,
    )
    one = route("r", rules=(RuleConfig(0, (EVERY,), refs),))
    made = config([listener("l", one)], one)
    assert compile_image(made).backend_keys == ("default/greeter:50051", "b/two:2", "m/three:3")
    answer = found(made)
    assert [ref["backend"] for ref in answer["refs"]] == [0, 1, None, 0]
    assert answer["refs"][2]["failure"] == "backend n/gone:4: BackendNotFound"
    assert answer["refs"][2]["reason"] == "BackendNotFound"


def test_a_rule_without_backends_answers_itself():
    one = route("r", rules=(RuleConfig(3, (EVERY,), ()),))
    answer = found(config([listener("l", one)], one))
    assert (answer["rule"], answer["failure"]) == (3, (12, "the rule that matches has no backendRefs"))


def test_the_failure_of_a_rule_is_kept_with_its_backends():
    one = route("r", rules=(RuleConfig(0, (EVERY,), (REF,), failure=(14, "filter")),))
    answer = found(config([listener("l", one)], one))
    assert (answer["failure"], len(answer["refs"])) == ((14, "filter"), 1)


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        (b"a.example.com", "exact"), (b"A.Example.COM:8080", "exact"), (b"b.example.com", "wild"),
        (b"c.b.example.com", "wild"), (b"x.b.a.example.com", "deeper"), (b"example.com", "any"),
        (b"other.org", "any"), (None, "any"), (b"a.example.com.", "any"), (b".example.com", "any"),
        (b"[2001:db8::1]:80", "any"), (b"x" * 5000 + b".example.com", "wild"), (b"x" * 5000, "any"),
    ],
)  # fmt: skip
def test_the_most_specific_listener_is_selected(authority, expected):
    one = route("r")
    made = config(
        [
            listener("any", one),
            listener("wild", one, hostname="*.example.com"),
            listener("deeper", one, hostname="*.b.a.example.com"),
            listener("exact", one, hostname="a.example.com"),
        ],
        one,
    )
    assert found(made, authority)["listener"] == f"default/gw/{expected}"


def test_listeners_are_isolated():
    """The most specific listener alone is considered, though a less specific one has a rule."""
    other = route("other", rules=(RuleConfig(0, (MatchConfig("t"),), (REF,)),))
    any_route = route("any")
    made = config([listener("wild", any_route), listener("exact", other, hostname="example.com")], any_route, other)
    assert found(made) == {"listener": "default/gw/exact", "route": None}


def test_a_less_specific_route_hostname_may_serve():
    specific = route("specific", "example.com", rules=(RuleConfig(0, (MatchConfig("t"),), (REF,)),))
    wild = route("wild", "*.com")
    made = config([listener("l", specific, wild)], specific, wild)
    assert found(made)["route"] == "default/wild"


def test_gateways_that_share_a_port_pool_their_routes():
    one, two = route("one", rules=(RuleConfig(0, (MatchConfig("s"),), (REF,)),)), route("two")
    made = config([listener("l", two, gateway="default/a"), listener("m", one, gateway="default/b")], one, two)
    answer = found(made)
    assert (answer["route"], answer["listener"]) == ("default/one", "default/b/m")
    table = RouteTable(compile_image(made).octets)
    answer = table.match_request(table.site("192.0.2.1", 80), b"x", b"/t/M", [])
    assert (answer["route"], answer["listener"]) == ("default/two", "default/a/l")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "default/gw/shared"), ("10.0.0.1", "default/gw/own"), ("::ffff:10.0.0.1", "default/gw/own"),
        ("2001:db8::1", "default/gw/own"), ("2001:DB8:0::1", "default/gw/own"), ("2001:db8::2", "default/gw/shared"),
        ("2001:db8::1%eth0", "default/gw/own"),
    ],
)  # fmt: skip
def test_a_gateways_own_addresses_are_its_own(address, expected):
    one = route("r")
    made = config(
        [listener("shared", one), listener("own", one, addresses=("10.0.0.1", "2001:db8:0:0::1"))],
        one,
    )
    assert found(made, address=address)["listener"] == expected


def test_ports_are_told_apart():
    one = route("r")
    made = config([listener("l", one), listener("m", one, port=81)], one)
    assert found(made, port=81)["listener"] == "default/gw/m"
    assert RouteTable(compile_image(made).octets).site("192.0.2.1", 82) == -1


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"),
        ("2024-01-01T00:00:00+02:00", "2024-01-01T00:00:00Z"),
        ("2024-01-01T00:00:00Z", ""),
        ("2024-01-01T00:00:00Z", "not a time"),
    ],
)
def test_the_older_route_wins(older, newer):
    first, second = route("z", created=older), route("a", created=newer)
    assert precedence(first) < precedence(second)
    assert found(config([listener("l", first, second)], first, second))["route"] == "default/z"


def test_names_are_compared_as_one_string():
    """`a-b/x` is before `a/b` ("-" is before "/"), though the namespace `a` is before `a-b`."""
    first = RouteConfig("a-b", "x", (), (RuleConfig(0, (EVERY,), (REF,)),))
    second = RouteConfig("a", "b", (), (RuleConfig(0, (EVERY,), (REF,)),))
    assert found(config([listener("l", first, second)], first, second))["route"] == "a-b/x"


def test_whatever_a_configuration_holds_compiles():
    odd = (
        MatchConfig(""), MatchConfig("a/b"), MatchConfig("(", True), MatchConfig("\ud800", True, "\ud800"),
        MatchConfig(headers=(HeaderMatch("x", ""), HeaderMatch("x", "2"), HeaderMatch("y", "[", True))),
    )  # fmt: skip
    one = route("r", "x" * 300, "*." + "y" * 300, "*.", "*", rules=(RuleConfig(0, odd, (REF,)),))
    two = route("two", "example.com")
    lost = ListenerConfig("default/gw", "l", 80, routes=(one.key, two.key, "GRPCRoute/default/unknown"))
    assert found(config([lost], one, two))["route"] == "default/two"


def test_header_modifiers_compile():
    modifier = HeaderModifier(set=(("a", "1"),), add=(("b", "2"),), remove=("c",))
    rule = RuleConfig(0, (EVERY,), (REF,), request_headers=modifier, response_headers=modifier)
    one = route("r", rules=(rule,))
    assert found(config([listener("l", one)], one))["route"] == "default/r"


def test_equal_buckets_are_made_once():
    """64 listeners and 16 hostnames for the same routes: not 1,024 times the matches."""
    routes = [route(f"r{n}", *(f"h{h}.example.com" for h in range(16))) for n in range(200)]
    few = compile_image(config([listener("l", *routes)], *routes))
    many = compile_image(
        config([listener(f"l{n}", *routes, hostname=f"*.x{n}.example.com") for n in range(64)], *routes)
    )
    size = len(few.octets)
    assert len(many.octets) < 1.5 * size


# --- damaged images ---


@pytest.fixture(scope="module")
def image() -> Image:
    headers = (HeaderMatch("x", "1"), HeaderMatch("y", "2.*", True))
    rules = (
        RuleConfig(0, (MatchConfig("s", False, "M", False, headers), EVERY), (REF,), mirrors=(MirrorConfig("m:1"),)),
        RuleConfig(1, (MatchConfig("s.*", True), MatchConfig(None, False, "M"), MatchConfig("s")), (REF, REF)),
        RuleConfig(2, (MatchConfig("s", False, "M.*", True),), (REF,), request_headers=HeaderModifier(remove=("a",))),
    )
    http_rules = (
        RuleConfig(0, (), (REF,), http_matches=(
            HttpMatchConfig("/a", "Exact", "GET", headers, headers), HttpMatchConfig("/v.*", "RegularExpression"),
        ), timeout=1.5),
        RuleConfig(1, (), (), http_matches=(HttpMatchConfig("/a"), HttpMatchConfig()), redirect=RedirectConfig()),
    )  # fmt: skip
    one, two = route("one", "a.com", "*.a.com", rules=rules), route("two", rules=rules[1:])
    web = replace(route("web", "*.a.com", rules=http_rules), kind="HTTPRoute")
    listeners = [
        listener("l", one, two, web), listener("m", two, gateway="default/b"), listener("n", one, web, hostname="*.com")
    ]  # fmt: skip
    return compile_image(config(listeners, one, two, web), seed=bytes(16))


def exercise(table: RouteTable) -> None:
    """Ask for everything once; a damaged text may turn out to be no UTF-8."""
    fields = [(b"x", b"1"), (b"y", b"22"), (b"x", b"3")]
    for authority in (b"a.com", b"b.a.com", b"z.org", None):
        for path in (b"/s/M", b"/s/N", b"/t/M", b"/st/Q"):
            with contextlib.suppress(UnicodeDecodeError):
                table.match_request(table.site("127.0.0.1", 80), authority, path, fields)
        for path in (b"/a?x=1&y=2", b"/a/b", b"/v1"):
            with contextlib.suppress(UnicodeDecodeError):
                table.match_request(table.site("127.0.0.1", 80), authority, path, fields, False, b"GET")


def test_a_whole_image_opens(image):
    exercise(RouteTable(image.octets))
    exercise(RouteTable(bytearray(image.octets)))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda octets: b"", "shorter than its header"),
        (lambda octets: octets[:50], "shorter than its header"),
        (lambda octets: b"PYGW" + octets[4:], "no image of pygw"),
        (lambda octets: octets[:8] + struct.pack("=I", 99) + octets[12:], "another version"),
        (lambda octets: octets[:-1], "truncated"),
        (lambda octets: octets + b"\0", "truncated"),
    ],
)
def test_what_is_no_image_is_refused(image, damage, reason):
    with pytest.raises(ValueError, match=f"not a usable route image: .*{reason}"):
        RouteTable(damage(image.octets))


def test_an_image_that_is_not_aligned_is_refused(image):
    with pytest.raises(ValueError, match="aligned"):
        RouteTable(memoryview(b"x" + image.octets)[1:])


def test_damage_is_refused_or_harmless(image):
    """Any word of the image set to any of these: refused, or matching goes on inside the image. The sanitizer build
    is what makes "inside" a hard fact; here nothing may crash or hang."""
    refused = 0
    for place in range(8, len(image.octets) - 4, 4):
        for value in (0xFFFFFFFF, 0x7FFFFFFF, len(image.octets), 1):
            damaged = bytearray(image.octets)
            struct.pack_into("=I", damaged, place, value)
            try:
                table = RouteTable(damaged)
            except ValueError:
                refused += 1
            else:
                exercise(table)
    assert refused > 100


def test_random_damage_is_refused_or_harmless(image):
    chance = random.Random(7)
    for _ in range(2000):
        damaged = bytearray(image.octets)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(12, len(damaged))] = chance.randrange(256)
        try:
            table = RouteTable(damaged)
        except ValueError:
            continue
        exercise(table)


def test_a_seed_has_sixteen_octets():
    with pytest.raises(ValueError, match="16 octets"):
        compile_image(GatewayConfig(), seed=b"short")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", "127.0.0.1"), ("::FFFF:127.0.0.1", "127.0.0.1"), ("0:0::1", "::1"), ("fe80::1%eth0", "fe80::1"),
        ("not an address", "not an address"), ("", ""),
    ],
)  # fmt: skip
def test_canonical_address(address, expected):
    assert canonical_address(address) == expected
