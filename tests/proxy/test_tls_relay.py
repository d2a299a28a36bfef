"""TLS in the relay, with the ssl module at both ends: names, ALPN, client certificates, 421, change, backends."""

from __future__ import annotations

import asyncio
import os
import ssl
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pygw.model import Certificate, ClientValidation, GatewayConfig, TlsConfig, TlsUpstream
from pygw.settings import Settings
from pygw.tls_context import load_certificate
from tests.doubles.certificates import Authority, Issued
from tests.doubles.in_process import (
    PATIENCE,
    REQUEST,
    RESPONSE,
    Backend,
    Gateway,
    Peer,
    gateway,
    message,
    one_route,
    run,
)

HOST = "grpc.example.com"
AUTHORITY, OTHER, CLIENTS = Authority("authority"), Authority("other"), Authority("clients")
SERVER = AUTHORITY.issue(HOST, "*.example.com")
CERTIFICATE = SERVER.config(HOST, "*.example.com")
REFUSED_STREAM = 7
INTERNAL_ERROR = 2
FUTURE = datetime(2100, 1, 1, tzinfo=UTC), datetime(2100, 1, 2, tzinfo=UTC)
PAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)


def secured(config: GatewayConfig, *listeners: tuple[str, TlsConfig], **rest: object) -> GatewayConfig:
    """The configuration with HTTPS listeners, (hostname, TLS) each, in place of its one listener."""
    first = config.listeners[0]
    made = [
        replace(first, name=f"l{place}", hostname=hostname, protocol="HTTPS", tls=tls, **rest)  # type: ignore[arg-type]
        for place, (hostname, tls) in enumerate(listeners or [("", TlsConfig((CERTIFICATE,)))])
    ]
    return replace(config, listeners=tuple(made))


def client_context(
    client: Issued | None = None, alpn: Sequence[str] | None = ("h2",), version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """What a client that trusts AUTHORITY speaks with."""
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    if alpn is not None:
        context.set_alpn_protocols(list(alpn))
    if client is not None:
        load_certificate(context, client.chain.decode(), client.key.decode())
    if version is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    return context


def request(host: str = HOST) -> list[tuple[str, str]]:
    return [(name, host if name == ":authority" else value) for name, value in REQUEST]


async def call(client: Peer, backend: Backend, host: str = HOST, connection: int = 1) -> str | None:
    """A call that reaches `backend` on its connection of that number; the grpc-status."""
    peer = backend.peers[connection - 1] if len(backend.peers) >= connection else None
    known = set(peer.streams) if peer else set()
    sent = client.request(request(host), body=message(b"hello"))
    peer = await backend.connected(connection)
    await peer.until(lambda: set(peer.streams) - known)
    peer.respond(max(peer.streams))
    return (await client.over(sent)).status


async def refused(client: Peer, host: str = HOST) -> str | None:
    """How a call ends that reaches no backend: its grpc-status, else its HTTP status, else its reset."""
    stream = await client.over(client.request(request(host), body=message(b"hello")))
    return str(stream.reset) if stream.reset and not stream.sections else (
        stream.status or stream.sections[-1][":status"]
    )


def relaying(test: Callable[[Gateway, Backend], Awaitable[None]], *listeners: tuple[str, TlsConfig]) -> None:
    """Run a test with a backend in cleartext behind HTTPS listeners."""

    async def whole() -> None:
        backend = await Backend().start()
        async with gateway(secured(one_route([backend]), *listeners)) as served:
            await test(served, backend)

    run(whole)


# ===== handshakes =====


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_call(version: ssl.TLSVersion) -> None:
    async def test(served: Gateway, backend: Backend) -> None:
        client = await served.client(tls=client_context(version=version))
        for _ in range(3):
            assert await call(client, backend) == "0"
        assert served.count("pygw_downstream_tls_handshakes_total") == 1
        fields = backend.peers[0].streams[1].sections[0]
        assert fields["x-forwarded-proto"] == "https"

    relaying(test)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_old_versions_are_refused() -> None:
    async def test(served: Gateway, backend: Backend) -> None:
        with pytest.raises(ssl.SSLError):
            await served.client(tls=client_context(version=ssl.TLSVersion.TLSv1_1))
        assert served.count("pygw_downstream_tls_errors_total") == 1

    relaying(test)


@pytest.mark.parametrize("alpn", [None, ["http/1.1"], ["h2c", "spdy/3", "h22"]])
def test_alpn_h2_is_demanded(alpn: list[str] | None) -> None:
    async def test(served: Gateway, backend: Backend) -> None:
        with pytest.raises(ssl.SSLError, match="no application protocol"):
            await served.client(tls=client_context(alpn=alpn))
        assert served.count("pygw_downstream_tls_errors_total") == 1
        assert served.count("pygw_downstream_tls_handshakes_total") == 0
        assert await call(await served.client(tls=client_context(alpn=["http/1.1", "h2"])), backend) == "0"

    relaying(test)


def test_a_name_without_listener_is_refused() -> None:
    async def test(served: Gateway, backend: Backend) -> None:
        for name in ("other.test", "example.com"):
            with pytest.raises(ssl.SSLError, match="unrecognized name"):
                await served.client(tls=client_context(), server_name=name)
        assert await call(await served.client(tls=client_context()), backend) == "0"

    relaying(test, ("*.example.com", TlsConfig((CERTIFICATE,))))


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"HTTP/1.1 400 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
        (b"\x00" * 100, b""),
        (b"\x16\x03\x01\x00\x00", b"\x15\x03\x03\x00\x02\x02\x32"),
        (b"\x16\x03\x01\x40\x01", b"\x15\x03\x03\x00\x02\x02\x32"),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", b"\x15\x03\x03\x00\x02\x02\x32"),
    ],
)
def test_what_is_no_client_hello(sent: bytes, answer: bytes) -> None:
    async def test(served: Gateway, backend: Backend) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(sent)
        got = await asyncio.wait_for(reader.read(), PATIENCE)
        assert got.startswith(answer) if answer else not got
        if answer.startswith(b"HTTP"):
            head, _, body = got.partition(b"\r\n\r\n")
            assert f"content-length: {len(body)}".encode() in head
        writer.close()
        assert served.count("pygw_downstream_tls_errors_total") == 1

    relaying(test)


