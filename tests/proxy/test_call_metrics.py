"""Call metrics: what is counted where, and that no peer can make the number of series grow without bound."""

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygw.proxy.call_metrics import BOUNDS, HELP, LIMITS, CallMetrics, count_everything, record_call

ROUTE, BACKEND = b"default/r1", b"default/greeter:50051"
LABELS = {"service": "pkg.Greeter", "method": "Hello", "route": "default/r1", "backend": "default/greeter:50051"}


def rows(metrics, name):
    return [(labels, number) for row, labels, number in metrics.collect()["counters"] if row == name]


def total(metrics, name):
    return sum(number for _, number in rows(metrics, name))


def test_one_call():
    metrics = CallMetrics(10)
    record_call(
        metrics, b"/pkg.Greeter/Hello", ROUTE, BACKEND, grpc_status=5, duration_us=2500, received=7, sent=11,
        requests=1, responses=2,
    )
    assert rows(metrics, "pygw_calls_total") == [({**LABELS, "grpc_status": "5"}, 1)]
    assert rows(metrics, "pygw_calls_started_total") == [(LABELS, 1)]
    assert rows(metrics, "pygw_calls_open") == [(LABELS, 0)]
    assert rows(metrics, "pygw_call_received_bytes_total") == [(LABELS, 7)]
    assert rows(metrics, "pygw_call_sent_bytes_total") == [(LABELS, 11)]
    assert rows(metrics, "pygw_request_messages_total") == [(LABELS, 1)]
    assert rows(metrics, "pygw_response_messages_total") == [(LABELS, 2)]
    [[name, labels, bounds, counts, seconds]] = metrics.collect()["histograms"]
    assert (name, labels, tuple(bounds), seconds) == ("pygw_call_duration_seconds", LABELS, BOUNDS, 0.0025)
    assert counts == [0, 0, 1] + [0] * 12


def test_open_calls():
    metrics = CallMetrics(10)
    record_call(metrics, b"/a/B", ROUTE, BACKEND, ended=False)
    record_call(metrics, b"/a/B", ROUTE, BACKEND)
    assert total(metrics, "pygw_calls_open") == 1
    assert total(metrics, "pygw_calls_started_total") == 2
    assert total(metrics, "pygw_calls_total") == 1


@pytest.mark.parametrize("status", [*range(17), -1, 17, 99, 2**31 - 1])
def test_statuses(status):
    metrics = CallMetrics(10)
    record_call(metrics, b"/a/B", ROUTE, BACKEND, grpc_status=status)
    [(labels, number)] = rows(metrics, "pygw_calls_total")
    assert number == 1
    assert labels["grpc_status"] == (str(status) if 0 <= status <= 16 else "none")


@given(st.one_of(st.integers(0, 2**63), st.sampled_from([round(b * 1e6) + d for b in BOUNDS for d in (-1, 0, 1)])))
def test_a_duration_counts_under_the_first_bound_that_is_not_less(duration_us):
    metrics = CallMetrics(1)
    record_call(metrics, b"/a/B", ROUTE, BACKEND, duration_us=duration_us)
    [[_, _, _, counts, _]] = metrics.collect()["histograms"]
    assert counts.index(1) == bisect_left([round(bound * 1e6) for bound in BOUNDS], duration_us)
    assert sum(counts) == 1


def test_a_series_keeps_its_address():
    metrics = CallMetrics(5000)
    first = record_call(metrics, b"/a/B", ROUTE, BACKEND)
    addresses = {record_call(metrics, b"/a/B%d" % i, ROUTE, BACKEND) for i in range(3000)}
    assert len(addresses) == 3000
    assert record_call(metrics, b"/a/B", ROUTE, BACKEND) == first
    assert {record_call(metrics, b"/a/B%d" % i, ROUTE, BACKEND) for i in range(3000)} == addresses
    assert metrics.series_count == 3001


def test_labels_that_only_divide_elsewhere_are_others():
    metrics = CallMetrics(10)
    keys = [(b"/a/B", b"r1", b"b"), (b"/a/B", b"r", b"1b"), (b"/a/Br", b"1", b"b"), (b"/a/B", b"r1", b"")]
    assert len({record_call(metrics, *key) for key in keys}) == 4
    assert metrics.series_count == 4


def test_beyond_the_limit_calls_count_as_other_of_their_route_and_backend():
    metrics = CallMetrics(2)
    for i in range(100):
        record_call(metrics, b"/a/B%d" % i, ROUTE, BACKEND)
    record_call(metrics, b"/a/B0", ROUTE, BACKEND)
    numbers = {labels["method"]: number for labels, number in rows(metrics, "pygw_calls_total")}
    assert numbers == {"B0": 2, "B1": 1, "_other": 98}
    assert {labels["route"] for labels, _ in rows(metrics, "pygw_calls_total")} == {"default/r1"}
    assert rows(metrics, "pygw_metric_series_overflow_total") == [({}, 98)]


