"""GatewayConfig: parametersRef of GatewayClasses and of Gateways (pygw.dev/v1alpha1)."""

from pathlib import Path

import pytest

from pygw.control.schema import find_schema
from tests.doubles.objects import conditions, gateway, gateway_class, gateway_of, message, resolve_items

ROOT = Path(__file__).parents[2]


def config(name="settings", namespace="pygw-system", **spec):
    return {
        "apiVersion": "pygw.dev/v1alpha1",
        "kind": "GatewayConfig",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def reference(name="settings", **rest):
    return {"group": "pygw.dev", "kind": "GatewayConfig", "name": name, **rest}


CLASS = gateway_class(parametersRef=reference(namespace="pygw-system"))


def addresses(resolution):
    return [item["value"] for item in gateway_of(resolution).get("addresses", ())]


def test_addresses_of_a_class_go_before_those_of_the_controller():
    given = config(addresses=["LB.example.com", "192.0.2.1", "2001:DB8::0:1"])
    resolution = resolve_items(CLASS, given, gateway(), gateway_addresses=("198.51.100.1",))
    assert addresses(resolution) == ["lb.example.com", "192.0.2.1", "2001:db8::1"]
    assert resolution.config.listeners[0].addresses == ()
    assert conditions(resolution.statuses["GatewayClass", "", "pygw"])["Accepted"] == ("True", "Accepted")


def test_bind_addresses_are_bound_and_shown():
    given = config(bindAddresses=["192.0.2.1"])
    resolution = resolve_items(CLASS, given, gateway(), gateway_addresses=("198.51.100.1",))
    assert addresses(resolution) == ["192.0.2.1"]
    assert resolution.config.listeners[0].addresses == ("192.0.2.1",)


def test_a_gateways_own_settings_replace_the_classs_field_by_field():
    own = gateway(infrastructure={"parametersRef": reference("own")})
    resolution = resolve_items(
        CLASS,
        config(addresses=["192.0.2.1"], bindAddresses=["10.0.0.1"]),
        config("own", "default", addresses=["192.0.2.2"]),
        own,
    )
    assert addresses(resolution) == ["192.0.2.2"]
    assert resolution.config.listeners[0].addresses == ("10.0.0.1",)


def test_a_gateways_static_addresses_stand():
    resolution = resolve_items(
        CLASS, config(addresses=["192.0.2.1"], bindAddresses=["10.0.0.1"]), gateway(addresses=[{"value": "10.0.0.9"}])
    )
    assert addresses(resolution) == ["10.0.0.9"]
    assert resolution.config.listeners[0].addresses == ("10.0.0.9",)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        pytest.param(reference("missing", namespace="pygw-system"), "pygw-system/missing does not exist", id="missing"),
        pytest.param(reference(), "has to name the namespace", id="no namespace"),
        pytest.param({"group": "", "kind": "ConfigMap", "name": "x"}, "ConfigMap x is not a kind", id="ConfigMap"),
        pytest.param({"group": "invalid.io", "kind": "Odd", "name": "x"}, "invalid.io/Odd x is not", id="other group"),
        pytest.param(reference("bad", namespace="pygw-system"), "spec.bindAddresses[1]: 1::2::3", id="malformed"),
    ],
)
def test_bad_parameters_of_a_class(bad, says):
    items = [config(), config("bad", bindAddresses=["192.0.2.1", "1::2::3"])]
    resolution = resolve_items(gateway_class(parametersRef=bad), gateway(), *items)
    status = resolution.statuses["GatewayClass", "", "pygw"]
    assert conditions(status)["Accepted"] == ("False", "InvalidParameters")
    assert says in message(status, "Accepted")
    assert conditions(gateway_of(resolution))["Accepted"] == ("False", "Invalid")
    assert resolution.config.listeners == ()


def test_bad_parameters_of_a_gateway():
    """The settings of another namespace are no use to a Gateway: it names its own namespace's."""
    resolution = resolve_items(gateway(infrastructure={"parametersRef": reference()}), config())
    assert conditions(gateway_of(resolution)) == {
        "Accepted": ("False", "InvalidParameters"),
        "Programmed": ("False", "Invalid"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }
    assert "GatewayConfig default/settings does not exist" in message(gateway_of(resolution), "Accepted")
    assert [problem.path for problem in resolution.problems] == ["spec.infrastructure.parametersRef"]


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        ({"addresses": ["lb.example.com", "192.0.2.1", "::1"], "bindAddresses": ["::1", "127.0.0.1"]}, 0),
        ({}, 0),
        ({"addresses": ["not a name"]}, 1),
        ({"addresses": [""]}, 2),
        ({"bindAddresses": ["host.example.com"]}, 1),
        ({"addresses": [f"192.0.2.{number}" for number in range(17)]}, 1),
        ({"address": ["192.0.2.1"]}, 1),
    ],
)
def test_the_schema(spec, faults):
    schema = find_schema("pygw.dev/v1alpha1", "GatewayConfig")
    assert len(schema.check(config(**spec))) == faults


def test_the_definition_to_apply_is_the_one_that_is_checked():
    name = "pygw.dev_gatewayconfigs.yaml"
    assert (ROOT / "deploy" / "crds" / name).read_bytes() == (ROOT / "pygw" / "control" / "crds" / name).read_bytes()