def client_hello() -> bytes:
    """The first flight of a client that trusts AUTHORITY."""
    sent = ssl.MemoryBIO()
    session = client_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return sent.read()


HALF_OPEN = {
    "silent": lambda: b"",
    "an octet": lambda: b"\x16",
    "a record head": lambda: b"\x16\x03\x01\x40\x00\x01",
    "half a ClientHello": lambda: client_hello()[:100],
    "a ClientHello": client_hello,
}


@pytest.mark.parametrize("kind", HALF_OPEN)
def test_a_handshake_has_its_time(kind: str) -> None:
    async def test() -> None:
        async with gateway(secured(one_route()), Settings(handshake_timeout=0.05)) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(HALF_OPEN[kind]())
            got = await asyncio.wait_for(reader.read(), PATIENCE)
            assert bool(got) == (kind == "a ClientHello"), "the server's first flight, and only for a whole one"
            writer.close()
            assert served.count("pygw_limit_hits_total", limit="handshake_timeout") == 1
            assert served.count("pygw_downstream_tls_handshakes_total") == 0

    run(test)


def test_handshakes_under_way_are_limited() -> None:
    async def test() -> None:
        async with gateway(secured(one_route()), Settings(max_handshakes=3)) as served:
            idle = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(4)]
            assert await asyncio.wait_for(idle[3][0].read(), PATIENCE) == b""
            assert served.count("pygw_limit_hits_total", limit="max_handshakes") == 1
            with pytest.raises((ssl.SSLError, OSError)):
                await served.client(tls=client_context())
            idle[0][1].close()
            while served.relay.open_connections > 2:
                await asyncio.sleep(0)
            client = await served.client(tls=client_context())
            assert await refused(client) == "14"  # connected, and there is no endpoint
            for _, writer in idle:
                writer.close()

    run(test)


def test_a_handshake_octet_by_octet() -> None:
    async def test(served: Gateway, backend: Backend) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = client_context().wrap_bio(incoming, outgoing, server_hostname=HOST)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                for octet in outgoing.read():
                    writer.write(bytes([octet]))
                    await asyncio.sleep(0)
                incoming.write(await reader.read(65536))
        assert session.selected_alpn_protocol() == "h2"
        writer.close()

    relaying(test)


