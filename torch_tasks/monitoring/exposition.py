"""Counts and measures in the forms of prometheus-client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from torch_tasks.model.metrics import METRICS, Metric, MetricType
from torch_tasks.system.tally import Series

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Measure(NamedTuple):
    """What a metric is now, for these values of its labels."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


class Readings(Collector):
    """Shows what is read anew at each scrape."""

    def __init__(self, counted: Callable[[], Series], measured: Callable[[], Iterable[Measure]]) -> None:
        self._counted = counted
        self._measured = measured

    def collect(self) -> Iterator[Family]:
        series = self._counted()
        for measure in self._measured():
            series[measure.metric.name, measure.labels] = [measure.value]
        rows: dict[str, list[tuple[tuple[str, ...], list[float]]]] = {}
        for (name, labels), numbers in sorted(series.items()):
            rows.setdefault(name, []).append((labels, numbers))
        for name, found in rows.items():
            yield _family(METRICS[name], found)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)


def _family(metric: Metric, rows: Iterable[tuple[tuple[str, ...], list[float]]]) -> Family:
    if metric.type is MetricType.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for labels, (*counted, count, total) in rows:
            bounds = [*map(str, metric.bounds), "+Inf"]
            histogram.add_metric(labels, list(zip(bounds, [*counted, count], strict=True)), total)
        return histogram
    kind = CounterMetricFamily if metric.type is MetricType.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    for labels, (value,) in rows:
        family.add_metric(labels, value)
    return family


def samples(of: Readings) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each number by the name and the labels that queries use."""
    found: Iterator[Sample] = (sample for family in of.collect() for sample in family.samples)
    return {(one.name, frozenset(one.labels.items())): one.value for one in found}
