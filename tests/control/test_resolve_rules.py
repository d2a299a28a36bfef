"""resolve: the rules of a GRPCRoute: matches, filters, and what happens to a rule that cannot be served."""

import pytest

from pygw.model import HeaderMatch, HeaderModifier, MatchConfig, MirrorConfig
from tests.doubles.objects import (
    conditions,
    gateway,
    listener_of,
    message,
    parent_of,
    ref,
    resolve_items,
    route,
    rule,
    service,
)

EXTENSION = {"type": "ExtensionRef", "extensionRef": {"group": "example.com", "kind": "Auth", "name": "jwt"}}
SAYS = "filter ExtensionRef example.com/Auth jwt is not supported"


def resolved(*rules, **spec):
    return resolve_items(gateway(), route(*rules, **spec), service(), service("shadow"))


def rules_of(resolution):
    return resolution.config.routes["GRPCRoute/default/r"].rules


def problems_of(resolution):
    return [(one.severity, one.path) for one in resolution.problems]


def modifier(kind="Request", **edits):
    name = f"{kind}HeaderModifier"
    return {"type": name, name[0].lower() + name[1:]: edits}


def header(name, value="v"):
    return {"name": name, "value": value}


def mirror(name="shadow", **rest):
    return {"type": "RequestMirror", "requestMirror": {"backendRef": ref(name), **rest}}


class TestMatches:
    @pytest.mark.parametrize(
        ("matches", "expected"),
        [
            pytest.param([], [MatchConfig()], id="none: every call"),
            pytest.param([{}], [MatchConfig()], id="an empty match"),
            pytest.param(
                [{"method": {"service": "a.B", "method": "C"}}], [MatchConfig("a.B", False, "C")], id="exact by default"
            ),
            pytest.param(
                [{"method": {"type": "RegularExpression", "service": "a.*"}}],
                [MatchConfig("a.*", True)],
                id="regex of a service",
            ),
            pytest.param(
                [{"method": {"type": "RegularExpression", "method": "G|S"}}],
                [MatchConfig(method="G|S", method_is_regex=True)],
                id="regex of a method",
            ),
            pytest.param(
                [{"headers": [header("X-A", "1"), header("x-b", "2")]}],
                [MatchConfig(headers=(HeaderMatch("x-a", "1"), HeaderMatch("x-b", "2")))],
                id="header names in lower case",
            ),
            pytest.param(
                [{"headers": [header("X-A", "1"), header("x-a", "2")]}],
                [MatchConfig(headers=(HeaderMatch("x-a", "1"),))],
                id="of equivalent names the first counts",
            ),
            pytest.param(
                [{"headers": [{**header("a", "1|2"), "type": "RegularExpression"}]}],
                [MatchConfig(headers=(HeaderMatch("a", "1|2", True),))],
                id="regex of a header",
            ),
            pytest.param([{}, {"method": {"service": "x"}}], [MatchConfig(), MatchConfig("x")], id="two"),
        ],
    )
    def test_matches(self, matches, expected):
        assert list(rules_of(resolved(rule(matches=matches)))[0].matches) == expected

    def test_names_and_places(self):
        first, second = rules_of(resolved(rule(name="one"), rule()))
        assert (first.index, first.name, second.index, second.name) == (0, "one", 1, None)

    @pytest.mark.parametrize(
        ("created", "expected"),
        [
            (None, ""),
            ("2024-03-01T12:00:00Z", "2024-03-01T12:00:00Z"),
            ("2024-03-01T12:00:00.999999Z", "2024-03-01T12:00:00Z"),
            ("2024-03-01T12:00:00+02:00", "2024-03-01T10:00:00Z"),
            ("2024-03-01T12:00:00", "2024-03-01T12:00:00Z"),
            ("yesterday", ""),
        ],
    )
    def test_creation(self, created, expected):
        item = route(hostnames=["A.example.com", "a.example.com"])
        item["metadata"]["creationTimestamp"] = created
        config = resolve_items(gateway(), item, service()).config.routes["GRPCRoute/default/r"]
        assert config.created == expected
        assert config.hostnames == ("a.example.com",)