def test_octets_that_mean_nothing_end_the_connection() -> None:
    """A flood of TLS 1.3 records without data (here: of records that OpenSSL takes and drops) is not endless work."""

    async def test(served: Gateway, backend: Backend) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = client_context().wrap_bio(incoming, outgoing, server_hostname=HOST)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        with pytest.raises(ssl.SSLWantReadError):
            session.do_handshake()
        writer.write(outgoing.read())
        # Dummy change_cipher_spec records (RFC 8446 §5) may come once; more of them are a protocol error.
        writer.write(b"\x14\x03\x03\x00\x01\x01" * 20_000)
        while await asyncio.wait_for(reader.read(65536), PATIENCE):
            pass
        writer.close()
        assert served.count("pygw_downstream_tls_errors_total") == 1

    relaying(test)


def test_much_data_both_ways() -> None:
    async def test(served: Gateway, backend: Backend) -> None:
        client = await served.client(tls=client_context())
        stream_id = client.request(request())
        peer = await backend.connected()
        await peer.open(1)
        peer.headers(1, ((":status", "200"), ("content-type", "application/grpc")))
        chunk = bytes(range(256)) * 60
        sent = b""
        for _ in range(200):
            await client.until(lambda: client.h2.local_flow_control_window(stream_id) > len(chunk))
            await peer.until(lambda: peer.h2.local_flow_control_window(1) > len(chunk))
            client.data(stream_id, chunk)
            peer.data(1, chunk)
            sent += chunk
        await client.until(lambda: len(client.streams[stream_id].data) == len(sent))
        await peer.until(lambda: len(peer.streams[1].data) == len(sent))
        assert client.streams[stream_id].data == peer.streams[1].data == sent
        client.h2.reset_stream(stream_id)
        client.flush()
        await peer.over(1)

    relaying(test)


# ===== names and certificates =====


def common_name(client: Peer) -> str:
    """What the certificate that a client was shown was issued to."""
    certificate = client.writer.get_extra_info("ssl_object").getpeercert()
    return str(dict(pair for entry in certificate["subject"] for pair in entry)["commonName"])


def test_certificates_by_server_name() -> None:
    """The listener by the longest match; among its certificates those that fit best, by algorithm."""
    names = ["one.example.com", "*.two.example.com", "*.example.com"]
    one, two, wide = (AUTHORITY.issue(name, "one.example.com", "x.two.example.com", "y.example.com",
                                      "a.b.two.example.com").config(name) for name in names)  # fmt: skip

    async def test(served: Gateway, backend: Backend) -> None:
        for asked, shown in (
            ("one.example.com", "*.example.com"),  # the listener for *.example.com has one certificate alone
            ("y.example.com", "*.example.com"),
            ("x.two.example.com", "*.two.example.com"),
            ("a.b.two.example.com", "one.example.com"),  # in a certificate, a wildcard stands for one label
        ):
            assert common_name(await served.client(tls=client_context(), server_name=asked)) == shown, asked

    relaying(test, ("*.example.com", TlsConfig((wide,))), ("*.two.example.com", TlsConfig((one, two))))