def test_the_number_of_series_is_bounded_whatever_the_routes_are():
    metrics = CallMetrics(3)
    for i in range(1000):
        record_call(metrics, b"/a/B%d" % i, b"default/r%d" % i, b"default/b%d:1" % i)
        record_call(metrics, b"nonsense%d" % i, b"default/r%d" % i, b"default/b%d:1" % i)
    assert len(metrics.collect()["histograms"]) == 3 + 3 + 1
    assert total(metrics, "pygw_calls_total") == 2000
    everything_else = {"service": "_other", "method": "_other", "route": "_other", "backend": "_other"}
    assert everything_else in [labels for labels, _ in rows(metrics, "pygw_calls_open")]


def test_a_limit_of_zero():
    metrics = CallMetrics(0)
    record_call(metrics, b"/a/B", ROUTE, BACKEND)
    record_call(metrics, b"/a/B")
    assert total(metrics, "pygw_calls_total") == 2
    with pytest.raises(ValueError, match="max_series must be 0 or more, not -1"):
        CallMetrics(-1)


@pytest.mark.parametrize(
    "path",
    [
        b"", b"/", b"//", b"/a", b"/a/", b"//b", b"/a/b/", b"/a/b/c", b"/a/b?x=1", b"a/b", b"*", b"/a/" + b"b" * 254,
        b"/a/b c", b"/a/\xff", "/a/é".encode(), b"/a/b\0", b"/_other/_other",
        b"/" + b"a" * 100_000 + b"/b",
    ],
)
def test_what_is_no_method_gets_no_series_of_its_own(path):
    metrics = CallMetrics(10)
    record_call(metrics, path, ROUTE, BACKEND)
    [(labels, _)] = rows(metrics, "pygw_calls_total")
    assert (labels["service"], labels["method"], labels["route"]) == ("_other", "_other", "default/r1")
    assert metrics.series_count == 0


def test_calls_without_a_route_share_one_series():
    metrics = CallMetrics(10)
    for i in range(50):
        record_call(metrics, b"/scan/%d" % i, grpc_status=12)
    [(labels, number)] = rows(metrics, "pygw_calls_total")
    assert number == 50
    assert labels == {"service": "_other", "method": "_other", "route": "", "backend": "", "grpc_status": "12"}


@given(st.lists(st.binary(min_size=1, max_size=3).map(lambda name: b"/a/" + name), max_size=30))
def test_no_two_series_have_the_same_labels(paths):
    metrics = CallMetrics(100)
    for path in [*paths, b"/_other/_other", b"/a/\xff", b"/a/\xfe"]:
        record_call(metrics, path, ROUTE, BACKEND)
    keys = [tuple(labels.items()) for labels, _ in rows(metrics, "pygw_calls_open")]
    assert len(keys) == len(set(keys))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"/a/B", b"/a/C", b"/b/B", b"/aa/B", b"", b"/x"]),
            st.sampled_from([b"", b"r1", b"r2", b"r1r2"]),
            st.sampled_from([b"", b"b1", b"b2"]),
            st.integers(-1, 17),
        ),
        max_size=60,
    ),
    st.integers(0, 8),
)
def test_nothing_is_lost(calls, limit):
    metrics = CallMetrics(limit)
    for path, route, backend, status in calls:
        record_call(metrics, path, route, backend, grpc_status=status)
    assert total(metrics, "pygw_calls_total") == len(calls)
    assert sum(sum(counts) for _, _, _, counts, _ in metrics.collect()["histograms"]) == len(calls)
    assert metrics.series_count <= limit
    assert len(metrics.collect()["histograms"]) <= 2 * limit + 2
    keys = [tuple(labels.items()) for labels, _ in rows(metrics, "pygw_calls_open")]
    assert len(keys) == len(set(keys)), "two series with the same labels"


def test_every_field_of_the_relay_counters_is_shown_once():
    numbers = [number for _, _, number in count_everything()]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    limits = [labels["limit"] for name, labels, _ in count_everything() if name == "pygw_limit_hits_total"]
    assert limits == list(LIMITS)
    gauges = {name for name, _, _ in count_everything() if HELP[name][0] == "gauge"}
    assert gauges == {
        "pygw_downstream_connections", "pygw_downstream_streams", "pygw_upstream_connections", "pygw_upstream_streams",
        "pygw_upstream_pending_calls", "pygw_held_request_bytes", "pygw_endpoints_ejected",
    }


def test_every_metric_has_a_help_text():
    metrics = CallMetrics(1)
    record_call(metrics, b"/a/B", ROUTE, BACKEND)
    collected = metrics.collect()
    names = {row[0] for row in [*count_everything(), *collected["counters"], *collected["histograms"]]}
    assert names == set(HELP)
    for name, (kind, text) in HELP.items():
        assert kind == ("histogram" if name.endswith("_seconds") else "counter" if name.endswith("_total") else "gauge")
        assert text.endswith(".")
