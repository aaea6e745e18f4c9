"""The writer of the queue, over the in-memory spool on a jumping clock; its neighbours are mailboxes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from engine.actors.holder import Holder
from engine.actors.messages import (
    Accept,
    Accepted,
    Bell,
    Flush,
    Leased,
    LeaseFor,
    Note,
    OrderLeases,
    PutContent,
    Queued,
    Settle,
)
from engine.actors.parts import Parts
from engine.actors.spooler import spooler
from engine.actors.stops import Draining
from engine.model.disposition import Disposition, Outcome
from engine.model.event import Adapted, decode_events
from engine.mta.spool.api import Acceptance, SpoolError
from engine.runtime.answer import ActorDied
from engine.runtime.child import ChildState
from engine.runtime.spec import ChildSpec, Context, SupervisorSpec
from engine.runtime.supervisor import Tree
from engine.storage import Pending, StorageError
from tests.fakes.engine_house import CAMPAIGN, Desk, accepted, chunks, letter, memory_parts, numbered
from tests.fakes.trees import Crashes, running_tree, until_quiet


class House:
    """A spooler under a supervisor; the scheduler is a mailbox at the desk."""

    def __init__(self, parts: Parts, tree: Tree, desk: Desk, crashes: Crashes) -> None:
        self.parts = parts
        self.tree = tree
        self.desk = desk
        self.crashes = crashes
        self.ref = tree.ref("spooler")

    async def tell(self, *messages: Any) -> None:
        for message in messages:
            await self.ref.tell(message)
        await until_quiet()

    def told(self, kind: type[Any]) -> list[Any]:
        return self.desk.take("scheduler", kind)

    async def crash(self, *messages: Any) -> None:
        """Kill it; `messages` arrive while it is dead."""
        self.tree.kill("spooler")
        for message in messages:
            self.ref.try_tell(message)
        await until_quiet()
        assert self.tree.child_statistics("spooler").state is ChildState.RUNNING

    async def leased(self, holder: Holder, ids: list[int]) -> None:
        await self.tell(OrderLeases([LeaseFor("p", holder, ids)]))
        self.told(Leased)


@asynccontextmanager
async def open_house(parts: Parts | None = None, *, scheduler_capacity: int = 1_000) -> AsyncIterator[House]:
    parts = parts or memory_parts()
    desk, crashes = Desk(scheduler_capacity), Crashes()
    start = spooler(parts)

    async def with_desk(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        context.peer = desk.peer
        await start(context, task_status)

    spec = SupervisorSpec("root", (ChildSpec("spooler", with_desk, mailbox_capacity=100),))
    async with running_tree(spec, on_crash=crashes) as tree:
        yield House(parts, tree, desk, crashes)


def delivered(holder: Holder) -> Settle:
    """The settle of everything in a holder."""
    by_lease: dict[int, list[Disposition]] = {}
    while holder.granted:
        lease, envelope = holder.granted.popleft()
        holder.drop(envelope.spool_id)
        by_lease.setdefault(lease, []).append(
            Disposition(envelope.spool_id, envelope.attempt, Outcome.DELIVERED)
        )
    return Settle(list(by_lease.items()))


# --- accepting ------------------------------------------------------------------------------------------


async def test_a_chunk_is_accepted_and_the_scheduler_hears_of_it_once(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        (chunk,) = chunks(["a@x.test", "b@y.test"])
        await house.ref.ask(lambda answer: PutContent(letter(), answer))
        first: Acceptance = await house.ref.ask(lambda answer: Accept(chunk, answer))
        again: Acceptance = await house.ref.ask(lambda answer: Accept(chunk, answer))
        assert (first.count, first.known, again.known) == (2, False, True)
        assert house.told(Accepted) == [Accepted(CAMPAIGN, first.first_id, ("x.test", "y.test"))]


async def test_a_refusal_goes_to_the_asker_and_harms_nobody(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        (chunk,) = chunks(["a@x.test"])
        with pytest.raises(SpoolError, match="no content"):
            await house.ref.ask(lambda answer: Accept(chunk, answer))
        await house.ref.ask(lambda answer: PutContent(letter(), answer))
        with pytest.raises(SpoolError, match="another content"):
            await house.ref.ask(lambda answer: PutContent(letter(subject="Changed"), answer))
        assert not house.crashes.names


async def test_what_the_scheduler_has_no_room_for_is_told_later_and_in_order(
    autojump_clock: MockClock,
) -> None:
    async with open_house(scheduler_capacity=1) as house:
        await house.ref.ask(lambda answer: PutContent(letter(), answer))
        for chunk in chunks(numbered(5), size=1):
            await house.ref.ask(lambda answer, chunk=chunk: Accept(chunk, answer))  # type: ignore[misc]
        seen = []
        for _ in range(5):
            await trio.sleep(0.3)  # a tick
            seen += [message.first_id for message in house.told(Accepted)]
        assert seen == sorted(seen)
        assert len(seen) == 5


# --- leases ---------------------------------------------------------------------------------------------


async def test_leases_reach_their_holders_and_the_scheduler_hears_which_ids_left(
    autojump_clock: MockClock,
) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(3))
        one, two = Holder("one"), Holder("two")
        one.ref = house.desk.peer("one")
        await house.tell(
            OrderLeases([LeaseFor("p", one, ids[:2]), LeaseFor("q", two, ids[2:])]),
        )
        assert set(one.held) == set(ids[:2])
        assert set(two.held) == set(ids[2:])
        assert (one.answers, two.answers) == (1, 1)
        assert len(house.desk.take("one", Bell)) == 1
        assert house.told(Leased) == [Leased((("p", ids[:2]), ("q", ids[2:])))]


async def test_an_order_of_which_nothing_is_left_is_answered_all_the_same(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(1))
        first, second = Holder("first"), Holder("second")
        second.ref = house.desk.peer("second")
        await house.tell(OrderLeases([LeaseFor("p", first, ids)]), OrderLeases([LeaseFor("p", second, ids)]))
        assert set(first.held) == set(ids)
        assert not second.held
        assert second.answers == 1
        assert house.desk.take("second", Bell)


async def test_a_lease_for_a_dead_taker_comes_back_at_once(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(2))
        dead = Holder("dead")
        dead.close()
        await house.tell(OrderLeases([LeaseFor("p", dead, ids)]))
        assert house.parts.spool.open_leases() == 0
        assert [entry.spool_id for told in house.told(Queued) for entry in told.entries] == ids


# --- settling and what is due -------------------------------------------------------------------------------


async def test_settled_envelopes_are_gone_and_returned_ones_are_told(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(2))
        holder = Holder("c")
        await house.leased(holder, ids)
        ((lease, _), _) = holder.granted
        await house.tell(
            Settle(
                [
                    (
                        lease,
                        [
                            Disposition(ids[0], 0, Outcome.DELIVERED),
                            Disposition(ids[1], 0, Outcome.RETURNED),
                        ],
                    )
                ]
            )
        )
        counts = house.parts.spool.counts(CAMPAIGN)
        assert (counts.delivered, counts.deferred) == (1, 1)
        assert [entry.spool_id for told in house.told(Queued) for entry in told.entries] == ids[1:]
        assert not house.parts.unsettled


async def test_a_deferred_envelope_is_told_when_its_time_has_come(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(1))
        holder = Holder("c")
        await house.leased(holder, ids)
        ((lease, _),) = holder.granted
        due = house.parts.clock.now() + 30
        await house.tell(Settle([(lease, [Disposition(ids[0], 0, Outcome.DEFERRED, due=due)])]))
        await trio.sleep(29.5)
        assert not house.told(Queued)
        await trio.sleep(1.0)
        ((entry,),) = [told.entries for told in house.told(Queued)]
        assert entry.spool_id == ids[0]


async def test_in_a_drain_nothing_that_was_deferred_comes_due(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(1))
        due = house.parts.clock.now() + 5
        await house.tell(Settle([(0, [Disposition(ids[0], 0, Outcome.DEFERRED, due=due)])]))
        house.parts.stops.draining = Draining(1e12, "new kernel", "ann")
        await trio.sleep(20)
        assert not house.told(Queued)
        house.parts.stops.draining = None
        await trio.sleep(1)
        ((entry,),) = [told.entries for told in house.told(Queued)]
        assert entry.spool_id == ids[0]


async def test_a_flush_is_answered_when_everything_before_it_is_durable(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(1))
        holder = Holder("c")
        await house.leased(holder, ids)
        assert house.ref.try_tell(delivered(holder))
        await house.ref.ask(Flush)
        assert house.parts.spool.counts(CAMPAIGN).delivered == 1


# --- crashes --------------------------------------------------------------------------------------------


async def test_settles_told_while_it_was_dead_are_no_orphans(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(3))
        holder = Holder("c")
        await house.leased(holder, ids)
        await house.crash(delivered(holder))
        counts = house.parts.spool.counts(CAMPAIGN)
        assert (counts.delivered, counts.was_ambiguous) == (3, 0)


async def test_settles_that_found_no_room_are_applied_at_the_next_wake_up(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(2))
        holder = Holder("c")
        await house.leased(holder, ids)
        message = delivered(holder)
        house.parts.unsettled[id(message)] = message
        await trio.sleep(0.3)
        assert house.parts.spool.counts(CAMPAIGN).delivered == 2
        assert not house.parts.unsettled


async def test_settles_in_hand_survive_its_crash_and_its_stop(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with open_house(parts) as house:
        ids = await accepted(parts, numbered(4))
        one, two = Holder("one"), Holder("two")
        await house.leased(one, ids[:2])
        await house.leased(two, ids[2:])
        message = delivered(one)
        parts.unsettled[id(message)] = message  # as an incarnation leaves it that dies before its commit
        await house.crash()
        counts = parts.spool.counts(CAMPAIGN)
        assert (counts.delivered, counts.was_ambiguous) == (2, 2)
        message = Settle([(0, [Disposition(ids[2], 1, Outcome.DELIVERED)])])
        parts.unsettled[id(message)] = message
    assert parts.spool.counts(CAMPAIGN).delivered == 3
    assert not parts.unsettled


async def test_leases_without_a_settle_are_orphans_after_a_crash_and_come_due(
    autojump_clock: MockClock,
) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(2))
        await house.leased(Holder("lost"), ids)
        with structlog.testing.capture_logs() as lines:
            await house.crash()
        assert [line["envelopes"] for line in lines] == [2]
        assert house.parts.spool.open_leases() == 0
        assert house.parts.spool.counts(CAMPAIGN).was_ambiguous == 2
        await trio.sleep(2)
        assert sorted(entry.spool_id for told in house.told(Queued) for entry in told.entries) == ids


async def test_orders_of_leases_are_void_after_a_crash_and_chunks_are_not(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(1))
        (chunk,) = chunks(["a@x.test"], name="later")
        holder = Holder("c")
        answers: list[Acceptance] = []

        async def ask() -> None:
            answers.append(await house.ref.ask(lambda answer: Accept(chunk, answer)))

        async with trio.open_nursery() as nursery:
            house.tree.kill("spooler")
            nursery.start_soon(ask)
            house.ref.try_tell(OrderLeases([LeaseFor("p", holder, ids)]))
            await until_quiet()
        assert not holder.held
        assert holder.answers == 0
        assert answers[0].count == 1
        assert [told.campaign for told in house.told(Accepted)] == [CAMPAIGN]


async def test_a_commit_that_fails_is_its_crash_and_the_settle_is_kept(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_house() as house:
        ids = await accepted(house.parts, numbered(1))
        holder = Holder("c")
        await house.leased(holder, ids)
        (lease, _), message = holder.granted[0], delivered(holder)
        works = house.parts.spool.settle
        broken = 2

        def settle(batches: Any, at: float) -> Pending[Any]:
            nonlocal broken
            if not broken:
                return works(batches, at)
            broken -= 1
            pending: Pending[Any] = Pending()
            pending.fail(StorageError("the disk is gone"))
            return pending

        monkeypatch.setattr(house.parts.spool, "settle", settle)
        await house.tell(message)
        await trio.sleep(2)  # the second failure was met at its start
        assert house.crashes.names == ["spooler", "spooler"]
        assert house.parts.spool.counts(CAMPAIGN).delivered == 1
        assert not house.parts.unsettled
        assert lease


def noted(house: House) -> list[Adapted]:
    batches = [decode_events(data) for _, data in house.parts.spool.events(0, 1_000)]
    return [event for batch in batches for event in batch.events if isinstance(event, Adapted)]


SLOWER = Adapted("out>mx.test", "big", "rate", 20.0, 5.0, "slow down", "rate")


async def test_what_the_engine_notes_of_itself_is_in_the_journal(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        await house.tell(Note([SLOWER]))
        assert noted(house) == [SLOWER]


async def test_a_note_that_came_while_it_was_dead_is_not_lost(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        await house.crash(Note([SLOWER]), Note([SLOWER]))
        assert noted(house) == [SLOWER, SLOWER]


async def test_a_note_that_cannot_be_written_is_its_crash(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def note(events: Any, at: float) -> Pending[None]:
        pending: Pending[None] = Pending()
        pending.fail(StorageError("the disk is gone"))
        return pending

    async with open_house() as house:
        monkeypatch.setattr(house.parts.spool, "note", note)
        await house.tell(Note([SLOWER]))
        assert house.crashes.names == ["spooler"]


async def test_an_unknown_message_is_a_bug_and_asks_in_hand_are_failed(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.ref.try_tell("nonsense")
        (chunk,) = chunks(["a@x.test"])
        with pytest.raises((ActorDied, SpoolError)):
            await house.ref.ask(lambda answer: Accept(chunk, answer))
        assert house.crashes.seen[0].error_type == "AssertionError"
