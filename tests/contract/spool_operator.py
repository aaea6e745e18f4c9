"""What every spool promises an operator: what waits or is parked goes on, or is brought to an end.

The third part of the contract; see `tests.contract.spool`.
"""

import pytest

from engine.config import AmbiguousPolicy
from engine.model.disposition import DelayReason, Outcome, assumed
from engine.model.event import Bounced, Delivered
from engine.mta.spool.api import QueueEntry, StateCounts
from tests.contract.spool import (
    NOW,
    RETRY_AT,
    a_disposition,
    accepted,
    events_of,
    leased,
    queued_ids,
    recovered,
    states,
)
from tests.fakes.spool_house import SpoolHouse


async def parked(house: SpoolHouse) -> list[int]:
    """Five envelopes: deferred, held, quarantined, leased, queued."""
    ids = await accepted(house.spool, 5)
    lease = await leased(house.spool, ids[:4])
    deferred, held, killer, _ = lease.envelopes
    ends = [
        a_disposition(deferred, Outcome.DEFERRED),
        a_disposition(held, Outcome.AMBIGUOUS, reason=DelayReason.AMBIGUOUS_HELD),
        a_disposition(killer, Outcome.QUARANTINED),
    ]
    await house.spool.settle([(lease.id, ends)], NOW)
    return ids


class SpoolOperatorContract:
    async def test_ids_below_the_next_one_are_all_that_were_accepted(self, house: SpoolHouse) -> None:
        before = house.spool.next_id
        ids = await accepted(house.spool, 3)
        assert before <= ids[0]
        assert house.spool.next_id == ids[-1] + 1
        await house.crash()
        assert house.spool.next_id == ids[-1] + 1

    async def test_what_waits_or_is_parked_is_queued_again_at_once(self, house: SpoolHouse) -> None:
        ids = await parked(house)
        told = len(events_of(house.spool))
        settled = await house.spool.requeue([*ids, 10**9])
        assert settled.applied == 3
        assert settled.requeued == (
            QueueEntry(ids[0], 1, "d0.example"),
            QueueEntry(ids[1], 1, "d1.example"),
            QueueEntry(ids[2], 1, "d0.example"),
        )
        assert set(states(house.spool).values()) == {"queued"}
        assert house.spool.counts(1) == StateCounts(accepted=5, was_ambiguous=1)
        assert house.spool.next_due() is None
        assert house.spool.take_due(RETRY_AT + 1, 9) == []
        assert len(events_of(house.spool)) == told, "no attempt has ended"
        assert (await house.spool.requeue(ids)).applied == 0
        await recovered(house)
        assert queued_ids(house.spool) == [*ids[:3], ids[4]]
        attempts = {item.spool_id: (item.attempt, item.crashes) for item in house.spool.listing(0, 3)}
        assert attempts == {ids[0]: (1, 0), ids[1]: (1, 0), ids[2]: (1, 0)}

    async def test_one_that_was_quarantined_is_leased_alone(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 2)
        for _ in range(2):
            ((lease,),) = await house.spool.lease([ids[:1]], NOW)
            (envelope,) = lease.envelopes
            await house.spool.settle(
                [(lease.id, [a_disposition(envelope, Outcome.RETURNED, crashed=True)])], NOW
            )
        assert states(house.spool)[ids[0]] == "quarantined"
        await house.spool.requeue(ids)
        ((alone, other),) = await house.spool.lease([ids], NOW)
        assert [[item.spool_id for item in lease.envelopes] for lease in (alone, other)] == [ids[:1], ids[1:]]
        assert alone.envelopes[0].crashes == 0

    async def test_a_deferred_one_that_was_given_is_queued_like_any_other(self, house: SpoolHouse) -> None:
        ids = await parked(house)
        assert [entry.spool_id for entry in house.spool.take_due(RETRY_AT, 9)] == ids[:1]
        assert (await house.spool.requeue(ids[:1])).applied == 1
        assert queued_ids(house.spool).count(ids[0]) == 1
        await leased(house.spool, ids[:1])

    async def test_a_leased_one_is_left_to_its_taker(self, house: SpoolHouse) -> None:
        ids = await parked(house)
        house.spool.take_due(RETRY_AT, 9)
        lease = await leased(house.spool, ids[:1])
        assert (await house.spool.requeue(ids[:1])).applied == 0
        later = a_disposition(lease.envelopes[0], Outcome.DEFERRED, due=RETRY_AT + 60)
        assert (await house.spool.settle([(lease.id, [later])], NOW)).applied == 1
        assert house.spool.next_due() == RETRY_AT + 60

    async def test_a_damaged_one_is_left_alone(self, house: SpoolHouse) -> None:
        ids = await parked(house)
        await house.damage(ids[1], lambda record: record[:10])
        assert (await house.spool.requeue(ids)).applied == 2
        assert (await house.spool.conclude([assumed(ids[1], 1, "x")], NOW)).applied == 0

    @pytest.mark.parametrize("delivered", [True, False])
    async def test_what_is_parked_ends_as_it_is_assumed_to_have(
        self, house: SpoolHouse, delivered: bool
    ) -> None:
        ids = await parked(house)
        attempts = [0 if spool_id == ids[2] else 1 for spool_id in ids]
        ends = [
            assumed(spool_id, attempt, "she has it", delivered=delivered)
            for spool_id, attempt in zip(ids, attempts, strict=True)
        ]
        assert (await house.spool.conclude(ends, NOW)).applied == 2
        assert (await house.spool.conclude(ends, NOW)).applied == 0
        assert sorted(states(house.spool)) == [ids[0], ids[3], ids[4]]
        counts = house.spool.counts(1)
        assert (counts.delivered, counts.bounced) == ((2, 0) if delivered else (0, 2))
        assert (counts.ambiguous, counts.quarantined, counts.was_ambiguous, counts.deferred) == (0, 0, 1, 3)
        told = events_of(house.spool)[-2:]
        assert [type(event) for event in told] == [Delivered if delivered else Bounced] * 2
        assert {event.rule for event in told if isinstance(event, Delivered | Bounced)} == {"assumed"}

    async def test_a_wrong_attempt_concludes_nothing(self, house: SpoolHouse) -> None:
        ids = await parked(house)
        assert (await house.spool.conclude([assumed(ids[1], 0, "x")], NOW)).applied == 0

    async def test_what_was_in_flight_at_a_crash_is_delivered_where_that_is_assumed(
        self, house: SpoolHouse
    ) -> None:
        ids = await accepted(house.spool, 2)
        await leased(house.spool, ids[:1])
        recovery = await recovered(house, AmbiguousPolicy.ASSUME_DELIVERED)
        assert (recovery.orphans, recovery.held, recovery.quarantined) == (1, 0, 0)
        assert states(house.spool) == {ids[1]: "queued"}
        assert house.spool.counts(1) == StateCounts(accepted=2, delivered=1, was_ambiguous=1)
        (told,) = [event for event in events_of(house.spool) if isinstance(event, Delivered)]
        assert told.rule == "assumed"
