"""What one broadcaster tells counts once, and what is missing of it is counted."""

from typing import Any

from msgspec.structs import replace

from control.job.outcomes import Outcomes
from control.job.telling import Teller
from engine.model.event import Adapted, ChunkAccepted, ChunkRefused, Delivered, EventBatch


def delivered(subscriber: int, campaign: int = 7) -> Any:
    return Delivered(
        campaign, subscriber, subscriber, "x.test", 0, "content", "", "", "", "mx", "d", "mx", "", 0.1
    )


def batch(sequence: int, *happened: Any, epoch: str = "e1") -> EventBatch:
    return EventBatch("a", epoch, sequence, 1.0, "a", happened)


def all_are_its(teller: Teller, record: int, epoch: str) -> bool:
    return True


def test_a_repeated_batch_is_dropped_and_a_gap_is_counted() -> None:
    outcomes = Outcomes()
    teller = Teller("a", 7, outcomes, all_are_its)
    assert teller.add(batch(5, ChunkAccepted(7, "c", 3), delivered(1))) == ([ChunkAccepted(7, "c", 3)], [1])
    assert teller.add(batch(5, ChunkAccepted(7, "c", 3), delivered(1))) == ([], [])
    assert teller.missing == 0
    assert teller.add(batch(9, delivered(2))) == ([], [2])
    assert (teller.missing, teller.tried) == (2, 2)
    assert teller.add(batch(1, delivered(3), epoch="e2")) == ([], [3]), "a new store counts from 1"
    assert outcomes.counts("a").delivered == 3
    assert "a" in repr(teller)


def test_other_campaigns_and_other_facts_are_passed_over() -> None:
    teller = Teller("a", 7, Outcomes(), all_are_its)
    refused = ChunkRefused(7, "", 0, "no key", "w", 1)
    adapted = Adapted("mx", "big", "rate", 1.0, 2.0, "", campaign=7)
    assert teller.add(batch(1, delivered(1, campaign=8), refused, adapted)) == ([refused], [])
    assert teller.tried == 0


def test_reasons_are_there_without_counting_people_twice() -> None:
    teller = Teller("a", 7, Outcomes(), all_are_its)
    teller.add(batch(1, ChunkAccepted(7, "c", 1), delivered(1)))
    (domain,) = teller.fold.reports()
    assert (domain.domain, domain.counts.accepted, domain.counts.delivered) == ("x.test", 0, 1)


def test_people_whom_it_was_not_given_count_nowhere() -> None:
    outcomes = Outcomes()
    teller = Teller("a", 7, outcomes, lambda teller, record, _: record == 2 or bool(teller.took))
    assert teller.add(batch(1, delivered(1), delivered(2))) == ([], [2])
    assert (teller.foreign, teller.tried, outcomes.counts().delivered) == (1, 1, 1)
    accepted = ChunkAccepted(7, "c", 3)
    assert teller.add(batch(3, accepted, delivered(3))) == ([accepted], [3])
    assert (teller.foreign, teller.missing, teller.heard) == (1, 0, 4)


def test_a_time_that_is_none_makes_no_endless_report() -> None:
    teller = Teller("a", 7, Outcomes(), all_are_its)
    for sequence, at in ((1, 10.0), (2, float("inf")), (3, float("nan")), (4, 15.0)):
        teller.add(replace(batch(sequence, delivered(sequence)), at=at))
    assert (teller.tried, teller.fold.seconds) == (4, 5.0)
