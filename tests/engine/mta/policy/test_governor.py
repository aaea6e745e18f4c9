"""The governor's own manners: what it records, says, pins and replays."""

import math
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.units import CountRange, Rate, RateRange
from engine.mta.policy.governor import (
    CHANGES_KEPT,
    RETRY_AFTER_SECONDS_MAX,
    SIGNALS_KEPT,
    Governor,
    Knob,
    SignalKind,
    replay,
)

ALL = CountRange(1, 20)
START = 100.0


def sending(governor: Governor, begin: float, ticks: int, share: float = 1.0) -> float:
    """`ticks` busy ticks at `share` of what the governor allows; the time after them."""
    now = begin
    for _ in range(ticks):
        now += 0.5
        count = int((governor.rate_per_second or 10_000.0) * 0.5 * share)
        governor.delivered(now, count, 0.1 * count)
        governor.tick(now, True, governor.connections)
    return now


def refuse(governor: Governor, now: float, count: int = 1, retry_after: float | None = None) -> None:
    for _ in range(count):
        governor.rate_limited(now, rule="r", text="421 4.7.28 rate", retry_after_seconds=retry_after)


def test_it_starts_with_two_connections_and_a_modest_rate() -> None:
    governor = Governor(ALL, None, START)
    assert (governor.connections, governor.rate_per_second) == (2, 20.0)
    assert governor.paused_until <= START
    assert repr(governor) == "<Governor 2 of 1..20 connections, 20/s>"
    assert Governor(CountRange(5, 9), None, START).connections == 5
    assert Governor(CountRange(1, 1), None, START).connections == 1
    assert Governor(ALL, None, START, start_connections=4, start_per_second=100).rate_per_second == 100


def test_a_configured_rate_bounds_the_start() -> None:
    assert Governor(ALL, RateRange(Rate(60, 60.0), Rate(600, 60.0)), START).rate_per_second == 10
    assert Governor(ALL, RateRange(Rate(50, 1.0), Rate(90, 1.0)), START).rate_per_second == 50


def test_the_refusals_of_one_flight_are_one_event() -> None:
    governor = Governor(ALL, None, START)
    now = sending(governor, START, 3)
    governor.take_changes()
    refuse(governor, now, 30)
    (change,) = governor.take_changes()
    assert (change.knob, change.rule) == (Knob.RATE, "r")
    assert change.reason.startswith("421 4.7.28 rate: down from 160/s")
    assert governor.signals[-1].count == 30
    assert governor.paused_until == now + 1.0


def test_a_stated_wait_is_kept_within_an_hour() -> None:
    governor = Governor(ALL, None, START)
    refuse(governor, START, retry_after=90.0)
    assert governor.paused_until == START + 90
    refuse(governor, START, retry_after=1e9)
    assert governor.paused_until == START + RETRY_AFTER_SECONDS_MAX
    refuse(governor, START, retry_after=-5.0)


def test_while_it_asks_it_asks_slowly_and_one_answer_ends_it() -> None:
    governor = Governor(ALL, None, START)
    now = sending(governor, START, 6)
    refuse(governor, now)
    governor.delivered(now + 0.2)  # had been under way
    assert governor.rate_per_second == 2.0
    governor.delivered(now + 1.1)
    assert 100 < (governor.rate_per_second or 0) < 1_280
    assert "accepted again" in governor.take_changes()[-1].reason


def test_a_refused_connection_is_told_with_its_reply() -> None:
    governor = Governor(ALL, None, START)
    for _ in range(8):
        governor.tick(START, True, governor.connections)
    now = START
    while governor.connections < 8:
        now += 0.5
        governor.delivered(now, 10 * governor.connections, 1.0)
        governor.tick(now, True, governor.connections)
    governor.take_changes()
    governor.connection_refused(now, 5, "conn", "421 4.7.0 too many connections")
    (change,) = governor.take_changes()
    assert change.reason == "421 4.7.0 too many connections: down from 8 to 5"
    assert (change.before, change.after, change.rule) == (8, 5, "conn")
    assert governor.state()["connections_allowed"] == 5


