"""resolve: backendRefs to Services, and Services to endpoints (Gateway API 2.3)."""

import pytest

from pygw.model import BackendConfig
from tests.doubles.objects import (
    conditions,
    endpoint,
    endpoint_slice,
    gateway,
    gateway_class,
    grant,
    message,
    parent_of,
    ref,
    resolve_items,
    route,
    rule,
    service,
)

H2C = "kubernetes.io/h2c"


def backend_ref(resolution, index=0):
    return resolution.config.routes["GRPCRoute/default/r"].rules[0].backends[index]


def backend(resolution, key="default/echo:50051"):
    return resolution.config.backends[key]


class TestReferences:
    def test_a_valid_reference(self):
        resolution = resolve_items(gateway(), route(rule(ref(weight=7))), service())
        found = backend_ref(resolution)
        assert (found.backend, found.namespace, found.name, found.port) == (
            "default/echo:50051", "default", "echo", 50051,
        )  # fmt: skip
        assert (found.weight, found.reason, found.message) == (7, None, "")
        assert list(resolution.config.backends) == ["default/echo:50051"]

    @pytest.mark.parametrize(
        ("reference", "reason", "says"),
        [
            (ref("missing"), "BackendNotFound", "Service default/missing does not exist"),
            (ref(port=1), "BackendNotFound", "Service default/echo has no port 1 (it has 50051)"),
            (ref(kind="ServiceImport", group="multicluster.x-k8s.io"), "InvalidKind", "multicluster.x-k8s.io/Service"),
            (ref(kind="Pod"), "InvalidKind", "Pod echo is not a Service"),
            (ref(group="example.com"), "InvalidKind", "example.com/Service echo"),
            (ref(namespace="other"), "RefNotPermitted", "no ReferenceGrant in namespace other"),
            (ref("ws"), "UnsupportedProtocol", "appProtocol kubernetes.io/ws"),
            (ref("udp"), "UnsupportedProtocol", "is UDP, not TCP"),
        ],
    )
    def test_an_invalid_one_keeps_its_weight(self, reference, reason, says):
        resolution = resolve_items(
            gateway(),
            route(rule(ref(), {**reference, "weight": 3})),
            service(),
            service("ws", {"port": 50051, "appProtocol": "kubernetes.io/ws"}),
            service("udp", {"port": 50051, "protocol": "UDP"}),
            service(namespace="other"),
        )
        found = backend_ref(resolution, 1)
        assert (found.reason, found.weight) == (reason, 3)
        assert says in found.message
        assert backend_ref(resolution, 0).reason is None
        assert conditions(parent_of(resolution)) == {
            "Accepted": ("True", "Accepted"), "ResolvedRefs": ("False", reason),
        }  # fmt: skip
        assert message(parent_of(resolution), "ResolvedRefs").startswith("spec.rules[0].backendRefs[1]: ")
        assert [(one.severity, one.path, one.reason) for one in resolution.problems] == [
            ("error", "spec.rules[0].backendRefs[1]", reason)
        ]
        assert list(resolution.config.backends) == ["default/echo:50051"]

    def test_the_first_reason_stands_and_all_are_named(self):
        resolution = resolve_items(gateway(), route(rule(ref("a"), ref("b", kind="X")), rule(ref("c"))))
        assert conditions(parent_of(resolution))["ResolvedRefs"] == ("False", "BackendNotFound")
        text = message(parent_of(resolution), "ResolvedRefs")
        assert all(f"spec.rules[{place}" in text for place in ("0].backendRefs[0]", "0].backendRefs[1]", "1]"))

    def test_a_grant_permits(self):
        items = [gateway(), route(rule(ref(namespace="other"))), service(namespace="other")]
        assert backend_ref(resolve_items(*items)).reason == "RefNotPermitted"
        resolution = resolve_items(*items, grant("other"))
        assert backend_ref(resolution).reason is None
        assert list(resolution.config.backends) == ["other/echo:50051"]

    @pytest.mark.parametrize("protocol", [None, "", H2C, "h2c", "grpc", "http2"])
    def test_app_protocols_for_grpc(self, protocol):
        resolution = resolve_items(gateway(), route(), service("echo", {"port": 50051, "appProtocol": protocol}))
        assert backend_ref(resolution).reason is None

    @pytest.mark.parametrize("protocol", ["http", "https", "kubernetes.io/wss", "tcp", "example.com/own"])
    def test_app_protocols_that_are_not(self, protocol):
        resolution = resolve_items(gateway(), route(), service("echo", {"port": 50051, "appProtocol": protocol}))
        assert backend_ref(resolution).reason == "UnsupportedProtocol"

    def test_one_port_number_for_udp_and_tcp(self):
        ports = [{"name": "u", "port": 50051, "protocol": "UDP"}, {"name": "t", "port": 50051, "protocol": "TCP"}]
        assert backend_ref(resolve_items(gateway(), route(), service("echo", *ports))).reason is None


