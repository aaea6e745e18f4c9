"""The assumed receivers: known to the built-in rules, shares that add up, limits that scale."""

import math

import pytest

from bench.simulation.check import WORLD_RETRY
from bench.simulation.providers import (
    KNOWN,
    MIXES,
    REST,
    UNEVEN_SHARE,
    known_providers,
    of_world,
    with_shared_limit,
)
from bench.world.mix import real_list


def test_every_provider_of_the_table_is_one_that_the_built_in_rules_know_by_its_hosts():
    known = known_providers()
    assert {each.name for each in known} - {each.shaping.provider for each in known} == {REST}


@pytest.mark.parametrize("mix", MIXES)
def test_the_shares_of_a_mix_are_a_whole(mix):
    assert sum(each.share for each in known_providers(mix)) == pytest.approx(1.0)


def test_the_domains_of_a_provider_are_a_whole():
    for known in KNOWN:
        if known.domains:
            assert sum(part for _, part in known.domains) == pytest.approx(1.0)


def test_the_uneven_list_is_for_the_most_part_at_one_provider():
    assert max(each.share for each in known_providers("uneven")) == pytest.approx(UNEVEN_SHARE)
    with pytest.raises(ValueError, match="no such mix"):
        known_providers("odd")


def test_limits_scale_and_may_be_absent():
    usual, half = known_providers(), known_providers(limits=0.5)
    for one, other in zip(usual, half, strict=True):
        assert other.per_second == one.per_second / 2
    assert all(math.isinf(each.source_per_second) for each in known_providers(limits=0))


def test_what_we_allow_ourselves_binds_where_it_is_less_than_what_they_let_in():
    google = next(each for each in known_providers() if each.name == "google")
    assert google.connections > google.connections_usable == google.shaping.connections.ceiling
    assert google.source_per_second < google.per_second


def test_a_shared_limit_is_put_on_one_provider_alone():
    limited = with_shared_limit(known_providers(), 100.0)
    assert [each.name for each in limited if not math.isinf(each.shared_per_second)] == ["google"]


def test_a_world_becomes_providers_with_its_own_limits():
    spec = real_list(10_000, 30.0)
    counts = {each.name: 100 for each in spec.providers[:3]}
    made = of_world(spec, counts, WORLD_RETRY)
    assert [each.name for each in made] == list(counts)
    assert sum(each.share for each in made) == pytest.approx(1.0)
    assert made[0].per_second == pytest.approx(spec.providers[0].manners.rate_per_minute / 60)
    assert made[1].window_seconds == spec.providers[1].manners.rate_window_seconds
    assert made[0].shaping.retry == WORLD_RETRY
