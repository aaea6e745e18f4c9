"""A state a person, whatever the order of events: the first final one counts, and all adds up."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.job import outcomes as module
from control.job.outcomes import Outcomes, State
from engine.model import event as events
from engine.mta.spool.api import StateCounts

FINAL = ("Delivered", "Bounced", "Expired", "Suppressed", "Cancelled", "RenderFailed")


def event(kind: str, subscriber: int, *, reply: str = "", reason: str = "", attempt: int = 0) -> Any:
    rest = ("", "mx", "default", "mx", "", 0.1)
    return getattr(events, kind)(7, subscriber, subscriber, "x.test", attempt, "rcpt", reply, reason, *rest)


def planned(count: int = 10) -> Outcomes:
    made = Outcomes()
    made.plan(range(1, count + 1), count)
    return made


def total(counts: StateCounts) -> int:
    return counts.finished + counts.ambiguous + counts.quarantined + counts.deferred


def test_who_is_in_a_chunk_that_nobody_took_counts_nowhere() -> None:
    made = planned()
    assert (made.counts().accepted, made.planned()) == (0, 10)
    made.accept(1, 10, "a")
    assert (made.counts().accepted, made.counts().deferred, made.planned()) == (10, 10, 0)
    assert made.counts("a").accepted == 10
    assert made.counts("b").accepted == 0
    assert made.person(3).state is State.QUEUED
    assert made.person(999).state is State.NONE


def test_refused_records_are_in_no_chunk() -> None:
    made = Outcomes()
    made.plan([1, 3], 3)
    made.accept(1, 3, "a")
    assert made.counts().accepted == 2
    assert made.person(2).state is State.NONE


def test_each_event_gives_its_state() -> None:
    made = planned(12)
    made.accept(1, 12, "a")
    for number, kind in enumerate((*FINAL, "Quarantined", "Deferred"), start=1):
        assert made.add(event(kind, number, reply="550 no"), "a") == (kind in FINAL)
    made.add(event("Ambiguous", 9, reason="ambiguous, waits for a retry"), "a")
    made.add(event("Ambiguous", 10, reason="ambiguous, held"), "a")
    counts = made.counts()
    assert (counts.delivered, counts.bounced, counts.expired, counts.suppressed) == (1, 1, 1, 1)
    assert (counts.cancelled, counts.render_failed, counts.quarantined) == (1, 1, 1)
    assert (counts.ambiguous, counts.was_ambiguous, counts.deferred) == (1, 2, 4)
    assert made.retrying() == 2
    assert total(counts) == counts.accepted == 12
    assert made.person(2) == module.Person(State.BOUNCED, "a", False, "550 no")
    assert made.person(1).reply == ""
    assert made.person(9).was_ambiguous


def test_the_first_final_state_counts_and_two_deliveries_are_said() -> None:
    made = planned(2)
    made.accept(1, 2, "a")
    made.add(event("Delivered", 1), "a")
    assert not made.add(event("Bounced", 1), "b")
    assert made.doubled == 0
    assert not made.add(event("Delivered", 1), "b")
    assert made.doubled == 1
    assert made.person(1).state is State.DELIVERED
    assert made.counts("a").delivered == 1


def test_a_held_one_that_an_operator_decides_gets_its_end() -> None:
    made = planned(1)
    made.accept(1, 1, "a")
    made.add(event("Ambiguous", 1, reason="ambiguous, held"), "a")
    made.add(event("Delivered", 1), "a")
    counts = made.counts()
    assert (counts.ambiguous, counts.delivered, counts.was_ambiguous) == (0, 1, 1)


def test_who_is_given_up_is_ambiguous_until_a_late_event_says_better() -> None:
    made = planned(4)
    made.accept(1, 3, "a")
    made.add(event("Delivered", 1), "a")
    made.add(event("Deferred", 2, reply="450 later"), "a")
    assert made.give_up(1, 4, "a") == 3
    counts = made.counts()
    assert (counts.ambiguous, counts.was_ambiguous, counts.delivered, counts.deferred) == (3, 3, 1, 0)
    assert made.person(2).reply == module.RETIRED_REASON
    made.add(event("Deferred", 2), "a")
    assert made.counts().deferred == 0, "a retired one's retry is nobody's any more"
    made.add(event("Delivered", 2), "a")
    assert made.counts().delivered == 2
    assert made.unfinished(1, 4) == 0


def test_a_chunk_that_two_claimed_marks_its_people() -> None:
    made = planned(3)
    made.accept(1, 3, "a")
    made.may_be_doubled(1, 2)
    made.may_be_doubled(1, 2)
    assert made.counts().was_ambiguous == 2
    assert [made.person(number).was_ambiguous for number in (1, 2, 3)] == [True, True, False]


def test_replies_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLIES_KEPT_MAX", 2)
    made = planned(3)
    for number in (1, 2, 3):
        made.add(event("Bounced", number, reply="550 " + "x" * 1_000), "a")
    assert [len(made.person(number).reply) for number in (1, 2, 3)] == [300, 300, 0]
    made.add(event("Deferred", 1), "a")
    assert made.counts().bounced == 3


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_events_before_their_chunk_is_cut_again_come_to_the_same(seed: int, count: int) -> None:
    dice = random.Random(seed)
    happened = [
        event(dice.choice((*FINAL, "Deferred", "Ambiguous")), dice.randint(1, count)) for _ in range(80)
    ]
    usual = planned(count)
    usual.accept(1, count, "a")
    late = Outcomes()
    for one in happened:
        usual.add(one, "a")
    for number, one in enumerate(happened):
        if number == 40:
            late.accept(1, count, "a")
            late.plan(range(1, count + 1), count, "a")
        late.add(one, "a")
    assert [usual.person(n) for n in range(1, count + 1)] == [late.person(n) for n in range(1, count + 1)]
    assert usual.counts() == late.counts() == usual.counts("a")
    assert total(usual.counts()) == usual.counts().accepted == count
    states = Counter(usual.person(number).state for number in range(1, count + 1))
    assert usual.unfinished(1, count) == sum(states[state] for state in states if state < State.DELIVERED)