class TestInvalidPatterns:
    BAD = pytest.mark.parametrize(
        ("match", "path"),
        [
            ({"method": {"type": "RegularExpression", "service": "a("}}, "method.service"),
            ({"method": {"type": "RegularExpression", "service": "a", "method": "[b"}}, "method.method"),
            ({"method": {"type": "RegularExpression", "service": r"(a)\1"}}, "method.service"),  # not in RE2
            ({"headers": [{**header("x", "*"), "type": "RegularExpression"}]}, "headers[0].value"),
        ],
    )

    @BAD
    def test_its_rule_is_dropped(self, match, path):
        resolution = resolved(rule(), rule(matches=[{}, match]))
        assert [one.index for one in rules_of(resolution)] == [0]
        assert conditions(parent_of(resolution)) == {
            "Accepted": ("True", "Accepted"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
            "PartiallyInvalid": ("True", "UnsupportedValue"),
        }
        assert message(parent_of(resolution), "PartiallyInvalid").startswith(f"Dropped Rule 1: matches[1].{path}: ")
        assert problems_of(resolution) == [("error", f"spec.rules[1].matches[1].{path}")]
        assert listener_of(resolution)["attachedRoutes"] == 1

    @BAD
    def test_no_rule_is_left(self, match, path):
        resolution = resolved(rule(matches=[match]))
        assert resolution.config.routes == {}
        assert conditions(parent_of(resolution)) == {
            "Accepted": ("False", "UnsupportedValue"), "ResolvedRefs": ("True", "ResolvedRefs"),
        }  # fmt: skip
        assert message(parent_of(resolution), "Accepted").startswith("Dropped Rule 0: ")
        assert listener_of(resolution)["attachedRoutes"] == 0

    def test_an_unknown_type_is_unsupported(self):
        resolution = resolved(rule(), rule(matches=[{"method": {"type": "Glob", "service": "*"}}]))
        assert [one.index for one in rules_of(resolution)] == [0]
        assert "match type Glob is not supported" in message(parent_of(resolution), "PartiallyInvalid")

    def test_what_matches_nothing_serves_nothing_but_its_backends_are_judged(self):
        bad = {"method": {"type": "RegularExpression", "service": "("}}
        resolution = resolved(rule(), rule(ref("missing"), matches=[bad]))
        assert conditions(parent_of(resolution))["ResolvedRefs"] == ("False", "BackendNotFound")


class TestUnsupportedFilters:
    def test_the_rule_keeps_matching_and_answers_14(self):
        resolution = resolved(rule(), rule(filters=[EXTENSION]))
        failing = rules_of(resolution)[1]
        assert failing.failure == (14, f"GRPCRoute default/r rule 1: {SAYS}")
        assert conditions(parent_of(resolution))["Accepted"] == ("True", "Accepted")
        assert message(parent_of(resolution), "PartiallyInvalid") == f"Dropped Rule 1: answers 14, {SAYS}"
        assert problems_of(resolution) == [("error", "spec.rules[1].filters[0]")]

    def test_also_when_no_rule_is_left(self):
        """Its calls must not fall to another route, which may be less strict."""
        resolution = resolved(rule(filters=[EXTENSION]))
        assert conditions(parent_of(resolution))["Accepted"] == ("False", "UnsupportedValue")
        assert message(parent_of(resolution), "Accepted") == f"Dropped Rule 0: answers 14, {SAYS}"
        assert listener_of(resolution)["attachedRoutes"] == 0
        assert rules_of(resolution)[0].failure[0] == 14
        assert resolution.config.listeners[0].routes == ("GRPCRoute/default/r",)

    def test_an_unknown_type(self):
        resolution = resolved(rule(filters=[{"type": "RequestRedirect"}]))
        assert rules_of(resolution)[0].failure[1].endswith("filter RequestRedirect is not supported")

    def test_on_a_backend_ref_its_share_answers_14(self):
        resolution = resolved(rule(ref(), ref("shadow", filters=[EXTENSION])))
        (only,) = rules_of(resolution)
        assert only.failure is None
        assert [one.failure for one in only.backends] == [None, SAYS]
        text = message(parent_of(resolution), "PartiallyInvalid")
        assert text == f"Dropped Rule 0: backendRefs[1] answers 14, {SAYS}"
        assert problems_of(resolution) == [("error", "spec.rules[0].backendRefs[1].filters[0]")]

    def test_on_every_backend_ref(self):
        resolution = resolved(rule(ref(filters=[EXTENSION])))
        assert conditions(parent_of(resolution))["Accepted"] == ("False", "UnsupportedValue")
        assert rules_of(resolution)[0].backends[0].failure == SAYS


class TestModifiers:
    def test_both_kinds_on_both_levels(self):
        rest = {"set": [header("A", "1")], "add": [header("b", "2"), header("C", "3")], "remove": ["D", "e", "d"]}
        expected = HeaderModifier(set=(("a", "1"),), add=(("b", "2"), ("c", "3")), remove=("d", "e"))
        filters = [modifier(**rest), modifier("Response", **rest)]
        (only,) = rules_of(resolved(rule(ref(filters=filters), filters=filters)))
        assert (only.request_headers, only.response_headers) == (expected, expected)
        assert (only.backends[0].request_headers, only.backends[0].response_headers) == (expected, expected)

    def test_of_equivalent_names_the_first_wins(self):
        edits = modifier(set=[header("X-A", "1"), header("x-a", "2")], add=[header("x-a", "3")])
        resolution = resolved(rule(filters=[edits]))
        assert rules_of(resolution)[0].request_headers == HeaderModifier(set=(("x-a", "1"),), add=(("x-a", "3"),))
        assert problems_of(resolution) == [("warning", "spec.rules[0].filters[0].requestHeaderModifier.set[1]")]

    @pytest.mark.parametrize(
        "name",
        ["grpc-timeout", "Grpc-Status", ":path", "TE", "content-type", "Host", "connection", "Keep-Alive",
         "proxy-connection", "transfer-encoding", "upgrade", "content-length"],
    )  # fmt: skip
    def test_fields_that_cannot_be_modified(self, name):
        edits = modifier(set=[header(name), header("ok")], add=[header(name)], remove=[name])
        resolution = resolved(rule(filters=[edits]))
        assert rules_of(resolution)[0].request_headers == HeaderModifier(set=(("ok", "v"),))
        assert conditions(parent_of(resolution)) == {
            "Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs"),
        }  # fmt: skip
        path = "spec.rules[0].filters[0].requestHeaderModifier"
        assert sorted(problems_of(resolution)) == [
            ("warning", f"{path}.add[0]"), ("warning", f"{path}.remove[0]"), ("warning", f"{path}.set[0]"),
        ]  # fmt: skip

    def test_nothing_is_left(self):
        assert rules_of(resolved(rule(filters=[modifier(remove=["te"])])))[0].request_headers is None

    @pytest.mark.parametrize(
        ("value", "expected"),
        [("a b", "a b"), (" a\t", "a"), ("a\nb", None), ("a\x00", None), ("ä", None), (" ", "")],
    )
    def test_values(self, value, expected):
        (only,) = rules_of(resolved(rule(filters=[modifier(set=[header("x", value)])])))
        assert only.request_headers == (None if expected is None else HeaderModifier(set=(("x", expected),)))


