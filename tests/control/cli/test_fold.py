"""Sums over events: repeats change nothing, order and restarts do not matter, all adds up."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.cli.fold import REASONS_KEPT_MAX, SAMPLE_CHARS, Fold
from control.cli.report import DomainReport
from engine.model import event as events
from engine.model.disposition import DelayReason
from engine.model.event import ChunkAccepted, Event, EventBatch

CAMPAIGN = 7
FINAL = ("Delivered", "Bounced", "Expired", "Suppressed", "Cancelled", "RenderFailed", "Quarantined")
DOMAINS = ("a.example", "b.example", "c.example")


def attempt(
    kind: str,
    spool_id: int,
    domain: str = "a.example",
    *,
    number: int = 0,
    campaign: int = CAMPAIGN,
    reply: str = "",
    reason: str = "",
    rule: str = "",
    category: str = "",
) -> Any:
    where = ("mx", "default", "mx", "", 0.1, category)
    return getattr(events, kind)(campaign, 1, spool_id, domain, number, "rcpt", reply, reason, rule, *where)


def batch(
    sequence: int, *happened: Event, at: float = 100.0, producer: str = "n1", epoch: str = "e1"
) -> EventBatch:
    return EventBatch(producer, epoch, sequence, at, producer, happened)


def accepted(chunk: str, count: int) -> ChunkAccepted:
    return ChunkAccepted(CAMPAIGN, chunk, count)


def by_domain(fold: Fold) -> dict[str, DomainReport]:
    return {report.domain: report for report in fold.reports()}


def filled(*batches: EventBatch) -> Fold:
    fold = Fold(CAMPAIGN)
    fold.expect("c1", ["a.example", "a.example", "b.example"])
    for each in batches:
        fold.add(each)
    return fold


def test_domains_are_those_of_accepted_chunks_with_what_became_of_them() -> None:
    fold = filled(
        batch(1, accepted("c1", 3)),
        batch(2, attempt("Delivered", 1), attempt("Bounced", 3, "b.example", rule="permanent-rcpt")),
    )
    reports = by_domain(fold)
    assert (reports["a.example"].counts.accepted, reports["a.example"].counts.delivered) == (2, 1)
    assert reports["a.example"].counts.deferred == 1
    assert (reports["b.example"].counts.accepted, reports["b.example"].counts.bounced) == (1, 1)
    assert (fold.accepted, fold.first_attempts) == (3, 2)


def test_a_chunk_may_be_expected_after_it_was_accepted() -> None:
    fold = Fold(CAMPAIGN)
    fold.add(batch(1, accepted("c1", 2)))
    assert fold.reports() == ()
    fold.expect("c1", ["a.example", "b.example"])
    assert {name: report.counts.accepted for name, report in by_domain(fold).items()} == {
        "a.example": 1,
        "b.example": 1,
    }


def test_there_are_no_domains_while_an_accepted_chunk_is_not_named() -> None:
    fold = Fold(CAMPAIGN)
    fold.expect("1", ["a.example"])
    fold.add(batch(1, accepted("1", 1), accepted("2", 1)))
    assert fold.reports() == ()
    fold.expect("2", ["b.example"])
    assert set(by_domain(fold)) == {"a.example", "b.example"}


def test_a_chunk_that_was_never_accepted_counts_nowhere() -> None:
    assert filled().reports() == ()


def test_a_batch_that_was_seen_is_dropped() -> None:
    story = [batch(1, accepted("c1", 3)), batch(2, attempt("Delivered", 1), attempt("Delivered", 2))]
    once, again = filled(*story), filled(*story, *story)
    assert again.reports() == once.reports()
    assert again.accepted == 3


def test_another_producer_or_a_new_store_counts_its_own_sequence() -> None:
    fold = filled(
        batch(1, attempt("Delivered", 1)),
        batch(1, attempt("Delivered", 1), producer="n2"),
        batch(1, attempt("Delivered", 2), epoch="e2"),
    )
    assert by_domain(fold)["a.example"].counts.delivered == 3


def test_other_campaigns_are_left_out() -> None:
    fold = filled(batch(1, attempt("Delivered", 1, campaign=8), ChunkAccepted(8, "c1", 3)))
    assert fold.reports() == ()
    assert fold.accepted == 0


def test_changes_of_the_control_loop_are_no_attempts() -> None:
    held = events.Adapted("out>mx", "lamp", "hold", None, 900.0, "spam", campaign=CAMPAIGN)
    fold = filled(batch(1, held))
    assert (fold.attempts, fold.accepted, by_domain(fold)) == (0, 0, {})


def test_attempts_and_retries_are_counted_with_those_that_were_put_off() -> None:
    fold = filled(
        batch(1, attempt("Deferred", 1, "a.test"), attempt("Deferred", 2, "a.test", category="rate-limited")),
        batch(3, attempt("Deferred", 1, "a.test", number=1), attempt("Bounced", 1, "a.test", number=2)),
    )
    assert (fold.attempts, fold.put_off, fold.retries, fold.put_off_again) == (4, 2, 2, 1)


def test_a_deferred_envelope_is_retrying_until_it_ends() -> None:
    fold = filled(
        batch(1, attempt("Deferred", 1, rule="transient"), attempt("Deferred", 2, rule="transient"))
    )
    assert fold.retrying == 2
    fold.add(batch(3, attempt("Deferred", 1, number=1, rule="transient"), attempt("Delivered", 2, number=1)))
    assert fold.retrying == 1
    assert fold.first_attempts == 2
    assert by_domain(fold)["a.example"].reasons[0].count == 3


@pytest.mark.parametrize(
    ("reason", "held", "retrying"),
    [(DelayReason.AMBIGUOUS_HELD, 1, 0), (DelayReason.AMBIGUOUS_RETRY, 0, 1)],
)
def test_an_ambiguous_envelope_is_a_state_only_while_it_is_held(
    reason: DelayReason, held: int, retrying: int
) -> None:
    fold = filled(batch(1, attempt("Ambiguous", 1, reason=reason.value, rule="ambiguous")))
    assert by_domain(fold)["a.example"].counts.ambiguous == held
    assert fold.retrying == retrying


def test_seconds_run_from_the_first_batch_to_the_last() -> None:
    fold = filled(batch(1, accepted("c1", 3), at=50.0), batch(2, attempt("Delivered", 1), at=53.5))
    assert fold.seconds == 3.5
    assert Fold(CAMPAIGN).seconds == 0.0


@pytest.mark.parametrize(
    ("given", "text", "status"),
    [
        ({"rule": "permanent-rcpt", "reply": "550 5.1.1 No"}, "permanent-rcpt", "550 5.1.1"),
        ({"rule": "transient", "reply": "450 Later"}, "transient", "450"),
        ({"rule": "transient", "reply": "450"}, "transient", "450"),
        ({"rule": "transport-closed", "reply": "closed at rcpt"}, "transport-closed", ""),
        ({"rule": "x", "reply": "5501 odd"}, "x", ""),
        ({"rule": "x", "reply": "550 5.1.1x odd"}, "x", "550"),
        ({"reason": "waits"}, "waits", ""),
        ({"reply": "expired before it could be sent"}, "expired before it could be sent", ""),
        ({}, "rcpt", ""),
    ],
)
def test_a_reason_is_the_rule_the_wait_or_the_text_and_the_status_of_the_reply(
    given: dict[str, str], text: str, status: str
) -> None:
    fold = filled(batch(1, attempt("Bounced", 1, **given)))
    reason = by_domain(fold)["a.example"].reasons[0]
    assert (reason.text, reason.status, reason.count) == (text, status, 1)


def test_reasons_and_samples_are_bounded() -> None:
    many = [attempt("Bounced", n, rule=f"rule-{n}", reply="x" * 10_000) for n in range(REASONS_KEPT_MAX + 20)]
    reasons = by_domain(filled(batch(1, *many)))["a.example"].reasons
    assert len(reasons) == REASONS_KEPT_MAX
    assert all(len(reason.sample) == SAMPLE_CHARS for reason in reasons)


def test_what_was_held_or_quarantined_and_is_tried_again_counts_once() -> None:
    held = attempt("Ambiguous", 1, reason="ambiguous, held")
    parked = attempt("Quarantined", 2)
    counts = by_domain(filled(batch(1, held, parked)))["a.example"].counts
    assert (counts.ambiguous, counts.quarantined) == (1, 1)
    ends = (attempt("Delivered", 1, number=1), attempt("Deferred", 2, number=1))
    counts = by_domain(filled(batch(1, held, parked, *ends)))["a.example"].counts
    assert (counts.ambiguous, counts.quarantined, counts.delivered) == (0, 0, 1)


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_any_story_told_in_any_cuts_with_any_repeats_adds_up_like_a_naive_count(
    dice: random.Random, people: int
) -> None:
    """Naive: the last event of an envelope is its state; accepted ones without a final event wait."""
    homes = [dice.choice(DOMAINS) for _ in range(people)]
    chunks = [homes[at : at + 7] for at in range(0, people, 7)]
    story: list[Event] = []
    ends: dict[int, str] = {}
    for number, chunk in enumerate(chunks):
        story.append(accepted(f"c{number}", len(chunk)))
    for spool_id, domain in enumerate(homes):
        tries = dice.randrange(4)
        for number in range(tries):
            waiting = attempt("Deferred", spool_id, domain, number=number, rule="transient")
            unsure = attempt("Ambiguous", spool_id, domain, number=number, rule="ambiguous")
            story.append(dice.choice([waiting, unsure]))
        if dice.random() < 0.7:
            ends[spool_id] = dice.choice(FINAL)
            story.append(attempt(ends[spool_id], spool_id, domain, number=tries, rule="x"))
    batches = []
    at = 0
    while at < len(story):
        size = dice.randrange(1, 6)
        batches.append(batch(at + 1, *story[at : at + size]))
        at += size
    told: list[EventBatch] = []
    for position, each in enumerate(batches):
        told.append(each)
        if dice.random() < 0.3:  # the journal publishes some again after a crash
            told.extend(batches[dice.randrange(position + 1) : position + 1])

    fold = Fold(CAMPAIGN)
    expectations = dice.sample(range(len(chunks)), len(chunks))
    for each in told:
        if expectations and dice.random() < 0.5:
            number = expectations.pop()
            fold.expect(f"c{number}", chunks[number])
        fold.add(each)
    for number in expectations:
        fold.expect(f"c{number}", chunks[number])

    reports = by_domain(fold)
    naive = Counter((homes[spool_id], end) for spool_id, end in ends.items())
    names = dict(zip(FINAL, (*map(str.lower, FINAL[:5]), "render_failed", "quarantined"), strict=True))
    for domain, count in Counter(homes).items():
        counts = reports[domain].counts
        assert counts.accepted == count
        for end, state in names.items():
            assert getattr(counts, state) == naive[domain, end]
        assert counts.deferred == count - sum(naive[domain, end] for end in FINAL)
    waiting = {e.spool_id for e in story if isinstance(e, events.Deferred | events.Ambiguous)} - ends.keys()
    assert fold.retrying == len(waiting)
    assert fold.first_attempts == sum(
        1 for e in story if isinstance(e, events.AttemptEvent) and not e.attempt
    )
