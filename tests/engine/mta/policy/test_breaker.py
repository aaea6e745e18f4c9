"""The breaker: when no address pays for what we are."""

from engine.mta.policy.breaker import (
    CALM_SECONDS,
    COUNT,
    OPEN_SECONDS,
    OPEN_SECONDS_MAX,
    PROBES,
    SPAN_SECONDS,
    Breaker,
    BreakerState,
)


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(at)
    for _ in range(COUNT):
        breaker.count(at, True)
    assert breaker.state(at) is BreakerState.OPEN
    return breaker


def close(breaker: Breaker, at: float) -> None:
    for _ in range(PROBES):
        breaker.count(at, False)
    assert breaker.state(at) is BreakerState.CLOSED


def test_it_opens_at_twenty_and_more_than_a_twentieth() -> None:
    breaker = Breaker(0.0)
    changes = [breaker.count(1.0, True) for _ in range(COUNT)]
    assert changes == [False] * (COUNT - 1) + [True]
    assert not breaker.hard_allowed(1.0)
    assert breaker.suspect_since == 1.0 - SPAN_SECONDS
    assert breaker.reason.startswith("20 of the last 20 attempts")
    assert repr(breaker).startswith("<Breaker open: 20 of")


def test_a_small_share_does_not_open_it() -> None:
    breaker = Breaker(0.0)
    for number in range(4_000):
        breaker.count(number / 10, number % 21 == 0)
    assert breaker.hard_allowed(400.0)
    assert repr(breaker) == "<Breaker closed>"


def test_a_few_do_not_open_it_however_large_their_share() -> None:
    breaker = Breaker(0.0)
    for hour in range(100):
        breaker.count(hour * 3_600.0, True)
    assert breaker.hard_allowed(400_000.0)


def test_half_open_it_suppresses_nothing_until_the_probes_are_good() -> None:
    breaker = opened()
    assert breaker.count(1.0, True) is False
    assert breaker.state(OPEN_SECONDS) is BreakerState.HALF_OPEN
    assert not breaker.hard_allowed(OPEN_SECONDS)
    changes = [breaker.count(OPEN_SECONDS, number == 3) for number in range(PROBES)]
    assert changes == [False] * (PROBES - 1) + [True], "one refusal among twenty is no burst"
    assert breaker.hard_allowed(OPEN_SECONDS)
    assert breaker.suspect_since is None


def test_bad_probes_open_it_for_twice_as_long_up_to_two_hours() -> None:
    breaker, now, wait = opened(), 0.0, OPEN_SECONDS
    for _ in range(8):
        now += wait
        assert breaker.state(now - 1) is BreakerState.OPEN
        assert breaker.count(now, True) is False
        assert breaker.count(now, True) is True
        wait = min(2 * wait, OPEN_SECONDS_MAX)
    assert breaker.suspect_since == -SPAN_SECONDS, "the first opening counts for the second look"


def test_calm_makes_the_next_opening_short_again() -> None:
    breaker = opened()
    close(breaker, OPEN_SECONDS)
    for at, wait in ((OPEN_SECONDS + 60, 2 * OPEN_SECONDS), (5_000.0 + 2 * CALM_SECONDS, OPEN_SECONDS)):
        for _ in range(COUNT):
            breaker.count(at, True)
        assert breaker.state(at + wait - 1) is BreakerState.OPEN
        assert breaker.state(at + wait) is BreakerState.HALF_OPEN
        close(breaker, at + wait)


def test_good_answers_may_be_counted_many_at_a_time() -> None:
    breaker = Breaker(0.0)
    assert not breaker.answered(0.0, 1_000)
    assert not any(breaker.count(1.0, True) for _ in range(50)), "50 of 1,050 are less than a twentieth"
    breaker = opened()
    assert not breaker.answered(1.0, 1_000)
    assert breaker.answered(OPEN_SECONDS, 1_000)
    assert breaker.hard_allowed(OPEN_SECONDS)
