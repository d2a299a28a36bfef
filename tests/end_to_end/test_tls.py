"""TLS, end to end from YAML: grpcio's secure channels through HTTPS listeners, and to backends that speak TLS.

What needs no process is in tests/proxy/test_tls_relay.py.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pygw.control.cluster_state import Object
from tests.doubles.backend import ECHO, SERVED_BY, Backend, StartBackend
from tests.doubles.certificates import Authority, Issued, config_map, to_yaml
from tests.doubles.client import stream_stream, unary_unary
from tests.doubles.gateway import PATIENCE, Gateway, StartGateway
from tests.doubles.load import Gate, Load
from tests.doubles.objects import allow, gateway, listener, ref, route, rule, service

HOST = "grpc.example.com"
WHO = "which.Backend/Answers"
ROTATIONS = 3
CLIENTS = {"group": "", "kind": "ConfigMap", "name": "clients"}

Serve = Callable[..., Gateway]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def clients() -> Authority:
    return Authority("clients")


@pytest.fixture
def serve(backend: Backend, start_gateway: StartGateway) -> Serve:
    """A gateway with these objects, and a route of all listeners to `backend`; --port-map is that of port 443."""

    def start(*items: Object, **options: Any) -> Gateway:
        arguments = options.pop("arguments", ())
        everything = [*items, route(rule(ref("backend")))]
        ports = {"default/backend": backend.port}
        return start_gateway(to_yaml(*everything), *arguments, resolve=ports, port_of_listener=443, **options)

    return start


def https(name: str = "https", hostname: str = "", *secrets: str, port: int = 443) -> Object:
    """An HTTPS listener with the certificates of these Secrets (of the Secret `server`, if none)."""
    references = [{"name": secret} for secret in secrets or ("server",)]
    rest = {"hostname": hostname} if hostname else {}
    return listener(name, port, "HTTPS", tls={"certificateRefs": references}, **allow("All"), **rest)


def validating(mode: str = "AllowValidOnly") -> dict[str, Any]:
    """spec.tls of a Gateway that validates clients by the ConfigMap `clients`."""
    return {"frontend": {"default": {"validation": {"caCertificateRefs": [CLIENTS], "mode": mode}}}}


def trusting(authority: Authority, client: Issued | None = None) -> grpc.ChannelCredentials:
    """A client that trusts `authority`, with or without a certificate of its own."""
    if client is None:
        return grpc.ssl_channel_credentials(authority.pem)
    return grpc.ssl_channel_credentials(authority.pem, client.key, client.chain)


def outcome(
    started: Gateway,
    authority: Authority,
    client: Issued | None = None,
    host: str = HOST,
    server_name: str = "",
    port: int | None = None,
) -> str:
    """How a call for `host` over a connection of its own ends: the backend's name, or the status."""
    credentials = trusting(authority, client)
    with started.channel(host, credentials=credentials, server_name=server_name or host, port=port) as channel:
        try:
            _, call = unary_unary(channel, WHO).with_call(b"", timeout=10.0)
            return str(dict(call.initial_metadata())[SERVED_BY])
        except grpc.RpcError as error:
            return str(error.code().name)


def counter(started: Gateway, name: str) -> float:
    """The value of a metric without labels."""
    lines = started.admin("/metrics")[1].decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


# ===== one gateway, several ports =====


