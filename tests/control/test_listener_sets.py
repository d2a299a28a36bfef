"""resolve: ListenerSets (Gateway API, listenerset_types.go, GEP-1713)."""

import pytest

from tests.doubles.objects import (
    LATER,
    NOW,
    allow,
    conditions,
    gateway,
    gateway_class,
    gateway_of,
    listener,
    listener_set,
    message,
    namespace,
    parent_of,
    resolve_items,
    route,
    service,
)

ALL = {"namespaces": {"from": "All"}}


def set_of(resolution, name="ls", namespace="default"):
    return resolution.statuses["ListenerSet", namespace, name]


def entry_of(resolution, entry="extra", **where):
    return next(item for item in set_of(resolution, **where)["listeners"] if item["name"] == entry)


def open_gateway(*listeners, **spec):
    return gateway(*listeners, **{"allowedListeners": ALL, **spec})


def served(resolution):
    return [(one.key, one.port, one.hostname) for one in resolution.config.listeners]


class TestAllowed:
    @pytest.mark.parametrize(
        ("allowed", "home", "away"),
        [
            pytest.param(None, False, False, id="left out"),
            pytest.param({}, False, False, id="empty"),
            pytest.param({"namespaces": {"from": "None"}}, False, False, id="None"),
            pytest.param({"namespaces": {"from": "Same"}}, True, False, id="Same"),
            pytest.param(ALL, True, True, id="All"),
            pytest.param(
                {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}}, False, True,
                id="Selector",
            ),
            pytest.param(
                {
                    "namespaces": {
                        "from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
                    }
                },
                True, False, id="by name, without a Namespace object",
            ),
            pytest.param({"namespaces": {"from": "Selector"}}, False, False, id="no selector"),
            pytest.param({"namespaces": {"from": "Future"}}, False, False, id="unknown"),
        ],
    )  # fmt: skip
    def test_namespaces(self, allowed, home, away):
        spec = {} if allowed is None else {"allowedListeners": allowed}
        resolution = resolve_items(
            gateway(**spec),
            namespace("away", team="a"),
            listener_set(listener("extra", 81), name="home"),
            listener_set(listener("extra", 82), name="away", namespace="away"),
        )
        for name, where, is_allowed in (("home", "default", home), ("away", "away", away)):
            status = set_of(resolution, name, where)
            if is_allowed:
                assert conditions(status) == {"Accepted": ("True", "Accepted"), "Programmed": ("True", "Programmed")}
                assert conditions(status["listeners"][0])["Programmed"] == ("True", "Programmed")
            else:
                refused = ("False", "NotAllowed")
                assert conditions(status) == {"Accepted": refused, "Programmed": refused}
                assert "listeners" not in status
                assert "spec.allowedListeners" in message(status, "Accepted")
        assert gateway_of(resolution).get("attachedListenerSets") == (None if allowed is None else home + away)
        assert len(resolution.config.listeners) == 1 + home + away
        paths = [problem.path for problem in resolution.problems if problem.reason == "NotAllowed"]
        assert paths == ["spec.parentRef"] * (2 - home - away)

    def test_the_gateway_of_another_namespace_is_named_in_the_reference(self):
        resolution = resolve_items(
            open_gateway(), listener_set(listener("extra", 81), namespace="away", parent={"name": "gw"})
        )
        assert ("ListenerSet", "away", "ls") not in resolution.statuses
        assert [problem.reason for problem in resolution.problems] == ["NoMatchingParent"]

    def test_what_names_no_gateway_of_ours_is_left_alone(self):
        mesh = {"group": "example.com", "kind": "Mesh", "name": "m"}
        resolution = resolve_items(
            gateway_class(controller="example.com/other"),
            open_gateway(),
            listener_set(listener("extra", 81)),
            listener_set(listener("extra", 81), name="odd", parent=mesh),
            route(parents=[{"kind": "ListenerSet", "name": "ls"}, {"kind": "ListenerSet", "name": "odd"}]),
            service(),
        )
        assert resolution.statuses == {}
        assert resolution.problems == []