def test_rsa_and_ecdsa_side_by_side() -> None:
    rsa = AUTHORITY.issue("rsa", HOST, algorithm="RSA").config(HOST, algorithm="RSA")
    ecdsa = AUTHORITY.issue("ecdsa", HOST).config(HOST, algorithm="EC")

    async def test(served: Gateway, backend: Backend) -> None:
        for cipher, shown in (("ECDHE-RSA-AES128-GCM-SHA256", "rsa"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "ecdsa")):
            context = client_context(version=ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(cipher)
            assert common_name(await served.client(tls=context)) == shown

    relaying(test, ("", TlsConfig((rsa, ecdsa))))


MISDIRECTED = [
    ("second.example.com", "second.example.com", True),
    ("second.example.com", "second.example.com:443", True),
    ("second.example.com", "SECOND.example.com", True),
    ("second.example.com", "unknown.test", False),
    ("second.example.com", "fourth.wild.example.com", False),
    ("third.wild.example.com", "third.wild.example.com", True),
    ("third.wild.example.com", "fifth.wild.example.com", True),
    ("third.wild.example.com", "fourth.wild.example.com", False),
    ("fourth.wild.example.com", "fourth.wild.example.com", True),
    ("fourth.wild.example.com", "fifth.wild.example.com", False),
    ("unknown.test", "unknown.test", True),
    ("unknown.test", "other.test", True),
    ("unknown.test", "second.example.com", False),
]


def test_misdirected_requests_get_421() -> None:
    """As the official suite has it (HTTPRouteHTTPSListenerDetectMisdirectedRequests)."""
    hosts = ("", "second.example.com", "*.wild.example.com", "fourth.wild.example.com")
    names = sorted({server_name for server_name, _, _ in MISDIRECTED})
    tls = TlsConfig((AUTHORITY.issue(*names).config(*names),))

    async def test(served: Gateway, backend: Backend) -> None:
        for server_name, host, is_served in MISDIRECTED:
            client = await served.client(tls=client_context(), server_name=server_name)
            got = await (call(client, backend, host) if is_served else refused(client, host))
            assert got == ("0" if is_served else "421"), (server_name, host)
        assert served.count("pygw_downstream_misdirected_total") == sum(not one for *_, one in MISDIRECTED)

    relaying(test, *((host, tls) for host in hosts))


# ===== client certificates =====


def test_valid_clients_alone() -> None:
    validation = ClientValidation(CLIENTS.pem.decode() + OTHER.pem.decode())
    intermediate = Authority("intermediate", issuer=CLIENTS)

    async def test(served: Gateway, backend: Backend) -> None:
        for client in (CLIENTS.issue("alice"), OTHER.issue("bob"), intermediate.issue("carol")):
            assert await call(await served.client(tls=client_context(client)), backend) == "0"
        for client in (None, AUTHORITY.issue("mallory"), CLIENTS.issue("eve", begins=PAST[0], ends=PAST[1])):
            connected = await served.client(tls=client_context(client, version=ssl.TLSVersion.TLSv1_3))
            await connected.until(lambda: connected.closed)  # noqa: B023
            assert not connected.streams
        assert served.count("pygw_downstream_tls_handshakes_total") == 3

    relaying(test, ("", TlsConfig((CERTIFICATE,), validation)))


def test_insecure_fallback_takes_all() -> None:
    validation = ClientValidation(CLIENTS.pem.decode(), allow_insecure=True)

    async def test(served: Gateway, backend: Backend) -> None:
        for client in (None, CLIENTS.issue("alice"), AUTHORITY.issue("mallory")):
            assert await call(await served.client(tls=client_context(client)), backend) == "0"

    relaying(test, ("", TlsConfig((CERTIFICATE,), validation)))


def test_listeners_of_one_port_validate_each_in_its_way() -> None:
    validation = ClientValidation(CLIENTS.pem.decode())

    async def test(served: Gateway, backend: Backend) -> None:
        anonymous = await served.client(tls=client_context(), server_name="open.example.com")
        assert await call(anonymous, backend, "open.example.com") == "0"
        assert await refused(anonymous, "closed.example.com") == "421"
        alice = client_context(CLIENTS.issue("alice"))
        assert await call(await served.client(tls=alice, server_name="closed.example.com"), backend,
                          "closed.example.com") == "0"  # fmt: skip
        stranger = await served.client(tls=client_context(), server_name="closed.example.com")
        await stranger.until(lambda: stranger.closed)
        assert not stranger.streams

    relaying(
        test,
        ("open.example.com", TlsConfig((CERTIFICATE,))),
        ("closed.example.com", TlsConfig((CERTIFICATE,), validation)),
    )


# ===== change =====


def test_rotation_leaves_open_connections_alone() -> None:
    async def test() -> None:
        backend = await Backend().start()
        config = secured(one_route([backend]))
        async with gateway(config) as served:
            old = await served.client(tls=client_context())
            assert await call(old, backend) == "0"
            renewed = AUTHORITY.issue("renewed", HOST).config(HOST)
            served.apply(secured(one_route([backend]), ("", TlsConfig((renewed,)))), 2)
            assert common_name(await served.client(tls=client_context())) == "renewed"
            assert await call(old, backend) == "0"
            assert not old.goaways

    run(test)


@pytest.mark.parametrize("change", ["validation comes", "validation goes", "cleartext", "the listener goes"])
def test_connections_that_would_not_be_admitted_so_any_more_leave(change: str) -> None:
    """They hear GOAWAY; calls that are open go on; a new call is refused so that it is safe to send again."""
    validation = ClientValidation(CLIENTS.pem.decode())
    with_validation, without = TlsConfig((CERTIFICATE,), validation), TlsConfig((CERTIFICATE,))

    async def test() -> None:
        backend = await Backend().start()
        plain = one_route([backend])
        before = secured(plain, ("", with_validation if change == "validation goes" else without))
        after = {
            "validation comes": secured(plain, ("", with_validation)),
            "validation goes": secured(plain, ("", without)),
            "cleartext": plain,
            "the listener goes": secured(plain, ("other.test", without)),
        }[change]
        async with gateway(before) as served:
            client = await served.client(tls=client_context(CLIENTS.issue("alice")))
            open_call = client.request(request())
            peer = await backend.connected()
            await peer.open(1)
            served.apply(after, 2)
            await client.until(lambda: client.goaways)
            assert await refused(client) == str(REFUSED_STREAM)
            client.data(open_call, message(b"still there"), end=True)
            await peer.until(lambda: peer.streams[1].ended)
            peer.respond(1)
            assert (await client.over(open_call)).status == "0"

    run(test)


def test_cleartext_connections_leave_when_tls_comes() -> None:
    async def test() -> None:
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            assert await call(client, backend) == "0"
            served.apply(secured(one_route([backend])), 2)
            assert await refused(client) == str(REFUSED_STREAM)
            assert client.goaways

    run(test)


# ===== backends =====


def backend_context(issued: Issued, *, clients: Authority | None = None, alpn: str | None = "h2") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(context, issued.chain.decode(), issued.key.decode())
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients.pem.decode())
    return context