def test_a_bad_reputation_halves_everything() -> None:
    governor = Governor(CountRange(1, 20), None, START, start_connections=8)
    now = sending(governor, START, 6, 0.7)
    before = governor.connections
    governor.reputation(now, rule="rep", text="550 5.7.1 poor reputation")
    assert governor.connections <= before / 2
    assert {change.knob for change in governor.take_changes()} >= {Knob.RATE, Knob.CONNECTIONS}
    governor.delivered(now + 1.5)
    assert governor.rate_per_second is not None
    assert governor.rate_per_second < 0.5 * 1_280


def test_sessions_that_break_off_in_numbers_cost_connections() -> None:
    governor = Governor(ALL, None, START, start_connections=10)
    for second in range(5):
        governor.closed_mid_session(START + second, 10, "", "connection reset")
    assert governor.connections == 7
    assert "5 sessions broke off" in governor.take_changes()[0].reason


def test_a_pin_holds_whatever_is_learnt_and_within_bounds() -> None:
    governor = Governor(ALL, RateRange(Rate(1, 1.0), Rate(50, 1.0)), START)
    governor.pin(Knob.RATE, 7.0, START, "by Ann")
    governor.pin(Knob.CONNECTIONS, 99, START, "by Ann")
    now = sending(governor, START, 10)
    refuse(governor, now)
    assert (governor.rate_per_second, governor.connections) == (7.0, 20)
    assert "connections pinned" in repr(governor)
    assert governor.state()["pinned"] == {"rate": 7.0, "connections": 20}
    governor.unpin(Knob.RATE, now, "by Ann")
    governor.unpin(Knob.CONNECTIONS, now, "by Ann")
    assert governor.rate_per_second != 7.0
    reasons = [change.reason for change in governor.take_changes()]
    assert any(reason.startswith("pinned: by Ann") for reason in reasons)
    assert any(reason.startswith("no longer pinned: by Ann") for reason in reasons)


def test_a_reset_forgets_pins_and_lessons() -> None:
    governor = Governor(ALL, None, START)
    now = sending(governor, START, 6)
    refuse(governor, now)
    governor.pin(Knob.CONNECTIONS, 3, now, "")
    governor.reset(now, "moved house")
    assert (governor.connections, governor.rate_per_second) == (2, 20.0)
    assert governor.state()["rate_allowed"] is None
    assert governor.paused_until <= now


def test_new_bounds_hold_at_once_and_what_was_learnt_stays() -> None:
    governor = Governor(ALL, None, START)
    governor.pin(Knob.CONNECTIONS, 15, START, "")
    sending(governor, START, 12)
    assert governor.rate_per_second is None
    governor.take_changes()
    narrow = CountRange(1, 4), RateRange(Rate(1, 1.0), Rate(5, 1.0))
    governor.set_bounds(*narrow, START + 12, "override 1", start_per_second=math.inf)
    assert (governor.connections, governor.rate_per_second) == (4, 5.0)
    assert [(change.knob, change.reason) for change in governor.take_changes()] == [
        (Knob.CONNECTIONS, "override 1: down from 15 to 4"),
        (Knob.RATE, "override 1: down from unlimited to 5/s"),
    ]
    governor.set_bounds(ALL, None, START + 13, "it has ended", start_per_second=7.0)
    assert governor.rate_per_second == 5.0
    assert governor.take_changes() == [], "what may move now has not moved yet"
    governor.reset(START + 14, "")
    assert governor.rate_per_second == 7.0


def test_an_idle_path_records_nothing() -> None:
    governor = Governor(ALL, None, START)
    for second in range(100):
        governor.tick(START + second, False, 0)
    assert governor.signals == ()


def test_signals_and_changes_are_bounded() -> None:
    governor = Governor(ALL, None, START)
    for count in range(3 * SIGNALS_KEPT):
        governor.pin(Knob.RATE, 1 + count % 7, START + count, "")
    assert len(governor.signals) == SIGNALS_KEPT
    assert len(governor.take_changes()) == CHANGES_KEPT
    assert governor.take_changes() == []


