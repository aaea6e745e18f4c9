"""A simulated fleet: exact where there is an exact answer, never quicker than the bound, nobody lost."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bench.simulation.fleet import FleetModel, placed, share_out, simulate, thinned
from bench.simulation.model import FIXED_PLAN, NO_COORDINATOR, Loss, Outcome, Scenario, fleet
from bench.simulation.optimum import optimum
from bench.simulation.providers import Provider, known_providers, with_shared_limit
from engine.model.egress import Source
from engine.mta.policy.egress import Egress

KNOWN = {each.name: each for each in known_providers()}
FREE = known_providers(limits=0)


def two_providers(**changes: object) -> tuple[Provider, ...]:
    """A small world: retries after 30 s, so that runs are short."""
    retry = replace(KNOWN["gmx"].shaping.retry, first=30.0)
    return tuple(
        replace(
            KNOWN[name],
            share=share,
            shaping=replace(KNOWN[name].shaping, retry=retry),
            **changes,
        )
        for name, share in (("gmx", 0.3), ("yahoo", 0.7))
    )


def scenario(messages: int, count: int, providers: tuple[Provider, ...], **changes: object) -> Scenario:
    return Scenario(messages=messages, providers=providers, broadcasters=fleet(count), **changes)


def accounted(outcome: Outcome) -> bool:
    by_provider = sum(each.messages for each in outcome.providers.values())
    return (
        outcome.finished + outcome.given_up == outcome.messages
        and by_provider == sum(outcome.broadcasters.values()) == outcome.finished
    )


def test_one_broadcaster_without_limits_takes_the_list_over_its_speed():
    outcome = simulate(scenario(300_000, 1, FREE))
    assert outcome.seconds == pytest.approx(50.0, abs=0.6)
    assert accounted(outcome)
    assert outcome.refused == 0


def test_ten_broadcasters_without_limits_are_ten_times_faster():
    outcome = simulate(scenario(1_200_000, 10, FREE, coordinator=NO_COORDINATOR))
    assert outcome.seconds == pytest.approx(20.0, abs=0.6)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    st.integers(1_000, 4_000),
    st.integers(1, 4),
    st.floats(5, 60),
    st.sampled_from([math.inf, 20.0, 55.0]),
    st.sampled_from(
        [None, Loss(1, 20.0, returns_after_seconds=30.0), Loss(1, 20.0, retired_after_seconds=25.0)]
    ),
    st.sampled_from([1.0, 3.0]),
)
def test_it_never_beats_the_bound_and_accounts_for_everybody(messages, count, per_second, shared, loss, step):
    providers = with_shared_limit(two_providers(per_second=per_second), shared, "yahoo")
    one = scenario(messages, count + 1, providers, loss=loss, step_seconds=step)
    outcome = simulate(one)
    assert accounted(outcome)
    assert outcome.seconds >= optimum(one, outcome.finished).seconds
    assert outcome.seconds_50 <= outcome.seconds_99 <= outcome.seconds <= outcome.report_seconds


def test_no_limit_is_exceeded_in_any_step_and_nobody_is_missing_after_any():
    providers = with_shared_limit(two_providers(per_second=15.0), 30.0, "yahoo")
    model = FleetModel(scenario(8_000, 3, providers, step_seconds=2.0))
    before = {id(path): path.attempts - path.refused for one in model.broadcasters for path in one.flat}
    while not model.done:
        began = model.now
        model.step()
        model.check()
        seconds = 2.0
        shared = 0
        for one in model.broadcasters:
            assert sum(path.attempts for path in one.flat) <= one.spec.per_second * (began + seconds)
            for path in one.flat:
                let_in = path.attempts - path.refused - before[id(path)]
                before[id(path)] += let_in
                assert let_in <= 15.0 * (seconds + path.provider.burst_seconds) + 1
                shared += let_in * (path.provider.name == "yahoo")
        assert shared <= 30.0 * (seconds + 1.0) + 1


def test_the_same_seed_is_the_same_run_and_another_is_not():
    providers = with_shared_limit(two_providers(), 30.0, "yahoo")
    one = scenario(3_000, 2, providers)
    assert simulate(one) == simulate(one)
    assert simulate(one) != simulate(replace(one, seed=2))


@pytest.mark.slow
def test_a_shared_limit_is_used_well_and_does_not_grow_with_the_fleet():
    providers = with_shared_limit(two_providers(), 40.0, "yahoo")
    few, many = (simulate(scenario(20_000, count, providers)) for count in (4, 8))
    bound = 20_000 * 0.7 / 40
    for outcome in (few, many):
        assert bound < outcome.providers["yahoo"].seconds < 1.5 * bound
    assert many.refused < 0.02 * many.attempts


@pytest.mark.slow
def test_claimed_mail_of_the_dead_waits_for_their_return():
    back = Loss(2, 40.0, returns_after_seconds=400.0)
    outcome = simulate(scenario(20_000, 4, two_providers(), loss=back))
    assert accounted(outcome)
    assert outcome.given_up == 0
    assert outcome.seconds > 440.0
    assert outcome.may_double > 0


def test_claimed_mail_of_the_retired_is_given_up_once_and_never_sent():
    gone = Loss(2, 40.0, retired_after_seconds=60.0)
    outcome = simulate(scenario(20_000, 4, two_providers(), loss=gone))
    assert accounted(outcome)
    assert 0 < outcome.given_up < 20_000
    assert outcome.may_double == 0


@pytest.mark.slow
def test_a_slow_machine_gets_less_by_its_measured_speed():
    slow, *rest = fleet(4)
    one = replace(
        scenario(1_000_000, 4, FREE),
        broadcasters=(replace(slow, per_second=600.0), *rest),
    )
    measured = simulate(one)
    fixed = simulate(replace(one, bounds=FIXED_PLAN, measures_speed=False))
    assert measured.seconds < 1.3 * optimum(one).seconds
    assert fixed.seconds > 3.0 * measured.seconds
    assert measured.broadcasters["b01"] < fixed.broadcasters["b01"]


def test_a_warm_up_plan_takes_days_and_not_hours_of_simulation():
    one = scenario(4_000, 2, two_providers(), warm_up=(500, 1_000, 10_000))
    outcome = simulate(one)
    assert outcome.seconds >= 86_400.0
    assert outcome.steps < 3_000


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=12), st.integers(0, 3_000))
def test_speed_is_shared_out_whole_and_whoever_wants_little_gets_it(demands, speed):
    given_out = share_out(demands, speed)
    assert all(0 <= part <= demand for part, demand in zip(given_out, demands, strict=True))
    assert sum(given_out) == min(sum(demands), speed)
    unmet = [part for part, demand in zip(given_out, demands, strict=True) if part < demand]
    assert not unmet or max(given_out) <= min(unmet) + 1


def test_a_domain_has_one_address_and_many_domains_have_many():
    egress = Egress([Source(f"ip-{number}", "") for number in range(8)])
    assert placed(replace(KNOWN["google"], domains=()), egress, 8) == [1.0]
    google = placed(KNOWN["google"], egress, 8)
    assert max(google) >= 0.85
    assert sum(google) == pytest.approx(1.0)
    assert len(placed(KNOWN["microsoft"], egress, 8)) > 4
    assert placed(KNOWN["google"], egress, 1) == [pytest.approx(1.0)]


def test_a_long_history_is_thinned_to_both_ends_and_some_between():
    history = [(float(at), at) for at in range(10_000)]
    kept = thinned(history)
    assert (kept[0], kept[-1]) == (history[0], history[-1])
    assert len(kept) < 300
    assert thinned(history[:1]) == (history[0],)
