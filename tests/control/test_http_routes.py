"""resolve: HTTPRoutes: matches, filters, backends and their conditions (Gateway API, httproute_types.go)."""

import pytest

from pygw.model import HeaderMatch, HeaderModifier, HttpMatchConfig, MirrorConfig, RedirectConfig
from tests.doubles.objects import (
    conditions,
    gateway,
    grant,
    listener_of,
    message,
    parent_of,
    ref,
    resolve_items,
    route,
    rule,
    service,
)

H2C = {"port": 8080, "appProtocol": "kubernetes.io/h2c"}


def http_route(*rules, **rest):
    return route(*rules, kind="HTTPRoute", **rest)


def web(**rest):
    return rule(ref("web", 8080), **rest)


def resolved(*rules, items=()):
    return resolve_items(gateway(), http_route(*rules), service("web", H2C), *items)


def rules_of(resolution):
    return resolution.config.routes["HTTPRoute/default/r"].rules


def conditions_of(resolution):
    return conditions(parent_of(resolution, kind="HTTPRoute"))


def test_it_attaches_and_counts_beside_a_grpc_route():
    resolution = resolve_items(gateway(), route(), http_route(web()), service(), service("web", H2C))
    assert listener_of(resolution)["attachedRoutes"] == 2
    assert resolution.config.listeners[0].routes == ("GRPCRoute/default/r", "HTTPRoute/default/r")
    assert conditions_of(resolution) == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    assert set(resolution.config.backends) == {"default/echo:50051", "default/web:8080"}


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        pytest.param({}, HttpMatchConfig(), id="nothing"),
        pytest.param(
            {"path": {"type": "Exact", "value": "/a"}}, HttpMatchConfig("/a", "Exact"), id="exact path"
        ),
        pytest.param({"path": {"value": "/a/"}}, HttpMatchConfig("/a/"), id="prefix"),
        pytest.param(
            {"path": {"type": "RegularExpression", "value": "/v[0-9]+"}},
            HttpMatchConfig("/v[0-9]+", "RegularExpression"),
            id="regex",
        ),
        pytest.param({"method": "PATCH"}, HttpMatchConfig(method="PATCH"), id="method"),
        pytest.param(
            {
                "headers": [
                    {"name": "X-A", "value": "1"},
                    {"name": "x-a", "value": "2"},
                    {"name": "b", "type": "RegularExpression", "value": "c+"},
                ]
            },
            HttpMatchConfig(headers=(HeaderMatch("x-a", "1"), HeaderMatch("b", "c+", True))),
            id="headers, the first of equivalent names",
        ),
        pytest.param(
            {"queryParams": [{"name": "Q", "value": "1"}, {"name": "q", "value": "2"}, {"name": "Q", "value": "3"}]},
            HttpMatchConfig(query=(HeaderMatch("Q", "1"), HeaderMatch("q", "2"))),
            id="query, where case counts",
        ),
    ],
)
def test_matches(match, expected):
    assert rules_of(resolved(web(matches=[match])))[0].http_matches == (expected,)


def test_no_matches_take_everything():
    (rule_,) = rules_of(resolved(web()))
    assert rule_.http_matches == (HttpMatchConfig("/", "PathPrefix"),)
    assert rule_.matches == ()


@pytest.mark.parametrize(
    ("match", "path", "says"),
    [
        ({"path": {"type": "RegularExpression", "value": "("}}, "matches[0].path.value", "not a valid regular"),
        ({"path": {"type": "Glob", "value": "/*"}}, "matches[0].path.type", "match type Glob"),
        (
            {"headers": [{"name": "a", "value": "(", "type": "RegularExpression"}]},
            "matches[0].headers[0].value",
            "not a valid regular",
        ),
        (
            {"queryParams": [{"name": "a", "value": "(", "type": "RegularExpression"}]},
            "matches[0].queryParams[0].value",
            "not a valid regular",
        ),
    ],
)
def test_what_cannot_be_matched_drops_its_rule(match, path, says):
    resolution = resolved(web(matches=[match]), web())
    assert [rule_.index for rule_ in rules_of(resolution)] == [1]
    assert conditions_of(resolution)["PartiallyInvalid"] == ("True", "UnsupportedValue")
    text = message(parent_of(resolution, kind="HTTPRoute"), "PartiallyInvalid")
    assert text.startswith(f"Dropped Rule 0: {path}: {says}")
    assert resolution.problems[0].path == f"spec.rules[0].{path}"
    alone = resolved(web(matches=[match]))
    assert conditions_of(alone)["Accepted"] == ("False", "UnsupportedValue")
    assert listener_of(alone)["attachedRoutes"] == 0