class TestOverrides:
    KEY = ("default", "echo", 50051)

    def test_needs_no_service(self):
        resolution = resolve_items(gateway(), route(), overrides={self.KEY: ("127.0.0.1", 9000)})
        assert backend_ref(resolution).reason is None
        assert backend(resolution).endpoints == (("127.0.0.1", 9000),)
        assert backend(resolution).dns == ()

    def test_a_host_name_goes_to_the_dns(self):
        resolution = resolve_items(gateway(), route(), overrides={self.KEY: ("localhost", 9000)})
        assert backend(resolution).dns == (("localhost", 9000),)
        assert backend(resolution).endpoints == ()

    def test_overrides_what_the_objects_say(self):
        items = [gateway(), route(), service("echo", 1), endpoint_slice(endpoint("10.0.0.1"))]
        resolution = resolve_items(*items, overrides={self.KEY: ("::1", 9000)})
        assert backend(resolution).endpoints == (("::1", 9000),)

    def test_does_not_replace_a_grant(self):
        resolution = resolve_items(
            gateway(), route(rule(ref(namespace="other"))), overrides={("other", "echo", 50051): ("127.0.0.1", 1)}
        )
        assert backend_ref(resolution).reason == "RefNotPermitted"


class TestDns:
    def test_a_service_without_endpoint_slices_in_file_mode(self):
        resolution = resolve_items(gateway(), route(), service("echo", {"port": 50051, "targetPort": 8080}))
        assert backend(resolution).dns == (("echo.default", 50051), ("echo", 50051))

    def test_not_in_kubernetes_mode(self):
        resolution = resolve_items(gateway_class(), gateway(), route(), service(), file_mode=False)
        assert backend(resolution) == BackendConfig("default/echo:50051", "default", "echo", 50051)
        assert conditions(parent_of(resolution))["ResolvedRefs"] == ("True", "ResolvedRefs")  # no endpoint yet

    def test_an_empty_slice_is_a_slice(self):
        items = [gateway_class(), gateway(), route(), service(), endpoint_slice()]
        resolution = resolve_items(*items)
        assert backend(resolution).dns == ()
        assert [(one.object, one.reason) for one in resolution.problems] == [
            ("Service default/echo", "NoReadyEndpoint")
        ]
        assert resolve_items(*items, file_mode=False, gateway_addresses=("192.0.2.1",)).problems == []

    def test_a_slice_without_the_label_of_a_service(self):
        stray = endpoint_slice(endpoint("10.0.0.1"))
        del stray["metadata"]["labels"]
        resolution = resolve_items(gateway(), route(), service(), stray)
        assert backend(resolution).dns
        assert [(one.object, one.path) for one in resolution.problems] == [
            ("EndpointSlice default/echo-1", "metadata.labels")
        ]

    def test_an_external_name_without_a_name(self):
        resolution = resolve_items(gateway(), route(), service("echo", type="ExternalName"))
        assert backend_ref(resolution).reason == "BackendNotFound"

    @pytest.mark.parametrize("ports", [[50051], []])
    def test_external_name(self, ports):
        external = service("echo", *ports, type="ExternalName", externalName="grpc.example.com")
        if not ports:
            del external["spec"]["ports"]
        items = [gateway_class(), gateway(), route(), external]
        assert backend(resolve_items(*items)).dns == (("grpc.example.com", 50051),)
        assert backend_ref(resolve_items(*items, file_mode=False)).reason == "UnsupportedProtocol"
        assert backend_ref(resolve_items(*items, file_mode=False, allow_external_names=True)).reason is None


