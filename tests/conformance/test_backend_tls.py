"""TLS to backends: BackendTLSPolicy and the Gateway's client certificate, over gRPC.

The suite has tests of BackendTLSPolicy for HTTPRoute alone, and of the client certificate in another profile.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.conformance.backend import PEER_NAME, ClusterBackend
from tests.conformance.certificates import Authority
from tests.conformance.rig.rest import Object
from tests.conformance.world import World, ask, condition, eventually
from tests.doubles.objects import listener, ref, rule

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("pygw")]

HOST = "backend.internal"
AUTHORITY_REFERENCE = {"group": "", "kind": "ConfigMap", "name": "backend-ca"}


def tls_backend(
    world: World, authority: Authority, *alternatives: str, clients: Authority | None = None
) -> ClusterBackend:
    """A backend with a certificate for `alternatives`, that asks for certificates of `clients` where given."""
    issued = authority.issue(HOST, *(alternatives or (f"DNS:{HOST}",)))
    credentials = grpc.ssl_server_credentials(
        [(issued.key, issued.certificate)],
        clients.certificate if clients else None,
        require_client_auth=clients is not None,
    )
    world.apply(authority.config_map("backend-ca", world.namespace))
    return world.backend(credentials=credentials)


def routed(world: World, **spec: Any) -> grpc.Channel:
    """A Gateway and a route to the backend; a channel through them."""
    world.gateway(listener(), **spec)
    world.route(rule(ref()))
    return world.channel()


def policy_condition(world: World, kind: str) -> tuple[str, str]:
    ancestors = world.status("BackendTLSPolicy", "echo").get("ancestors", [])
    return condition(ancestors[0], kind) if ancestors else ("", "")


def test_verified_by_hostname(world: World, authority: Authority) -> None:
    backend = tls_backend(world, authority)
    world.backend_tls_policy("echo", hostname=HOST, caCertificateRefs=[AUTHORITY_REFERENCE])
    world.wait_until_served(routed(world), backend)
    assert policy_condition(world, "Accepted") == ("True", "Accepted")
    assert policy_condition(world, "ResolvedRefs") == ("True", "ResolvedRefs")


@pytest.mark.parametrize(
    ("certificate", "wanted", "served"),
    [
        (f"DNS:{HOST}", {"hostname": "other.internal"}, False),
        ("DNS:one.internal", {"type": "Hostname", "hostname": "one.internal"}, True),
        ("DNS:one.internal", {"type": "Hostname", "hostname": "two.internal"}, False),
        ("URI:spiffe://cluster/echo", {"type": "URI", "uri": "spiffe://cluster/echo"}, True),
        ("URI:spiffe://cluster/echo", {"type": "URI", "uri": "spiffe://cluster/other"}, False),
        # The hostname is then SNI only: it need not be in the certificate, and does not stand in for a name.
        (f"DNS:{HOST}", {"type": "Hostname", "hostname": "one.internal"}, False),
    ],
)
def test_names_that_count(
    world: World, authority: Authority, certificate: str, wanted: dict[str, str], served: bool
) -> None:
    backend = tls_backend(world, authority, certificate)
    names = {"hostname": HOST, "subjectAltNames": [wanted]} if "type" in wanted else wanted
    world.backend_tls_policy("echo", caCertificateRefs=[AUTHORITY_REFERENCE], **names)
    channel = routed(world)
    if served:
        world.wait_until_served(channel, backend)
    else:
        world.wait_until_refused(channel, grpc.StatusCode.UNAVAILABLE)
        assert not backend.calls


def test_another_authority_is_not_believed(world: World, authority: Authority, other_authority: Authority) -> None:
    tls_backend(world, other_authority)
    world.apply(authority.config_map("backend-ca", world.namespace))
    world.backend_tls_policy("echo", hostname=HOST, caCertificateRefs=[AUTHORITY_REFERENCE])
    world.wait_until_refused(routed(world), grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ({"group": "", "kind": "ConfigMap", "name": "absent"}, "InvalidCACertificateRef"),
        ({"group": "", "kind": "Secret", "name": "backend-ca"}, "InvalidKind"),
    ],
)
def test_unusable_reference_fails_closed(world: World, authority: Authority, reference: Object, reason: str) -> None:
    """Without a CA there is no connection at all, and the policy says why."""
    tls_backend(world, authority)
    world.backend_tls_policy("echo", hostname=HOST, caCertificateRefs=[reference])
    world.wait_until_refused(routed(world), grpc.StatusCode.UNAVAILABLE)
    eventually(lambda: policy_condition(world, "ResolvedRefs") == ("False", reason), reason)
    eventually(lambda: policy_condition(world, "Accepted") == ("False", "NoValidCACertificate"), "NoValidCACertificate")


def test_policy_appears_and_goes(world: World, authority: Authority) -> None:
    """Cleartext to a TLS backend fails; with the policy it works; without it again not."""
    backend = tls_backend(world, authority)
    channel = routed(world)
    world.wait_until_refused(channel, grpc.StatusCode.UNAVAILABLE)
    world.backend_tls_policy("echo", hostname=HOST, caCertificateRefs=[AUTHORITY_REFERENCE])
    world.wait_until_served(channel, backend)
    world.api.delete("BackendTLSPolicy", "echo", world.namespace)
    world.wait_until_refused(channel, grpc.StatusCode.UNAVAILABLE)


def test_gateway_shows_its_client_certificate(world: World, authority: Authority, other_authority: Authority) -> None:
    """GatewayBackendClientCertificate: the backend asks for a certificate and sees the Gateway's."""
    backend = tls_backend(world, authority, clients=other_authority)
    world.apply(other_authority.issue("the-gateway").secret("client", world.namespace))
    world.backend_tls_policy("echo", hostname=HOST, caCertificateRefs=[AUTHORITY_REFERENCE])
    channel = routed(world, tls={"backend": {"clientCertificateRef": {"name": "client"}}})
    world.wait_until_served(channel, backend)
    assert backend.calls[-1].values(PEER_NAME) == ["the-gateway"]


def test_no_client_certificate_no_call(world: World, authority: Authority, other_authority: Authority) -> None:
    """The backend that asks for a certificate really asks: without one the calls fail."""
    tls_backend(world, authority, clients=other_authority)
    world.backend_tls_policy("echo", hostname=HOST, caCertificateRefs=[AUTHORITY_REFERENCE])
    world.wait_until_refused(routed(world), grpc.StatusCode.UNAVAILABLE)
    assert ask(world.channel()) == "UNAVAILABLE"


def test_client_certificate_needs_a_grant(world: World, authority: Authority) -> None:
    """A Secret of another namespace without a ReferenceGrant: the Gateway says so."""
    world.gateway(
        listener(),
        wait=False,
        tls={"backend": {"clientCertificateRef": {"name": "client", "namespace": "kube-system"}}},
    )
    world.wait_for(
        "Gateway",
        "gw",
        lambda status: condition(status, "ResolvedRefs") == ("False", "RefNotPermitted"),
        "RefNotPermitted",
    )
