"""A count that forgets."""

from hypothesis import given
from hypothesis import strategies as st

from engine.mta.policy.rolling import BUCKETS, RollingCount


def test_it_forgets_what_is_older_than_its_span() -> None:
    count = RollingCount(600.0, 0.0)
    assert count.add(0.0, 5) == 5
    assert count.add(300.0) == 6
    assert count.total(599.0) == 6
    assert count.total(600.0) == 1
    assert count.total(1e9) == 0
    assert repr(count) == "<RollingCount 0 in 600 s>"


def test_it_can_start_anew() -> None:
    count = RollingCount(60.0, 0.0)
    count.add(1.0, 9)
    count.clear()
    assert count.total(1.0) == 0


@given(st.lists(st.tuples(st.floats(0.0, 400.0), st.integers(0, 9)), max_size=40))
def test_it_lies_between_the_span_and_a_bucket_less(steps: list[tuple[float, int]]) -> None:
    span, now = 600.0, 0.0
    rolling, added = RollingCount(span, now), []
    for pause, count in steps:
        now += pause
        added.append((now, count))
        total = rolling.add(now, count)
        assert total <= sum(count for at, count in added if at > now - span)
        assert total >= sum(count for at, count in added if at > now - span * (1 - 1 / BUCKETS))
