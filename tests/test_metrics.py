"""Merging the workers' metrics, and the Prometheus text (read back with prometheus_client's own parser)."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pygw.metrics import Own, Totals, render


def worker(calls: int, open_connections: int, counts: list[int]) -> dict[str, Any]:
    return {
        "counters": [
            ["pygw_calls_total", {"service": "a.B", "grpc_status": "0"}, calls],
            ["pygw_calls_total", {"service": 'q"\\\n', "grpc_status": "14"}, 1],
            ["pygw_downstream_connections", {}, open_connections],
        ],
        "histograms": [["pygw_call_duration_seconds", {"service": "a.B"}, [0.1, 1.0], counts, 1.5]],
    }


def samples(totals: Totals, own: list[Own] | None = None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, content_type = render(totals, {"pygw_calls_total": "Calls that ended."}, own or [])
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_workers_add_up() -> None:
    totals = Totals()
    totals.add(worker(3, 2, [1, 2, 0]))
    totals.add(worker(4, 1, [0, 1, 5]))
    found = samples(totals)
    assert found["pygw_calls_total", (("grpc_status", "0"), ("service", "a.B"))] == 7
    assert found["pygw_calls_total", (("grpc_status", "14"), ("service", 'q"\\\n'))] == 2
    assert found["pygw_downstream_connections", ()] == 3
    bucket = "pygw_call_duration_seconds_bucket"
    assert [found[bucket, (("le", le), ("service", "a.B"))] for le in ("0.1", "1.0", "+Inf")] == [1, 4, 9]
    assert found["pygw_call_duration_seconds_sum", (("service", "a.B"),)] == 3.0
    assert found["pygw_call_duration_seconds_count", (("service", "a.B"),)] == 9


def test_the_dead_leave_their_counters_and_not_their_gauges() -> None:
    dead = Totals()
    dead.add(worker(3, 2, [1, 2, 0]), with_gauges=False)
    totals = Totals()
    totals.add(dead.to_json())
    totals.add(worker(1, 1, [0, 0, 0]))
    found = samples(totals)
    assert found["pygw_calls_total", (("grpc_status", "0"), ("service", "a.B"))] == 4
    assert found["pygw_downstream_connections", ()] == 1


def test_to_json_and_back_is_the_same() -> None:
    totals = Totals()
    totals.add(worker(3, 2, [1, 2, 0]))
    again = Totals()
    again.add(totals.to_json())
    assert again == totals


def test_other_bounds_replace_and_do_not_break() -> None:
    totals = Totals()
    totals.add(worker(1, 1, [5, 5, 5]))
    totals.add({"histograms": [["pygw_call_duration_seconds", {"service": "a.B"}, [0.5], [1, 2], 0.7]]})
    assert samples(totals)["pygw_call_duration_seconds_count", (("service", "a.B"),)] == 3


def test_help_and_type() -> None:
    totals = Totals()
    totals.add(worker(1, 1, [0, 0, 0]))
    text = render(totals, {"pygw_calls_total": "Calls that ended."}, [])[0].decode()
    assert "# HELP pygw_calls_total Calls that ended.\n# TYPE pygw_calls_total counter\n" in text
    assert "# TYPE pygw_downstream_connections gauge\n" in text
    assert "# TYPE pygw_call_duration_seconds histogram\n" in text


def test_own_metrics() -> None:
    own = [
        Own("pygw_ready", "Ready.", [({}, True)]),
        Own("pygw_worker_restarts_total", "Restarts.", [({"worker": "0"}, 2), ({"worker": "1"}, 0)]),
        Own("pygw_nothing", "No series.", []),
    ]
    found = samples(Totals(), own)
    assert found["pygw_ready", ()] == 1
    assert found["pygw_worker_restarts_total", (("worker", "0"),)] == 2
    assert not any(name == "pygw_nothing" for name, _ in found)


def test_series_with_different_labels_share_a_family() -> None:
    totals = Totals()
    totals.add({"counters": [["pygw_x_total", {"a": "1"}, 1], ["pygw_x_total", {"b": "2"}, 2]]})
    found = samples(totals)
    assert found["pygw_x_total", (("a", "1"), ("b", ""))] == 1
    assert found["pygw_x_total", (("a", ""), ("b", "2"))] == 2


def test_openmetrics_when_asked_for() -> None:
    totals = Totals()
    totals.add(worker(1, 1, [0, 0, 0]))
    body, content_type = render(totals, {}, [], "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