def with_policy(config: GatewayConfig, tls: TlsUpstream | None, client: Certificate | None = None) -> GatewayConfig:
    """The configuration with TLS to its backend, and its Gateway's client certificate."""
    backends = {key: replace(backend, tls=tls) for key, backend in config.backends.items()}
    listeners = tuple(replace(listener, client_certificate=client) for listener in config.listeners)
    return replace(config, backends=backends, listeners=listeners)


CA = AUTHORITY.pem.decode()


@pytest.mark.parametrize(
    ("shown", "tls"),
    [
        (["backend.test"], TlsUpstream("backend.test", CA)),
        (["*.pods.test"], TlsUpstream("backend.pods.test", CA)),
        (["one.test"], TlsUpstream("backend.test", CA, (("DNS", "one.test"),))),
        (["*.pods.test"], TlsUpstream("backend.test", CA, (("DNS", "ONE.pods.test"),))),
        (["*.test"], TlsUpstream("backend.test", CA, (("DNS", "*.test"),))),
        (["x.test", "spiffe://cluster/echo"], TlsUpstream("b.test", CA, (("URI", "spiffe://cluster/echo"),))),
        (["two.test"], TlsUpstream("b.test", CA, (("DNS", "one.test"), ("DNS", "two.test")))),
    ],
)
def test_backends_that_are_who_they_should_be(shown: list[str], tls: TlsUpstream) -> None:
    async def test() -> None:
        backend = await Backend(tls=backend_context(AUTHORITY.issue(*shown))).start()
        async with gateway(with_policy(one_route([backend]), tls)) as served:
            client = await served.client()
            for _ in range(3):
                assert await call(client, backend) == "0"
            assert len(backend.peers) == 1
            assert served.count("pygw_upstream_tls_errors_total") == 0

    run(test)


