"""The loop closed against model receivers whose limits it does not know, on virtual time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.units import CountRange, Rate, RateRange
from engine.mta.policy.governor import Knob
from tests.fakes.limited_receivers import (
    Allowance,
    FixedWindows,
    Gcra,
    Receiver,
    Run,
    SlidingWindow,
    Unlimited,
    drive,
)

UTILISATION, REFUSED_SHARE = 0.9, 0.005
SMOOTH = 0.0  # a throttle that lets one message go at a time


def allowance(kind: str, per_second: float) -> Allowance:
    match kind:
        case "bucket of one message":
            return Gcra(per_second, 1)
        case "bucket of a second":
            return Gcra(per_second, max(1.0, per_second))
        case "bucket of a minute":
            return Gcra(per_second, 60 * per_second)
        case "windows of a second":
            return FixedWindows(per_second, 1.0)
        case "windows of a minute":
            return FixedWindows(per_second, 60.0, 17.0)
        case "sliding minute":
            return SlidingWindow(per_second, 60.0)
    raise AssertionError(kind)


def keep_to(limit: Allowance, seconds: float, **world: float) -> Run:
    """Two thirds of the run are counted: the first third is for learning."""
    per_second = limit.per_second
    step = 0.02 if per_second > 20 else min(0.05, 0.2 / per_second)
    burst = 0.25 if per_second > 20 else SMOOTH
    receiver = Receiver(limit, **world)  # type: ignore[arg-type]
    return drive(receiver, seconds, warm_seconds=seconds / 3, step_seconds=step, burst_seconds=burst)


def assert_kept(run: Run, limit: Allowance) -> None:
    assert run.per_second > UTILISATION * limit.per_second
    assert run.refused_share < REFUSED_SHARE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "per_second", "seconds"),
    [
        ("bucket of one message", 5, 900),
        ("bucket of a second", 100, 180),
        ("bucket of a minute", 5, 900),
        ("windows of a second", 5, 900),
        ("windows of a minute", 5, 3_000),
        ("sliding minute", 5, 3_000),
    ],
)
def test_it_finds_a_limit_and_keeps_to_it(kind: str, per_second: float, seconds: float) -> None:
    limit = allowance(kind, per_second)
    assert_kept(keep_to(limit, seconds), limit)


@pytest.mark.slow
@pytest.mark.parametrize("per_second", [0.5, 1, 20, 100, 500, 2_000])
@pytest.mark.parametrize(
    "kind",
    [
        "bucket of one message",
        "bucket of a second",
        "bucket of a minute",
        "windows of a second",
        "windows of a minute",
        "sliding minute",
    ],
)
def test_it_finds_limits_of_every_size_and_manner(kind: str, per_second: float) -> None:
    if kind == "windows of a second" and per_second < 1:
        pytest.skip("no whole message fits into such a window")
    if kind == "bucket of one message" and per_second > 20:
        limit: Allowance = Gcra(per_second, per_second / 4)  # what the throttle itself lets go at once
    else:
        limit = allowance(kind, per_second)
    seconds = 7_200 if per_second <= 5 else 3_600 if per_second <= 20 else 1_200
    assert_kept(keep_to(limit, seconds), limit)


@pytest.mark.slow
@given(
    kind=st.sampled_from(
        ["bucket of a second", "bucket of a minute", "windows of a minute", "sliding minute"]
    ),
    exponent=st.floats(0.0, 2.7),
    round_trip=st.sampled_from([0.03, 0.1, 0.3]),
    cap=st.sampled_from([3, 10, 1_000]),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_it_finds_any_limit_behind_any_cap(kind: str, exponent: float, round_trip: float, cap: int) -> None:
    limit = allowance(kind, 10**exponent)
    assert_kept(keep_to(limit, 3_600, round_trip_seconds=round_trip, connections_max=cap), limit)


def test_a_path_without_limits_reaches_thousands_a_second_within_four_seconds() -> None:
    run = drive(Receiver(), 8)
    assert run.refused == run.dials_refused == 0
    assert run.reached[4] > 2_000
    assert run.reached[7] > 9_000
    assert run.governor.rate_per_second is None


def test_a_path_that_has_little_to_send_gets_no_rate_for_it() -> None:
    run = drive(Receiver(), 30, supply_per_second=10)
    assert run.governor.rate_per_second == 20
    assert run.governor.connections == 2


def test_a_limit_that_falls_is_found_again() -> None:
    run = drive(
        Receiver(Gcra(40, 40)),
        900,
        warm_seconds=500,
        step_seconds=0.05,
        change_at={400: Gcra(10, 10)},
    )
    assert 8 < run.per_second <= 10.1
    assert run.refused_share < 0.01


def test_a_limit_that_is_lifted_is_noticed_within_minutes() -> None:
    run = drive(
        Receiver(Gcra(10, 10)),
        1_200,
        warm_seconds=900,
        step_seconds=0.05,
        change_at={300: Gcra(40, 40)},
    )
    assert run.per_second > 0.9 * 40


def test_a_stated_pause_is_kept() -> None:
    limit = FixedWindows(20, 60.0)
    run = drive(Receiver(limit, retry_after_seconds=20.0), 1_200, warm_seconds=400, step_seconds=0.05)
    assert run.per_second > 0.8 * limit.per_second
    assert run.refused_share < REFUSED_SHARE


def test_configured_bounds_hold_whatever_the_receiver_does() -> None:
    bounds = RateRange(Rate(2, 1.0), Rate(30, 1.0))
    run = drive(Receiver(Gcra(0.5, 1)), 300, rate=bounds, step_seconds=0.05)
    rates = [change.after for change in run.changes if change.knob is Knob.RATE]
    assert all(rate is not None and 2 <= rate <= 30 for rate in rates)
    run = drive(Receiver(), 60, rate=bounds)
    assert run.governor.rate_per_second == 30


@pytest.mark.slow
def test_a_receiver_that_blocks_after_refusals_is_approached_with_care() -> None:
    receiver = Receiver(FixedWindows(10, 60.0, 20.0), block_after_refusals=150)
    run = drive(receiver, 1_800, warm_seconds=600, step_seconds=0.05)
    assert receiver.blocks == 0
    assert run.per_second > 0.85 * 10


@pytest.mark.parametrize("cap", [1, 3, 5, 12])
def test_a_cap_on_connections_is_found_at_the_cost_of_few_dials(cap: int) -> None:
    run = drive(Receiver(connections_max=cap), 600, step_seconds=0.1, in_flight=1)
    assert run.governor.connections in {cap, cap + 1}
    assert run.opened[-1] == cap
    assert run.dials_refused <= 5
    assert sum(opened == cap for opened in run.opened) > 0.97 * len(run.opened)


@pytest.mark.parametrize(("capacity", "least", "most"), [(20, 1, 8), (100, 5, 20), (400, 16, 60)])
def test_a_receiver_that_queues_is_not_given_more_connections_than_help(
    capacity: float, least: int, most: int
) -> None:
    run = drive(
        Receiver(capacity_per_second=capacity),
        600,
        warm_seconds=60,
        connections=CountRange(1, 100),
        step_seconds=0.05,
        in_flight=2,
    )
    assert run.per_second > 0.9 * capacity
    assert least <= run.governor.connections <= most
    moves = [change for change in run.changes if change.knob is Knob.CONNECTIONS and change.at > 60]
    assert len(moves) <= 12, "no oscillation"


def test_a_cap_and_a_limit_are_found_together() -> None:
    limit = Gcra(50, 50)
    run = drive(Receiver(limit, connections_max=3), 300, warm_seconds=100)
    assert_kept(run, limit)
    assert run.opened[-1] <= 3


def test_the_same_world_gives_the_same_run() -> None:
    first, second = (drive(Receiver(Gcra(30, 60), connections_max=4), 60) for _ in range(2))
    assert first.changes == second.changes
    assert first.accepted == second.accepted


def test_an_unlimited_allowance_accepts_everything() -> None:
    assert Unlimited().offer(0.0, 7) == 7
