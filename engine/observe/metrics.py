"""Numbers about a running program, as plain facts: what they are called, what they mean, what they are now.

A *family* is one name with its samples, each under its labels; a *histogram* counts how long something
took, in buckets, and costs a bisection when told. Names carry their unit (`_seconds`, `_octets`, `_total`):
they are promises to whoever draws a graph. Families are made when somebody asks, so nothing here costs
anything in between but histograms. How they are written down is `exposition`'s. Touches nothing.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct

LABELS_MAX = 5  # of a family; more multiply into series that nobody can hold
SERIES_MAX = 2_000  # of one family; a monitor that reads many engines keeps each of them
VALUE_MAX = 200  # characters of a label; sites are sets of host names, some of which have no end

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+\Z")
UNITS = ("seconds", "octets", "ratio")

Labels = tuple[str, ...]


class Kind(Enum):
    GAUGE = "gauge"
    COUNTER = "counter"  # its name ends in _total
    HISTOGRAM = "histogram"


class Histogram:
    """How often something took how long. `bounds` are upper ends, rising; one bucket more is for the rest."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        assert list(bounds) == sorted(set(bounds))
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def __repr__(self) -> str:
        return f"<Histogram {self.count:,} counted, {self.total:.3g} in all>"

    @property
    def count(self) -> int:
        return sum(self.counts)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> "Buckets":
        """As it stands."""
        return Buckets(self.bounds, tuple(self.counts), self.total)


class Buckets(Struct, frozen=True):
    """A histogram's state: `counts[i]` fell at or below `bounds[i]` and above the one before it.

    The last count, one more than there are bounds, is of what was above all of them.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Family(Struct, frozen=True):
    """One name. `labels` are names; `samples` go by their values, `histograms` instead where it is one."""

    name: str
    kind: Kind
    help: str
    labels: Labels
    samples: Mapping[Labels, float] = {}
    histograms: Mapping[Labels, Buckets] = {}

    def __post_init__(self) -> None:
        assert NAME.match(self.name), f"{self.name} is no name of a metric"
        assert self.name.endswith("_total") == (self.kind is Kind.COUNTER), self.name
        assert len(self.labels) <= LABELS_MAX
        assert len(self.samples) <= SERIES_MAX, f"{self.name} has {len(self.samples):,} series"
        assert all(len(values) == len(self.labels) for values in (*self.samples, *self.histograms))

    @property
    def unit(self) -> str:
        """What its name says that it counts in; "" = a plain number."""
        last = self.name.removesuffix("_total").rpartition("_")[2]
        return last if last in UNITS else ""


def gauge(name: str, help: str, value: float | Mapping[Any, float], *labels: str) -> Family:
    """Something that goes up and down: one number, or one for each set of label values."""
    return Family(name, Kind.GAUGE, help, labels, _samples(value))


def counter(name: str, help: str, value: float | Mapping[Any, float], *labels: str) -> Family:
    """Something that only grows, until the engine starts anew."""
    return Family(name, Kind.COUNTER, help, labels, _samples(value))


def histogram(name: str, help: str, value: Buckets | Mapping[Any, Buckets], *labels: str) -> Family:
    """How long something took."""
    found: Mapping[Labels, Buckets] = {(): value} if isinstance(value, Buckets) else value
    return Family(name, Kind.HISTOGRAM, help, labels, histograms=found)


def _samples(value: float | Mapping[Any, float]) -> Mapping[Labels, float]:
    return value if isinstance(value, Mapping) else {(): value}
