"""resolve: which listeners a route attaches to, and the conditions that say so (Gateway API 2.5)."""

import pytest

from tests.doubles.objects import (
    CONTROLLER,
    GROUP,
    allow,
    conditions,
    gateway,
    gateway_class,
    listener,
    listener_of,
    message,
    namespace,
    parent_of,
    ref,
    resolve_items,
    route,
    rule,
    service,
)

ACCEPTED = ("True", "Accepted")


def attached(resolution):
    return {one.name: one.routes for one in resolution.config.listeners}


def test_a_route_attaches_to_every_listener_of_its_gateway():
    resolution = resolve_items(gateway(listener("a"), listener("b", 81)), route(), service())
    assert attached(resolution) == {"a": ("GRPCRoute/default/r",), "b": ("GRPCRoute/default/r",)}
    assert list(resolution.config.routes) == ["GRPCRoute/default/r"]
    parent = parent_of(resolution)
    assert parent["controllerName"] == CONTROLLER
    assert parent["parentRef"] == {"group": GROUP, "kind": "Gateway", "name": "gw"}
    assert conditions(parent) == {"Accepted": ACCEPTED, "ResolvedRefs": ("True", "ResolvedRefs")}
    assert listener_of(resolution, "a")["attachedRoutes"] == 1
    assert resolution.problems == []


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        ({}, ["a", "b", "c"]),
        ({"sectionName": "a"}, ["a"]),
        ({"port": 81}, ["b", "c"]),
        ({"sectionName": "b", "port": 81}, ["b"]),
        ({"sectionName": "a", "port": 81}, None),
        ({"sectionName": "z"}, None),
        ({"port": 99}, None),
    ],
)
def test_section_name_and_port(reference, names):
    listeners = [listener("a"), listener("b", 81, hostname="b.com"), listener("c", 81, hostname="c.com")]
    resolution = resolve_items(gateway(*listeners), route(parents=[{"name": "gw", **reference}]), service())
    if names is None:
        assert conditions(parent_of(resolution))["Accepted"] == ("False", "NoMatchingParent")
        assert resolution.config.routes == {}
        assert resolution.problems[0].path == "spec.parentRefs[0]"
    else:
        assert [name for name, routes in attached(resolution).items() if routes] == names


def test_each_parent_ref_has_its_own_entry():
    parents = [{"name": "gw", "sectionName": "a"}, {"name": "gw", "sectionName": "z"}, {"name": "gw", "port": 81}]
    resolution = resolve_items(gateway(listener("a"), listener("b", 81)), route(parents=parents), service())
    reasons = [conditions(parent_of(resolution, index))["Accepted"][1] for index in range(3)]
    assert reasons == ["Accepted", "NoMatchingParent", "Accepted"]
    assert [parent_of(resolution, index)["parentRef"].get("port") for index in range(3)] == [None, None, 81]


def test_a_route_that_names_one_listener_twice_counts_once():
    parents = [{"name": "gw"}, {"name": "gw", "sectionName": "grpc"}]
    resolution = resolve_items(gateway(), route(parents=parents), service())
    assert listener_of(resolution)["attachedRoutes"] == 1
    assert attached(resolution) == {"grpc": ("GRPCRoute/default/r",)}


@pytest.mark.parametrize(
    ("allowed", "accepted"),
    [
        pytest.param({}, False, id="default is Same"),
        pytest.param(allow("Same"), False, id="Same"),
        pytest.param(allow("All"), True, id="All"),
        pytest.param(allow("Selector", {"matchLabels": {"team": "a"}}), True, id="label"),
        pytest.param(allow("Selector", {"matchLabels": {"team": "b"}}), False, id="other label"),
        pytest.param(allow("Selector", {}), True, id="empty selector"),
        pytest.param(allow("Selector", {"matchLabels": {"kubernetes.io/metadata.name": "apps"}}), True, id="name"),
        pytest.param(
            allow("Selector", {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "z"]}]}),
            True,
            id="expression",
        ),
        pytest.param(allow("None"), False, id="None"),
    ],
)
def test_namespaces(allowed, accepted):
    resolution = resolve_items(
        gateway(listener(**allowed)),
        namespace("apps", team="a"),
        route(namespace="apps", parents=[{"name": "gw", "namespace": "default"}]),
        service(namespace="apps"),
    )
    parent = parent_of(resolution, namespace="apps")
    assert conditions(parent)["Accepted"] == (ACCEPTED if accepted else ("False", "NotAllowedByListeners"))
    assert listener_of(resolution)["attachedRoutes"] == int(accepted)
    if not accepted:
        assert "namespace apps" in message(parent, "Accepted")


