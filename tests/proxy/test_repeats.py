"""What a request costs less because one like it came before must not show: whatever repeats, whatever changes in
between (the client's and the backend's HPACK tables, the rules, the client), a backend gets what came, edited, and
what is malformed is reset.

Clients encode with PyPI's hpack, which puts into its table all that is not sensitive, so that what repeats comes as a
run of indexes; what is sensitive follows as literals. PYGW_EXAMPLES sets how many sequences are tried.
"""

import os
from dataclasses import replace

import hpack
from h2.settings import SettingCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pygw.model import GatewayConfig, HeaderMatch, HeaderModifier, MatchConfig, RuleConfig
from tests.doubles import frames
from tests.doubles.in_process import Backend, gateway, one_route, run

EXAMPLES = int(os.environ.get("PYGW_EXAMPLES", "40"))
PATHS = [b"/package.Service/Method", b"/package.Service/Other", b"/p/M"]
SPECIAL = b"/package.Service/Other"
# Name, value, whether it comes as a literal that stays out of the table.
GOOD = st.sampled_from([
    (b"x-a", b"1", False), (b"x-a", b"2", False), (b"x-a", b"1", True), (b"x-b", b"long" * 10, False),
    (b"grpc-timeout", b"5S", True), (b"grpc-timeout", b"6S", False), (b"x-forwarded-for", b"192.0.2.9", False),
])  # fmt: skip
BAD = st.sampled_from([
    (b"host", b"grpc.example.com", True), (b"host", b"other.com", True), (b"te", b"gzip", True),
    (b"X-Upper", b"1", True), (b":path", b"/late", True), (b"x-blank", b" 1", False),
])  # fmt: skip
MORE = st.one_of(
    st.just([]), st.just([]), st.lists(GOOD, max_size=3), st.lists(GOOD, max_size=3),
    st.builds(lambda good, bad: [*good, bad], st.lists(GOOD, max_size=1), BAD),
)  # fmt: skip
CALLS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(PATHS), st.sampled_from([b"grpc.example.com", b"other.com"]), MORE),
    min_size=1, max_size=3,
)  # fmt: skip
# (What repeats is known from the fourth time on.)
CALL = st.tuples(st.just("call"), st.integers(0, 2), st.sampled_from([1, 2, 5]))
STEPS = st.one_of(
    CALL, CALL, CALL,
    st.tuples(st.just("client table"), st.integers(0, 1), st.sampled_from([0, 100, 4096])),
    st.tuples(st.just("backend table"), st.sampled_from([0, 100, 4096])),
    st.tuples(st.just("rules"), st.integers(0, 2)),
)  # fmt: skip


def rules(number: int, backend: Backend) -> GatewayConfig:
    """0: one rule; 1: one that edits; 2: two, of which a header chooses, and a path a third."""
    plain = one_route([backend])
    (route,) = plain.routes.values()
    (rule,) = route.rules
    made = {
        0: (rule,),
        1: (replace(rule, request_headers=HeaderModifier((("x-a", "set"),), (("x-new", "1"),), ("x-b",))),),
        2: (
            rule,
            RuleConfig(1, (MatchConfig(headers=(HeaderMatch("x-a", "1"),)),), rule.backends,
                       request_headers=HeaderModifier(set=(("x-rule", "header"),))),
            RuleConfig(2, (MatchConfig("package.Service", False, "Other"),), rule.backends,
                       request_headers=HeaderModifier(set=(("x-rule", "path"),))),
        ),
    }[number]  # fmt: skip
    return replace(plain, routes={route.key: replace(route, rules=made)})


def expected(number: int, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What the backend gets, but for grpc-timeout."""
    kept = [pair for pair in fields if pair[0] not in (b"grpc-timeout", b"x-forwarded-for")]
    kept += [(b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-proto", b"http")]
    if number == 1:
        kept = [pair for pair in kept if pair[0] not in (b"x-b", b"x-a")]
        kept += [(b"x-a", b"set"), (b"x-new", b"1")]
    elif number == 2 and dict(fields)[b":path"] == SPECIAL:
        kept.append((b"x-rule", b"path"))
    elif number == 2 and [value for name, value in fields if name == b"x-a"] == [b"1"]:
        kept.append((b"x-rule", b"header"))
    return sorted(kept)


def is_malformed(authority: bytes, more: list[tuple[bytes, bytes, bool]]) -> bool:
    """RFC 9113 §8.2, §8.3, RFC 9110 §7.2."""
    hosts = [value for name, value, _ in more if name == b"host"]
    return (
        any(name in (b"X-Upper", b":path", b"x-blank") or (name, value) == (b"te", b"gzip") for name, value, _ in more)
        or len(hosts) > 1 or any(host != authority for host in hosts)
    )  # fmt: skip


class Client:
    """Sends blocks of its own encoder; h2 reads what comes."""

    def __init__(self, peer):
        self.peer = peer
        self.encoder = hpack.Encoder()

    def call(self, fields: list[tuple[bytes, bytes, bool]]) -> int:
        stream_id = self.peer.h2.get_next_available_stream_id()
        self.peer.flush()
        # h2 must know the stream; what it would send is thrown away.
        self.peer.h2.send_headers(stream_id, frames.REQUEST)
        self.peer.h2.data_to_send()
        block = self.encoder.encode(fields)
        self.peer.writer.write(frames.headers(stream_id, block) + frames.data(stream_id, bytes(5), end_stream=True))
        return stream_id


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(CALLS, st.lists(STEPS, min_size=4, max_size=20))
def test_a_backend_cannot_tell_what_was_repeated(asked, steps):
    async def test():
        backend = await Backend(encoding="latin-1").start()
        number, version, calls = 0, 1, 0
        async with gateway(rules(0, backend)) as served:
            clients = [Client(await served.client()) for _ in range(2)]
            for kind, *values in steps:
                if kind == "client table":
                    clients[values[0]].encoder.header_table_size = values[1]
                elif kind == "backend table":
                    for peer in backend.peers:
                        peer.change({SettingCodes.HEADER_TABLE_SIZE: values[0]})
                        await peer.until(lambda peer=peer: peer.unacknowledged == 0)
                elif kind == "rules":
                    number, version = values[0], version + 1
                    served.apply(rules(number, backend), version)
                else:
                    place, path, authority, more = asked[values[0] % len(asked)]
                    for _ in range(values[1]):
                        calls += await one_call(backend, clients[place], number, calls, path, authority, more)

    run(test, patience=3)


async def one_call(backend, client, number, calls, path, authority, more) -> int:
    """1: it got through."""
    begin = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", authority),
             (b"content-type", b"application/grpc"), (b"te", b"trailers")]  # fmt: skip
    stream_id = client.call([*((name, value, False) for name, value in begin), *more])
    if is_malformed(authority, more):
        assert (await client.peer.over(stream_id)).reset == frames.PROTOCOL_ERROR
        return 0
    peer = await backend.connected()
    seen = (await peer.open(calls + 1))[-1]
    await peer.until(lambda: peer.streams[seen].ended)
    got = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in peer.streams[seen].fields[0]]
    fields = [*begin, *((name, value) for name, value, _ in more)]
    assert sorted(pair for pair in got if pair[0] != b"grpc-timeout") == expected(number, fields)
    assert [name for name, _ in got].count(b"grpc-timeout") == (b"grpc-timeout" in dict(fields))
    peer.respond(seen)
    assert (await client.peer.over(stream_id)).status == "0"
    return 1
