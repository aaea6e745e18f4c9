"""What every spool promises: the same tests run on the LMDB spool and on its in-memory twin.

A test module subclasses `SpoolContract` and gives it a fixture `house` (tests.fakes.spool_house).
"""

import msgspec
import pytest

from engine.config import AmbiguousPolicy
from engine.model.content import Content
from engine.model.disposition import FINAL, DelayReason, Disposition, Outcome
from engine.model.envelope import CHUNK_ENTRIES_MAX, HEAVY_OCTETS, Chunk, ChunkEntry, Envelope
from engine.model.event import Adapted, AttemptEvent, ChunkAccepted, Event, decode_events
from engine.mta.spool import codec
from engine.mta.spool.api import (
    STATE_OF_OUTCOME,
    Acceptance,
    Lease,
    QueueEntry,
    Recovery,
    Spool,
    SpoolError,
    StateCounts,
)
from tests.fakes.spool_house import SpoolHouse

NOW = 1_800_000_000.0
EXPIRES = NOW + 86_400
RETRY_AT = NOW + 300


def a_content(campaign: int = 1, name: str = "spring") -> Content:
    return Content(
        campaign=campaign,
        name=name,
        from_address="news@brand.example",
        subject="Hello {{ first }}",
        text="Hello",
        fields=("first",),
        return_path_domain="bounce.brand.example",
    )


def a_chunk(count: int, name: str = "c1", campaign: int = 1) -> Chunk:
    """Envelopes to a0@d0, a1@d1, a2@d0, ..."""
    entries = tuple(ChunkEntry(100 + i, f"a{i}@d{i % 2}.example", (f"First{i}",)) for i in range(count))
    return Chunk(name, campaign, EXPIRES, entries)


def a_disposition(envelope: Envelope, outcome: Outcome, **facts: object) -> Disposition:
    due = {Outcome.DEFERRED: RETRY_AT, Outcome.AMBIGUOUS: RETRY_AT}.get(outcome, 0.0)
    plain = Disposition(envelope.spool_id, envelope.attempt, outcome, due=due)
    return msgspec.structs.replace(plain, **facts)


async def accepted(spool: Spool, count: int, name: str = "c1", campaign: int = 1) -> list[int]:
    await spool.put_content(a_content(campaign), NOW)
    acceptance = await spool.accept(a_chunk(count, name, campaign), NOW)
    return list(range(acceptance.first_id, acceptance.first_id + acceptance.count))


async def leased(spool: Spool, ids: list[int]) -> Lease:
    ((lease,),) = await spool.lease([ids], NOW)
    return lease


def events_of(spool: Spool) -> list[Event]:
    """All events; asserts that their sequence has no gap."""
    found: list[Event] = []
    batches = spool.events(0, 1_000_000)
    following = batches[0][0] if batches else 0
    for sequence, data in batches:
        batch = decode_events(data)
        assert (batch.sequence, batch.producer, batch.epoch) == (sequence, spool.producer, spool.epoch)
        assert sequence == following
        following = batch.next_sequence
        found.extend(batch.events)
    return found


def states(spool: Spool) -> dict[int, str]:
    return {item.spool_id: item.state for item in spool.listing(0, 1_000_000)}


def queued_ids(spool: Spool) -> list[int]:
    return [entry.spool_id for entry in spool.queued()]


async def recovered(house: SpoolHouse, policy: AmbiguousPolicy = AmbiguousPolicy.RETRY) -> Recovery:
    await house.crash()
    return await house.spool.recover(NOW, policy, RETRY_AT)