@pytest.fixture(scope="module")
def shared(
    backend: Backend, authority: Authority, clients: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """HTTPS on 443 (two hostnames), client certificates demanded on 444 and not on 445, cleartext on 80."""
    folder = tmp_path_factory.mktemp("config")
    listeners = [https("one", HOST), https("two", "two.example.com"), listener("plain", 80, **allow("All"))]
    listeners += [https(f"https-{port}", port=port) for port in (444, 445)]
    validation = {"caCertificateRefs": [CLIENTS]}
    per_port = [
        {"port": 444, "tls": {"validation": {**validation, "mode": "AllowValidOnly"}}},
        {"port": 445, "tls": {"validation": {**validation, "mode": "AllowInsecureFallback"}}},
    ]
    objects = [
        gateway(*listeners, tls={"frontend": {"default": {}, "perPort": per_port}}),
        route(rule(ref("backend"))),
        authority.issue(HOST, "two.example.com").secret("server"),
        clients.config_map("clients"),
    ]
    (folder / "config.yaml").write_text(to_yaml(*objects))
    ports = [item for port in (80, 444, 445) for item in ("--port-map", f"{port}=0")]
    with Gateway(folder, *ports, resolve={"default/backend": backend.port}, port_of_listener=443) as started:
        yield started


def local_port(started: Gateway, port: int) -> int:
    """Where a listener's port is bound."""
    listening = started.admin_json("/status")["listening"]
    return next(int(site["port"]) for site in listening if site["listenerPort"] == port)


def test_calls(shared: Gateway, backend: Backend, authority: Authority) -> None:
    with shared.channel(credentials=trusting(authority)) as channel:
        payload = bytes(range(256)) * 20_000
        assert unary_unary(channel, f"{ECHO}/Unary")(payload, timeout=PATIENCE) == payload
        sent = [b"%d" % number * 3000 for number in range(200)]
        assert list(stream_stream(channel, f"{ECHO}/Chat")(iter(sent), timeout=PATIENCE)) == sent
    assert backend.calls[-1].values("x-forwarded-proto") == ["https"]
    assert counter(shared, "pygw_downstream_tls_handshakes_total") >= 1


def test_cleartext_beside_it(shared: Gateway) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{local_port(shared, 80)}") as channel:
        _, call = unary_unary(channel, WHO).with_call(b"", timeout=PATIENCE)
        assert dict(call.initial_metadata())[SERVED_BY] == "backend"


def test_misdirected(shared: Gateway, authority: Authority) -> None:
    assert outcome(shared, authority, host="two.example.com") == "backend"
    # 421, which gRPC has no status for.
    assert outcome(shared, authority, host="two.example.com", server_name=HOST) == "UNKNOWN"


def test_client_certificates(shared: Gateway, authority: Authority, clients: Authority) -> None:
    alice, mallory = clients.issue("alice"), authority.issue("mallory")
    demanding, lax = local_port(shared, 444), local_port(shared, 445)
    assert outcome(shared, authority, alice, port=demanding) == "backend"
    for client in (None, mallory):
        assert outcome(shared, authority, client, port=demanding) == "UNAVAILABLE"
    for client in (None, alice, mallory):
        assert outcome(shared, authority, client, port=lax) == "backend"


def test_an_authority_that_is_not_believed(shared: Gateway) -> None:
    assert outcome(shared, Authority("somebody else")) == "UNAVAILABLE"


def test_private_keys_are_shown_nowhere(shared: Gateway) -> None:
    for page in ("/config", "/status", "/endpoints", "/metrics"):
        body = shared.admin(page)[1]
        assert body
        assert b"PRIVATE" not in body
    assert not [line for line in shared.log if "PRIVATE" in line]


# ===== gateways of their own =====


def shown(started: Gateway) -> bytes:
    """The certificate that a new handshake gets, in DER."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", started.port), timeout=PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname=HOST) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def test_rotations_under_load(serve: Serve, authority: Authority) -> None:
    """No call fails; open connections stay; once a rotation is published, every handshake gets the new certificate."""
    authorities = [authority, Authority("successor")]
    credentials = grpc.ssl_channel_credentials(b"".join(one.pem for one in authorities))
    items = gateway(https()), route(rule(ref("backend")))
    started = serve(items[0], authority.issue(HOST).secret("server"))

    def channel() -> grpc.Channel:
        return started.channel(credentials=credentials)

    gate = Gate()
    with channel() as opened, Load(channel, unary=2, streaming=2, connecting=2) as load:
        held = stream_stream(opened, f"{ECHO}/Chat")(iter(gate), timeout=4 * PATIENCE)
        load.wait_for(50)
        for number in range(1, 1 + ROTATIONS):
            issued = authorities[number % 2].issue(HOST)
            since = len(started.log)
            started.write("config.yaml", to_yaml(*items, issued.secret("server")))
            started.wait_for_log("configuration published", since)
            assert {shown(started) for _ in range(10)} == {ssl.PEM_cert_to_DER_cert(issued.chain.decode())}
            gate.send(b"%d" % number)
            assert next(held) == b"%d" % number
            load.wait_for(50)
        gate.close()
        assert list(held) == []
    print("calls by status:", dict(load.ended))
    assert not load.failed, load.details[:5]


def test_rotations_of_a_backends_authority_under_load(
    start_backend: StartBackend, start_gateway: StartGateway, authority: Authority, clients: Authority
) -> None:
    """What backends are checked by, and our certificate for them, change: new connections, and no call fails."""
    issued = authority.issue("secure.internal")
    credentials = grpc.ssl_server_credentials([(issued.key, issued.chain)], clients.pem, require_client_auth=True)
    backend = start_backend("secure", credentials=credentials)

    def yaml(number: int) -> str:
        bundle = authority.pem + (Authority("successor").pem if number % 2 else b"")
        return to_yaml(
            gateway(listener(), tls={"backend": {"clientCertificateRef": {"name": "client"}}}),
            policy(hostname="secure.internal", caCertificateRefs=[BACKEND_CA]),
            route(rule(ref("secure", 50051))), service("secure"), config_map("backend-ca", bundle.decode()),
            clients.issue("the-gateway").secret("client"),
        )  # fmt: skip

    started = start_gateway(yaml(0), resolve={"default/secure": backend.port})
    with Load(started.channel, unary=2, streaming=2, connecting=1) as load:
        load.wait_for(50)
        for number in range(1, 1 + ROTATIONS):
            since = len(started.log)
            started.write("config.yaml", yaml(number))
            started.wait_for_log("configuration published", since)
            load.wait_for(50)
    assert not load.failed, load.details[:5]
    assert counter(started, "pygw_upstream_connects_total") > ROTATIONS


def test_port_turns_to_tls_and_back(serve: Serve, authority: Authority) -> None:
    rest = route(rule(ref("backend"))), authority.issue(HOST).secret("server")
    started = serve(gateway(listener(port=443, **allow("All"))))
    with started.channel() as channel:
        assert unary_unary(channel, WHO)(b"", timeout=10.0)
        started.write("config.yaml", to_yaml(gateway(https()), *rest))
        started.eventually(lambda: outcome(started, authority) == "backend", "served over TLS")
        assert refused(unary_unary(channel, WHO))
    started.write("config.yaml", to_yaml(gateway(listener(port=443)), *rest))
    with started.channel() as channel:
        started.eventually(lambda: not refused(unary_unary(channel, WHO)), "served in cleartext")


def refused(call: grpc.UnaryUnaryMultiCallable[bytes, bytes]) -> bool:
    try:
        call(b"", timeout=10.0)
    except grpc.RpcError as error:
        return bool(error.code() == grpc.StatusCode.UNAVAILABLE)
    return False


def test_a_replaced_worker_speaks_tls_too(serve: Serve, authority: Authority) -> None:
    """It is told by the launcher what to serve, and a private key must not make it serve the port in cleartext."""
    secret = authority.issue(HOST).secret("server")
    started = serve(gateway(https()), secret, workers=1)
    assert outcome(started, authority) == "backend"
    (victim,) = started.worker_pids()
    os.kill(victim, signal.SIGKILL)
    started.eventually(lambda: started.worker_pids() not in ([], [victim]), "replaced")
    started.eventually(lambda: outcome(started, authority) == "backend", "TLS again")


def test_drain_over_tls(serve: Serve, authority: Authority) -> None:
    """SIGTERM: the connection hears GOAWAY, and the process ends well (checked by the fixture)."""
    started = serve(gateway(https()), authority.issue(HOST).secret("server"))
    with started.channel(credentials=trusting(authority)) as channel:
        call = stream_stream(channel, f"{ECHO}/Chat")(iter(gate := Gate()), timeout=PATIENCE)
        gate.send(b"first")
        assert next(call) == b"first"
        started.process.terminate()
        started.wait_for_log("draining")
        gate.send(b"last")
        gate.close()
        assert list(call) == [b"last"]


@pytest.mark.slow
def test_takeovers_over_tls_lose_nothing(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    """Handshakes that are under way, or wait in a queue, are finished by whoever got the connection."""
    run_dir = ("--run-dir", str(tmp_path / "run"))
    objects = gateway(https()), authority.issue(HOST).secret("server")
    running = serve(*objects, arguments=run_dir)
    port = running.port
    with Load(lambda: running.channel(credentials=trusting(authority)), unary=2, streaming=2, connecting=3) as load:
        load.wait_for(50)
        for workers in (2, 3, 1):
            successor = serve(*objects, arguments=(*run_dir, "--takeover"), port=port, workers=workers)
            assert running.process.wait(PATIENCE) == 0
            running = successor
            load.wait_for(50)
    assert not load.failed, load.details[:5]


def test_behind_a_proxy_that_names_the_client(serve: Serve, backend: Backend, authority: Authority) -> None:
    """A PROXY header comes before TLS."""
    started = serve(
        gateway(https()), authority.issue(HOST).secret("server"), arguments=("--proxy-protocol-from", "127.0.0.0/8")
    )
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", started.port), timeout=PATIENCE) as sock:
        sock.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 443\r\n")
        with context.wrap_socket(sock, server_hostname=HOST) as connection:
            assert connection.selected_alpn_protocol() == "h2"


# ===== backends =====


BACKEND_CA = {"group": "", "kind": "ConfigMap", "name": "backend-ca"}


def policy(**validation: Any) -> Object:
    """A BackendTLSPolicy for the Service `secure`."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "policy", "namespace": "default"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "secure"}], "validation": validation},
    }


