"""What is known of a path: how much may go by all that limits it, why it rests, what is noted."""

import math

import pytest

from engine.actors.memory import Door, PathMemory, Place, ProviderMemory
from engine.actors.warming import WarmUpAccount
from engine.config.shaping import ShapingRule, WarmUpPlan
from engine.config.tables import RetryTable
from engine.config.units import Duration, Rate, RateRange
from engine.model.event import Adapted
from engine.mta.policy.breaker import Breaker
from engine.mta.policy.governor_rate import START_PER_SECOND
from engine.mta.policy.governor_window import FIRST_CONNECTIONS
from engine.mta.policy.shaping import NODE_FILE, Layer, ShapingRules
from tests.fakes.memory_bus import MemoryBus

NOW = 1_000.0


def a_path(*rules: ShapingRule, hasty: bool = False, notes: list[Adapted] | None = None) -> PathMemory:
    shaping = ShapingRules([Layer(NODE_FILE, (), rules)], RetryTable()).path("out", "mx.test", ["mx.test"])
    site, provider = Door(NOW), ProviderMemory("mx.test", "out", Breaker(NOW), NOW)
    site.limit(shaping.connections.ceiling, shaping.rate, shaping.burst_seconds, NOW)
    provider.limit(shaping.provider_connections, shaping.provider_rate, shaping.burst_seconds, NOW)
    noted = notes if notes is not None else []
    return PathMemory(
        "out>mx.test",
        Place("out", "mx.test", ("mx.test",), ""),
        shaping,
        site,
        provider,
        noted.append,
        NOW,
        hasty=hasty,
    )


def a_rule(path_rate: int, provider_rate: int, burst: float = 1) -> ShapingRule:
    return ShapingRule(
        rate=RateRange.up_to(Rate(path_rate, 1.0)),
        provider_rate=RateRange.up_to(Rate(provider_rate, 1.0)),
        burst=Duration(burst),
    )


# --- how much may go ------------------------------------------------------------------------------------


def test_an_unknown_receiver_is_met_modestly() -> None:
    path = a_path()
    assert path.governor.connections == FIRST_CONNECTIONS
    assert path.governor.rate_per_second == START_PER_SECOND
    assert path.take(NOW, 50) == 1, "nobody sees us in clumps"
    assert path.take(NOW + 10, 50) == 1


def test_a_relay_of_our_own_gets_everything_at_once() -> None:
    path = a_path(hasty=True)
    assert path.governor.connections == 20
    assert path.throttle.per_second is None
    assert path.take(NOW, 50_000) == 50_000
    assert path.wait_seconds(NOW) == 0


def test_a_rate_that_an_operator_says_is_used_at_once() -> None:
    path = a_path(ShapingRule(rate=RateRange.up_to(Rate(600, 60.0))))
    assert path.governor.rate_per_second == pytest.approx(10)


async def warmed(path: PathMemory, quota: int) -> WarmUpAccount:
    """A source that may send so many to this provider today."""
    plan = WarmUpPlan(source="out", per_day=(quota or 1,))
    account = path.provider.warmup = WarmUpAccount(
        MemoryBus("node"), plan, "out", "mx.test", lambda: 90_000.0
    )
    await account.reserve()
    if not quota:
        assert account.take(1) == 1
    return account


@pytest.mark.parametrize(
    ("path_rate", "provider_rate", "quota", "allowed"),
    [(8, 8, 9, 8), (8, 4, 9, 4), (4, 8, 9, 4), (8, 8, 5, 5), (8, 8, 0, 0), (8, 8, None, 8)],
)
async def test_the_narrowest_of_path_provider_and_warm_up_holds_and_what_it_refused_is_not_lost(
    path_rate: int, provider_rate: int, quota: int | None, allowed: int
) -> None:
    path = a_path(a_rule(path_rate, provider_rate))
    if quota is not None:
        await warmed(path, quota)
    later = NOW + 5  # every burst is full
    assert path.take(later, 50) == allowed
    assert path.take(later, 50) == 0
    assert path.throttle.take(later, 50) == path_rate - allowed
    assert path.provider.throttle.take(later, 50) == provider_rate - allowed


async def test_what_was_taken_and_not_sent_is_given_back_everywhere() -> None:
    path = a_path(a_rule(8, 8))
    account = await warmed(path, 6)
    later = NOW + 5
    assert path.take(later, 8) == 6
    path.give_back(6)
    assert path.take(later, 4) == 4
    assert path.take(later, 4) == 2
    assert account.exhausted


async def test_how_long_to_wait_is_the_longest_wait() -> None:
    path = a_path(a_rule(4, 1, burst=0))
    assert path.wait_seconds(NOW) == 0
    assert path.take(NOW, 9) == 1
    assert path.wait_seconds(NOW) == pytest.approx(1.0)
    await warmed(path, 0)
    assert path.wait_seconds(NOW + 9) == math.inf, "not today"


def test_openings_are_bounded_by_their_rate_and_by_the_provider_s_places() -> None:
    path = a_path(ShapingRule(connection_rate=Rate(3, 1.0), provider_connections=2))
    later = NOW + 5
    assert path.openings(later, 9) == 2, "of two places"
    path.provider.slots.opened(path.key, later)
    path.provider.slots.opened(path.key, later)
    assert path.openings(later, 9) == 0
    assert path.opening.take(later, 9) == 1, "what found no place was not counted"
    path.provider.slots.closed(path.key)
    assert path.openings(later, 9) == 0, "too fast"
    assert path.openings(later + 1, 9) == 1


