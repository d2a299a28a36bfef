"""Claimed features that the profile has no test for: listener isolation, port 8080, misdirected requests."""

from __future__ import annotations

import grpc
import pytest

from tests.conformance.certificates import Authority
from tests.conformance.rig.rest import Object
from tests.conformance.world import METHOD, World, ask, condition
from tests.doubles.client import unary_unary
from tests.doubles.objects import listener, ref, rule

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("pygw")]


def parent(section: str) -> list[Object]:
    return [{"name": "gw", "sectionName": section}]


def https(name: str, hostname: str, secret: str) -> Object:
    """An HTTPS listener on 443 with one certificate."""
    return listener(name, 443, "HTTPS", hostname=hostname, tls={"certificateRefs": [{"name": secret}]})


def test_each_listener_is_isolated_from_the_less_specific(world: World) -> None:
    """GatewayHTTPListenerIsolation: a request belongs to the most specific listener alone."""
    hostnames = {"wildcard": "*.example.com", "longer": "*.foo.example.com", "exact": "abc.foo.example.com"}
    names = ["any", *hostnames]
    world.gateway(listener("any"), *(listener(name, hostname=hostname) for name, hostname in hostnames.items()))
    for name in names:
        world.backend(name)
        # Each listener serves one service; a request that reaches the wrong listener finds nothing there.
        matches = [{"method": {"service": f"only.{name}"}}]
        world.route(rule(ref(name), matches=matches), name=name, parents=parent(name))

    hosts = {"any": "other.org", "wildcard": "bar.example.com", "longer": "bar.foo.example.com"}
    hosts["exact"] = "abc.foo.example.com"
    for name, host in hosts.items():
        channel = world.channel(host)
        for asked in names:
            expected = name if asked == name else "UNIMPLEMENTED"
            assert ask(channel, f"only.{asked}/Call") == expected, f"{asked} on {host}"


def test_isolated_even_when_it_has_no_route(world: World) -> None:
    """The most specific listener's hostname is its own, whether or not anything is attached."""
    world.backend("any")
    world.gateway(listener("any", 80), listener("empty", 80, hostname="empty.example.com"))
    world.route(rule(ref("any")), parents=parent("any"))
    assert ask(world.channel("full.example.com")) == "any"
    assert ask(world.channel("empty.example.com")) == "UNIMPLEMENTED"


def test_port_8080(world: World) -> None:
    """GatewayPort8080: the port itself, not a map of it."""
    world.backend()
    world.gateway(listener("grpc", 8080))
    world.route(rule(ref()))
    assert ask(world.channel(port=8080)) == "echo"


def test_misdirected_request_gets_421(world: World, authority: Authority) -> None:
    """GatewayHTTPSListenerDetectMisdirectedRequests: :authority is another listener's than the server name in TLS."""
    world.backend()
    for name in ("one", "two"):
        world.apply(authority.issue(f"{name}.example.com").secret(name, world.namespace))
    world.gateway(https("one", "one.example.com", "one"), https("two", "two.example.com", "two"))
    world.route(rule(ref()), parents=[*parent("one"), *parent("two")])
    trusted = grpc.ssl_channel_credentials(authority.certificate)

    assert ask(world.channel("one.example.com", port=443, credentials=trusted)) == "echo"
    assert ask(world.channel("two.example.com", port=443, credentials=trusted)) == "echo"
    misdirected = world.channel("two.example.com", port=443, credentials=trusted, sni="one.example.com")
    with pytest.raises(grpc.RpcError, match="421"):
        unary_unary(misdirected, METHOD)(b"", timeout=10.0)


def test_names_of_one_listener_share_a_connection(world: World, authority: Authority) -> None:
    """Not misdirected: a wildcard listener answers for every name below it on one connection (RFC 9113 §9.1.1)."""
    world.backend()
    world.apply(authority.issue("*.example.com").secret("all", world.namespace))
    world.gateway(https("all", "*.example.com", "all"))
    world.route(rule(ref()))
    trusted = grpc.ssl_channel_credentials(authority.certificate)
    channel = world.channel("two.example.com", port=443, credentials=trusted, sni="one.example.com")
    assert ask(channel) == "echo"


def test_hostname_without_certificate_is_not_programmed(world: World, authority: Authority) -> None:
    """One listener's missing Secret takes nothing from the others."""
    world.backend()
    world.apply(authority.issue("one.example.com").secret("one", world.namespace))
    listeners = https("one", "one.example.com", "one"), https("two", "two.example.com", "absent")
    world.gateway(*listeners, wait=False)
    world.route(rule(ref()), parents=parent("one"))

    def has_refused(status: Object) -> bool:
        found = {one["name"]: condition(one, "ResolvedRefs") for one in status.get("listeners", [])}
        return found == {"one": ("True", "ResolvedRefs"), "two": ("False", "InvalidCertificateRef")}

    world.wait_for("Gateway", "gw", has_refused, "InvalidCertificateRef on listener two alone")
    trusted = grpc.ssl_channel_credentials(authority.certificate)
    assert ask(world.channel("one.example.com", port=443, credentials=trusted)) == "echo"
