"""TLS, end to end: grpcio's secure channels through HTTPS listeners, and backends that speak TLS."""

from __future__ import annotations

import grpc
import pytest

from pygw.control.cluster_state import Object
from tests.doubles.backend import ECHO, SERVED_BY, StartBackend
from tests.doubles.certificates import Authority, Issued, to_yaml
from tests.doubles.client import unary_unary
from tests.doubles.gateway import Gateway, StartGateway
from tests.doubles.load import Load
from tests.doubles.objects import gateway, listener, ref, route, rule, service

HOST = "grpc.example.com"
WHO = "which.Backend/Answers"


def https(name: str = "https", hostname: str = "", *secrets: str, port: int = 443) -> Object:
    """An HTTPS listener with the certificates of these Secrets (of the Secret `server`, if none)."""
    references = [{"name": secret} for secret in secrets or ("server",)]
    rest = {"hostname": hostname} if hostname else {}
    return listener(name, port, "HTTPS", tls={"certificateRefs": references}, **rest)


def trusting(authority: Authority, client: Issued | None = None) -> grpc.ChannelCredentials:
    """A client that trusts `authority`, with or without a certificate of its own."""
    if client is None:
        return grpc.ssl_channel_credentials(authority.pem)
    return grpc.ssl_channel_credentials(authority.pem, client.key, client.chain)


def served_by(channel: grpc.Channel) -> str:
    """The name of the backend that answers a call."""
    _, call = unary_unary(channel, WHO).with_call(b"", timeout=10.0)
    return str(dict(call.initial_metadata())[SERVED_BY])


def outcome(gateway_: Gateway, authority: Authority, client: Issued | None = None, **options: str) -> str:
    """How a call over a connection of its own ends: the backend's name, or the status."""
    with gateway_.channel(credentials=trusting(authority, client), **options) as channel:  # type: ignore[arg-type]
        try:
            return served_by(channel)
        except grpc.RpcError as error:
            return str(error.code().name)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def test_calls_over_tls(start_backend: StartBackend, start_gateway: StartGateway, authority: Authority) -> None:
    backend = start_backend("one")
    yaml = to_yaml(gateway(https()), route(rule(ref("one"))), authority.issue(HOST).secret("server"))
    started = start_gateway(yaml, resolve={"default/one": backend.port}, port_of_listener=443)
    with started.channel(credentials=trusting(authority)) as channel:
        assert served_by(channel) == "one"
        assert unary_unary(channel, f"{ECHO}/Unary")(b"x" * 3_000_000, timeout=20.0) == b"x" * 3_000_000
    assert backend.calls[0].values("x-forwarded-proto") == ["https"]
    assert "PRIVATE" not in started.admin("/config")[1].decode()
