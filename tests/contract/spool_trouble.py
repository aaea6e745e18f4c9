"""What every spool promises when things go wrong: crashes, damaged records; and its event log.

The second half of the contract; see `tests.contract.spool`.
"""

from collections.abc import Callable

import msgspec
import pytest

from engine.config import AmbiguousPolicy
from engine.model.disposition import Outcome
from engine.mta.spool.api import PROCESS_CRASHES_MAX, SUSPECTS_MAX, Recovery, StateCounts
from tests.contract.spool import (
    EXPIRES,
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


class SpoolTroubleContract:
    # --- crashes ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("policy", [AmbiguousPolicy.RETRY, AmbiguousPolicy.HOLD])
    async def test_an_open_lease_is_ambiguous_after_a_crash(
        self, house: SpoolHouse, policy: AmbiguousPolicy
    ) -> None:
        ids = await accepted(house.spool, 3)
        lease = await leased(house.spool, ids[:2])
        held = 2 if policy is AmbiguousPolicy.HOLD else 0
        assert await recovered(house, policy) == Recovery(2, held, 0)
        assert house.spool.open_leases() == 0
        state = "ambiguous" if held else "deferred"
        assert states(house.spool) == {ids[0]: state, ids[1]: state, ids[2]: "queued"}
        assert house.spool.counts(1) == StateCounts(accepted=3, ambiguous=held, was_ambiguous=2)
        assert (await house.spool.settle([(lease.id, [])], NOW)).applied == 0
        assert await recovered(house, policy) == Recovery(0, 0, 0)
        if not held:
            assert house.spool.next_due() == RETRY_AT
            ((one, two),) = await house.spool.lease([ids[:2]], NOW)
            assert len(one.envelopes) == len(two.envelopes) == 1, "orphans are leased alone"

    async def test_an_envelope_that_takes_its_process_down_three_times_alone_is_quarantined(
        self, house: SpoolHouse
    ) -> None:
        ids = await accepted(house.spool, 1)
        found = []
        for _ in range(3):
            await leased(house.spool, ids)
            found.append(await recovered(house))
        assert [recovery.quarantined for recovery in found] == [0, 0, 1]
        assert house.spool.counts(1) == StateCounts(accepted=1, quarantined=1, was_ambiguous=1)

    async def test_a_crowd_that_goes_down_with_its_process_again_and_again_is_not_to_blame(
        self, house: SpoolHouse
    ) -> None:
        ids = await accepted(house.spool, SUSPECTS_MAX + 1)
        for _ in range(PROCESS_CRASHES_MAX + 2):
            await house.spool.lease([[spool_id] for spool_id in ids], NOW)
            assert await recovered(house) == Recovery(len(ids), 0, 0)

    async def test_orphans_of_several_deaths_are_retried_apart(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 3)
        for spread in (0, 100):
            await house.spool.lease([ids], NOW)
            await house.crash()
            await house.spool.recover(NOW, AmbiguousPolicy.RETRY, RETRY_AT, spread)
        dues = [item.due for item in house.spool.listing(0, 10)]
        assert len(set(dues)) == 3
        assert all(RETRY_AT <= due < RETRY_AT + 100 for due in dues)

    async def test_the_store_keeps_its_epoch(self, house: SpoolHouse) -> None:
        epoch = house.spool.epoch
        await house.crash()
        assert house.spool.epoch == epoch

    # --- damage ----------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda record: record[:-1] + bytes([record[-1] ^ 1]), id="seal"),
            pytest.param(lambda record: record[:-9], id="cut"),
            pytest.param(lambda record: b"", id="empty"),
            pytest.param(lambda record: record[:20], id="half a head"),
            pytest.param(lambda record: record[:31] + b"\xff" + record[32:], id="domain length"),
            pytest.param(lambda record: record.replace(b"d0.ex", b"d1.ex"), id="domain"),
            pytest.param(lambda record: record.replace(b"d0.ex", b"d\xff.ex"), id="domain no text"),
            pytest.param(lambda record: b"\0\0\0\2" + record[4:], id="campaign"),
        ],
    )
    async def test_a_damaged_record_is_quarantined_and_stops_nobody(
        self, house: SpoolHouse, change: Callable[[bytes], bytes]
    ) -> None:
        ids = await accepted(house.spool, 3)
        await house.damage(ids[0], change)
        lease = await leased(house.spool, ids)
        assert [envelope.spool_id for envelope in lease.envelopes] == ids[1:]
        assert states(house.spool)[ids[0]] == "quarantined"
        assert house.spool.counts(1) == StateCounts(accepted=3, quarantined=1)
        assert await house.spool.lease([ids[:1]], NOW) == [[]]
        assert await recovered(house) == Recovery(2, 0, 0)
        assert events_of(house.spool)[1].spool_id == ids[0]

    async def test_a_record_without_a_head_is_met_by_every_reader(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 3)
        lease = await leased(house.spool, ids[1:])
        await house.damage(ids[0], lambda record: record[:9])
        await house.damage(ids[1], lambda record: b"")
        assert len(house.spool.listing(0, 10)) == 3
        assert (await recovered(house)).quarantined == 1
        assert queued_ids(house.spool) == []
        assert house.spool.take_due(NOW, 10) == []  # quarantines what `queued` met
        await house.spool.trim_events(0)  # the same commit queue: done when this is
        assert states(house.spool) == {ids[0]: "quarantined", ids[1]: "quarantined", ids[2]: "deferred"}
        assert house.spool.counts(1) == StateCounts(accepted=3, quarantined=2, was_ambiguous=1)
        assert (await house.spool.settle([(lease.id, [])], NOW)).applied == 0

    async def test_a_settle_of_a_damaged_record_quarantines_it(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 1)
        lease = await leased(house.spool, ids)
        await house.damage(ids[0], lambda record: record[:30])
        await house.spool.settle([(lease.id, [a_disposition(lease.envelopes[0], Outcome.DELIVERED)])], NOW)
        assert states(house.spool) == {ids[0]: "quarantined"}
        assert house.spool.counts(1).quarantined == 1

    # --- events and listings ---------------------------------------------------------------------------

    async def test_a_batch_of_events_is_trimmed_when_all_of_it_is_old(self, house: SpoolHouse) -> None:
        lease = await leased(house.spool, await accepted(house.spool, 3))  # event 1
        ends = [a_disposition(envelope, Outcome.DELIVERED) for envelope in lease.envelopes]
        await house.spool.settle([(lease.id, ends)], NOW)  # events 2, 3, 4
        expected = {1: [1, 2], 2: [2], 3: [2], 4: [2], 5: []}
        for before, left in expected.items():
            await house.spool.trim_events(before)
            assert [sequence for sequence, _ in house.spool.events(0, 10)] == left
        await house.crash()
        await accepted(house.spool, 1, "c2")
        assert [sequence for sequence, _ in house.spool.events(0, 10)] == [5]

    async def test_events_are_read_from_a_position_and_to_a_limit(self, house: SpoolHouse) -> None:
        for number in range(4):
            await accepted(house.spool, 1, f"c{number}")
        assert [sequence for sequence, _ in house.spool.events(0, 2)] == [1, 2]
        assert [sequence for sequence, _ in house.spool.events(2, 10)] == [3, 4]
        assert house.spool.events(4, 10) == []

    async def test_a_listing_tells_what_people_ask(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 3)
        lease = await leased(house.spool, ids[:1])
        await house.spool.settle([(lease.id, [a_disposition(lease.envelopes[0], Outcome.AMBIGUOUS)])], NOW)
        first, second, _ = house.spool.listing(0, 10)
        assert (first.state, first.attempt, first.due, first.was_ambiguous) == ("deferred", 1, RETRY_AT, True)
        assert (second.state, second.subscriber, second.domain) == ("queued", 101, "d1.example")
        assert (second.expires_at, second.due) == (EXPIRES, 0)
        assert [item.spool_id for item in house.spool.listing(ids[0], 1)] == [ids[1]]

    async def test_an_unknown_campaign_counts_nothing(self, house: SpoolHouse) -> None:
        assert house.spool.counts(99) == StateCounts()

    # --- clocks ----------------------------------------------------------------------------------------

    async def test_when_the_clock_was_set_back_due_times_move_with_it(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 4)
        lease = await leased(house.spool, ids[:2])
        first, last = (a_disposition(item, Outcome.DEFERRED) for item in lease.envelopes)
        last = msgspec.structs.replace(last, due=RETRY_AT + 9_000)
        await house.spool.settle([(lease.id, [first, last])], NOW)
        assert [entry.spool_id for entry in house.spool.take_due(RETRY_AT, 9)] == [ids[0]]
        assert await house.spool.rewind(RETRY_AT - 3_600, 3_600) == 1
        lease = await leased(house.spool, [ids[2]])
        new = a_disposition(lease.envelopes[0], Outcome.DEFERRED, due=RETRY_AT - 3_000)
        await house.spool.settle([(lease.id, [new])], RETRY_AT - 3_600)
        assert house.spool.next_due() == RETRY_AT - 3_000
        assert [entry.spool_id for entry in house.spool.take_due(RETRY_AT - 2_999, 9)] == [ids[2]]
        assert [entry.spool_id for entry in house.spool.take_due(RETRY_AT + 5_400, 9)] == [ids[0], ids[1]]
        assert {item.spool_id: item.due for item in house.spool.listing(0, 9)}[ids[1]] == RETRY_AT + 5_400

    async def test_a_due_time_that_was_being_written_moves_as_well(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 2)
        lease = await leased(house.spool, ids)
        early, late = (a_disposition(item, Outcome.DEFERRED) for item in lease.envelopes)
        house.spool.settle([(lease.id, [early])], NOW)
        moving = house.spool.rewind(NOW - 3_600, 3_600)
        house.spool.settle([(lease.id, [late])], NOW - 3_600)
        assert await moving == 1
        assert house.spool.next_due() == RETRY_AT - 3_600
        assert [entry.spool_id for entry in house.spool.take_due(RETRY_AT, 9)] == ids

    async def test_what_a_wrong_clock_put_far_ahead_is_found(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 3)
        lease = await leased(house.spool, ids)
        ends = [
            a_disposition(item, Outcome.DEFERRED, due=RETRY_AT + 1e6 * number)
            for number, item in enumerate(lease.envelopes)
        ]
        await house.spool.settle([(lease.id, ends)], NOW)
        await house.crash()
        assert house.spool.late(RETRY_AT, 9) == [ids[2], ids[1]]
        assert house.spool.late(RETRY_AT, 1) == [ids[2]]
        assert house.spool.late(RETRY_AT + 3e6, 9) == []