# --- rests -----------------------------------------------------------------------------------------------


def test_a_path_rests_until_the_last_reason_is_over_and_says_which() -> None:
    path = a_path()
    assert path.rest(NOW) == (0.0, "")
    path.suspend(NOW + 5, "refused")
    path.suspend(NOW + 3, "less")
    assert path.rest(NOW) == (NOW + 5, "refused")
    path.provider.rest_until, path.provider.rest_reason = NOW + 60, "listed"
    assert path.rest(NOW) == (NOW + 60, "listed")
    path.governor.rate_limited(NOW, rule="rate", text="slow down", retry_after_seconds=90.0)
    assert path.rest(NOW) == (NOW + 90, "the receiver asked for a pause")
    assert path.rest(NOW + 89)[0] == NOW + 90
    assert path.rest(NOW + 90) == (0.0, "")


# --- the control loop ----------------------------------------------------------------------------------


def test_what_the_loop_changes_is_noted_with_its_reason_and_kept_by_the_throttle() -> None:
    notes: list[Adapted] = []
    path = a_path(notes=notes)
    path.governor.delivered(NOW + 0.4, 30, 1.0)
    path.tick(NOW + 0.5, busy=True, open_connections=2)
    (up,) = [note for note in notes if note.knob == "rate"]
    assert (up.path, up.provider, up.before) == ("out>mx.test", "mx.test", START_PER_SECOND)
    assert up.after == pytest.approx(2 * START_PER_SECOND)
    assert path.throttle.per_second == pytest.approx(up.after)
    notes.clear()
    path.governor.rate_limited(NOW + 1, rule="rate", text="slow down")
    path.publish_changes(NOW + 1)
    (down,) = notes
    assert (down.knob, down.rule) == ("rate", "rate")
    assert down.reason.startswith("slow down: down from")
    assert down.after is not None
    assert path.throttle.per_second == pytest.approx(down.after)


def test_an_idle_path_changes_nothing() -> None:
    notes: list[Adapted] = []
    path = a_path(notes=notes)
    for at in range(100):
        path.tick(NOW + at, busy=False, open_connections=0)
    assert not notes
    assert "20/s" in repr(path)
    assert repr(path.provider) == "<Provider mx.test via out: <Slots 0 open on 0 paths, 0 waiting>>"


def test_a_rest_is_told_once_and_again_when_it_becomes_longer() -> None:
    notes: list[Adapted] = []
    path = a_path(notes=notes)
    for later in (0.0, 0.1, 0.2):  # until midnight is the same rest, however often it is looked at
        path.rest_for(NOW + later, 60.0 - later, "warm-up: the quota is used")
    path.rest_for(NOW + 1, 120.0, "no connection succeeded")
    assert [(note.knob, note.after, note.reason) for note in notes] == [
        ("rest", 60.0, "warm-up: the quota is used"),
        ("rest", 120.0, "no connection succeeded"),
    ]
    assert path.rest(NOW + 1) == (NOW + 121, "no connection succeeded")


# --- other rules ----------------------------------------------------------------------------------------


def test_other_rules_hold_at_once_and_what_was_counted_stays_counted() -> None:
    path = a_path(a_rule(10, 100))
    assert path.take(NOW, 99) == 1
    other = a_path(a_rule(2, 50, burst=0.1)).shaping
    path.site.limit(other.connections.ceiling, other.rate, other.burst_seconds, NOW)
    path.provider.limit(other.provider_connections, other.provider_rate, other.burst_seconds, NOW)
    path.reshape(other, path.provider, NOW, "override 1")
    assert (path.throttle.per_second, path.provider.throttle.per_second) == (2.0, 50.0)
    assert path.take(NOW, 99) == 0
    assert path.take(NOW + 60, 99) == 1, "with the new burst"
    assert path.governor.start == (FIRST_CONNECTIONS, math.inf)
    path.reshape(a_path().shaping, path.provider, NOW + 60, "it has ended")
    assert path.governor.start == (FIRST_CONNECTIONS, START_PER_SECOND)


def test_a_rest_that_is_lifted_hushes_nobody_any_more() -> None:
    path = a_path()
    path.suspend(NOW + 60, "refused")
    path.provider.rest_until = NOW + 900
    assert path.hushed(NOW)
    path.suspended_until = path.provider.rest_until = 0.0  # an operator's word
    assert path.rest(NOW) == (0.0, "")
    assert not path.hushed(NOW), "or every lease would be given back until the old end"


async def test_a_used_up_warm_up_quota_rests_the_path_and_lets_what_is_leased_go() -> None:
    path = a_path()
    await warmed(path, 0)
    until, why = path.rest(NOW)
    assert (until, why) == (NOW + 82_800, "warm-up: the quota of sending day 1 is used")
    assert not path.hushed(NOW)


def test_a_connection_gives_up_its_place_at_the_provider_that_the_path_has_by_then() -> None:
    path = a_path(ShapingRule(provider_connections=2))
    path.opened(NOW)
    other = ProviderMemory("other", "out", Breaker(NOW), NOW)
    path.reshape(path.shaping, other, NOW, "a provider was named")
    assert other.slots.taken == path.site.slots.taken == 1
    path.closed()
    assert other.slots.taken == path.site.slots.taken == 0, "no place is lost for ever"
