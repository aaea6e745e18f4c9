"""The bound: work over capacity, for each resource by itself."""

import math

import pytest
from msgspec.structs import replace

from bench.simulation.model import NO_COORDINATOR, Coordinator, Loss, Scenario, fleet
from bench.simulation.optimum import BUS, COORDINATOR, ENGINES, optimum, report_seconds
from bench.simulation.path import DAY_SECONDS
from bench.simulation.providers import known_providers, with_shared_limit

FREE = known_providers(limits=0)


def scenario(**changes: object) -> Scenario:
    usual = {
        "messages": 1_000_000,
        "providers": FREE,
        "broadcasters": fleet(4, per_second=1_000.0),
        "coordinator": NO_COORDINATOR,
    }
    return Scenario(**{**usual, **changes})


def test_without_limits_it_is_the_list_over_the_engines_speed():
    bound = optimum(scenario())
    assert bound.by == ENGINES
    assert bound.seconds == pytest.approx(250.0, abs=0.1)


def test_half_of_the_list_takes_half_as_long():
    assert optimum(scenario(), 500_000).seconds == pytest.approx(125.0, abs=0.1)


@pytest.mark.parametrize(
    ("loss", "seconds"),
    [
        (Loss(2, 125.0), 375.0),  # half is done, the rest at half the speed
        (Loss(2, 125.0, returns_after_seconds=50.0), 275.0),
        (Loss(2, 125.0, returns_after_seconds=1_000.0), 375.0),
        (Loss(2, 1_000.0), 250.0),
        (Loss(4, 125.0), math.inf),
        (Loss(4, 125.0, returns_after_seconds=100.0), 350.0),
    ],
)
def test_lost_broadcasters_are_missing_for_as_long_as_they_are_away(loss, seconds):
    assert optimum(scenario(loss=loss)).seconds == pytest.approx(seconds, abs=0.2)


@pytest.mark.parametrize(
    ("coordinator", "by", "seconds"),
    [
        (replace(NO_COORDINATOR, people_per_second=1_000.0), COORDINATOR, 1_000.0),
        (replace(NO_COORDINATOR, publishes_per_second=0.5), BUS, 400.0),
        (replace(NO_COORDINATOR, claims_per_second=0.25), BUS, 800.0),
    ],
)
def test_a_slow_coordinator_or_bus_holds_it_up(coordinator, by, seconds):
    bound = optimum(scenario(coordinator=coordinator))
    assert bound.by == by
    assert bound.seconds == pytest.approx(seconds)


def test_cutting_and_folding_share_one_core():
    one = scenario(coordinator=Coordinator(people_per_second=1_000.0, events_per_second=500.0))
    assert report_seconds(one, 1_000) == pytest.approx(3.0, abs=0.1)


def test_the_provider_with_the_least_room_for_its_part_holds_it_up():
    providers = known_providers()
    bound = optimum(scenario(providers=providers))
    google = providers[0]
    assert bound.by == "google"
    assert bound.seconds == pytest.approx(1_000_000 * google.share / (4 * google.source_per_second), rel=0.01)


def test_more_addresses_do_not_help_a_domain_that_has_one_of_them():
    providers = known_providers()
    bound = optimum(scenario(providers=providers, broadcasters=fleet(4, sources=10)))
    assert bound.by == "google (gmail.com)"
    assert bound.seconds_by["google"] < bound.seconds / 5


def test_a_limit_for_the_sending_domain_does_not_grow_with_the_fleet():
    providers = with_shared_limit(known_providers(), 50.0)
    few, many = (optimum(scenario(providers=providers, broadcasters=fleet(n))) for n in (10, 50))
    assert few.by == many.by == "google, shared"
    assert few.seconds == many.seconds


def test_a_warm_up_plan_counts_in_days():
    providers = known_providers()
    bound = optimum(scenario(providers=providers, warm_up=(1_000, 10_000, 1_000_000)))
    assert bound.by == "google, warm-up"
    assert bound.seconds == 2 * DAY_SECONDS
    assert optimum(scenario(providers=providers, warm_up=(10**6,))).by == "google"
