"""What one taker of leases holds, and what becomes of it when the taker dies."""

import pytest

from engine.actors.holder import CUT_OFF, Batches, Holder
from engine.config.tables import AmbiguousPolicy
from engine.model.disposition import DelayReason, Outcome
from tests.fakes.engine_house import a_lease

DUE = 1_800_000_300.0


def test_it_holds_what_was_granted_until_it_is_dropped() -> None:
    holder = Holder("c#1")
    assert holder.grant(a_lease(5, 1, 2))
    assert holder.grant(a_lease(6, 3))
    assert [(lease, envelope.spool_id) for lease, envelope in holder.granted] == [(5, 1), (5, 2), (6, 3)]
    assert holder.drop(2) == 5
    assert holder.drop(3) == 6
    assert set(holder.held) == {1}
    assert repr(holder) == "<Holder c#1: 1 held, 3 untouched>"


def test_a_closed_holder_takes_no_lease() -> None:
    holder = Holder("c#1")
    holder.close()
    assert not holder.grant(a_lease(5, 1))
    assert not holder.held


@pytest.mark.parametrize(
    ("wire", "current", "crashed", "outcome", "blamed"),
    [
        (False, False, False, Outcome.RETURNED, False),
        (False, False, True, Outcome.RETURNED, False),
        (False, True, False, Outcome.RETURNED, False),  # it ended in peace: nobody is to blame
        (False, True, True, Outcome.RETURNED, True),
        (True, False, False, Outcome.AMBIGUOUS, False),
        (True, False, True, Outcome.AMBIGUOUS, False),
        (True, True, True, Outcome.AMBIGUOUS, True),
    ],
)
def test_what_becomes_of_one_envelope(
    wire: bool, current: bool, crashed: bool, outcome: Outcome, blamed: bool
) -> None:
    holder = Holder("c#1")
    holder.grant(a_lease(5, 1, attempt=2))
    if wire:
        holder.wire.add(1)
    if current:
        holder.current = 1
    ((lease, (disposition,)),) = holder.remains(
        crashed=crashed, ambiguous_due=DUE, reason=DelayReason.ACTOR_RESTARTED, policy=AmbiguousPolicy.RETRY
    )
    assert (lease, disposition.spool_id, disposition.attempt) == (5, 1, 2)
    assert (disposition.outcome, disposition.crashed) == (outcome, blamed)
    ambiguous = outcome is Outcome.AMBIGUOUS
    assert disposition.due == (DUE if ambiguous else 0.0)
    assert disposition.reason is (DelayReason.AMBIGUOUS_RETRY if ambiguous else DelayReason.ACTOR_RESTARTED)


def test_the_remains_are_told_by_lease_and_only_once() -> None:
    holder = Holder("c#1")
    holder.grant(a_lease(5, 1, 2))
    holder.grant(a_lease(6, 3, 4))
    holder.drop(1)
    holder.wire.add(3)
    told = remains(holder, AmbiguousPolicy.HOLD)
    assert {lease: [item.spool_id for item in batch] for lease, batch in told} == {5: [2], 6: [3, 4]}
    (ambiguous,) = [item for _, batch in told for item in batch if item.outcome is Outcome.AMBIGUOUS]
    assert ambiguous.reason is DelayReason.AMBIGUOUS_HELD
    assert holder.closed
    assert not holder.granted
    assert not remains(holder, AmbiguousPolicy.RETRY)


def test_what_is_assumed_to_be_delivered_is_not_ambiguous() -> None:
    holder = Holder("c#1")
    holder.grant(a_lease(5, 1, 2))
    holder.wire.add(1)
    holder.current = 1
    ((_, (sent, waiting)),) = remains(holder, AmbiguousPolicy.ASSUME_DELIVERED)
    assert (sent.outcome, sent.rule, sent.reply) == (Outcome.DELIVERED, "assumed", CUT_OFF)
    assert waiting.outcome is Outcome.RETURNED


def remains(holder: Holder, policy: AmbiguousPolicy) -> Batches:
    return holder.remains(crashed=True, ambiguous_due=DUE, reason=DelayReason.CONNECTION_LOST, policy=policy)
