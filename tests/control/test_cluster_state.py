"""ClusterState: single objects come and go, and the counter of their kind tells."""

import pytest

from pygw.control.cluster_state import ClusterState, creation_time


def service(name, port=80):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": port}]},
    }


def test_starts_empty():
    state = ClusterState()
    assert dict(state.objects("GRPCRoute")) == {}
    assert state.find("GRPCRoute", "default", "a") is None
    assert state.generation("GRPCRoute") == 0


def test_apply_and_delete_move_the_generation_of_their_kind_only():
    state = ClusterState()
    assert state.apply(service("a"))
    assert state.generation("Service") == 1
    assert not state.apply(service("a"))  # equal: nothing changed
    assert state.generation("Service") == 1
    assert state.apply(service("a", 81))
    assert state.find("Service", "default", "a") == service("a", 81)
    assert not state.delete("Service", "other", "a")
    assert not state.delete("GRPCRoute", "default", "a")
    assert state.delete("Service", "default", "a")
    assert state.generation("Service") == 3
    assert state.generation("GRPCRoute") == 0


def test_an_equal_object_keeps_its_identity():
    state = ClusterState()
    first = service("a")
    state.apply(first)
    state.apply(service("a"))
    assert state.find("Service", "default", "a") is first


def test_cluster_scoped_objects_have_no_namespace():
    state = ClusterState()
    state.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod"}})
    assert list(state.objects("Namespace")) == [("", "prod")]


def test_takes_whole_kinds():
    state = ClusterState({"Service": {("default", "a"): service("a")}})
    assert state.kinds() == ["Service"]
    assert state.generation("Service") == 1


@pytest.mark.parametrize(
    ("written", "created"),
    [
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
        ("0999-01-02T03:04:05Z", "0999-01-02T03:04:05Z"),  # as a text it is before those of later years
        ("0001-01-01T00:00:00+10:00", ""),  # a date-time to the schema, but in UTC it has no year
        ("9999-12-31T23:59:59-10:00", ""),
        ("yesterday", ""),
        (None, ""),
    ],
)
def test_creation_time_is_in_utc_or_unknown(written, created):
    assert creation_time({"metadata": {"creationTimestamp": written}}) == created
