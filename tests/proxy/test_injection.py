"""Hostile octets from clients and from who names things: no field, log line, label or message ends before its end.

What is refused as malformed is in test_malformed_requests.py, the escaping of single log lines in test_access_log.py;
here the whole relay is asked, with everything hostile at once.
"""

import json
from dataclasses import replace
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pygw.metrics import Totals, render
from pygw.model import GatewayConfig, HttpMatchConfig, RedirectConfig
from pygw.proxy.call_metrics import HELP
from tests.doubles import frames
from tests.doubles.in_process import TRAILERS, Backend, gateway, message, one_route, run

NAMES = ['quote"', "back\\slash", "line\nfeed", "brace}", 'x"} 1\npygw_forged_total 1', "é\x85\u2028", "%0d", "\x1b[1m"]
MARKS = [b"\r", b"\n", b"\r\n", b"\0", b"\x01", b"\x1b[31m", b"\x7f", b'"', b"\\", b"\\n", b"%", b"%0d%0a", b"%00"]
PIECES = [*MARKS, b"a", b"/", b"?", b" ", b"\t", b",", b";", b"{}", b"\x80", b"\xff", b"\xc2\x9b", b"\xe2\x80\xa8"]
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=6).map(b"".join)
AUTHORITY_TAILS = [b"", b":8443", b"%0d%0a", b'"', b"\\", b"<", b"\r\nx: y", b"/", b"@evil.example", b"#", b"?"]
FORBIDDEN = frozenset(b"\r\n\0")  # RFC 9113 §8.2.1
BLANKS = b" \t"


def is_field_value(octets: bytes) -> bool:
    """Whether RFC 9113 §8.2.1 lets a value pass."""
    return not FORBIDDEN & set(octets) and octets == octets.strip(BLANKS)


def is_path(octets: bytes) -> bool:
    return octets.startswith(b"/") and not any(octet <= 0x20 or octet == 0x7F for octet in octets)


def request(path: bytes = b"/a.B/C", authority: bytes = b"grpc.example.com", *extra: frames.Field):
    changed = {b":path": path, b":authority": authority}
    return [*((name, changed.get(name, value)) for name, value in frames.REQUEST), *extra]


