"""resolve: `.status` as Kubernetes would hold it: generations, times, and what belongs to others (Gateway API 2.5)."""

import copy

import pytest

from pygw.control.cluster_state import key_of
from pygw.control.conditions import Condition
from pygw.control.resolve import ResolveOptions, resolve, with_programmed
from pygw.control.status import Stamp, merge_conditions
from tests.doubles.objects import (
    CONTROLLER,
    GROUP,
    LATER,
    NOW,
    conditions,
    gateway,
    gateway_class,
    gateway_of,
    listener,
    listener_of,
    message,
    parent_of,
    ref,
    resolve_items,
    route,
    rule,
    service,
    state_of,
)

OLD = "2020-01-01T00:00:00Z"
OWN = frozenset({"Accepted", "Programmed"})


def condition(kind, status="True", reason="R", generation=1, since=OLD, text="m"):
    return {
        "type": kind, "status": status, "reason": reason, "message": text,
        "observedGeneration": generation, "lastTransitionTime": since,
    }  # fmt: skip


class TestMergeConditions:
    STAMP = Stamp(generation=3, now=NOW)

    def merge(self, verdicts, *histories):
        return merge_conditions(verdicts, OWN, self.STAMP, *histories)

    def test_new_ones(self):
        merged = self.merge([Condition("Accepted", "True", "A", "m"), Condition("Programmed", "False", "B")], [])
        assert merged == [
            condition("Accepted", reason="A", generation=3, since=NOW),
            condition("Programmed", "False", "B", 3, NOW, ""),
        ]

    def test_the_time_moves_only_with_the_status(self):
        verdict = Condition("Accepted", "True", "New", "new")
        (same,) = self.merge([verdict], [condition("Accepted")])
        assert same == condition("Accepted", "True", "New", 3, OLD, "new")
        (moved,) = self.merge([verdict], [condition("Accepted", "False")])
        assert moved["lastTransitionTime"] == NOW

    def test_earlier_arrays_are_asked_too(self):
        (found,) = self.merge([Condition("Accepted", "True", "A")], [], [condition("Accepted")])
        assert found["lastTransitionTime"] == OLD

    def test_conditions_of_others_stay_where_they_are(self):
        theirs = [condition("example.com/Billed"), condition("Accepted"), condition("Ready", "Unknown")]
        merged = self.merge([Condition("Programmed", "True", "P"), Condition("Accepted", "True", "A")], theirs)
        assert [item["type"] for item in merged] == ["example.com/Billed", "Accepted", "Ready", "Programmed"]
        assert merged[0] is theirs[0]
        assert merged[2] is theirs[2]

    def test_ours_go_when_they_no_longer_hold(self):
        merged = self.merge([Condition("Accepted", "True", "A")], [condition("Programmed"), condition("Accepted")])
        assert [item["type"] for item in merged] == ["Accepted"]

    def test_what_was_seen_on_a_newer_generation_stays(self):
        newer = condition("Accepted", "False", generation=4)
        assert self.merge([Condition("Accepted", "True", "A")], [newer]) == [newer]

    def test_the_defaults_of_the_crd_are_replaced(self):
        pending = {
            "type": "Accepted", "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }  # fmt: skip
        (found,) = self.merge([Condition("Accepted", "True", "A")], [pending])
        assert (found["status"], found["lastTransitionTime"]) == ("True", NOW)


def everything(resolution):
    for key, status in resolution.statuses.items():
        yield from ((key, item) for item in status.get("conditions", ()))
        for part in [*status.get("listeners", ()), *status.get("parents", ())]:
            yield from ((key, item) for item in part["conditions"])


@pytest.mark.parametrize(("generation", "observed"), [(None, 1), (1, 1), (7, 7)])
def test_observed_generation(generation, observed):
    items = [gateway_class(), gateway(), route(), service()]
    for item in items:
        if generation is not None:
            item["metadata"]["generation"] = generation
    found = list(everything(resolve_items(*items)))
    assert len(found) == 2 + 3 + 4 + 2
    assert {item["observedGeneration"] for _, item in found} == {observed}
    assert {item["lastTransitionTime"] for _, item in found} == {NOW}
    assert {tuple(sorted(item)) for _, item in found} == {
        ("lastTransitionTime", "message", "observedGeneration", "reason", "status", "type")
    }


def test_times_come_from_the_previous_resolution():
    state = state_of(gateway_class(), gateway(), route())  # no Service
    first = resolve(state, ResolveOptions(now=NOW))
    state.apply(service())
    second = resolve(state, ResolveOptions(now=LATER, previous=first))
    moved = {(key[0], item["type"]) for key, item in everything(second) if item["lastTransitionTime"] == LATER}
    assert moved == {("GRPCRoute", "ResolvedRefs")}


def test_times_come_from_the_status_in_the_object():
    given = [gateway_class(), gateway(), route(), service()]
    first = resolve_items(*given)
    written = [{**item, "status": first.statuses[(item["kind"], *key_of(item))]} for item in given[:3]]
    again = resolve_items(*written, given[3], now=LATER)
    assert again.statuses == first.statuses  # so nothing needs to be written


def test_parents_of_other_controllers_are_not_touched():
    theirs = {"parentRef": {"name": "gw"}, "controllerName": "example.com/x", "conditions": [condition("Accepted")]}
    gone = {"parentRef": {"name": "old"}, "controllerName": CONTROLLER, "conditions": [condition("Accepted")]}
    item = route()
    item["status"] = {"parents": [gone, theirs]}
    parents = resolve_items(gateway(), item, service()).statuses["GRPCRoute", "default", "r"]["parents"]
    assert [(one["parentRef"]["name"], one["controllerName"]) for one in parents] == [
        ("gw", "example.com/x"), ("gw", CONTROLLER),
    ]  # fmt: skip
    assert parents[0] is theirs


def test_our_entries_go_with_the_last_parent_of_ours():
    item = route(parents=[{"name": "missing"}])
    item["status"] = {"parents": [{"parentRef": {"name": "gw"}, "controllerName": CONTROLLER, "conditions": []}]}
    assert resolve_items(gateway(), item).statuses["GRPCRoute", "default", "r"] == {"parents": []}


def test_a_status_without_anything_of_ours_is_not_ours_to_write():
    theirs = {"parentRef": {"name": "x"}, "controllerName": "example.com/x", "conditions": []}
    item = route(parents=[{"name": "missing"}])
    item["status"] = {"parents": [theirs]}
    assert ("GRPCRoute", "default", "r") not in resolve_items(gateway(), item).statuses


def test_a_parent_ref_is_known_again_without_its_defaults():
    item = route()
    item["status"] = {
        "parents": [{"parentRef": {"name": "gw"}, "controllerName": CONTROLLER, "conditions": [condition("Accepted")]}]
    }
    accepted = parent_of(resolve_items(gateway(), item, service()))["conditions"][0]
    assert accepted["lastTransitionTime"] == OLD


def test_foreign_fields_of_a_gateway_status_stay_and_lost_listeners_go():
    item = gateway()
    item["status"] = {
        "addresses": [{"type": "IPAddress", "value": "192.0.2.99"}],
        "attachedListenerSets": 2,
        "futureField": 2,
        "conditions": [condition("example.com/Billed")],
        "listeners": [{"name": "gone", "attachedRoutes": 1, "supportedKinds": [], "conditions": []}],
    }
    status = gateway_of(resolve_items(item))
    assert status["futureField"] == 2
    assert "attachedListenerSets" not in status  # none is allowed
    assert "addresses" not in status
    assert [one["name"] for one in status["listeners"]] == ["grpc"]
    assert status["conditions"][0] == condition("example.com/Billed")


def test_messages_fit_what_the_api_server_takes():
    references = [ref(f"missing-{number}-{'x' * 200}") for number in range(16)]
    rules = [rule(*references) for _ in range(16)]
    resolution = resolve_items(gateway(), route(*rules))
    text = message(parent_of(resolution), "ResolvedRefs")
    assert len(text) == 32768
    assert text.endswith("...")


class TestWithProgrammed:
    def resolved(self, **options):
        items = [gateway(listener("a", 80), listener("b", 81), addresses=[{"value": "192.0.2.7"}]), route(), service()]
        return resolve_items(*items, **options)

    def test_nothing_failed(self):
        resolution = self.resolved()
        assert with_programmed(resolution, {}) is resolution

    def test_a_port(self):
        resolution = self.resolved()
        told = with_programmed(resolution, {81: "Address already in use"}, now=LATER)
        assert conditions(listener_of(told, "a"))["Programmed"] == ("True", "Programmed")
        assert conditions(listener_of(told, "b"))["Accepted"] == ("False", "PortUnavailable")
        assert conditions(listener_of(told, "b"))["Programmed"] == ("False", "Invalid")
        assert "port 81: Address already in use" in message(listener_of(told, "b"), "Accepted")
        assert conditions(gateway_of(told)) == {
            "Accepted": ("True", "ListenersNotValid"), "Programmed": ("True", "Programmed"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        }  # fmt: skip
        assert listener_of(told, "b")["attachedRoutes"] == 1
        assert told.config == resolution.config
        assert conditions(listener_of(resolution, "b"))["Accepted"][0] == "True"  # the first one stays as it was

    def test_every_port(self):
        told = with_programmed(self.resolved(), {80: "taken", 81: "taken"})
        assert conditions(gateway_of(told)) == {
            "Accepted": ("False", "ListenersNotValid"), "Programmed": ("False", "Invalid"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        }  # fmt: skip

    def test_an_address(self):
        told = with_programmed(self.resolved(), {}, {"192.0.2.7": "Cannot assign requested address"}, now=LATER)
        assert conditions(gateway_of(told)) == {
            "Accepted": ("True", "Accepted"), "Programmed": ("False", "AddressNotUsable"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        }  # fmt: skip
        assert "addresses" not in gateway_of(told)

    def test_a_lasting_failure_keeps_its_time(self):
        state = state_of(gateway(), route())
        failed = with_programmed(resolve(state, ResolveOptions(now=NOW)), {80: "taken"}, now=NOW)
        state.apply(service())
        again = resolve(state, ResolveOptions(now=LATER, previous=failed))
        again = with_programmed(again, {80: "taken"}, now=LATER)
        assert {item["lastTransitionTime"] for item in listener_of(again)["conditions"]} == {NOW}
        mended = resolve(state, ResolveOptions(now=LATER, previous=again))
        times = {item["type"]: item["lastTransitionTime"] for item in listener_of(mended)["conditions"]}
        assert times == {"Accepted": LATER, "Programmed": LATER, "ResolvedRefs": NOW, "Conflicted": NOW}


def test_resolving_changes_no_object():
    items = [gateway_class(), gateway(), route(), service()]
    for item in items[:3]:
        item["status"] = {"conditions": [condition("Ready")]}
    before = copy.deepcopy(items)
    resolve_items(*items)
    assert items == before


def test_the_parent_ref_is_copied_with_its_defaults():
    parents = [{"name": "gw", "namespace": "default", "sectionName": "grpc"}]
    parent = parent_of(resolve_items(gateway(), route(parents=parents), service()))
    assert parent["parentRef"] == {
        "group": GROUP, "kind": "Gateway", "name": "gw", "namespace": "default", "sectionName": "grpc",
    }  # fmt: skip
