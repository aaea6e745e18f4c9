"""The rate of a site: whatever is asked and given back, no window of time holds more than it may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.units import Rate
from engine.mta.policy.throttle import BURST_SECONDS, Throttle

START = 1_000.0


@pytest.mark.parametrize(
    ("rate", "at", "wanted", "allowed"),
    [
        (None, 0.0, 10_000, 10_000),
        (Rate(10, 1.0), 0.0, 5, 1),  # born with an empty burst
        (Rate(10, 1.0), 0.45, 5, 5),
        (Rate(10, 1.0), 0.45, 9, 5),
        (Rate(10, 1.0), 60.0, 99, 10),  # a second's worth, however long it rested
        (Rate(6, 60.0), 0.0, 5, 1),
        (Rate(6, 60.0), 600.0, 5, 1),  # slower than a message a second: no burst at all
        (Rate(3600, 3600.0), 600.0, 5, 1),
        (Rate(7200, 3600.0), 600.0, 5, 2),
    ],
)
def test_what_may_go(rate: Rate | None, at: float, wanted: int, allowed: int) -> None:
    throttle = Throttle(rate, START)
    assert throttle.take(START + at, wanted) == allowed


def test_the_wait_is_exact() -> None:
    throttle = Throttle(Rate(4, 1.0), START)
    assert throttle.wait_seconds(START) == 0.0
    assert throttle.take(START, 9) == 1
    assert throttle.wait_seconds(START) == pytest.approx(0.25)
    assert throttle.take(START + 0.249, 1) == 0
    assert throttle.take(START + 0.25, 1) == 1


def test_what_was_not_sent_is_given_back() -> None:
    throttle = Throttle(Rate(10, 1.0), START)
    assert throttle.take(START + 60, 99) == 10
    throttle.give_back(4)
    assert throttle.wait_seconds(START + 60) == 0.0
    assert throttle.take(START + 60, 99) == 4
    throttle = Throttle(None, START)
    throttle.give_back(4)
    assert throttle.wait_seconds(START) == 0.0


def test_its_repr_tells_the_rate() -> None:
    assert repr(Throttle(Rate(90, 60.0), 0.0)) == "<Throttle 1.5/s>"
    assert repr(Throttle(None, 0.0)) == "<Throttle unlimited>"


rates = st.builds(Rate, st.integers(1, 5_000), st.sampled_from([1.0, 60.0, 3600.0, 86_400.0]))
steps = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0.0, 3.0), st.floats(0.0, 5_000.0)),
        st.integers(0, 200),
        st.floats(0.0, 1.0),
    ),
    min_size=1,
    max_size=40,
)


@given(rates, steps)
def test_no_window_ever_holds_more_than_the_rate_and_one_burst(
    rate: Rate, steps: list[tuple[float, int, float]]
) -> None:
    throttle = Throttle(rate, START)
    now = START
    sent: list[tuple[float, int]] = []
    for pause, wanted, share_returned in steps:
        now += pause
        allowed = throttle.take(now, wanted)
        assert 0 <= allowed <= wanted
        returned = int(allowed * share_returned)
        throttle.give_back(returned)
        sent.append((now, allowed - returned))
    burst = max(1.0, min(BURST_SECONDS, rate.seconds) * rate.count / rate.seconds)
    for index, (begin, _) in enumerate(sent):
        total = 0
        for end, count in sent[index:]:
            total += count
            assert total <= (end - begin) * rate.count / rate.seconds + burst + 1e-3
    first = sum(count for at, count in sent if at == START)
    assert first <= 1, "the burst is empty after a restart"


@given(rates, steps)
def test_after_the_wait_one_message_may_go_and_not_before(
    rate: Rate, steps: list[tuple[float, int, float]]
) -> None:
    throttle = Throttle(rate, START)
    now = START
    for pause, wanted, _ in steps:
        now += pause
        throttle.take(now, wanted)
    wait = throttle.wait_seconds(now)
    interval = rate.seconds / rate.count
    if wait > interval * 1e-3:
        assert throttle.take(now + wait - interval * 1e-3, 1) == 0
    assert throttle.take(now + wait + interval * 1e-3, 1) == 1


def test_a_burst_may_be_shorter_and_is_one_message_at_least() -> None:
    assert Throttle(Rate(100, 1.0), START, burst_seconds=0.25).take(START + 60, 99) == 25
    assert Throttle(Rate(2, 1.0), START, burst_seconds=0.25).take(START + 60, 99) == 1
    assert Throttle(Rate(100, 1.0), START, burst_seconds=0.0).take(START + 60, 99) == 1


def test_a_raise_opens_no_burst() -> None:
    throttle = Throttle(Rate(10, 1.0), START)
    throttle.take(START, 9)
    for _ in range(20):
        throttle.set_rate((throttle.per_second or 0.0) * 1.5, START)
        assert throttle.take(START, 99) == 0
    rested = Throttle(Rate(10, 1.0), START)
    rested.set_rate(1_000.0, START + 60)
    assert rested.take(START + 60, 9_999) == 10


def test_a_cut_keeps_what_was_sent_counted() -> None:
    throttle = Throttle(Rate(100, 1.0), START)
    assert throttle.take(START + 60, 999) == 100
    throttle.set_rate(0.5, START + 60)
    assert throttle.wait_seconds(START + 60) == pytest.approx(2.0)
    assert throttle.take(START + 61.9, 9) == 0
    assert throttle.take(START + 62, 9) == 1


def test_to_unlimited_and_back_one_message_may_go() -> None:
    throttle = Throttle(Rate(10, 1.0), START)
    throttle.set_rate(None, START)
    assert throttle.per_second is None
    assert throttle.take(START, 5_000) == 5_000
    throttle.set_rate(4.0, START + 1)
    assert throttle.take(START + 1, 9) == 1
    assert throttle.wait_seconds(START + 1) == pytest.approx(0.25)
    throttle.set_rate(4.0, START + 1)
    assert throttle.wait_seconds(START + 1) == pytest.approx(0.25)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 3.0), st.integers(0, 200), st.floats(0.1, 500.0)), min_size=1, max_size=40
    )
)
def test_however_the_rate_moves_no_more_goes_than_the_rates_add_up_to(
    steps: list[tuple[float, int, float]],
) -> None:
    throttle = Throttle(Rate(10, 1.0), START, burst_seconds=0.25)
    now, allowed, sent = START, 1.0, 0
    for pause, wanted, per_second in steps:
        now += pause
        allowed += pause * (throttle.per_second or 0.0)
        sent += throttle.take(now, wanted)
        assert sent <= allowed + 1e-3
        throttle.set_rate(per_second, now)


def test_another_burst_holds_at_once_and_opens_none() -> None:
    throttle = Throttle(Rate(10, 1.0), START, 0.2)
    assert throttle.take(START + 60, 99) == 2
    throttle.set_rate(10.0, START + 60, 1.0)
    assert throttle.take(START + 60, 99) == 0
    assert throttle.take(START + 120, 99) == 10
    throttle.set_rate(10.0, START + 180, 0.3)
    assert throttle.take(START + 180, 99) == 3