def send(client, fields: list[frames.Field]) -> int:
    """A whole request octet by octet; h2 must know the stream, but what it would send is thrown away."""
    stream_id = client.h2.get_next_available_stream_id()
    client.flush()
    client.h2.send_headers(stream_id, [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")])
    client.h2.data_to_send()
    client.writer.write(frames.headers(stream_id, fields) + frames.data(stream_id, message(b""), end_stream=True))
    return stream_id


async def a_client(served):
    client = await served.client()
    client.h2.config.header_encoding = "latin-1"  # octets as they are
    await client.until(lambda: client.h2.remote_settings.max_concurrent_streams == 1000)
    return client


def metric_samples(served):
    """All samples, as Prometheus would read them; raises ValueError where it could not."""
    totals = Totals()
    totals.add(json.loads(json.dumps(served.relay.metrics())))  # as on the worker's channel
    text = render(totals, {name: help_text for name, (_, help_text) in HELP.items()}, [])[0].decode()
    return [one for family in text_string_to_metric_families(text) for one in family.samples]


@settings(max_examples=30)
@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE, HOSTILE), min_size=1, max_size=8))
@example([(b'q"\\', b"a", b"b", b"c"), (b"/\xff\xc2\x9b", b"%0d%0a", b"\x1b[31m", b"\x01")])
def test_hostile_calls_are_refused_or_relayed_octet_by_octet(calls):
    async def test():
        backend = await Backend(encoding="latin-1").start()
        lines: list[bytes] = []
        async with gateway(one_route([backend]), access_log=lines.append) as served:
            client = await a_client(served)
            relayed = []
            for tail, value, agent, forwarded in calls:
                path = b"/a.B/C" + tail
                extra = [(b"x-a", value), (b"user-agent", agent), (b"x-forwarded-for", forwarded)]
                stream_id = send(client, request(path, b"grpc.example.com", *extra, (b"forwarded", forwarded)))
                if not is_path(path) or not all(map(is_field_value, (value, agent, forwarded))):
                    assert (await client.over(stream_id)).reset == frames.PROTOCOL_ERROR
                    continue
                if b"/" in tail or b"?" in tail:  # no method of gRPC: never relayed
                    assert (await client.over(stream_id)).status == "12"
                    continue
                peer = await backend.connected()
                relayed.append(path)
                seen = (await peer.over(2 * len(relayed) - 1)).fields[0]
                peer.respond(2 * len(relayed) - 1)
                assert (await client.over(stream_id)).status == "0"
                # Each once, as it came; what the client says of others is replaced by its address.
                got = [(name, octets.encode("latin-1")) for name, octets in seen]
                assert [octets for name, octets in got if name == ":path"] == [path]
                assert [octets for name, octets in got if name == "x-a"] == [value]
                assert [octets for name, octets in got if name == "user-agent"] == [agent]
                assert [octets for name, octets in got if name == "x-forwarded-for"] == [b"127.0.0.1"]
            services = {one.labels["service"] for one in metric_samples(served) if "service" in one.labels}
            assert services <= {"a.B", "_other"}
        entries = [json.loads(line) for line in b"".join(lines).split(b"\n")[:-1]]
        assert all(entry["client"] == "127.0.0.1" for entry in entries)
        answered = [entry["path"] for entry in entries if entry.get("grpc_status") == 0]
        assert answered == [path.decode("utf-8", "replace") for path in relayed]

    run(test)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([b"6.6.6.6", b"203.0.113.9"], "203.0.113.9"),
        ([b"6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        ([b'6.6.6.6, "\x1b[31m', b"203.0.113.9"], "203.0.113.9"),
        ([b"6.6.6.6", b'203.0.113.9, "\x1b[31m'], "127.0.0.1"),
    ],
)
def test_the_client_in_the_log_is_the_one_that_the_backend_hears_of(values, shown):
    """A proxy in front may add its entry in a line of its own (RFC 9110 §5.3): what stands before it is anybody's."""

    async def test():
        backend = await Backend(encoding="latin-1").start()
        lines: list[bytes] = []
        config = one_route([backend])
        async with gateway(config, access_log=lines.append, trusted_proxies=("127.0.0.0/8",)) as served:
            client = await a_client(served)
            fields = [(b"x-forwarded-for", values[0]), (b"user-agent", b"x"), (b"grpc-timeout", b"9S")]
            fields += [(b"x-forwarded-for", value) for value in values[1:]]
            stream_id = send(client, request(b"/a.B/C", b"grpc.example.com", *fields))
            peer = await backend.connected()
            heard = (await peer.over(1)).sections[0]["x-forwarded-for"]
            peer.respond(1)
            await client.over(stream_id)
        assert heard.split(", ")[0] == shown
        assert json.loads(b"".join(lines))["client"] == shown

    run(test)


@settings(max_examples=25)
@given(st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs"]), min_size=1, max_size=60))
@example(" at both ends ")
@example("line\r\ngrpc-status: 0\r\n\r\n")
@example("100 % \x00\x7f\x1b[31m\\\"é\u2028")
def test_a_message_of_ours_is_one_field(text):
    async def test():
        rule = {"failure": (14, text), "backends": ()}
        async with gateway(one_route(rule=rule)) as served:
            client = await a_client(served)
            stream = await client.over(send(client, request()))
            assert [name for name, _ in stream.fields[0]].count("grpc-message") == 1
            assert stream.status == "14"
            assert stream.text.isascii()
            assert stream.text.isprintable()
            assert unquote_to_bytes(stream.text).decode() == text

    run(test)


@settings(max_examples=30)
@given(HOSTILE, st.sampled_from(AUTHORITY_TAILS))
@example(b"//evil.example", b"")
@example(b"\\evil.example", b"")
def test_a_redirect_goes_nowhere_but_to_its_host(tail, authority_tail):
    async def test():
        path, authority = b"/gone" + tail, b"web.example.com" + authority_tail
        redirect = {"redirect": RedirectConfig(302, prefix=""), "backends": (), "matches": ()}
        config = one_route(rule={**redirect, "http_matches": (HttpMatchConfig("/"),)})
        (route,) = config.routes.values()
        made = replace(route, kind="HTTPRoute")
        listener = replace(config.listeners[0], routes=(made.key,))
        async with gateway(GatewayConfig((listener,), {made.key: made}, config.backends)) as served:
            client = await a_client(served)
            stream = await client.over(send(client, [*request(path, authority)[:4], (b"content-type", b"text/plain")]))
            if not stream.fields:
                assert stream.reset == frames.PROTOCOL_ERROR
                assert not is_path(path) or authority_tail not in (b"", b":8443")
                return
            assert [name for name, _ in stream.fields[0]] == [":status", "location", "content-length"]
            location = dict(stream.fields[0])["location"].encode("latin-1")
            assert is_path(path)
            assert is_field_value(location)
            host = authority.removesuffix(b":8443")
            assert location.startswith(b"http://" + host + b"/")
            assert urlsplit(location.decode("latin-1")).netloc == host.decode()

    run(test)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_stay_inside_their_labels_and_lines(name):
    async def test():
        backend = await Backend().start()
        lines: list[bytes] = []
        plain = one_route([backend])
        (route,) = plain.routes.values()
        made = replace(route, name=name, rules=(replace(route.rules[0], name=name),))
        listener = replace(plain.listeners[0], gateway=f"default/{name}", routes=(made.key,))
        config = GatewayConfig((listener,), {made.key: made}, plain.backends)
        async with gateway(config, access_log=lines.append) as served:
            client = await a_client(served)
            stream_id = send(client, request())
            peer = await backend.connected()
            await peer.over(1)
            peer.respond(1, trailers=[*TRAILERS, ("x-a", "%0d%0a")])
            assert (await client.over(stream_id)).status == "0"
            samples = metric_samples(served)
            assert "pygw_forged_total" not in {one.name for one in samples}
            assert {one.labels["route"] for one in samples if "route" in one.labels} == {f"default/{name}"}
        [line] = b"".join(lines).split(b"\n")[:-1]
        assert (json.loads(line)["route"], json.loads(line)["rule_name"]) == (f"default/{name}", name)
        assert json.loads(line)["listener"].startswith(f"default/{name}/")

    run(test)
