"""A path as a fluid keeps to what it is told, finds what it is not told, and loses nobody."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bench.simulation.path import DAY_SECONDS, LOOK_SECONDS, NEVER, Allowance, FluidPath
from bench.simulation.providers import Provider, known_providers
from engine.config.units import CountRange, RateRange

PLAIN = next(each for each in known_providers() if each.name == "yahoo")


def provider(**changes: object) -> Provider:
    return replace(PLAIN, **{"domains": (), "busy_share": 0.0, **changes})


def driven(path: FluidPath, seconds: float, now: float = 0.0, *, speed: int = 10**9) -> float:
    """Step it for so many seconds; returns the time then."""
    ends = now + seconds
    while now < ends - 1e-9:
        path.wake(now)
        stride = min(path.stride_seconds(now), 5.0, ends - now)
        wanted = path.wants(now, stride, speed)
        let_in = path.allowance.take(now, stride, wanted)
        path.went(now, stride, wanted, let_in, min(wanted - let_in, path.in_flight), 0.5)
        now += stride
    return now


@given(
    st.floats(0.1, 500),
    st.floats(0, 5),
    st.sampled_from([0.0, 1.0, 7.5]),
    st.lists(st.tuples(st.sampled_from([0.5, 2.0, 5.0]), st.integers(0, 2_000)), min_size=1, max_size=40),
)
def test_an_allowance_never_lets_in_more_than_rate_and_burst(per_second, burst, window, steps):
    allowance = Allowance(per_second, burst, window)
    now, taken = 0.0, 0
    for seconds, wanted in steps:
        count = allowance.take(now, seconds, wanted)
        assert 0 <= count <= wanted
        taken += count
        now += seconds
        if window:
            windows = math.floor(now / window) + 1
            assert taken <= windows * max(1, int(per_second * window))
        else:
            assert taken <= per_second * (now + max(burst, 1 / per_second)) + 1


def test_what_is_given_back_may_come_later():
    for allowance in (Allowance(10, 1.0), Allowance(10, 1.0, window_seconds=5.0)):
        taken = allowance.take(0.0, 0.5, 1_000)
        allowance.give_back(taken)
        assert allowance.take(0.5, 0.0, taken) == taken


def test_it_finds_an_unknown_limit_and_stays_just_below_it():
    path = FluidPath(provider(per_second=20.0, connections=100), 0.0)
    path.fresh = 1_000_000
    driven(path, 600.0)
    assert 0.93 * 12_000 < path.attempts - path.refused <= 20 * (600 + 1) + 1
    assert path.refused < 0.01 * path.attempts


def test_more_connections_than_are_let_in_are_not_used_for_long():
    path = FluidPath(provider(per_second=math.inf, connections=3), 0.0)
    path.fresh = 1_000_000
    driven(path, 120.0)
    assert path.connections_open == 3


def test_a_rate_that_somebody_said_is_kept_from_the_first_second():
    shaping = replace(PLAIN.shaping, rate=RateRange.parse("1/s..10/s"), connections=CountRange(4, 4))
    path = FluidPath(provider(shaping=shaping, per_second=math.inf), 0.0)
    path.fresh = 10_000
    driven(path, 100.0)
    assert 950 <= path.finished <= 1_010


def test_it_never_does_more_than_the_engine_has_left():
    path = FluidPath(provider(sites=0), 0.0)
    path.fresh = 10_000
    assert path.wants(0.0, LOOK_SECONDS, 37) == 37


def test_who_is_greylisted_comes_again_after_the_first_interval_and_is_taken():
    path = FluidPath(provider(greylisted_share=1.0, per_second=math.inf), 0.0)
    path.fresh = 10
    now = driven(path, 20.0)
    assert (path.finished, path.deferred, path.tried) == (0, 10, 10)
    first = path.provider.shaping.retry.first
    assert first * 0.8 <= path.next_at(now) <= 20.0 + first * 1.2
    driven(path, first * 1.3, now)
    assert (path.finished, path.waiting, path.attempts) == (10, 0, 20)
    assert path.next_at(now) == NEVER


def test_a_warm_up_plan_lets_a_days_quota_go_and_no_more():
    path = FluidPath(provider(per_second=math.inf), 0.0, warm_up=(100, 200))
    path.fresh = 10_000
    now = driven(path, 600.0)
    assert path.attempts == 100
    assert path.over_quota(now)
    assert path.next_at(now) == DAY_SECONDS
    driven(path, 600.0, float(DAY_SECONDS))
    assert path.attempts == 300


def test_a_new_process_has_forgotten_what_was_learnt_and_kept_what_waits():
    path = FluidPath(provider(per_second=20.0), 0.0)
    path.fresh = 100_000
    now = driven(path, 300.0)
    assert path.governor is not None
    learnt, waiting = path.governor.connections, path.waiting
    path.start_anew(now)
    assert path.governor.connections < learnt
    assert path.waiting == waiting
    assert path.drop() == waiting
    assert path.waiting == 0


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 0.5), st.floats(0.5, 50))
def test_nobody_is_lost_or_doubled_on_the_way(people, greylisted, busy, per_second):
    path = FluidPath(
        provider(greylisted_share=greylisted, busy_share=busy, per_second=per_second, connections=2), 0.0
    )
    path.fresh = people
    now = 0.0
    for _ in range(4):
        now = driven(path, 10.0, now)
        assert path.finished + path.waiting == people
        assert min(path.fresh, path.again, path.deferred) >= 0


@pytest.mark.parametrize("sites", [0, 1, 500])
def test_the_demand_of_a_step_is_no_less_than_what_goes(sites):
    path = FluidPath(provider(sites=sites), 0.0)
    path.fresh = 10_000
    assert path.demand(0.0, LOOK_SECONDS) >= path.wants(0.0, LOOK_SECONDS, 10**9)
