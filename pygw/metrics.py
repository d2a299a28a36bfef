"""Metrics: the workers' counters merged, and the whole as Prometheus text.

Workers give plain data (`Relay.metrics()`): "counters" rows [name, labels, value], of which those that do not end in
_total are gauges, and "histograms" rows [name, labels, bounds, counts, sum] with one count for each bound and one for
+Inf, not cumulative. What dead workers counted is kept, or counters would go backwards. The text format, its escaping
and the content negotiation are prometheus_client's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Labels = tuple[tuple[str, str], ...]
WorkerMetrics = Mapping[str, Any]


@dataclass(slots=True)
class Histogram:
    """One series of a histogram."""

    bounds: tuple[float, ...]
    counts: list[float]
    sum: float


@dataclass(slots=True)
class Totals:
    """Sums over workers, by metric name and labels."""

    counters: dict[str, dict[Labels, float]] = field(default_factory=dict)
    histograms: dict[str, dict[Labels, Histogram]] = field(default_factory=dict)

    def add(self, metrics: WorkerMetrics, with_gauges: bool = True) -> None:
        """Add what one worker said; without its gauges where the worker is dead."""
        for name, labels, value in metrics.get("counters", ()):
            if with_gauges or name.endswith("_total"):
                series = self.counters.setdefault(name, {})
                key = tuple(labels.items())
                series[key] = series.get(key, 0.0) + value
        for name, labels, bounds, counts, total in metrics.get("histograms", ()):
            self._add_histogram(name, tuple(labels.items()), tuple(bounds), counts, total)

    def to_json(self) -> dict[str, Any]:
        """As a worker would say it."""
        return {
            "counters": [[n, dict(k), value] for n, series in self.counters.items() for k, value in series.items()],
            "histograms": [
                [name, dict(key), list(one.bounds), one.counts, one.sum]
                for name, series in self.histograms.items()
                for key, one in series.items()
            ],
        }

    def _add_histogram(
        self, name: str, labels: Labels, bounds: tuple[float, ...], counts: list[float], total: float
    ) -> None:
        series = self.histograms.setdefault(name, {})
        known = series.get(labels)
        if known is None or known.bounds != bounds:  # other bounds: of a former release; they do not add up
            series[labels] = Histogram(bounds, list(counts), total)
        else:
            known.counts = [a + b for a, b in zip(known.counts, counts, strict=True)]
            known.sum += total


@dataclass(frozen=True, slots=True)
class Own:
    """A metric of the control process itself."""

    name: str
    help: str
    values: Iterable[tuple[Mapping[str, str], float]]


def render(totals: Totals, help_texts: Mapping[str, str], own: Iterable[Own], accept: str = "") -> tuple[bytes, str]:
    """The exposition and its content type, in the format that the Accept header asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Everything([*_families(totals, help_texts), *map(_own_family, own)]))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Everything(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families

    def describe(self) -> Iterable[Metric]:
        return []


def _families(totals: Totals, help_texts: Mapping[str, str]) -> Iterator[Metric]:
    for name, series in sorted(totals.counters.items()):
        label_names = _label_names(series)
        family = _simple_family(name, help_texts.get(name, ""), label_names)
        for labels, value in series.items():
            family.add_metric(_label_values(label_names, dict(labels)), value)
        yield family
    for name, histograms in sorted(totals.histograms.items()):
        label_names = _label_names(histograms)
        histogram_family = HistogramMetricFamily(name, help_texts.get(name) or name, labels=label_names)
        for labels, histogram in histograms.items():
            histogram_family.add_metric(
                _label_values(label_names, dict(labels)), list(_cumulative(histogram)), histogram.sum
            )
        yield histogram_family


def _own_family(own: Own) -> Metric:
    values = list(own.values)
    label_names = list(values[0][0]) if values else []
    family = _simple_family(own.name, own.help, label_names)
    for labels, value in values:
        family.add_metric(_label_values(label_names, labels), value)
    return family


def _simple_family(name: str, text: str, label_names: list[str]) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(name, text or name, labels=label_names)


def _cumulative(histogram: Histogram) -> Iterator[tuple[str, float]]:
    total = 0.0
    for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
        total += count
        yield bound, total


def _label_names(series: Iterable[Labels]) -> list[str]:
    """All label names of a metric, for a family has one set; to Prometheus an empty label is as good as none."""
    names: dict[str, None] = {}
    for labels in series:
        names.update(dict.fromkeys(name for name, _ in labels))
    return list(names)


def _label_values(names: list[str], labels: Mapping[str, str]) -> list[str]:
    return [str(labels.get(name, "")) for name in names]
