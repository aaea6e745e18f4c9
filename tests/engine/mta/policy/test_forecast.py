"""When it will be done, and how sure that is."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.mta.policy.forecast import (
    DAY_SECONDS,
    Bound,
    Forecast,
    PathOutlook,
    Span,
    forecast,
    total,
    total_told,
)

ENGINE = Span(800.0, 1_000.0, 1_200.0)


def only(*paths: PathOutlook, engine: Span | None = None) -> Forecast:
    (found,) = forecast(paths, engine)
    return found


def test_a_measured_rate_gives_a_narrow_band() -> None:
    found = only(PathOutlook("gmail", 36_000, per_second=10.0, measured_count=10_000, rate_ceiling=50.0))
    assert found.expected_seconds == pytest.approx(3_600)
    assert found.low_seconds == pytest.approx(3_600 / 1.11)
    assert found.high_seconds == pytest.approx(3_600 / 0.89)
    assert found.bound_by is Bound.RATE
    assert found.sentence == "36,000 messages to gmail: about 1 h (54 min to 1 h 7 min), bound by its rate"


def test_few_measurements_and_none_at_all_widen_it() -> None:
    widths = []
    for path in (
        PathOutlook("p", 1_000, per_second=10.0, measured_count=10_000),
        PathOutlook("p", 1_000, per_second=10.0, measured_count=20),
        PathOutlook("p", 1_000, rate_floor=1.0, rate_ceiling=100.0),
    ):
        found = only(path)
        assert found.high_seconds is not None
        assert found.low_seconds is not None
        widths.append(found.high_seconds / found.low_seconds)
    assert widths == sorted(widths)
    assert widths[2] == pytest.approx(100)


def test_connections_bind_when_they_are_the_narrower() -> None:
    found = only(PathOutlook("p", 1_000, connections=2, message_seconds=0.5, rate_ceiling=100.0))
    assert found.bound_by is Bound.CONNECTIONS
    assert found.low_seconds == pytest.approx(250)
    measured = PathOutlook(
        "p", 1_000, per_second=4.0, measured_count=900, connections=2, message_seconds=0.5, rate_ceiling=100.0
    )
    assert only(measured).bound_by is Bound.CONNECTIONS


def test_a_warm_up_plan_counts_in_days() -> None:
    found = only(
        PathOutlook(
            "p", 1_000, per_second=100.0, measured_count=900, quotas=(100, 300, 700), day_seconds_left=3_600.0
        )
    )
    assert found.bound_by is Bound.WARM_UP
    assert found.expected_seconds == pytest.approx(3_600 + DAY_SECONDS, rel=0.01)
    beyond = only(PathOutlook("p", 5_000, per_second=100.0, measured_count=900, quotas=(100, 300)))
    assert beyond.expected_seconds == pytest.approx(2 * DAY_SECONDS, rel=0.01)
    assert only(PathOutlook("p", 50, per_second=1.0, quotas=(100,))).bound_by is Bound.RATE


def test_a_suspension_is_waited_for_and_one_without_an_end_says_so() -> None:
    found = only(PathOutlook("p", 100, per_second=10.0, measured_count=900, paused_seconds=600.0))
    assert found.expected_seconds == pytest.approx(610)
    assert found.bound_by is Bound.SUSPENDED
    assert found.sentence.endswith("bound by a suspension")
    endless = only(PathOutlook("p", 100, per_second=10.0, paused_seconds=inf))
    assert endless.expected_seconds is None
    assert endless.sentence == "100 messages to p: cannot be told, suspended without an end"


def test_those_put_off_make_a_tail() -> None:
    curve = (300.0, 900.0, 2_100.0, 4_500.0)
    plain = PathOutlook("p", 1_000, per_second=100.0, measured_count=900)
    tail = PathOutlook(
        "p", 1_000, per_second=100.0, measured_count=900, deferred_share=0.1, retry_seconds=curve
    )
    first, second = only(plain), only(tail)
    assert first.expected_seconds == pytest.approx(10)
    assert second.expected_seconds == pytest.approx(2_100 + 11.1, rel=0.01)
    assert second.low_seconds is not None
    assert second.low_seconds < second.expected_seconds < (second.high_seconds or 0)
    assert second.bound_by is Bound.RETRIES


def test_nothing_known_is_said_and_not_guessed() -> None:
    found = only(PathOutlook("p", 100))
    assert found.expected_seconds is None
    assert "nothing has been measured" in found.sentence
    assert only(PathOutlook("p", 100), engine=ENGINE).bound_by is Bound.ENGINE


def test_what_the_engine_can_do_is_shared() -> None:
    paths = [PathOutlook(name, 100_000, per_second=800.0, measured_count=10_000) for name in "ab"]
    found = forecast(paths, ENGINE)
    for one in found:
        assert one.bound_by is Bound.ENGINE
        assert one.expected_seconds == pytest.approx(200)
        assert one.low_seconds == pytest.approx(125 / 1.11)
    whole = total(found)
    assert whole.messages == 200_000
    assert whole.expected_seconds == pytest.approx(200)


def test_paths_of_one_provider_work_side_by_side() -> None:
    found = only(
        PathOutlook("p", 100, per_second=1.0, measured_count=900),
        PathOutlook("p", 300, per_second=1.0, measured_count=900),
    )
    assert found.messages == 400
    assert found.expected_seconds == pytest.approx(300)


def test_the_whole_takes_as_long_as_its_slowest_part() -> None:
    whole = total(
        forecast(
            [
                PathOutlook("fast", 100, per_second=10.0, measured_count=900),
                PathOutlook("slow", 100, per_second=1.0, measured_count=900),
            ]
        )
    )
    assert whole.expected_seconds == pytest.approx(100)
    assert whole.sentence.endswith("bound by its rate at slow")
    untold = total(forecast([PathOutlook("a", 1, per_second=1.0), PathOutlook("b", 1)]))
    assert untold.expected_seconds is None
    assert untold.sentence.endswith("(b)")
    assert total([]).sentence == "nothing waits"
    assert forecast([PathOutlook("p", 0)]) == []


def test_long_times_are_told_in_days() -> None:
    found = only(PathOutlook("p", 864_000, per_second=1.0, measured_count=10**6))
    assert "about 10 d (" in found.sentence


amounts = st.floats(0.0, 1e4)
paths = st.builds(
    PathOutlook,
    provider=st.sampled_from(["a", "b", "c"]),
    waiting=st.integers(0, 10**7),
    per_second=amounts,
    measured_count=st.integers(0, 10**6),
    rate_floor=st.one_of(st.none(), st.floats(0.01, 10.0)),
    rate_ceiling=st.one_of(st.none(), st.floats(10.0, 1e4)),
    connections=st.integers(0, 50),
    message_seconds=st.floats(0.0, 60.0),
    quotas=st.lists(st.integers(0, 10**5), max_size=5).map(tuple),
    day_seconds_left=st.floats(0.0, DAY_SECONDS),
    deferred_share=st.floats(0.0, 1.0),
    retry_seconds=st.lists(st.floats(0.0, 1e5), max_size=5).map(sorted).map(tuple),
    paused_seconds=st.one_of(st.just(inf), amounts),
)


@given(st.lists(paths, max_size=8), st.one_of(st.none(), st.just(ENGINE)))
def test_the_three_figures_are_in_order_or_not_told(outlooks: list[PathOutlook], engine: Span | None) -> None:
    found = forecast(outlooks, engine)
    for one in [*found, total(found)]:
        assert one.sentence
        if one.expected_seconds is None:
            assert one.high_seconds is None
            continue
        assert one.low_seconds is not None
        assert 0 <= one.low_seconds <= one.expected_seconds
        assert one.high_seconds is None or one.high_seconds >= one.expected_seconds
    assert sum(one.messages for one in found) == sum(path.waiting for path in outlooks)


def test_what_cannot_be_told_is_counted_beside_the_rest() -> None:
    paths = [
        PathOutlook("lamp", 100, per_second=10.0, measured_count=1_000),
        PathOutlook("dead", 30, per_second=10.0, paused_seconds=inf),
    ]
    whole, untold = total_told(forecast(paths))
    assert (whole.messages, untold) == (100, 30)
    assert whole.expected_seconds == pytest.approx(10.0)
    whole, untold = total_told(forecast(paths[1:]))
    assert (whole.expected_seconds, whole.messages, untold) == (None, 30, 0)
    assert total_told([])[0].sentence == "nothing waits"
