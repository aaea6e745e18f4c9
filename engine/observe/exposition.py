"""Families written down as Prometheus reads them: its text format, or OpenMetrics when it is asked for.

The names and the format are prometheus-client's business, which is used as a writer alone: it keeps no
number of ours. With the families go those of the process itself (memory, processor time, open files), under
the names that every Prometheus client gives them. Touches /proc.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from zlib import crc32

from prometheus_client import ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from engine.observe.metrics import VALUE_MAX, Family, Kind, Labels

OPEN_METRICS = "application/openmetrics-text"


class Exposition:
    """Writes families down. Made once: the collector of the process looks up the start of the machine."""

    def __init__(self) -> None:
        self._process = ProcessCollector(registry=None)

    def __repr__(self) -> str:
        return "<Exposition in text or OpenMetrics>"

    def write(self, families: Iterable[Family], accept: str) -> tuple[str, bytes]:
        """Content type and octets, in the best form that the header `accept` names."""
        page = _Page([*map(_metric, families), *self._process.collect()])
        if OPEN_METRICS in accept.lower():
            return CONTENT_TYPE_LATEST, generate_open_metrics(page)  # type: ignore[no-untyped-call]
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(page)


class _Page(Collector):
    """What prometheus-client writes down: it asks a collector."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def _metric(family: Family) -> Metric:
    names, unit = family.labels, family.unit
    match family.kind:
        case Kind.GAUGE:
            gauge = GaugeMetricFamily(family.name, family.help, labels=names, unit=unit)
            for values, value in family.samples.items():
                gauge.add_metric(_shown(values), value)
            return gauge
        case Kind.COUNTER:
            counter = CounterMetricFamily(family.name, family.help, labels=names, unit=unit)
            for values, value in family.samples.items():
                counter.add_metric(_shown(values), value)
            return counter
        case Kind.HISTOGRAM:
            timed = HistogramMetricFamily(family.name, family.help, labels=names, unit=unit)
            for values, buckets in family.histograms.items():
                bounds = [*map(floatToGoString, buckets.bounds), "+Inf"]
                counts = zip(bounds, accumulate(buckets.counts), strict=True)
                timed.add_metric(_shown(values), list(counts), buckets.total)
            return timed


def _shown(values: Labels) -> list[str]:
    """Label values, the long ones cut and still apart. The writer escapes what would end a line."""
    return [value if len(value) <= VALUE_MAX else _cut(value) for value in values]


def _cut(value: str) -> str:
    mark = f"~{crc32(value.encode()):08x}"
    return value[: VALUE_MAX - len(mark)] + mark
