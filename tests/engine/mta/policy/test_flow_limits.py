"""The rate of a workspace or campaign holds over all paths, whoever asks."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.shaping import ShapingRule
from engine.config.tables import RetryTable
from engine.config.units import CountRange, Duration, Rate, RateRange
from engine.mta.policy.flow_limits import FlowLimits
from engine.mta.policy.shaping import NODE_FILE, Layer, ShapingRules

NOW = 1_000.0
LATER = NOW + 60
SECOND = Duration(1.0)


def limits(*rules: ShapingRule) -> FlowLimits:
    return FlowLimits(ShapingRules([Layer(NODE_FILE, (), rules)], RetryTable()))


def a_rule(count: int, **match: Any) -> ShapingRule:
    return ShapingRule(rate=RateRange.up_to(Rate(count, 1.0)), burst=SECOND, **match)


def test_without_such_rules_nothing_is_limited() -> None:
    free = limits(ShapingRule(connections=CountRange(1, 1)))
    assert not free.any
    assert free.take(NOW, "big", "shop", 7, 9_999) == 9_999


def test_mail_that_no_rule_matches_is_not_limited() -> None:
    some = limits(a_rule(1, workspace="shop"))
    assert some.any
    assert some.take(NOW, "big", "press", 7, 9_999) == 9_999


def test_campaigns_of_a_workspace_share_its_rate_over_all_providers() -> None:
    some = limits(a_rule(10, workspace="shop"))
    assert some.take(NOW, "big", "shop", 7, 99) == 1, "it begins without a burst"
    taken = [
        some.take(LATER, provider, "shop", campaign, 4) for provider in ("a", "b") for campaign in (7, 8)
    ]
    assert taken == [4, 4, 2, 0]


def test_a_rule_for_one_provider_leaves_the_others_alone() -> None:
    some = limits(a_rule(2, campaign=7, provider="big"))
    some.take(NOW, "big", "", 7, 1)
    assert some.take(LATER, "big", "", 7, 99) == 2
    assert some.take(LATER, "small", "", 7, 99) == 99


@pytest.mark.parametrize(("campaign", "allowed"), [(7, 2), (8, 5)])
def test_the_narrowest_rule_holds(campaign: int, allowed: int) -> None:
    some = limits(a_rule(5, workspace="shop"), a_rule(2, campaign=7))
    some.take(NOW, "big", "shop", campaign, 1)
    assert some.take(LATER, "big", "shop", campaign, 99) == allowed


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 50), st.sampled_from(["a", "b"])), max_size=60))
def test_whatever_is_asked_the_rate_holds(asks: list[tuple[float, int, str]]) -> None:
    some, now, total = limits(a_rule(10, workspace="shop")), NOW, 0
    for pause, wanted, provider in asks:
        now += pause
        taken = some.take(now, provider, "shop", 7, wanted)
        assert 0 <= taken <= wanted
        total += taken
        assert total <= 10 * (now - NOW) + 10 + 1e-6


def test_it_shows_its_throttles() -> None:
    some = limits(a_rule(10, workspace="shop"))
    some.take(NOW, "big", "shop", 7, 1)
    assert repr(some) == "<FlowLimits: {'workspace shop': <Throttle 10/s>}>"


def test_other_rules_hold_at_once_and_what_was_counted_stays_counted() -> None:
    some = limits(a_rule(10, workspace="shop"))
    some.take(NOW, "big", "shop", 7, 1)
    assert some.take(LATER, "big", "shop", 7, 99) == 10
    some.follow(limits(a_rule(5, workspace="shop")).rules)
    assert some.take(LATER, "big", "shop", 7, 99) == 0, "no burst by asking anew"
    assert some.take(LATER + 1, "big", "shop", 7, 99) == 5
    some.follow(limits().rules)
    assert not some.any
    assert some.take(LATER + 1, "big", "shop", 7, 99) == 99