def test_state_is_plain_and_says_why() -> None:
    governor = Governor(ALL, None, START)
    assert governor.state()["rate_why"] == "as it started"
    now = sending(governor, START, 4)
    refuse(governor, now)
    state = governor.state()
    assert state["rate_phase"] == "refused, asks again"
    assert str(state["rate_why"]).startswith("421 4.7.28 rate")
    assert isinstance(state["rate_next_after_messages"], int)
    assert state["paused_until"] == now + 1.0


events = st.one_of(
    st.tuples(st.just("delivered"), st.integers(1, 500), st.floats(0.0, 50.0)),
    st.tuples(st.just("tick"), st.booleans(), st.integers(0, 25)),
    st.tuples(st.just("rate"), st.sampled_from([None, 0.0, 5.0]), st.just(0)),
    st.tuples(st.just("dial"), st.integers(0, 25), st.just(0)),
    st.tuples(st.just("closed"), st.integers(0, 25), st.just(0)),
    st.tuples(st.just("reputation"), st.sampled_from([None, 30.0]), st.just(0)),
    st.tuples(st.just("pin"), st.sampled_from(list(Knob)), st.floats(0.001, 100.0)),
    st.tuples(st.just("unpin"), st.sampled_from(list(Knob)), st.just(0)),
    st.tuples(st.just("reset"), st.just(0), st.just(0)),
)


def tell(governor: Governor, now: float, event: tuple) -> None:  # type: ignore[type-arg]
    match event:
        case "delivered", count, seconds:
            governor.delivered(now, count, seconds)
        case "tick", busy, opened:
            governor.tick(now, busy, opened)
        case "rate", wait, _:
            refuse(governor, now, retry_after=wait)
        case "dial", opened, _:
            governor.connection_refused(now, opened, "d", "421")
        case "closed", opened, _:
            governor.closed_mid_session(now, opened, "c", "reset")
        case "reputation", wait, _:
            governor.reputation(now, rule="p", text="550", retry_after_seconds=wait)
        case "pin", knob, value:
            governor.pin(knob, value, now, "")
        case "unpin", knob, _:
            governor.unpin(knob, now, "")
        case "reset", _, _:
            governor.reset(now, "")


@given(
    st.lists(st.tuples(st.floats(0.0, 5.0), events), max_size=60),
    st.sampled_from([None, RateRange(Rate(1, 60.0), Rate(30, 1.0))]),
)
def test_whatever_happens_bounds_hold_and_a_replay_does_the_same(
    steps: list[tuple[float, tuple]],  # type: ignore[type-arg]
    rate: RateRange | None,
) -> None:
    governor = Governor(CountRange(2, 12), rate, START)
    now, changes = START, []
    for pause, event in steps:
        now += pause
        tell(governor, now, event)
        assert 2 <= governor.connections <= 12
        allowed = governor.rate_per_second
        assert allowed is None or allowed > 0
        if rate is not None:
            assert allowed is not None
            assert rate.floor.per_second <= allowed <= rate.ceiling.per_second
        assert governor.paused_until <= now + RETRY_AFTER_SECONDS_MAX
        changes += governor.take_changes()
    assert replay(governor.signals, CountRange(2, 12), rate, START) == changes


def test_a_replay_within_other_bounds_tells_what_would_have_been() -> None:
    governor = Governor(ALL, None, START)
    refuse(governor, sending(governor, START, 6))
    changes = replay(governor.signals, ALL, RateRange(Rate(1, 1.0), Rate(30, 1.0)), START)
    assert max(change.after or 0 for change in changes if change.knob is Knob.RATE) == 30
    assert governor.signals[0].kind is SignalKind.TICK


def test_counting_a_delivery_costs_next_to_nothing() -> None:
    governor = Governor(ALL, None, START)
    seconds = min(timeit.repeat(lambda: governor.delivered(START, 1, 0.1), number=10_000, repeat=5)) / 10_000
    assert seconds < 5e-6, "measured 0.13 us; ten times that on a busy machine, and some"


@pytest.mark.parametrize(("per_second", "text"), [(0.5, "30/min"), (20.0, "20/s"), (1280.0, "1.28e+03/s")])
def test_rates_are_told_in_the_unit_that_reads(per_second: float, text: str) -> None:
    governor = Governor(ALL, None, START, start_per_second=per_second)
    assert text in repr(governor)
