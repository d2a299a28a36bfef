"""Objects that pass the CRD's schema and still make no sense, or are huge: named, and everything else keeps serving."""

from __future__ import annotations

import base64

import grpc
import pytest

from tests.conformance.certificates import Authority
from tests.conformance.rig.rest import Object
from tests.conformance.world import World, ask, condition, eventually
from tests.doubles.load import Load
from tests.doubles.objects import endpoint, endpoint_slice, listener, ref, route, rule, service

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("pygw")]

HUGE = 1_000_000  # octets; etcd takes 1.5 MiB
MANY = 300
JUNK = {
    "empty": b"",
    "text": b"not a certificate",
    "truncated": b"-----BEGIN CERTIFICATE-----\nMIIB",
    "huge": b"-----BEGIN CERTIFICATE-----\n" + b"A" * (HUGE // 2) + b"\n-----END CERTIFICATE-----\n",
    "binary": bytes(range(256)) * 16,
}


@pytest.fixture
def served(world: World) -> grpc.Channel:
    """A Gateway and a route that have done nothing wrong; a channel to them."""
    backend = world.backend()
    world.gateway(listener())
    world.route(rule(ref()))
    channel = world.channel()
    world.wait_until_served(channel, backend)
    return channel


@pytest.mark.parametrize("content", JUNK.values(), ids=JUNK.keys())
def test_junk_for_a_certificate(world: World, served: grpc.Channel, content: bytes) -> None:
    """Whatever is in the Secret, its listener alone is without a certificate, and says so."""
    text = base64.b64encode(content).decode()
    secret: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "junk"}, "type": "kubernetes.io/tls"}
    with Load(world.channel, unary=1, streaming=1) as load:
        world.apply(secret | {"data": {"tls.crt": text, "tls.key": text}})
        tls = {"certificateRefs": [{"name": "junk"}]}
        world.gateway(listener("https", 443, "HTTPS", tls=tls), name="junk", wait=False)

        def refused(status: Object) -> bool:
            found = [condition(one, "ResolvedRefs") for one in status.get("listeners", [])]
            return found == [("False", "InvalidCertificateRef")]

        world.wait_for("Gateway", "junk", refused, "InvalidCertificateRef")
        load.wait_for(10)
    assert not load.failed, load.details


@pytest.mark.parametrize("content", ["", "junk", "x" * HUGE], ids=["empty", "text", "huge"])
def test_junk_for_an_authority(world: World, served: grpc.Channel, content: str) -> None:
    """A BackendTLSPolicy whose bundle holds nothing usable fails closed."""
    metadata = {"name": "bundle"}
    world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": content}})
    world.backend("private")
    reference = {"group": "", "kind": "ConfigMap", "name": "bundle"}
    world.backend_tls_policy("private", hostname="private.internal", caCertificateRefs=[reference])
    world.route(rule(ref("private"), matches=[{"method": {"service": "private"}}]), name="private")
    world.wait_until_refused(served, grpc.StatusCode.UNAVAILABLE, "private/Call")

    def named() -> bool:
        ancestors = world.status("BackendTLSPolicy", "private").get("ancestors", [])
        return [condition(one, "ResolvedRefs") for one in ancestors] == [("False", "InvalidCACertificateRef")]

    eventually(named, "InvalidCACertificateRef")
    assert ask(served) == "echo"


def test_many_routes_for_the_same(world: World, served: grpc.Channel) -> None:
    """Hundreds of routes that want the same method: the oldest has it, all are accepted, all else goes on."""
    backend = world.backend("winner")
    matches = [{"method": {"service": "wanted", "method": "Call"}}]
    world.route(rule(ref("winner"), matches=matches), name="z-oldest")
    world.wait_until_served(served, backend, "wanted/Call")
    # The others are newer by a second at least: creationTimestamp counts whole ones.
    oldest = world.api.get("GRPCRoute", "z-oldest", world.namespace)["metadata"]["creationTimestamp"]

    def a_second_passed() -> bool:
        probe = world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "clock"}})
        world.api.delete("ConfigMap", "clock", world.namespace)
        return bool(probe["metadata"]["creationTimestamp"] > oldest)

    eventually(a_second_passed, "a second later")
    with Load(world.channel, unary=1, streaming=1) as load:
        for number in range(MANY):
            world.apply(route(rule(ref("echo"), matches=matches), name=f"many-{number:03}"))
        last = f"many-{MANY - 1:03}"
        world.wait_for("GRPCRoute", last, lambda status: bool(status.get("parents")), "judged")
        load.wait_for(10)
    assert not load.failed, load.details
    assert ask(served, "wanted/Call") == "winner"


def test_an_expression_that_does_not_compile(world: World, served: grpc.Channel) -> None:
    """A regex that RE2 refuses passes the schema: its rule is dropped and named, the route's others are served."""
    bad = [{"method": {"type": "RegularExpression", "service": "(unclosed"}}]
    good = [{"method": {"service": "good"}}]
    world.route(rule(ref(), matches=bad), rule(ref(), matches=good), name="mixed")
    status = world.status("GRPCRoute", "mixed")["parents"][0]
    assert condition(status, "PartiallyInvalid") == ("True", "UnsupportedValue")
    assert ask(served, "good/Call") == "echo"


def test_endpoints_that_lead_nowhere(world: World, served: grpc.Channel) -> None:
    """Slices without ports, of another port, and with an address that refuses: 14, and no other call notices."""
    world.apply(service("odd", {"name": "grpc", "port": 50051}))
    world.apply(endpoint_slice(endpoint("10.245.250.1"), service="odd", name="odd-1", ports=[]))
    world.apply(
        endpoint_slice(endpoint("10.245.250.2"), service="odd", name="odd-2", ports=[{"name": "other", "port": 1}])
    )
    world.route(rule(ref("odd"), matches=[{"method": {"service": "odd"}}]), name="odd")
    world.wait_until_refused(served, grpc.StatusCode.UNAVAILABLE, "odd/Call")
    world.apply(
        endpoint_slice(endpoint("10.245.250.3"), service="odd", name="odd-3", ports=[{"name": "grpc", "port": 1}])
    )
    with Load(world.channel, unary=1, streaming=1) as load:
        for _ in range(20):
            assert ask(served, "odd/Call") == "UNAVAILABLE"
        load.wait_for(10)
    assert not load.failed, load.details


def test_expired_certificate_is_named(world: World, authority: Authority, served: grpc.Channel) -> None:
    """A certificate that nobody will believe any more is told to whoever looks at the Gateway; the rest is served."""
    expired = authority.issue("old.example.com", days=-1)
    world.apply(expired.secret("old", world.namespace))
    tls = {"certificateRefs": [{"name": "old"}]}
    world.gateway(listener("https", 443, "HTTPS", hostname="old.example.com", tls=tls), name="old", wait=False)

    def named() -> bool:
        events = world.api.list("Event", world.namespace)
        told = [event["message"] for event in events if event["involvedObject"]["name"] == "old"]
        return "expired" in str(world.status("Gateway", "old")) or any("expired" in message for message in told)

    eventually(named, "named as expired")
    assert ask(served) == "echo"
