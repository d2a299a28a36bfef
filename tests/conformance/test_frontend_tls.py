"""Claimed features that the profile has no test for: client certificates at the frontend, in both modes; rotation."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.conformance.certificates import Authority, Certificate
from tests.conformance.rig.rest import Object
from tests.conformance.world import World, ask, condition, eventually
from tests.doubles.load import Load
from tests.doubles.objects import listener, ref, rule

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("pygw")]

HOST = "secure.example.com"


def secured(world: World, authority: Authority, *ports: int, **frontend: Any) -> None:
    """A Gateway with an HTTPS listener on each port, its frontend validation, a route and a backend."""
    world.backend()
    world.apply(authority.issue(HOST).secret("server", world.namespace))
    world.apply(authority.config_map("clients", world.namespace))
    tls = {"certificateRefs": [{"name": "server"}]}
    listeners = [listener(f"https-{port}", port, "HTTPS", hostname=HOST, tls=tls) for port in ports]
    spec: dict[str, Any] = {"tls": {"frontend": frontend}} if frontend else {}
    world.gateway(*listeners, **spec)
    world.route(rule(ref()))


def validation(mode: str = "AllowValidOnly") -> dict[str, Any]:
    reference = {"group": "", "kind": "ConfigMap", "name": "clients"}
    return {"validation": {"caCertificateRefs": [reference], "mode": mode}}


def credentials(authority: Authority, client: Certificate | None = None) -> grpc.ChannelCredentials:
    """A client that trusts the server's authority, with or without a certificate of its own."""
    if client is None:
        return grpc.ssl_channel_credentials(authority.certificate)
    return grpc.ssl_channel_credentials(authority.certificate, client.key, client.certificate)


def calls(world: World, authority: Authority, client: Certificate | None = None, port: int = 443) -> str:
    """How a call over a fresh connection ends."""
    return ask(world.channel(HOST, port=port, credentials=credentials(authority, client)))


def test_valid_only(world: World, authority: Authority, other_authority: Authority) -> None:
    """GatewayFrontendClientCertificateValidation: a certificate of the named authority, or no connection."""
    secured(world, authority, 443, default=validation())
    assert calls(world, authority, authority.issue("alice")) == "echo"
    assert calls(world, authority) == "UNAVAILABLE"
    assert calls(world, authority, other_authority.issue("mallory")) == "UNAVAILABLE"


def test_insecure_fallback(world: World, authority: Authority, other_authority: Authority) -> None:
    """...InsecureFallback: none, or any, connects too, and the Gateway says that it is so."""
    secured(world, authority, 443, default=validation("AllowInsecureFallback"))
    assert calls(world, authority, authority.issue("alice")) == "echo"
    assert calls(world, authority) == "echo"
    assert calls(world, authority, other_authority.issue("mallory")) == "echo"
    status = world.status("Gateway", "gw")
    assert condition(status, "InsecureFrontendValidationMode") == ("True", "ConfigurationChanged")


def test_ports_differ(world: World, authority: Authority) -> None:
    """perPort stands in place of the default for its port."""
    per_port = [{"port": 8443, "tls": validation("AllowInsecureFallback")}]
    secured(world, authority, 443, 8443, default=validation(), perPort=per_port)
    assert calls(world, authority) == "UNAVAILABLE"
    assert calls(world, authority, port=8443) == "echo"
    assert calls(world, authority, authority.issue("alice"), port=8443) == "echo"


def test_no_authority_no_connection(world: World, authority: Authority) -> None:
    """Where no reference gives a CA certificate, the listener is not accepted rather than left open."""
    secured(world, authority, 443, default=validation())
    world.apply({**authority.config_map("clients", world.namespace), "data": {"ca.crt": "junk"}})

    def has_refused(status: Object) -> bool:
        found = [condition(one, "Accepted") for one in status.get("listeners", [])]
        return found == [("False", "NoValidCACertificate")]

    world.wait_for("Gateway", "gw", has_refused, "NoValidCACertificate")
    client = authority.issue("alice")
    eventually(lambda: calls(world, authority, client) == "UNAVAILABLE", "closed")


def test_secret_rotation_drops_nothing(world: World, authority: Authority) -> None:
    """Open connections keep the certificate they have; new ones get the new one."""
    secured(world, authority, 443)
    successor = Authority(authority.folder / "successor", "successor-ca")
    with Load(lambda: world.channel(HOST, port=443, credentials=credentials(authority))) as load:
        load.wait_for(20)
        world.apply(successor.issue(HOST).secret("server", world.namespace))
        eventually(lambda: calls(world, successor) == "echo", "served with the new certificate")
        load.wait_for(20)
    assert not load.failed, load.details
    assert calls(world, authority) == "UNAVAILABLE"  # new connections no longer get the old one


def test_broken_secret_is_named_and_then_mended(world: World, authority: Authority, other_authority: Authority) -> None:
    """A certificate with another's key: a condition says so, and the next good one serves."""
    secured(world, authority, 443)
    one, other = authority.issue(HOST), other_authority.issue(HOST)
    world.apply(Certificate(one.certificate, other.key).secret("server", world.namespace))

    def resolved(status: Object) -> tuple[str, str]:
        return condition(status["listeners"][0], "ResolvedRefs")

    world.wait_for(
        "Gateway", "gw", lambda status: resolved(status) == ("False", "InvalidCertificateRef"), "InvalidCertificateRef"
    )
    world.apply(one.secret("server", world.namespace))
    world.wait_for("Gateway", "gw", lambda status: resolved(status) == ("True", "ResolvedRefs"), "ResolvedRefs")
    eventually(lambda: calls(world, authority) == "echo", "served again")
