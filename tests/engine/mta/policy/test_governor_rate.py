"""The rate's phases, one at a time; how well it finds limits is in test_governor_loop."""

import pytest

from engine.mta.policy.governor_rate import (
    ASK_PER_SECOND,
    CUT,
    FLOOR_PER_SECOND,
    PAUSE_SECONDS_MAX,
    PLATEAU,
    UNLIMITED_PER_SECOND,
    Phase,
    RateControl,
)


def control(start: float = 20.0, ceiling: float | None = None) -> RateControl:
    return RateControl(FLOOR_PER_SECOND, ceiling, start, 0.0)


def run(rate: RateControl, begin: float, seconds: float, *, busy: bool = True) -> float:
    """Ticks with all that the rate allows accepted; the time after them."""
    now = begin
    for _ in range(int(seconds * 2)):
        now += 0.5
        rate.accepted += round((rate.rate or UNLIMITED_PER_SECOND) * 0.5)
        rate.tick(now, busy)
    return now


def event(rate: RateControl, now: float, share: float = 1.0) -> float:
    """A refusal, its pause, and the recovery."""
    assert rate.refused(now, 0.0, share)
    now = rate.paused_until + 0.1
    rate.accepted += 1
    rate.recover(now)
    return now


def test_it_doubles_every_half_second_until_nothing_limits() -> None:
    rate = control()
    run(rate, 0.0, 2.0)
    assert rate.rate == pytest.approx(320)
    run(rate, 2.0, 3.0)
    assert rate.rate is None
    assert repr(rate) == "<RateControl unlimited, slow start>"


def test_a_ceiling_ends_the_doubling() -> None:
    rate = control(ceiling=100.0)
    run(rate, 0.0, 10.0)
    assert rate.rate == 100.0


def test_a_rate_that_is_not_used_does_not_grow() -> None:
    rate = control()
    run(rate, 0.0, 5.0, busy=False)
    assert rate.rate == 20.0
    for half in range(10):
        rate.accepted += 1
        rate.tick(6 + half / 2, True)
    assert rate.rate == 20.0


def test_it_falls_to_a_share_of_what_was_accepted_not_of_what_was_set() -> None:
    rate = control(start=1_000.0)
    for half in range(1, 9):  # a path that needs no more than 100 a second
        rate.accepted += 50
        rate.tick(half / 2, False)
    rate.refused(4.0, 0.0)
    assert rate.estimate == pytest.approx(100.0, rel=0.05)


def test_it_asks_ever_more_rarely_while_it_is_refused() -> None:
    rate = control()
    now = run(rate, 0.0, 1.0)
    assert rate.refused(now, 0.0)
    assert rate.rate == ASK_PER_SECOND
    pauses = []
    for _ in range(30):
        now = rate.paused_until
        assert not rate.refused(now, 0.0)
        pauses.append(rate.paused_until - now)
    assert pauses == pytest.approx(sorted(pauses))
    assert pauses[0] == pytest.approx(1.2), "a fast receiver may count in short windows"
    assert pauses[-1] == PAUSE_SECONDS_MAX


def test_after_the_pause_it_climbs_to_a_plateau_below_its_estimate() -> None:
    rate = control()
    now = event(rate, run(rate, 0.0, 3.0))
    estimate = rate.estimate or 0.0
    assert rate.rate == pytest.approx(CUT * estimate)
    steps = []
    for _ in range(25):
        now = run(rate, now, 0.5)
        steps.append(rate.rate or 0.0)
    assert steps == sorted(steps)
    assert steps[3] - steps[0] > steps[-1] - steps[-4], "fast first"
    assert PLATEAU * estimate == pytest.approx(steps[20], rel=0.05)


def test_it_tries_more_only_when_its_refusals_are_paid_for() -> None:
    rate = control()
    now = run(rate, 0.0, 3.0)
    rate.refused(now, 0.0)
    for _ in range(400):
        rate.refused(now, 0.0)
    assert rate.messages_to_probe > 4_000
    now = rate.paused_until + 0.1
    rate.recover(now)
    now = run(rate, now, 11.0)
    assert rate.phase is Phase.PLATEAU
    while rate.phase is Phase.PLATEAU:
        now = run(rate, now, 0.5)
    assert rate.phase is Phase.PROBING
    assert rate.messages_to_probe == 0
    run(rate, now, 15.0)
    assert (rate.rate or 0.0) > (rate.estimate or 0.0)


def test_refused_again_at_once_it_halves() -> None:
    rate = control()
    now = event(rate, run(rate, 0.0, 3.0))
    first = rate.estimate or 0.0
    for _ in range(3):
        now = event(rate, now + 0.5)
    assert (rate.estimate or 0.0) < first / 4


def test_a_bad_reputation_cuts_deeper() -> None:
    good, bad = control(), control()
    event(good, run(good, 0.0, 3.0))
    event(bad, run(bad, 0.0, 3.0), 0.5)
    assert (bad.estimate or 0.0) == pytest.approx((good.estimate or 0.0) / 2)


def test_it_never_leaves_its_bounds() -> None:
    rate = RateControl(5.0, 10.0, 20.0, 0.0)
    assert rate.rate == 10.0
    now = 0.0
    for _ in range(10):
        now = event(rate, now + 0.5)
        assert 5.0 <= (rate.rate or 0.0) <= 10.0
    rate.set_bounds(1.0, 2.0)
    assert rate.rate == 2.0


def test_who_starts_unlimited_falls_to_what_was_accepted() -> None:
    rate = control(start=float("inf"))
    assert rate.rate is None
    now = 0.0
    for _ in range(6):
        now += 0.5
        rate.accepted += 150
        rate.tick(now, True)
    event(rate, now)
    assert rate.estimate == pytest.approx(300.0, rel=0.05)


def test_a_path_that_hardly_sent_is_not_cut_to_nothing() -> None:
    rate = control()
    for half in range(1, 240):
        rate.tick(half / 2, False)
    event(rate, 120.0)
    assert (rate.estimate or 0.0) >= 1.0
    for half in range(240):
        rate.tick(130.0 + half / 2, False)
    event(rate, 260.0)
    assert (rate.estimate or 0.0) >= 0.2