class TestBackends:
    @pytest.mark.parametrize(
        ("protocol", "served", "says"),
        [
            ("kubernetes.io/h2c", True, ""),
            ("http2", True, ""),
            ("", False, "would need HTTP/1.1"),
            ("http", False, "appProtocol http"),
            ("kubernetes.io/ws", False, "appProtocol kubernetes.io/ws"),
        ],
    )
    def test_only_those_that_speak_http2(self, protocol, served, says):
        port = {"port": 8080, **({"appProtocol": protocol} if protocol else {})}
        resolution = resolve_items(gateway(), http_route(web()), service("web", port))
        expected = ("True", "ResolvedRefs") if served else ("False", "UnsupportedProtocol")
        assert conditions_of(resolution)["ResolvedRefs"] == expected
        assert conditions_of(resolution)["Accepted"] == ("True", "Accepted")
        assert says in message(parent_of(resolution, kind="HTTPRoute"), "ResolvedRefs")
        assert listener_of(resolution)["attachedRoutes"] == 1
        assert rules_of(resolution)[0].backends[0].reason == (None if served else "UnsupportedProtocol")

    def test_a_grpc_route_to_the_same_port_is_judged_for_itself(self):
        resolution = resolve_items(gateway(), http_route(rule()), route(), service())
        assert conditions_of(resolution)["ResolvedRefs"] == ("False", "UnsupportedProtocol")
        assert conditions(parent_of(resolution))["ResolvedRefs"] == ("True", "ResolvedRefs")

    def test_a_grant_is_for_the_kind_that_it_names(self):
        for kind, expected in (("HTTPRoute", "True"), ("GRPCRoute", "False")):
            resolution = resolve_items(
                gateway(),
                http_route(rule(ref("web", 8080, namespace="other"))),
                service("web", H2C, namespace="other"),
                grant("other", kind=kind),
            )
            assert conditions_of(resolution)["ResolvedRefs"][0] == expected

    def test_none_at_all(self):
        resolution = resolved({"backendRefs": []})
        assert rules_of(resolution)[0].failure == (12, "HTTPRoute default/r rule 0 has no backendRefs")
        assert "get 500" in resolution.problems[0].message


class TestFilters:
    def test_modifiers_and_mirrors(self):
        filters = [
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {
                    "set": [{"name": "Content-Type", "value": "text/plain"}, {"name": "host", "value": "x"}]
                },
            },
            {"type": "RequestMirror", "requestMirror": {"backendRef": ref("web", 8080), "percent": 10}},
        ]
        resolution = resolved(web(filters=filters))
        (rule_,) = rules_of(resolution)
        # The content-type is HTTP's own matter here, not gRPC's; where a request goes is not a header's to say.
        assert rule_.request_headers == HeaderModifier(set=(("content-type", "text/plain"),))
        assert rule_.mirrors == (MirrorConfig("default/web:8080", 10, 100),)
        assert [problem.reason for problem in resolution.problems] == ["HeaderIgnored"]

    @pytest.mark.parametrize(
        ("redirect", "expected"),
        [
            ({}, RedirectConfig()),
            (
                {"scheme": "https", "hostname": "b.com", "port": 8443, "statusCode": 301},
                RedirectConfig(301, "https", "b.com", 8443),
            ),
            (
                {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/b"}, "statusCode": 308},
                RedirectConfig(308, full_path="/b"),
            ),
            (
                {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}},
                RedirectConfig(prefix=""),
            ),
        ],
    )
    def test_redirects(self, redirect, expected):
        redirecting = {"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]}
        resolution = resolved({**redirecting, "matches": [{"path": {"value": "/a"}}]})
        (rule_,) = rules_of(resolution)
        assert (rule_.redirect, rule_.failure, rule_.backends) == (expected, None, ())
        assert resolution.problems == []

    @pytest.mark.parametrize(
        "redirect",
        [
            {"statusCode": 418},
            {"scheme": "gopher"},
            {"path": {"type": "ReplaceHost"}},
            {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/a\r\nset-cookie: x"}},
            {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/a#b"}},
        ],
    )
    def test_a_redirect_that_cannot_be_given_answers_500(self, redirect):
        redirecting = {"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]}
        resolution = resolved({**redirecting, "matches": [{"path": {"value": "/a"}}]}, web())
        assert rules_of(resolution)[0].redirect is None
        assert rules_of(resolution)[0].failure[0] == 14
        text = message(parent_of(resolution, kind="HTTPRoute"), "PartiallyInvalid")
        assert text.startswith("Dropped Rule 0: answers 500, filter RequestRedirect")

    def test_a_prefix_can_be_replaced_only_where_a_prefix_matches(self):
        modifier = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}
        redirecting = {"filters": [{"type": "RequestRedirect", "requestRedirect": modifier}]}
        resolution = resolved({**redirecting, "matches": [{"path": {"type": "Exact", "value": "/a"}}]})
        assert conditions_of(resolution)["Accepted"] == ("False", "UnsupportedValue")

    @pytest.mark.parametrize("kind", ["URLRewrite", "CORS", "ExtensionRef", "Future"])
    def test_other_filters_fail_their_rule(self, kind):
        resolution = resolved(web(filters=[{"type": kind}]))
        assert conditions_of(resolution)["Accepted"] == ("False", "UnsupportedValue")
        assert rules_of(resolution)[0].failure[0] == 14

    def test_a_grpc_route_cannot_redirect(self):
        redirecting = rule(filters=[{"type": "RequestRedirect", "requestRedirect": {}}])
        resolution = resolve_items(gateway(), route(redirecting), service())
        assert conditions(parent_of(resolution))["Accepted"] == ("False", "UnsupportedValue")


class TestTimeouts:
    @pytest.mark.parametrize(
        ("timeouts", "seconds"),
        [
            ({}, 0.0),
            ({"request": "0s"}, 0.0),
            ({"request": "10s"}, 10.0),
            ({"request": "1h1m1s1ms"}, 3661.001),
            ({"request": "10s", "backendRequest": "500ms"}, 0.5),
            ({"request": "0s", "backendRequest": "2m"}, 120.0),
        ],
    )
    def test_durations(self, timeouts, seconds):
        assert rules_of(resolved(web(timeouts=timeouts)))[0].timeout == pytest.approx(seconds)

    @pytest.mark.parametrize("text", ["10", "1d", "-1s", "1.5s", "1s1s1s1s1s", 5])
    def test_what_is_no_duration_drops_its_rule(self, text):
        resolution = resolved(web(timeouts={"request": text}))
        assert conditions_of(resolution)["Accepted"] == ("False", "UnsupportedValue")
        assert resolution.problems[0].path == "spec.rules[0].timeouts.request"