@pytest.mark.parametrize(
    ("issued", "tls", "alpn", "reason"),
    [
        (AUTHORITY.issue("other.test"), TlsUpstream("backend.test", CA), "h2", "hostname mismatch"),
        (OTHER.issue("backend.test"), TlsUpstream("backend.test", CA), "h2", "certificate verify failed"),
        # With names of its own, the server name proves nothing; a wildcard stands for one label, and for no bare name.
        (AUTHORITY.issue("backend.test"), TlsUpstream("backend.test", CA, (("DNS", "one.test"),)), "h2", "none of"),
        (AUTHORITY.issue("*.test"), TlsUpstream("b.test", CA, (("DNS", "a.b.test"),)), "h2", "none of the names a.b"),
        (AUTHORITY.issue("*.test"), TlsUpstream("b.test", CA, (("DNS", "one.test"),)), "h2", "none of"),
        (AUTHORITY.issue("*.test"), TlsUpstream("b.test", CA, (("DNS", "test"),)), "h2", "none of the names test"),
        (AUTHORITY.issue("spiffe://a/b"), TlsUpstream("b.test", CA, (("URI", "spiffe://a/c"),)), "h2", "none of"),
        (AUTHORITY.issue("b.test", "x://y"), TlsUpstream("b.test", CA, (("URI", "b.test"),)), "h2", "none of"),
        (AUTHORITY.issue("backend.test", begins=PAST[0], ends=PAST[1]), TlsUpstream("backend.test", CA), "h2",
         "has expired"),
        (AUTHORITY.issue("backend.test", begins=FUTURE[0], ends=FUTURE[1]), TlsUpstream("backend.test", CA), "h2",
         "not yet valid"),
        (AUTHORITY.issue("backend.test"), TlsUpstream("backend.test", CA), None, "ALPN"),
        (AUTHORITY.issue("backend.test"), TlsUpstream("backend.test", CA), "http/1.1", "ALPN"),
        (AUTHORITY.issue("backend.test"), TlsUpstream("backend.test", ""), "h2", "certificate verify failed"),
    ],
)
def test_backends_that_are_not(issued: Issued, tls: TlsUpstream, alpn: str | None, reason: str) -> None:
    async def test() -> None:
        backend = await Backend(tls=backend_context(issued, alpn=alpn)).start()
        async with gateway(with_policy(one_route([backend]), tls)) as served:
            client = await served.client()
            stream = await client.over(client.request(body=message(b"hello")))
            assert stream.status == "14"
            assert "TLS: " in stream.text
            assert reason in stream.text.lower().replace("alpn", "ALPN")
            assert served.count("pygw_upstream_tls_errors_total") == 1
            assert not any(peer.streams for peer in backend.peers)

    run(test)


def test_a_backend_of_an_old_version_of_tls_gets_no_call() -> None:
    async def test() -> None:
        context = backend_context(AUTHORITY.issue("backend.test"))
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        backend = await Backend(tls=context).start()
        async with gateway(with_policy(one_route([backend]), TlsUpstream("backend.test", CA))) as served:
            stream = await (client := await served.client()).over(client.request(body=message(b"hello")))
            assert (stream.status, stream.reset) == ("14", None)

    run(test)


def test_a_backend_that_demands_a_certificate_that_we_do_not_have() -> None:
    """TLS 1.3 tells it when the handshake is done for us (RFC 8446 §4.4.2.4), so that a call may be under way."""

    async def test() -> None:
        backend = await Backend(tls=backend_context(AUTHORITY.issue("backend.test"), clients=CLIENTS)).start()
        async with gateway(with_policy(one_route([backend]), TlsUpstream("backend.test", CA))) as served:
            stream = await (client := await served.client()).over(client.request(body=message(b"hello")))
            assert (stream.status, stream.reset) == ("14", None)
            assert not any(peer.streams for peer in backend.peers)

    run(test)


BROKEN_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)  # application data (RFC 8446 §5.2) that cannot be decrypted


@pytest.mark.parametrize("is_inside", [False, True], ids=["before the response", "inside a message"])
@pytest.mark.parametrize("is_cut", [False, True], ids=["a broken record", "cut without close_notify"])
def test_a_tls_connection_to_a_backend_that_breaks(is_inside: bool, is_cut: bool) -> None:
    """Its calls are told, and the next one gets a new connection."""

    async def test() -> None:
        backend = await Backend(tls=backend_context(AUTHORITY.issue("backend.test"))).start()
        async with gateway(with_policy(one_route([backend]), TlsUpstream("backend.test", CA))) as served:
            client = await served.client()
            sent = client.request(request(), body=message(b"hello"))
            peer = await backend.connected()
            await peer.over(1)
            if is_inside:
                peer.headers(1, RESPONSE)
                peer.data(1, message(b"answer")[:-1])
                await client.until(lambda: sent in client.streams and client.streams[sent].data)
            sock = peer.writer.transport.get_extra_info("socket")
            if is_cut:
                peer.writer.transport.abort()
            else:
                os.write(sock.fileno(), BROKEN_RECORD)
            stream = await client.over(sent)
            assert (stream.status, stream.reset) == ((None, INTERNAL_ERROR) if is_inside else ("14", None))
            assert await call(client, backend, connection=2) == "0"

    run(test)