class TestConflicts:
    def test_the_gateway_comes_first_then_age_then_name(self):
        young, old = {"created": LATER}, {"created": NOW}
        resolution = resolve_items(
            open_gateway(listener("own", hostname="gw.com")),
            listener_set(listener("x", hostname="GW.com"), listener("ok", hostname="a.com"), name="a", **young),
            listener_set(listener("x", hostname="a.com"), name="z", **old),
            listener_set(listener("x", hostname="b.com"), name="d"),  # without a timestamp: newer than all
            listener_set(listener("x", hostname="b.com"), name="c"),
        )
        loser = {
            "Accepted": ("False", "HostnameConflict"),
            "Programmed": ("False", "HostnameConflict"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
            "Conflicted": ("True", "HostnameConflict"),
        }
        assert conditions(entry_of(resolution, "x", name="a")) == loser
        assert conditions(entry_of(resolution, "ok", name="a")) == loser
        assert conditions(entry_of(resolution, "x", name="d")) == loser
        assert conditions(set_of(resolution, "a")) == {
            "Accepted": ("False", "ListenersNotValid"),
            "Programmed": ("False", "ListenersNotValid"),
        }
        assert served(resolution) == [
            ("default/gw/own", 80, "gw.com"),
            ("default/gw/default/z/x", 80, "a.com"),
            ("default/gw/default/c/x", 80, "b.com"),
        ]
        assert gateway_of(resolution)["attachedListenerSets"] == 2
        assert conditions(gateway_of(resolution))["Accepted"] == ("True", "Accepted")

    def test_one_valid_listener_is_enough(self):
        resolution = resolve_items(
            open_gateway(), listener_set(listener("extra"), listener("good", 81))
        )
        assert conditions(set_of(resolution)) == {
            "Accepted": ("True", "ListenersNotValid"),
            "Programmed": ("True", "Programmed"),
        }
        assert conditions(entry_of(resolution, "good"))["Programmed"] == ("True", "Programmed")
        assert gateway_of(resolution)["attachedListenerSets"] == 1

    def test_a_loser_takes_nothing_from_those_after_it(self):
        """The first set loses port 80 to the Gateway; that does not make TCP the protocol of port 80."""
        resolution = resolve_items(
            open_gateway(listener("own", hostname="gw.com")),
            listener_set(listener("tcp", 80, "TCP"), name="a"),
            listener_set(listener("x", hostname="b.com"), name="b"),
        )
        assert conditions(entry_of(resolution, "tcp", name="a")) == {
            "Accepted": ("False", "ProtocolConflict"),
            "Programmed": ("False", "ProtocolConflict"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
            "Conflicted": ("True", "ProtocolConflict"),
        }
        assert conditions(entry_of(resolution, "x", name="b"))["Accepted"] == ("True", "Accepted")
        assert conditions(gateway_of(resolution)["listeners"][0])["Accepted"] == ("True", "Accepted")

    def test_the_message_does_not_tell_whose_listener_won(self):
        resolution = resolve_items(
            open_gateway(),
            listener_set(listener("secret-project", 81), name="a"),
            listener_set(listener("x", 81), name="b"),
        )
        text = message(entry_of(resolution, "x", name="b"), "Conflicted")
        assert "default/gw" in text
        assert "secret-project" not in text

    def test_two_of_one_set_both_lose_as_in_a_gateway(self):
        resolution = resolve_items(
            open_gateway(), listener_set(listener("a", 81, hostname="x.com"), listener("b", 81, hostname="X.com"))
        )
        for name in ("a", "b"):
            assert conditions(entry_of(resolution, name))["Accepted"] == ("False", "HostnameConflict")

    def test_the_winner_gone_the_next_one_serves(self):
        first, second = (listener_set(listener("x", 81), name=name) for name in ("a", "b"))
        resolution = resolve_items(open_gateway(), second)
        assert served(resolution)[1:] == [("default/gw/default/b/x", 81, "")]
        assert served(resolve_items(open_gateway(), first, second))[1:] == [("default/gw/default/a/x", 81, "")]


class TestParents:
    def test_a_gateway_that_is_not_accepted(self):
        resolution = resolve_items(
            open_gateway(addresses=[{"type": "Hostname", "value": "x"}]), listener_set(listener("extra", 81))
        )
        assert conditions(set_of(resolution)) == {
            "Accepted": ("False", "ParentNotAccepted"),
            "Programmed": ("False", "ParentNotProgrammed"),
        }
        assert conditions(entry_of(resolution))["Programmed"] == ("False", "Invalid")
        assert gateway_of(resolution)["attachedListenerSets"] == 0
        assert resolution.config.listeners == ()

    def test_a_gateway_that_is_not_programmed(self):
        items = [gateway_class(), open_gateway(), listener_set(listener("extra", 81))]
        resolution = resolve_items(*items, file_mode=False)
        assert conditions(set_of(resolution)) == {
            "Accepted": ("True", "Accepted"),
            "Programmed": ("False", "ParentNotProgrammed"),
        }


class TestRoutes:
    def test_a_route_attaches_to_its_direct_parent_alone(self):
        resolution = resolve_items(
            open_gateway(listener("own", 80)),
            listener_set(listener("extra", 81), listener("more", 82)),
            route(name="of-set", parents=[{"kind": "ListenerSet", "name": "ls"}]),
            route(name="of-entry", parents=[{"kind": "ListenerSet", "name": "ls", "sectionName": "extra"}]),
            route(name="of-gateway"),
            route(name="wrong", parents=[{"name": "gw", "sectionName": "extra"}]),
            service(),
        )
        counts = {item["name"]: item["attachedRoutes"] for item in set_of(resolution)["listeners"]}
        assert counts == {"extra": 2, "more": 1}
        assert gateway_of(resolution)["listeners"][0]["attachedRoutes"] == 1
        routes = {one.key: one.routes for one in resolution.config.listeners}
        assert routes == {
            "default/gw/own": ("GRPCRoute/default/of-gateway",),
            "default/gw/default/ls/extra": ("GRPCRoute/default/of-entry", "GRPCRoute/default/of-set"),
            "default/gw/default/ls/more": ("GRPCRoute/default/of-set",),
        }
        assert conditions(parent_of(resolution, name="wrong"))["Accepted"] == ("False", "NoMatchingParent")
        parent = parent_of(resolution, name="of-set")
        assert parent["parentRef"]["kind"] == "ListenerSet"
        assert conditions(parent)["Accepted"] == ("True", "Accepted")

    def test_same_means_the_namespace_of_the_set(self):
        resolution = resolve_items(
            open_gateway(),
            listener_set(listener("extra", 81, **allow("Same")), namespace="away"),
            route(name="near", namespace="away", parents=[{"kind": "ListenerSet", "name": "ls"}]),
            route(parents=[{"kind": "ListenerSet", "name": "ls", "namespace": "away"}]),
            service(),
            service(namespace="away"),
        )
        assert conditions(parent_of(resolution))["Accepted"] == ("False", "NotAllowedByListeners")
        assert conditions(parent_of(resolution, name="near", namespace="away"))["Accepted"] == ("True", "Accepted")

    def test_a_set_that_is_not_allowed_takes_no_routes(self):
        resolution = resolve_items(
            gateway(),
            listener_set(listener("extra", 81)),
            route(parents=[{"kind": "ListenerSet", "name": "ls"}]),
            service(),
        )
        assert conditions(parent_of(resolution))["Accepted"] == ("False", "NoMatchingParent")
        assert "not attached to its Gateway" in message(parent_of(resolution), "Accepted")

    def test_a_set_that_does_not_exist_is_reported(self):
        resolution = resolve_items(open_gateway(), route(parents=[{"kind": "ListenerSet", "name": "ls"}]), service())
        assert "ListenerSet default/ls does not exist" in [problem.message for problem in resolution.problems]