def test_a_backend_that_demands_a_client_certificate(
    start_backend: StartBackend, start_gateway: StartGateway, authority: Authority, clients: Authority
) -> None:
    """BackendTLSPolicy and the Gateway's own certificate; then one change after the other, without a restart."""
    issued = authority.issue("secure.internal")
    credentials = grpc.ssl_server_credentials([(issued.key, issued.chain)], clients.pem, require_client_auth=True)
    backend = start_backend("secure", credentials=credentials)
    certificate = {"backend": {"clientCertificateRef": {"name": "client"}}}
    rest = [
        route(rule(ref("secure", 50051))), service("secure"), authority.config_map("backend-ca"),
        clients.issue("the-gateway").secret("client"),
    ]  # fmt: skip
    good = policy(hostname="secure.internal", caCertificateRefs=[BACKEND_CA])
    yaml = to_yaml(gateway(listener(), tls=certificate), good, *rest)
    started = start_gateway(yaml, resolve={"default/secure": backend.port})
    assert plain_outcome(started) == "secure"
    for changed, expected, log in (
        (to_yaml(gateway(listener()), good, *rest), "UNAVAILABLE", ""),  # no client certificate
        (yaml, "secure", ""),
        (to_yaml(gateway(listener(), tls=certificate), *rest), "UNAVAILABLE", ""),  # no policy: cleartext
        (yaml.replace("hostname: secure.internal", "hostname: other.internal"), "UNAVAILABLE", ""),
        (yaml.replace("kind: ConfigMap\n      name: backend-ca", "kind: ConfigMap\n      name: absent"),
         "UNAVAILABLE", "InvalidCACertificateRef"),
        (yaml, "secure", ""),
    ):  # fmt: skip
        since = len(started.log)
        started.write("config.yaml", changed)
        started.eventually(lambda expected=expected: plain_outcome(started) == expected, expected)  # type: ignore[misc]
        if log:
            started.wait_for_log(log, since)


def plain_outcome(started: Gateway) -> str:
    """How a call in cleartext ends: the backend's name, or the status."""
    with started.channel() as channel:
        try:
            _, call = unary_unary(channel, WHO).with_call(b"", timeout=10.0)
            return str(dict(call.initial_metadata())[SERVED_BY])
        except grpc.RpcError as error:
            return str(error.code().name)