def test_a_backend_without_tls_gets_no_call() -> None:
    async def test() -> None:
        backend = await Backend().start()
        tls = TlsUpstream("backend.test", CA)
        async with gateway(with_policy(one_route([backend]), tls)) as served:
            stream = await (client := await served.client()).over(client.request(body=message(b"hello")))
            assert stream.status == "14"
            assert "TLS: " in stream.text

    run(test)


def test_a_backend_that_hangs_in_the_handshake() -> None:
    async def test() -> None:
        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config = with_policy(one_route(ports=[port]), TlsUpstream("backend.test", CA))
        async with gateway(config, Settings(handshake_timeout=0.05)) as served:
            stream = await (client := await served.client()).over(client.request(body=message(b"hello")))
            assert stream.status == "14"
            assert "handshake" in stream.text
        server.close()
        for writer in writers:
            writer.close()

    run(test)


def test_a_policy_that_comes_changes_and_goes() -> None:
    """Each time new connections; the old ones finish their calls first."""

    async def test() -> None:
        secure = await Backend(tls=backend_context(AUTHORITY.issue("one.test", "two.test"))).start()
        config = one_route([secure])
        async with gateway(with_policy(config, TlsUpstream("one.test", CA))) as served:
            client = await served.client()
            assert await call(client, secure) == "0"
            open_call = client.request()
            await secure.peers[0].open(2)
            served.apply(with_policy(config, TlsUpstream("two.test", CA)), 2)
            assert await call(client, secure, connection=2) == "0"
            client.data(open_call, message(b"x"), end=True)
            await secure.peers[0].until(lambda: secure.peers[0].streams[3].ended)
            secure.peers[0].respond(3)
            assert (await client.over(open_call)).status == "0"
            await secure.peers[0].until(lambda: secure.peers[0].closed)
            served.apply(config, 3)
            assert await refused(client) == "14"
            served.apply(with_policy(config, TlsUpstream("two.test", CA)), 4)
            assert await call(client, secure, connection=3) == "0"

    run(test)


def test_each_gateway_shows_its_own_client_certificate() -> None:
    """One Service behind two Gateways: connections are not shared between them."""
    first, second = CLIENTS.issue("first").config(), CLIENTS.issue("second").config()

    async def test() -> None:
        issued = AUTHORITY.issue("backend.test")
        backend = await Backend(tls=backend_context(issued, clients=CLIENTS)).start()
        config = with_policy(one_route([backend]), TlsUpstream("backend.test", CA))
        hosts = {"one.test": first, "two.test": second, "three.test": None}
        listeners = tuple(
            replace(config.listeners[0], name=host, hostname=host, client_certificate=certificate)
            for host, certificate in hosts.items()
        )
        async with gateway(replace(config, listeners=listeners)) as served:
            client = await served.client()
            assert await call(client, backend, "one.test", connection=1) == "0"
            assert await call(client, backend, "two.test", connection=2) == "0"
            assert await call(client, backend, "one.test", connection=1) == "0"
            assert [common_name(peer) for peer in backend.peers] == ["first", "second"]
            assert await refused(client, "three.test") == "14"
            # Endpoint changes reach both ways there.
            served.relay.update_endpoints([("default/main:1", [])])
            assert await refused(client, "one.test") == "14"
            assert await refused(client, "two.test") == "14"

    run(test)


def test_a_certificate_that_cannot_be_loaded_costs_its_own_calls_alone() -> None:
    """The control process never sends one; if it did, the worker would say so and live."""
    broken = Certificate("junk", "junk", (HOST,))

    async def test() -> None:
        backend = await Backend(tls=backend_context(AUTHORITY.issue("backend.test"))).start()
        config = with_policy(one_route([backend]), TlsUpstream("backend.test", CA), broken)
        config = secured(config, (HOST, TlsConfig((broken,))), ("good.example.com", TlsConfig((CERTIFICATE,))))
        async with gateway(config) as served:
            with pytest.raises(ssl.SSLError, match="internal error"):
                await served.client(tls=client_context())
            client = await served.client(tls=client_context(), server_name="good.example.com")
            assert await refused(client, "good.example.com") in ("14", "12")

    run(test)
