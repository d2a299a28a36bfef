"""ReferenceGrants: who may refer to what across namespaces."""

import pytest

from pygw.control.references import Grants
from tests.doubles.objects import GROUP, grant

SERVICE = ("", "Service")


def route_of(namespace, kind="GRPCRoute"):
    return (GROUP, kind, namespace)


def test_needs_no_grant_inside_a_namespace():
    assert Grants([]).permit(route_of("a"), SERVICE, "a", "s")


def test_refuses_without_a_grant():
    assert not Grants([]).permit(route_of("a"), SERVICE, "b", "s")


@pytest.mark.parametrize(
    ("given", "permitted"),
    [
        pytest.param(grant("b", source="a"), True, id="all services"),
        pytest.param(grant("b", source="a", name="s"), True, id="this service"),
        pytest.param(grant("b", source="a", name="t"), False, id="another service"),
        pytest.param(grant("b", source="c"), False, id="from another namespace"),
        pytest.param(grant("c", source="a"), False, id="in another namespace"),
        pytest.param(grant("a", source="a"), False, id="in the namespace of the route"),
        pytest.param(grant("b", source="a", kind="HTTPRoute"), False, id="from another kind"),
        pytest.param(grant("b", source="a", to_kind="Secret"), False, id="to another kind"),
        pytest.param(grant("b", source="a", to_group="example.com"), False, id="to another group"),
    ],
)
def test_one_grant(given, permitted):
    assert Grants([given]).permit(route_of("a"), SERVICE, "b", "s") is permitted


def test_grants_add_up():
    grants = Grants([grant("b", source="a", name="s"), grant("b", source="c", name="t", grant_name="other")])
    assert grants.permit(route_of("a"), SERVICE, "b", "s")
    assert grants.permit(route_of("c"), SERVICE, "b", "t")
    assert not grants.permit(route_of("a"), SERVICE, "b", "t")  # from and to of one grant belong together


def test_an_empty_name_means_all():
    item = grant("b", source="a")
    item["spec"]["to"][0]["name"] = ""
    assert Grants([item]).permit(route_of("a"), SERVICE, "b", "s")
