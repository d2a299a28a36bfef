"""resolve: GatewayClasses, Gateways and their listeners (Gateway API 2.5 and 2.6)."""

import pytest

from tests.doubles.objects import (
    GROUP,
    allow,
    conditions,
    gateway,
    gateway_class,
    gateway_of,
    listener,
    listener_of,
    message,
    resolve_items,
    route,
    service,
)

OTHER = "example.com/other"


def ports(resolution):
    return [(one.gateway, one.name, one.port) for one in resolution.config.listeners]


class TestClasses:
    def test_our_class_is_accepted(self):
        resolution = resolve_items(gateway_class())
        status = resolution.statuses["GatewayClass", "", "pygw"]
        assert conditions(status) == {
            "Accepted": ("True", "Accepted"),
            "SupportedVersion": ("True", "SupportedVersion"),
        }
        names = [feature["name"] for feature in status["supportedFeatures"]]
        assert names == sorted(names)
        assert {"Gateway", "GRPCRoute", "ReferenceGrant"} <= set(names)

    @pytest.mark.parametrize(
        ("version", "is_known"),
        [(None, True), ("v1.6.1", True), ("v1.5.0-rc.1", True), ("v1.7.0", False), ("v0.8.1", False), ("", False)],
    )
    def test_the_version_of_the_definitions(self, version, is_known):
        resolution = resolve_items(gateway_class(), bundle_version=version)
        found = conditions(resolution.statuses["GatewayClass", "", "pygw"])
        assert found["Accepted"] == ("True", "Accepted")  # best effort (GatewayClassConditionStatusSupportedVersion)
        expected = ("True", "SupportedVersion") if is_known else ("False", "UnsupportedVersion")
        assert found["SupportedVersion"] == expected

    def test_a_class_of_another_controller_is_left_alone(self):
        resolution = resolve_items(gateway_class(controller=OTHER), gateway(), route(), service())
        assert resolution.statuses == {}
        assert resolution.problems == []
        assert resolution.config.listeners == ()

    def test_the_controller_name_is_an_option(self):
        resolution = resolve_items(gateway_class(controller=OTHER), gateway(), controller_name=OTHER)
        assert ports(resolution) == [("default/gw", "grpc", 80)]

    def test_a_class_may_be_absent_in_file_mode_only(self):
        assert ports(resolve_items(gateway())) == [("default/gw", "grpc", 80)]
        assert ports(resolve_items(gateway(), file_mode=False)) == []

    def test_parameters_of_a_class_are_refused(self):
        reference = {"group": "", "kind": "ConfigMap", "name": "settings"}
        resolution = resolve_items(gateway_class(parametersRef=reference), gateway())
        status = resolution.statuses["GatewayClass", "", "pygw"]
        assert conditions(status)["Accepted"] == ("False", "InvalidParameters")
        assert conditions(gateway_of(resolution)) == {
            "Accepted": ("False", "Invalid"),
            "Programmed": ("False", "Invalid"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        }
        assert conditions(listener_of(resolution))["Programmed"] == ("False", "Invalid")
        assert ports(resolution) == []


class TestGateways:
    def test_a_served_gateway(self):
        resolution = resolve_items(gateway(), gateway_addresses=("192.0.2.1", "lb.example.com"))
        status = gateway_of(resolution)
        assert conditions(status) == {
            "Accepted": ("True", "Accepted"),
            "Programmed": ("True", "Programmed"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        }
        assert status["addresses"] == [
            {"type": "IPAddress", "value": "192.0.2.1"},
            {"type": "Hostname", "value": "lb.example.com"},
        ]
        kinds = [{"group": GROUP, "kind": kind} for kind in ("GRPCRoute", "HTTPRoute")]
        assert listener_of(resolution)["supportedKinds"] == kinds
        assert conditions(listener_of(resolution)) == {
            "Accepted": ("True", "Accepted"),
            "Programmed": ("True", "Programmed"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
            "Conflicted": ("False", "NoConflicts"),
        }

    def test_kubernetes_mode_needs_an_address(self):
        resolution = resolve_items(gateway_class(), gateway(), file_mode=False)
        assert conditions(gateway_of(resolution))["Programmed"] == ("False", "AddressNotAssigned")
        assert "--gateway-address" in message(gateway_of(resolution), "Programmed")

    def test_infrastructure_parameters_are_refused(self):
        reference = {"group": "example.com", "kind": "Config", "name": "x"}
        resolution = resolve_items(gateway(infrastructure={"parametersRef": reference}))
        assert conditions(gateway_of(resolution))["Accepted"] == ("False", "InvalidParameters")
        assert "example.com/Config x" in message(gateway_of(resolution), "Accepted")
        assert resolution.config.listeners == ()

    def test_several_gateways_on_one_port_do_not_conflict(self):
        resolution = resolve_items(gateway(), gateway(name="other"))
        assert ports(resolution) == [("default/gw", "grpc", 80), ("default/other", "grpc", 80)]
        for name in ("gw", "other"):
            assert conditions(gateway_of(resolution, name))["Programmed"] == ("True", "Programmed")


class TestAddresses:
    def test_static_addresses_are_bound_and_shown(self):
        given = [{"type": "IPAddress", "value": "192.0.2.7"}, {"value": "2001:DB8::0:7"}]
        resolution = resolve_items(gateway(addresses=given), gateway_addresses=("198.51.100.1",))
        assert resolution.config.listeners[0].addresses == ("192.0.2.7", "2001:db8::7")
        assert [one["value"] for one in gateway_of(resolution)["addresses"]] == ["192.0.2.7", "2001:db8::7"]

    @pytest.mark.parametrize(
        "address",
        [{"type": "Hostname", "value": "gw.example.com"}, {"type": "example.com/Pool", "value": "x"}, {"value": "x"}],
    )
    def test_other_addresses_are_refused(self, address):
        resolution = resolve_items(gateway(addresses=[{"value": "192.0.2.7"}, address]))
        assert conditions(gateway_of(resolution))["Accepted"] == ("False", "UnsupportedAddress")
        assert "spec.addresses[1]" in message(gateway_of(resolution), "Accepted")
        assert resolution.config.listeners == ()

    def test_an_empty_value_is_assigned(self):
        resolution = resolve_items(gateway(addresses=[{"type": "IPAddress"}]), gateway_addresses=("192.0.2.1",))
        assert gateway_of(resolution)["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]
        assert resolution.config.listeners[0].addresses == ()
        assert conditions(gateway_of(resolution))["Programmed"] == ("True", "Programmed")

    def test_an_empty_value_without_anything_to_assign(self):
        resolution = resolve_items(gateway(addresses=[{"type": "IPAddress", "value": ""}]))
        assert conditions(gateway_of(resolution))["Programmed"] == ("False", "AddressNotAssigned")
        assert "addresses" not in gateway_of(resolution)

    def test_at_most_16_are_shown(self):
        resolution = resolve_items(gateway(), gateway_addresses=tuple(f"192.0.2.{n}" for n in range(20)))
        assert len(gateway_of(resolution)["addresses"]) == 16


class TestListeners:
    @pytest.mark.parametrize("protocol", ["TLS", "TCP", "UDP", "example.com/quic"])
    def test_an_unsupported_protocol(self, protocol):
        resolution = resolve_items(gateway(listener(), listener("other", 443, protocol)))
        status = listener_of(resolution, "other")
        assert conditions(status)["Accepted"] == ("False", "UnsupportedProtocol")
        assert conditions(status)["Programmed"] == ("False", "Invalid")
        assert status["supportedKinds"] == []
        assert conditions(gateway_of(resolution)) == {
            "Accepted": ("True", "ListenersNotValid"),
            "Programmed": ("True", "Programmed"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        }
        assert f"protocol {protocol}" in message(gateway_of(resolution), "Accepted")
        assert ports(resolution) == [("default/gw", "grpc", 80)]
        assert [problem.path for problem in resolution.problems] == ["spec.listeners[1].protocol"]

    def test_no_listener_left(self):
        resolution = resolve_items(gateway(listener("a", 443, "TLS")))
        assert conditions(gateway_of(resolution)) == {
            "Accepted": ("False", "ListenersNotValid"),
            "Programmed": ("False", "Invalid"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        }

    @pytest.mark.parametrize(
        ("kinds", "supported", "served"),
        [
            ([{"kind": "GRPCRoute"}], ["GRPCRoute"], True),
            ([{"kind": "HTTPRoute"}], ["HTTPRoute"], True),
            ([{"kind": "Nonsense"}, {"kind": "HTTPRoute"}], ["HTTPRoute"], True),
            ([{"group": GROUP, "kind": "GRPCRoute"}, {"kind": "GRPCRoute"}], ["GRPCRoute"], True),
            ([{"kind": "Nonsense"}], [], False),
            ([{"kind": "Nonsense"}, {"kind": "GRPCRoute"}], ["GRPCRoute"], True),
            ([{"group": "example.com", "kind": "GRPCRoute"}], [], False),
            ([{"kind": "TCPRoute"}], [], False),
        ],
    )
    def test_kinds(self, kinds, supported, served):
        resolution = resolve_items(gateway(listener(**allow("All", kinds=kinds))))
        status = listener_of(resolution)
        assert [kind["kind"] for kind in status["supportedKinds"]] == supported
        served_kinds = ("GRPCRoute", "HTTPRoute")
        is_clean = all(kind["kind"] in served_kinds and kind.get("group", GROUP) == GROUP for kind in kinds)
        expected = ("True", "ResolvedRefs") if is_clean else ("False", "InvalidRouteKinds")
        assert conditions(status)["ResolvedRefs"] == expected
        assert bool(resolution.config.listeners) is served
        assert conditions(status)["Programmed"][0] == str(served)

    def test_an_invalid_selector(self):
        selector = {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}
        resolution = resolve_items(gateway(listener(**allow("Selector", selector))), route(), service())
        assert conditions(listener_of(resolution))["Accepted"] == ("False", "UnsupportedValue")
        assert listener_of(resolution)["attachedRoutes"] == 0

    def test_hostname_is_lower_case_in_the_configuration(self):
        resolution = resolve_items(gateway(listener(hostname="*.Example.COM")))
        assert resolution.config.listeners[0].hostname == "*.example.com"


class TestConflicts:
    @pytest.mark.parametrize(
        ("listeners", "losers"),
        [
            pytest.param([listener("a"), listener("b")], {"a", "b"}, id="same port, no hostname"),
            pytest.param(
                [listener("a", hostname="x.com"), listener("b", hostname="X.com"), listener("c", hostname="y.com")],
                {"a", "b"},
                id="same hostname, one beside",
            ),
            pytest.param([listener("a"), listener("b", hostname="x.com")], set(), id="other hostname"),
            pytest.param([listener("a", 80), listener("b", 81)], set(), id="other port"),
        ],
    )
    def test_hostnames(self, listeners, losers):
        resolution = resolve_items(gateway(*listeners))
        for one in listeners:
            status = listener_of(resolution, one["name"])
            if one["name"] in losers:
                assert conditions(status)["Conflicted"] == ("True", "HostnameConflict")
                assert conditions(status)["Accepted"] == ("False", "HostnameConflict")
                assert conditions(status)["Programmed"] == ("False", "Invalid")
            else:
                assert conditions(status)["Conflicted"] == ("False", "NoConflicts")
        assert {one.name for one in resolution.config.listeners} == {one["name"] for one in listeners} - losers

    @pytest.mark.parametrize("protocol", ["TCP", "UDP", "INVALID"])
    def test_a_protocol_that_is_refused_for_itself_disturbs_no_neighbour(self, protocol):
        resolution = resolve_items(
            gateway(listener("a", 80, "HTTP", hostname="a.com"), listener("b", 80, protocol, hostname="b.com"))
        )
        assert conditions(listener_of(resolution, "a"))["Conflicted"] == ("False", "NoConflicts")
        assert conditions(listener_of(resolution, "a"))["Programmed"] == ("True", "Programmed")
        # What it would have conflicted with is said of itself; the protocol is the more lasting fault.
        expected = ("True", "ProtocolConflict") if protocol == "TCP" else ("False", "NoConflicts")
        assert conditions(listener_of(resolution, "b"))["Conflicted"] == expected
        assert conditions(listener_of(resolution, "b"))["Accepted"] == ("False", "UnsupportedProtocol")