class TestMirrors:
    @pytest.mark.parametrize(
        ("rest", "expected"),
        [
            ({}, (100, 100)),
            ({"percent": 42}, (42, 100)),
            ({"percent": 0}, None),
            ({"fraction": {"numerator": 1, "denominator": 3}}, (1, 3)),
            ({"fraction": {"numerator": 5}}, (5, 100)),
            ({"fraction": {"numerator": 0, "denominator": 5}}, None),
        ],
    )
    def test_shares(self, rest, expected):
        (only,) = rules_of(resolved(rule(filters=[mirror(**rest)])))
        assert only.mirrors == (() if expected is None else (MirrorConfig("default/shadow:50051", *expected),))

    def test_repeated_and_on_a_backend_ref(self):
        resolution = resolved(rule(ref(filters=[mirror()]), filters=[mirror(), mirror("echo", percent=1)]))
        (only,) = rules_of(resolution)
        assert [one.backend for one in only.mirrors] == ["default/shadow:50051", "default/echo:50051"]
        assert [one.backend for one in only.backends[0].mirrors] == ["default/shadow:50051"]
        assert set(resolution.config.backends) == {"default/shadow:50051", "default/echo:50051"}

    @pytest.mark.parametrize("level", ["rule", "backendRef"])
    def test_a_bad_reference_is_reported_and_not_configured(self, level):
        filters = [mirror("missing")]
        item = rule(filters=filters) if level == "rule" else rule(ref(filters=filters))
        resolution = resolved(item)
        (only,) = rules_of(resolution)
        assert only.mirrors == only.backends[0].mirrors == ()
        assert only.failure is None
        assert conditions(parent_of(resolution))["ResolvedRefs"] == ("False", "BackendNotFound")
        place = "spec.rules[0]" if level == "rule" else "spec.rules[0].backendRefs[0]"
        assert problems_of(resolution) == [("error", f"{place}.filters[0].requestMirror.backendRef")]


class TestBackends:
    def test_no_backend_refs_answer_12(self):
        resolution = resolved({"matches": []})
        assert rules_of(resolution)[0].failure == (12, "GRPCRoute default/r rule 0 has no backendRefs")
        assert conditions(parent_of(resolution))["Accepted"] == ("True", "Accepted")
        assert problems_of(resolution) == [("warning", "spec.rules[0].backendRefs")]

    def test_all_weights_0(self):
        resolution = resolved(rule(ref(weight=0), ref("shadow", weight=0)))
        assert [one.weight for one in rules_of(resolution)[0].backends] == [0, 0]
        assert rules_of(resolution)[0].failure is None  # the picker finds none, and answers 14
        assert problems_of(resolution) == [("warning", "spec.rules[0].backendRefs")]

    def test_default_weight(self):
        assert rules_of(resolved(rule()))[0].backends[0].weight == 1

    def test_no_rules(self):
        item = route()
        item["spec"]["rules"] = []
        resolution = resolve_items(gateway(), item)
        assert conditions(parent_of(resolution))["Accepted"] == ("True", "Accepted")
        assert resolution.config.routes == {}
        assert problems_of(resolution) == [("warning", "spec")]