class TestEndpoints:
    def merged(self, port, *slices, **spec):
        resolution = resolve_items(gateway(), route(), service("echo", port, **spec), *slices)
        return backend(resolution).endpoints, [one.message for one in resolution.problems]

    def test_slices_are_merged_and_sorted(self):
        found, problems = self.merged(
            50051,
            endpoint_slice(endpoint("10.0.0.2"), endpoint("10.0.0.1"), name="a"),
            endpoint_slice(endpoint("10.0.0.3"), endpoint("10.0.0.1"), name="b", ports=[{"port": 8081}]),
        )
        assert found == (("10.0.0.1", 8080), ("10.0.0.1", 8081), ("10.0.0.2", 8080), ("10.0.0.3", 8081))
        assert problems == []

    def test_ports_are_found_by_name(self):
        """targetPort by name differs from pod to pod; the slices carry the numbers, the port's name joins them."""
        port = {"name": "grpc", "port": 50051, "targetPort": "named"}
        found, problems = self.merged(
            port,
            endpoint_slice(
                endpoint("10.0.0.1"), name="a", ports=[{"name": "grpc", "port": 1}, {"name": "x", "port": 2}]
            ),
            endpoint_slice(endpoint("10.0.0.2"), name="b", ports=[{"name": "grpc", "port": 3}]),
        )
        assert found == (("10.0.0.1", 1), ("10.0.0.2", 3))
        assert problems == []

    def test_a_slice_without_that_port_is_named(self):
        found, problems = self.merged(
            {"name": "grpc", "port": 50051}, endpoint_slice(endpoint("10.0.0.1"), ports=[{"name": "http", "port": 1}])
        )
        assert found == ()
        assert "none of its ports is called 'grpc'" in problems[0]

    def test_only_tcp_ports(self):
        ports = [{"port": 8080, "protocol": "UDP"}, {"port": 8081, "protocol": "TCP"}]
        assert self.merged(50051, endpoint_slice(endpoint("10.0.0.1"), ports=ports))[0] == (("10.0.0.1", 8081),)

    @pytest.mark.parametrize(("target", "number"), [(None, 50051), (8443, 8443), ("named", 50051)])
    def test_a_slice_for_all_ports(self, target, number):
        port = {"port": 50051, **({"targetPort": target} if target else {})}
        found, _ = self.merged(port, endpoint_slice(endpoint("10.0.0.1"), ports=[{"port": None}]))
        assert found == (("10.0.0.1", number),)

    @pytest.mark.parametrize(
        ("state", "taken"),
        [
            (None, True),
            ({}, True),
            ({"ready": None}, True),  # unknown counts as ready
            ({"ready": True}, True),
            ({"ready": False}, False),
            ({"ready": False, "serving": True, "terminating": True}, False),
            ({"ready": True, "serving": True, "terminating": True}, False),  # publishNotReadyAddresses
            ({"ready": True, "terminating": False}, True),
        ],
    )
    def test_conditions(self, state, taken):
        item = endpoint_slice(endpoint("10.0.0.1", conditions=state))
        assert bool(self.merged(50051, item)[0]) is taken

    def test_a_headless_service(self):
        found, _ = self.merged(50051, endpoint_slice(endpoint("10.0.0.1")), clusterIP="None")
        assert found == (("10.0.0.1", 8080),)

    @pytest.mark.parametrize(("families", "address"), [(["IPv4", "IPv6"], "10.0.0.1"), (["IPv6", "IPv4"], "fd00::1")])
    def test_a_dual_stack_pod_counts_once(self, families, address):
        pod = {"kind": "Pod", "namespace": "default", "name": "p1", "uid": "1"}
        other = {**pod, "name": "p2", "uid": "2"}
        found, _ = self.merged(
            50051,
            endpoint_slice(endpoint("10.0.0.1", targetRef=pod), endpoint("10.0.0.2", targetRef=other), name="a"),
            endpoint_slice(endpoint("FD00::1", targetRef=pod), name="b", family="IPv6"),
            ipFamilies=families,
        )
        assert found == tuple(sorted([(address, 8080), ("10.0.0.2", 8080)]))

    def test_loopback_is_fine(self):
        assert self.merged(50051, endpoint_slice(endpoint("127.0.0.1")))[0] == (("127.0.0.1", 8080),)

    @pytest.mark.parametrize(
        ("item", "says"),
        [
            (endpoint_slice(endpoint("localhost")), "localhost is not an IP address"),
            (endpoint_slice(endpoint("a.example.com"), family="FQDN"), "FQDN is not supported"),
        ],
    )
    def test_what_is_not_an_address_is_named(self, item, says):
        found, problems = self.merged(50051, item)
        assert found == ()
        assert says in problems[0]

    def test_a_fault_is_reported_once_for_two_ports(self):
        ports = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
        both = endpoint_slice(endpoint("nowhere"), ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
        resolution = resolve_items(gateway(), route(rule(ref(port=1), ref(port=2))), service("echo", *ports), both)
        assert len(resolution.problems) == 1
