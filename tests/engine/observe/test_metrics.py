"""Facts about numbers: names with units, and histograms that count each value once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.observe.metrics import Histogram, counter, gauge, histogram


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_counts_each_value_in_one_bucket(values: list[float]) -> None:
    times = Histogram((0.1, 1.0, 10.0))
    for value in values:
        times.add(value)
    buckets = times.buckets()
    assert times.count == sum(buckets.counts) == len(values)
    assert buckets.total == pytest.approx(sum(values))
    for bound, upto in zip(buckets.bounds, (1, 2, 3), strict=True):
        assert sum(buckets.counts[:upto]) == sum(value <= bound for value in values)


def test_what_was_told_does_not_move_with_the_histogram() -> None:
    times = Histogram((1.0,))
    before = times.buckets()
    times.add(0.5)
    assert (sum(before.counts), times.count) == (0, 1)


def test_a_name_tells_its_unit() -> None:
    assert gauge("emass_disk_free_octets", "", 1.0).unit == "octets"
    assert counter("emass_busy_seconds_total", "", 1.0).unit == "seconds"
    assert histogram("emass_commit_seconds", "", Histogram((1.0,)).buckets()).unit == "seconds"
    assert gauge("emass_paths", "", 1.0).unit == ""


@pytest.mark.parametrize("name", ["emass", "Emass_paths", "emass_paths_", "emass-paths", "emass_größe"])
def test_a_bad_name_is_a_bug(name: str) -> None:
    with pytest.raises(AssertionError):
        gauge(name, "", 1.0)


def test_only_counters_are_called_total() -> None:
    with pytest.raises(AssertionError):
        counter("emass_paths", "", 1.0)
    with pytest.raises(AssertionError):
        gauge("emass_paths_total", "", 1.0)


def test_each_sample_has_a_value_for_each_label() -> None:
    with pytest.raises(AssertionError):
        gauge("emass_paths", "", {("a", "b"): 1.0}, "state")
    assert gauge("emass_paths", "", {("a",): 1.0}, "state").samples == {("a",): 1.0}


def test_a_family_without_a_limit_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="series"):
        gauge("emass_paths", "", {(str(number),): 1.0 for number in range(2_001)}, "path")
