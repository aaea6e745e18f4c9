"""The coordinator of a simulated job: within its ceilings, in proportion, and nobody falls out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulation.coordinator import Ceiling, CoordinatorModel
from bench.simulation.fleet import BroadcasterModel
from bench.simulation.model import FIXED_PLAN, NO_COORDINATOR, Coordinator, Scenario, fleet
from bench.simulation.providers import known_providers
from control.job.roster import LIVE_SECONDS

PROVIDERS = known_providers()


def made(
    messages: int, count: int = 2, coordinator: Coordinator = NO_COORDINATOR, **changes: object
) -> tuple[CoordinatorModel, list[BroadcasterModel]]:
    scenario = Scenario(
        messages=messages,
        providers=PROVIDERS,
        broadcasters=fleet(count),
        coordinator=coordinator,
        **{"bounds": FIXED_PLAN, "measures_speed": False, **changes},
    )
    engines = [BroadcasterModel(spec, scenario) for spec in scenario.broadcasters]
    return CoordinatorModel(scenario, engines), engines


@given(st.floats(0.1, 100), st.lists(st.floats(0, 50), max_size=50))
def test_a_ceiling_is_kept_over_any_time_but_for_one_borrowed_piece(per_second, wishes):
    ceiling, taken, largest = Ceiling(per_second), 0.0, 0.0
    for number, wish in enumerate(wishes, 1):
        ceiling.step(1.0)
        if ceiling.take(wish):
            taken, largest = taken + wish, max(largest, wish)
        assert taken <= per_second * number + largest + 1e-6


def test_every_chunk_has_mail_in_the_lists_proportions():
    coordinator, engines = made(200_003)
    coordinator.hand_out(0.0, 1.0)
    while coordinator.held:
        coordinator.hand_out(1.0, 1.0)
    assert sum(each.waiting for each in engines) == 200_003
    for index, provider in enumerate(PROVIDERS):
        there = sum(path.fresh for each in engines for path, _ in each.paths[index])
        assert there == pytest.approx(200_003 * provider.share, abs=len(PROVIDERS))


@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=30))
def test_a_mixed_chunk_has_just_as_many_as_it_should(sizes):
    coordinator, _ = made(1_000_000)
    for size in sizes:
        counts = coordinator._mixed(size)
        assert sum(counts) == size
        assert min(counts) >= 0


def test_it_cuts_no_faster_than_its_core_and_publishes_no_faster_than_its_bus():
    slow, _ = made(1_000_000, coordinator=Coordinator(people_per_second=10_000.0))
    for step in range(10):
        slow.hand_out(float(step), 1.0)
    assert 100_000 <= 1_000_000 - slow.left <= 105_000
    narrow, _ = made(1_000_000, coordinator=Coordinator(publishes_per_second=2.0))
    for step in range(10):
        narrow.hand_out(float(step), 1.0)
    assert 18 <= narrow.chunks <= 20


def test_folding_comes_first_and_takes_its_time_from_cutting():
    coordinator, _ = made(
        1_000_000, coordinator=Coordinator(people_per_second=10_000.0, events_per_second=1_000.0)
    )
    coordinator.told(500)
    coordinator.hand_out(0.0, 1.0)
    assert coordinator.unfolded == 0
    assert 1_000_000 - coordinator.left == pytest.approx(5_000, abs=5_000)
    coordinator.told(10_000)
    assert coordinator.fold_rest() == pytest.approx(10.0)


def test_chunks_that_a_dead_broadcaster_had_not_claimed_move_and_claimed_ones_stay():
    coordinator, (dead, living) = made(20_000)
    dead.die(0.0)
    coordinator.hand_out(0.0, 1.0)  # nobody knows yet
    assert dead.waiting == 0
    unclaimed = coordinator.held
    assert unclaimed + living.waiting == 20_000
    assert unclaimed > 0
    coordinator.hand_out(LIVE_SECONDS + 1.0, 1.0)
    assert coordinator.held == 0
    assert living.waiting == 20_000
    assert coordinator.moved_chunks > 0


def test_a_copy_left_behind_is_taken_by_whoever_lives():
    coordinator, (dead, living) = made(20_000)
    dead.die(0.0)
    living.die(0.0)
    coordinator.hand_out(0.0, 1.0)
    assert coordinator.held == 20_000
    dead.return_(1.0)
    coordinator.hand_out(1.0, 1.0)
    assert 0 < dead.waiting < 20_000
    assert coordinator.held + dead.waiting == 20_000