def test_the_name_label_is_there_without_a_namespace_object():
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "default"}}
    resolution = resolve_items(gateway(listener(**allow("Selector", selector))), route(), service())
    assert conditions(parent_of(resolution))["Accepted"] == ACCEPTED


@pytest.mark.parametrize(
    ("hostnames", "listener_hostnames", "names"),
    [
        ([], ["", "a.com"], ["0", "1"]),
        (["a.com"], ["", "a.com", "b.com"], ["0", "1"]),
        (["x.a.com"], ["*.a.com", "*.b.com"], ["0"]),
        (["*.a.com"], ["x.a.com", "a.com"], ["0"]),
        (["a.com"], ["*.a.com", "b.com"], None),
    ],
)
def test_hostnames(hostnames, listener_hostnames, names):
    listeners = [
        listener(str(index), 80, **({"hostname": hostname} if hostname else {}))
        for index, hostname in enumerate(listener_hostnames)
    ]
    resolution = resolve_items(gateway(*listeners), route(hostnames=hostnames), service())
    if names is None:
        assert conditions(parent_of(resolution))["Accepted"] == ("False", "NoMatchingListenerHostname")
        assert "a.com has nothing in common" in message(parent_of(resolution), "Accepted")
    else:
        assert [name for name, routes in attached(resolution).items() if routes] == names
        assert next(iter(resolution.config.routes.values())).hostnames == tuple(hostnames)


def test_kinds():
    allowed = allow("Same", kinds=[{"group": "example.com", "kind": "GRPCRoute"}])
    resolution = resolve_items(gateway(listener(**allowed)), route(), service())
    assert conditions(parent_of(resolution))["Accepted"] == ("False", "NotAllowedByListeners")


def test_a_listener_for_grpc_routes_alone_refuses_http_routes():
    allowed = allow("Same", kinds=[{"kind": "GRPCRoute"}])
    resolution = resolve_items(gateway(listener(**allowed)), route(kind="HTTPRoute"), service())
    parent = resolution.statuses["HTTPRoute", "default", "r"]["parents"][0]
    assert conditions(parent)["Accepted"] == ("False", "NotAllowedByListeners")
    assert "takes routes of kind HTTPRoute" in message(parent, "Accepted")


def test_a_route_counts_on_a_listener_that_is_not_valid():
    """attachedRoutes is a matter of allowedRoutes and parentRefs alone."""
    resolution = resolve_items(gateway(listener("a"), listener("b")), route(), service())
    assert listener_of(resolution, "a")["attachedRoutes"] == 1
    assert conditions(listener_of(resolution, "a"))["Accepted"][0] == "False"
    assert conditions(parent_of(resolution))["Accepted"] == ACCEPTED
    assert resolution.config.routes == {}  # nothing serves it


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ({"name": "missing"}, "Gateway default/missing does not exist"),
        ({"name": "gw", "namespace": "other"}, "Gateway other/gw does not exist"),
        ({"name": "gw", "kind": "ListenerSet"}, "ListenerSet default/gw does not exist"),
        ({"name": "echo", "group": "", "kind": "Service"}, "kind Service are not served"),
    ],
)
def test_a_parent_that_is_not_there_gets_no_entry(reference, says):
    resolution = resolve_items(gateway(), route(parents=[reference]), service())
    assert ("GRPCRoute", "default", "r") not in resolution.statuses
    assert says in resolution.problems[0].message
    assert resolution.problems[0].path == "spec.parentRefs[0]"
    # In a cluster such routes are another implementation's, or wait for their Gateway.
    items = [gateway_class(), gateway(), route(parents=[reference])]
    assert resolve_items(*items, file_mode=False, gateway_addresses=("192.0.2.1",)).problems == []


def test_the_rules_of_a_route_without_a_gateway_are_judged_all_the_same():
    resolution = resolve_items(route(rule(ref("missing"))))
    assert [problem.path for problem in resolution.problems] == ["spec.parentRefs[0]", "spec.rules[0].backendRefs[0]"]


def test_a_route_without_parents():
    resolution = resolve_items(gateway(), route(parents=[]), service())
    assert [problem.reason for problem in resolution.problems] == ["NoParent"]


def test_a_parent_of_another_controller_is_left_alone():
    resolution = resolve_items(gateway_class(controller="example.com/x"), gateway(), route())
    assert resolution.statuses == {}
    assert resolution.problems == []


def test_routes_of_a_listener_are_sorted_as_texts():
    parents = [{"name": "gw", "namespace": "default"}]
    routes = [route(namespace=space, parents=parents) for space in ("a", "a-b")]
    services = [service(namespace=space) for space in ("a", "a-b")]
    resolution = resolve_items(gateway(listener(**allow("All"))), *routes, *services)
    assert resolution.config.listeners[0].routes == ("GRPCRoute/a-b/r", "GRPCRoute/a/r")