class SpoolContract:
    # --- contents and acceptance -----------------------------------------------------------------------

    async def test_a_content_is_kept_and_its_repeat_is_harmless(self, house: SpoolHouse) -> None:
        assert house.spool.content(7) is None
        await house.spool.put_content(a_content(7), NOW)
        await house.spool.put_content(a_content(7), NOW)
        await house.crash()
        assert house.spool.content(7) == a_content(7)
        assert house.spool.campaigns() == [7]

    async def test_a_large_row_stays_in_the_spool_until_it_is_asked_for(self, house: SpoolHouse) -> None:
        (light,) = await accepted(house.spool, 1)
        large = ("\xff" * 10 * 1024**2,)
        chunk = Chunk("big", 1, EXPIRES, (ChunkEntry(5, "a@d.example", large),))
        heavy = (await house.spool.accept(chunk, NOW)).first_id
        lease = await leased(house.spool, [light, heavy])
        assert [item.row for item in lease.envelopes] == [("First0",), ()]
        assert lease.envelopes[0].heavy_octets == 0
        assert lease.envelopes[1].heavy_octets > HEAVY_OCTETS
        assert lease.envelopes[1].recipient == "a@d.example"
        assert house.spool.row(light) == ("First0",)
        assert house.spool.row(heavy) == large
        assert house.spool.row(heavy + 1) is None
        await house.damage(heavy, lambda record: record[:-1] + bytes([record[-1] ^ 1]))
        assert house.spool.row(heavy) is None

    async def test_chunk_ids_are_known_until_they_are_forgotten(self, house: SpoolHouse) -> None:
        for name in ("a/1", "a/2", "a/3", "b/1"):
            await accepted(house.spool, 1, name)
        assert house.spool.knows("a/1")
        assert not house.spool.knows("a/4")
        assert await house.spool.forget_chunks("a/", "a/3", 1) == 1
        assert [house.spool.knows(name) for name in ("a/1", "a/2", "a/3", "b/1")] == [False, True, True, True]
        assert await house.spool.forget_chunks("a/", "b/", 9) == 2
        await house.crash()
        assert [house.spool.knows(name) for name in ("a/1", "a/2", "a/3", "b/1")] == [
            *(False, False, False),
            True,
        ]
        assert await house.spool.forget_chunks("a/", "b/", 9) == 0
        assert len(queued_ids(house.spool)) == 4

    async def test_a_deferred_envelope_that_was_given_counts_as_queued(self, house: SpoolHouse) -> None:
        first, second = await accepted(house.spool, 2)
        lease = await leased(house.spool, [first])
        await house.spool.settle([(lease.id, [a_disposition(lease.envelopes[0], Outcome.DEFERRED)])], NOW)
        assert queued_ids(house.spool) == [second]
        assert [entry.spool_id for entry in house.spool.take_due(RETRY_AT, 9)] == [first]
        assert queued_ids(house.spool) == [first, second]
        lease = await leased(house.spool, [first])
        later = a_disposition(lease.envelopes[0], Outcome.DEFERRED, due=RETRY_AT + 60)
        await house.spool.settle([(lease.id, [later])], NOW)
        assert queued_ids(house.spool) == [second]
        await recovered(house)
        assert queued_ids(house.spool) == [second]

    async def test_a_changed_content_is_refused(self, house: SpoolHouse) -> None:
        await house.spool.put_content(a_content(), NOW)
        with pytest.raises(SpoolError, match="another content"):
            await house.spool.put_content(a_content(name="summer"), NOW)
        assert house.spool.content(1) == a_content()

    async def test_a_chunk_is_accepted_with_ids_in_its_order(self, house: SpoolHouse) -> None:
        await house.spool.put_content(a_content(), NOW)
        acceptance = await house.spool.accept(a_chunk(3), NOW)
        first = acceptance.first_id
        assert acceptance == Acceptance("c1", 1, first, 3, ("d0.example", "d1.example", "d0.example"))
        assert house.spool.queued(first, 1) == [QueueEntry(first + 1, 1, "d1.example")]
        assert house.spool.queued() == [
            QueueEntry(first, 1, "d0.example"),
            QueueEntry(first + 1, 1, "d1.example"),
            QueueEntry(first + 2, 1, "d0.example"),
        ]
        assert house.spool.counts(1) == StateCounts(accepted=3)
        assert events_of(house.spool) == [ChunkAccepted(1, "c1", 3)]

    async def test_a_chunk_seen_before_is_acknowledged_without_effect(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 3)
        for _ in range(2):
            known = await house.spool.accept(a_chunk(3), NOW)
            assert known == Acceptance("c1", 1, ids[0], 3, known=True)
            await house.crash()
        assert queued_ids(house.spool) == ids
        assert house.spool.counts(1).accepted == 3
        assert len(events_of(house.spool)) == 1

    async def test_the_same_chunk_twice_in_one_group_is_accepted_once(self, house: SpoolHouse) -> None:
        await house.spool.put_content(a_content(), NOW)
        first, second = house.spool.accept(a_chunk(2), NOW), house.spool.accept(a_chunk(2), NOW)
        assert not (await first).known
        assert await second == Acceptance("c1", 1, (await first).first_id, 2, known=True)
        assert house.spool.counts(1).accepted == 2

    async def test_ids_grow_over_chunks_and_crashes(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 2)
        await house.crash()
        ids += await accepted(house.spool, 2, "c2")
        assert ids == sorted(set(ids))
        assert queued_ids(house.spool) == ids

    async def test_an_empty_chunk_is_accepted(self, house: SpoolHouse) -> None:
        assert await accepted(house.spool, 0) == []
        assert events_of(house.spool) == [ChunkAccepted(1, "c1", 0)]

    @pytest.mark.parametrize(
        ("chunk", "reason"),
        [
            (a_chunk(1, campaign=2), "campaign 2 has no content"),
            (a_chunk(CHUNK_ENTRIES_MAX + 1), "more than 5000"),
            (a_chunk(1, name=""), "chunk id of 0 octets"),
            (a_chunk(1, name="x" * 512), "chunk id of 512 octets"),
            (Chunk("c", 1, EXPIRES, (ChunkEntry(1, "no-at-sign"),)), "no address"),
            (
                Chunk("c", 1, EXPIRES, (ChunkEntry(1, "a@b.example"), ChunkEntry(1, "a@bü.example"))),
                "envelope 1",
            ),
            (Chunk("c", 1, EXPIRES, (ChunkEntry(1, "a@" + "b" * 256),)), "cannot be stored"),
            (Chunk("c", 1, EXPIRES, (ChunkEntry(-1, "a@b.example"),)), "cannot be stored"),
            (Chunk("c", 1, 1e12, (ChunkEntry(1, "a@b.example"),)), "cannot be stored"),
            (Chunk("c", 1, float("inf"), (ChunkEntry(1, "a@b.example"),)), "cannot be stored"),
        ],
    )
    async def test_a_chunk_that_cannot_be_stored_is_refused_whole(
        self, house: SpoolHouse, chunk: Chunk, reason: str
    ) -> None:
        await house.spool.put_content(a_content(), NOW)
        with pytest.raises(SpoolError, match=reason):
            house.spool.accept(chunk, NOW)
        assert house.spool.listing(0, 10) == []
        assert events_of(house.spool) == []

    # --- leases ----------------------------------------------------------------------------------------

    async def test_a_lease_holds_what_was_accepted(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 2)
        lease = await leased(house.spool, ids)
        assert lease.envelopes == (
            Envelope(ids[0], 1, 100, "a0@d0.example", "d0.example", ("First0",), NOW, EXPIRES),
            Envelope(ids[1], 1, 101, "a1@d1.example", "d1.example", ("First1",), NOW, EXPIRES),
        )
        assert house.spool.open_leases() == 1

    async def test_an_envelope_is_leased_once_at_a_time(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 3)
        first = house.spool.lease([[ids[0], ids[0]], [ids[0], ids[1]]], NOW)
        second = house.spool.lease([[ids[1], ids[2]], [], [99_999]], NOW)
        made = [*(await first), *(await second), *(await house.spool.lease([ids], NOW))]
        held = [[envelope.spool_id for lease in leases for envelope in lease.envelopes] for leases in made]
        assert held == [[ids[0]], [ids[1]], [ids[2]], [], [], []]
        assert len({lease.id for leases in made for lease in leases}) == 3

    async def test_lease_ids_are_never_used_again(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 1)
        seen = set()
        for _ in range(3):
            lease = await leased(house.spool, ids)
            await house.spool.settle([(lease.id, [a_disposition(lease.envelopes[0], Outcome.RETURNED)])], NOW)
            seen.add(lease.id)
            await house.crash()
        assert len(seen) == 3

    @pytest.mark.parametrize(
        "outcome", [*sorted(FINAL, key=lambda outcome: outcome.value), Outcome.QUARANTINED, Outcome.AMBIGUOUS]
    )
    async def test_what_is_gone_held_or_quarantined_is_not_leased(
        self, house: SpoolHouse, outcome: Outcome
    ) -> None:
        lease = await leased(house.spool, await accepted(house.spool, 1))
        (envelope,) = lease.envelopes
        end = a_disposition(envelope, outcome, reason=DelayReason.AMBIGUOUS_HELD)
        await house.spool.settle([(lease.id, [end])], NOW)
        assert await house.spool.lease([[envelope.spool_id]], NOW) == [[]]
        assert house.spool.open_leases() == 0

    # --- settling --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("outcome", sorted(FINAL, key=lambda outcome: outcome.value))
    async def test_a_final_outcome_ends_the_envelope_with_one_event(
        self, house: SpoolHouse, outcome: Outcome
    ) -> None:
        lease = await leased(house.spool, await accepted(house.spool, 1))
        (envelope,) = lease.envelopes
        settled = await house.spool.settle(
            [(lease.id, [a_disposition(envelope, outcome, reply="250 Ok", site="mx", seconds=0.25)])], NOW
        )
        assert (settled.applied, settled.requeued, settled.due) == (1, (), None)
        await house.crash()
        assert house.spool.listing(0, 10) == []
        counts = StateCounts(accepted=1)
        counts.add(STATE_OF_OUTCOME[outcome], 1)
        assert house.spool.counts(1) == counts
        assert (counts.finished, counts.deferred) == (1, 0)
        event = events_of(house.spool)[-1]
        assert type(event) is codec.EVENT_OF_OUTCOME[outcome]
        assert (event.spool_id, event.subscriber, event.reply, event.site, event.seconds) == (
            envelope.spool_id,
            100,
            "250 Ok",
            "mx",
            0.25,
        )

    async def test_a_deferred_envelope_comes_due_once(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 2)
        lease = await leased(house.spool, ids)
        later, sooner = (a_disposition(item, Outcome.DEFERRED) for item in lease.envelopes)
        sooner = msgspec.structs.replace(sooner, due=RETRY_AT - 100)
        settled = await house.spool.settle([(lease.id, [later, sooner])], NOW)
        assert (settled.applied, settled.due, house.spool.next_due()) == (2, RETRY_AT - 100, RETRY_AT - 100)
        assert queued_ids(house.spool) == []
        assert states(house.spool) == dict.fromkeys(ids, "deferred")
        assert house.spool.take_due(RETRY_AT - 101, 10) == []
        assert house.spool.take_due(RETRY_AT, 1) == [QueueEntry(ids[1], 1, "d1.example")]
        assert house.spool.take_due(RETRY_AT, 10) == [QueueEntry(ids[0], 1, "d0.example")]
        assert (house.spool.take_due(RETRY_AT, 10), house.spool.next_due()) == ([], None)
        await house.crash()
        assert len(house.spool.take_due(RETRY_AT, 10)) == 2
        lease = await leased(house.spool, ids)
        assert [envelope.attempt for envelope in lease.envelopes] == [1, 1]
        ends = [a_disposition(envelope, Outcome.DELIVERED) for envelope in lease.envelopes]
        await house.spool.settle([(lease.id, ends)], NOW)
        await house.crash()
        assert house.spool.next_due() is None

    async def test_a_due_time_behind_the_scan_is_still_found(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 2)
        for spool_id, due in zip(ids, (RETRY_AT, RETRY_AT - 200), strict=True):
            lease = await leased(house.spool, [spool_id])
            end = a_disposition(lease.envelopes[0], Outcome.DEFERRED, due=due)
            await house.spool.settle([(lease.id, [end])], NOW)
            assert [entry.spool_id for entry in house.spool.take_due(RETRY_AT + 1, 10)] == [spool_id]

    async def test_a_due_time_that_is_being_written_is_not_passed_by_the_scan(
        self, house: SpoolHouse
    ) -> None:
        ids = await accepted(house.spool, 2)
        lease = await leased(house.spool, ids)
        sooner, later = (a_disposition(item, Outcome.DEFERRED) for item in lease.envelopes)
        await house.spool.settle([(lease.id, [later])], NOW)
        sooner = msgspec.structs.replace(sooner, due=RETRY_AT - 200)
        pending = house.spool.settle([(lease.id, [sooner])], NOW)
        taken = house.spool.take_due(RETRY_AT, 10)
        await pending
        taken += house.spool.take_due(RETRY_AT, 10)
        assert [entry.spool_id for entry in taken] == ids

    async def test_a_returned_envelope_is_queued_again_and_no_attempt_is_counted(
        self, house: SpoolHouse
    ) -> None:
        ids = await accepted(house.spool, 1)
        lease = await leased(house.spool, ids)
        settled = await house.spool.settle(
            [(lease.id, [a_disposition(lease.envelopes[0], Outcome.RETURNED)])], NOW
        )
        assert settled.requeued == (QueueEntry(ids[0], 1, "d0.example"),)
        assert len(events_of(house.spool)) == 1
        assert (await leased(house.spool, ids)).envelopes == lease.envelopes

    async def test_what_was_returned_from_an_open_lease_is_no_orphan(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 3)
        lease = await leased(house.spool, ids)
        returned, delivered, _ = lease.envelopes
        await house.spool.settle([(lease.id, [a_disposition(returned, Outcome.RETURNED)])], NOW)
        await house.spool.settle([(lease.id, [a_disposition(delivered, Outcome.DELIVERED)])], NOW)
        assert await recovered(house) == Recovery(1, 0, 0)
        assert states(house.spool) == {ids[0]: "queued", ids[2]: "deferred"}
        assert house.spool.counts(1).was_ambiguous == 1

    async def test_a_lease_that_was_returned_whole_leaves_no_orphans(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 2)
        lease = await leased(house.spool, ids)
        ends = [a_disposition(envelope, Outcome.RETURNED) for envelope in lease.envelopes]
        await house.spool.settle([(lease.id, ends)], NOW)
        assert await recovered(house) == Recovery(0, 0, 0)
        assert queued_ids(house.spool) == ids

    async def test_an_ambiguous_envelope_waits_for_its_retry_and_is_counted_once(
        self, house: SpoolHouse
    ) -> None:
        ids = await accepted(house.spool, 1)
        for attempt in range(2):
            lease = await leased(house.spool, ids)
            assert lease.envelopes[0].attempt == attempt
            await house.spool.settle(
                [(lease.id, [a_disposition(lease.envelopes[0], Outcome.AMBIGUOUS)])], NOW
            )
        assert states(house.spool) == {ids[0]: "deferred"}
        assert house.spool.counts(1) == StateCounts(accepted=1, was_ambiguous=1)
        lease = await leased(house.spool, ids)
        assert lease.envelopes[0].was_ambiguous

    async def test_an_ambiguous_envelope_may_be_held(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 1)
        lease = await leased(house.spool, ids)
        held = a_disposition(
            lease.envelopes[0], Outcome.AMBIGUOUS, reason=DelayReason.AMBIGUOUS_HELD, due=0.0
        )
        await house.spool.settle([(lease.id, [held])], NOW)
        await house.crash()
        assert states(house.spool) == {ids[0]: "ambiguous"}
        assert house.spool.counts(1) == StateCounts(accepted=1, ambiguous=1, was_ambiguous=1)
        assert (queued_ids(house.spool), house.spool.next_due()) == ([], None)

    @pytest.mark.parametrize("outcome", [Outcome.RETURNED, Outcome.DEFERRED, Outcome.AMBIGUOUS])
    async def test_an_envelope_is_leased_alone_after_one_crash_and_quarantined_after_two(
        self, house: SpoolHouse, outcome: Outcome
    ) -> None:
        ids = await accepted(house.spool, 3)
        lease = await leased(house.spool, ids)
        ends = [a_disposition(lease.envelopes[0], outcome, crashed=True)]
        ends += [a_disposition(envelope, Outcome.RETURNED) for envelope in lease.envelopes[1:]]
        await house.spool.settle([(lease.id, ends)], NOW)
        ((alone, rest),) = await house.spool.lease([ids], NOW)
        assert [[item.spool_id for item in lease.envelopes] for lease in (alone, rest)] == [ids[:1], ids[1:]]
        assert alone.envelopes[0].crashes == 1
        settled = await house.spool.settle(
            [(alone.id, [a_disposition(alone.envelopes[0], outcome, crashed=True)])], NOW
        )
        assert (settled.applied, settled.requeued) == (1, ())
        assert states(house.spool)[ids[0]] == "quarantined"
        assert house.spool.counts(1).quarantined == 1
        assert type(events_of(house.spool)[-1]) is codec.EVENT_OF_OUTCOME[Outcome.QUARANTINED]
        assert house.spool.take_due(RETRY_AT + 10, 10) == []

    async def test_a_settle_is_idempotent(self, house: SpoolHouse) -> None:
        lease = await leased(house.spool, await accepted(house.spool, 2))
        first, second = lease.envelopes
        batch = [(lease.id, [a_disposition(first, Outcome.DEFERRED)])]
        results = [(await house.spool.settle(batch, NOW)).applied for _ in range(3)]
        assert results == [1, 0, 0]
        batch = [(lease.id, [a_disposition(second, Outcome.DELIVERED)] * 2)]
        one, two = house.spool.settle(batch, NOW), house.spool.settle(batch, NOW)
        assert ((await one).applied, (await two).applied) == (1, 0)
        assert house.spool.open_leases() == 0
        assert len(events_of(house.spool)) == 3

    async def test_a_settle_for_a_lease_that_is_not_open_changes_nothing(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 2)
        mine, other = await leased(house.spool, ids[:1]), await leased(house.spool, ids[1:])
        end = a_disposition(mine.envelopes[0], Outcome.DELIVERED)
        for lease_id in (other.id, 4_711, 0):  # another one's, unknown, none although it is leased
            assert (await house.spool.settle([(lease_id, [end])], NOW)).applied == 0
        await recovered(house)
        assert (await house.spool.settle([(mine.id, [end])], NOW)).applied == 0
        assert house.spool.counts(1) == StateCounts(accepted=2, was_ambiguous=2)

    async def test_an_envelope_that_nobody_holds_is_settled_without_a_lease(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 2)
        ends = [Disposition(ids[0], 0, Outcome.CANCELLED), Disposition(ids[1], 3, Outcome.CANCELLED)]
        assert (await house.spool.settle([(0, ends)], NOW)).applied == 1
        assert states(house.spool) == {ids[1]: "queued"}

    async def test_an_unleased_settle_and_a_lease_in_one_group_keep_their_order(
        self, house: SpoolHouse
    ) -> None:
        ids = await accepted(house.spool, 1)
        house.spool.settle([(0, [Disposition(ids[0], 0, Outcome.CANCELLED)])], NOW)
        assert await house.spool.lease([ids], NOW) == [[]]
        assert house.spool.counts(1).cancelled == 1

    # --- events ----------------------------------------------------------------------------------------

    async def test_a_note_is_in_the_journal_among_the_others_and_changes_nothing(
        self, house: SpoolHouse
    ) -> None:
        slower = Adapted("out>mx.example", "big", "rate", 20.0, None, "slow down", "rate", "", 7)
        ids = await accepted(house.spool, 1)
        await house.spool.note([slower, slower], NOW)
        await house.spool.note([], NOW)
        await house.spool.settle([(0, [Disposition(ids[0], 0, Outcome.CANCELLED)])], NOW)
        await house.crash()
        found = events_of(house.spool)
        assert found[1:3] == [slower, slower]
        kinds = [type(event).__name__ for event in found]
        assert kinds == ["ChunkAccepted", "Adapted", "Adapted", "Cancelled"], kinds
        assert house.spool.counts(1).cancelled == 1

    async def test_the_category_of_an_answer_is_told(self, house: SpoolHouse) -> None:
        ids = await accepted(house.spool, 1)
        lease = await leased(house.spool, ids)
        bounced = a_disposition(lease.envelopes[0], Outcome.BOUNCED, category="bad-mailbox")
        await house.spool.settle([(lease.id, [bounced])], NOW)
        event = events_of(house.spool)[-1]
        assert isinstance(event, AttemptEvent)
        assert event.category == "bad-mailbox"
