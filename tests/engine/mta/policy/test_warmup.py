"""A warm-up plan in sending days."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.mta.policy.warmup import UNLIMITED, WarmUp, WarmUpState

PLAN = (50, 100, 200)
DAY = 20_000


def test_a_days_quota_is_handed_out_once() -> None:
    plan = WarmUp(PLAN)
    assert plan.room(DAY) == 50
    assert plan.take(DAY, 30) == 30
    assert plan.take(DAY, 30) == 20
    assert plan.take(DAY, 30) == 0
    assert repr(plan) == "<WarmUp sending day 1 of 3, 50/50>"


def test_a_used_day_leads_to_the_next_and_after_the_last_nothing_limits() -> None:
    plan = WarmUp(PLAN)
    for number, quota in enumerate(PLAN):
        assert plan.take(DAY + number, 1_000) == quota
    assert plan.room(DAY + 3) == UNLIMITED
    assert plan.take(DAY + 3, 10**9) == 10**9
    assert plan.finished
    assert repr(plan) == "<WarmUp finished after 3 days>"


@pytest.mark.parametrize(("used", "quota"), [(24, 50), (25, 100), (50, 100), (0, 50)])
def test_a_day_counts_when_half_of_it_was_used(used: int, quota: int) -> None:
    plan = WarmUp(PLAN)
    plan.take(DAY, used)
    assert plan.room(DAY + 1) == quota


def test_days_without_mail_do_not_count() -> None:
    plan = WarmUp(PLAN)
    plan.take(DAY, 50)
    assert plan.room(DAY + 30) == 100


def test_a_clock_that_goes_back_brings_no_new_quota() -> None:
    plan = WarmUp(PLAN)
    plan.take(DAY, 50)
    assert plan.room(DAY - 1) == 0
    assert plan.room(DAY) == 0
    assert plan.room(DAY + 1) == 100


def test_what_was_not_sent_is_given_back_to_its_own_day_only() -> None:
    plan = WarmUp(PLAN)
    plan.take(DAY, 50)
    plan.give_back(DAY, 10)
    assert plan.room(DAY) == 10
    plan.take(DAY + 1, 100)
    plan.give_back(DAY, 40)
    assert plan.room(DAY + 1) == 0


def test_a_restart_goes_on_where_it_was() -> None:
    plan = WarmUp(PLAN)
    plan.take(DAY, 50)
    plan.take(DAY + 1, 60)
    again = WarmUp(PLAN, plan.state)
    assert again.room(DAY + 1) == 40
    assert plan.state == WarmUpState(1, DAY + 1, 60)


def test_what_lies_ahead_is_todays_rest_and_the_days_to_come() -> None:
    plan = WarmUp(PLAN)
    plan.take(DAY, 20)
    assert plan.ahead(DAY) == (30, 100, 200)
    assert WarmUp(()).ahead(DAY) == ()
    assert WarmUp(()).room(DAY) == UNLIMITED


@given(st.lists(st.tuples(st.integers(-2, 3), st.integers(0, 300)), max_size=60))
def test_no_day_ever_gets_more_than_its_quota(steps: list[tuple[int, int]]) -> None:
    plan, today = WarmUp(PLAN), DAY
    sent: dict[int, int] = {}
    for move, wanted in steps:
        today += move
        taken = plan.take(today, wanted)
        assert 0 <= taken <= wanted
        if not plan.finished:
            day = plan.state.day
            assert day is not None
            assert day >= today
            sent[day] = sent.get(day, 0) + taken
            assert sent[day] <= PLAN[plan.state.day_index]
