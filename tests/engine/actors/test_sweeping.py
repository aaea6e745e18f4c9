"""Orders that need a walk are carried out to their end, page by page, whatever happens in between."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.actors import sweeping as sweeping_module
from engine.actors.messages import Note, Queued, StopsChanged
from engine.actors.parts import Parts
from engine.actors.stops import Aim, Draining, Scope, StopKind, StopOrder, Stops
from engine.actors.sweeping import PAUSE_SECONDS, Sweeper, Walk, sweeping
from engine.bus.api import BusFull
from engine.model.disposition import DelayReason, Disposition, Outcome
from engine.model.event import Adapted
from engine.storage import StorageError
from tests.fakes.engine_house import Desk, accepted, letter, memory_parts, numbered


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping_module, "PAGE", 4)
    monkeypatch.setattr(sweeping_module, "NOTED_PAGES", 2)


class House:
    def __init__(self) -> None:
        self.parts: Parts = memory_parts()
        self.desk = Desk()

    @asynccontextmanager
    async def sweeps(self) -> AsyncIterator[None]:
        context = self.desk.context("sweeping")
        async with trio.open_nursery() as nursery:
            await nursery.start(sweeping(self.parts), context)
            yield
            context.stop.set()

    async def give(self, kind: StopKind, scope: str, value: str = "", **facts: Any) -> StopOrder:
        order = StopOrder(0, kind, Aim(Scope(scope), value), "a slip", "ann", self.parts.clock.now())
        return await self.parts.stops.give(msgspec.structs.replace(order, **facts))

    async def cancel(self, scope: str, value: str = "") -> StopOrder:
        before = 0 if scope == "campaign" else self.parts.spool.next_id
        return await self.give(StopKind.CANCEL, scope, value, before_id=before)

    def states(self) -> dict[int, str]:
        return {item.spool_id: item.state for item in self.parts.spool.listing(0, 10**6)}

    def noted(self) -> list[str]:
        notes = [event for note in self.desk.take("spooler", Note) for event in note.events]
        return [f"{event.knob} {event.after} {event.reason}" for event in notes if isinstance(event, Adapted)]

    async def settle(self, ids: list[int], *outcomes: Outcome, held: bool = False) -> None:
        ((lease,),) = await self.parts.spool.lease([ids], 0.0)
        ends = [
            Disposition(
                envelope.spool_id,
                envelope.attempt,
                outcome,
                reason=DelayReason.AMBIGUOUS_HELD if held else DelayReason.NONE,
                due=1e9,
            )
            for envelope, outcome in zip(lease.envelopes, outcomes, strict=True)
        ]
        await self.parts.spool.settle([(lease.id, ends)], 0.0)


async def test_a_cancelled_campaign_ends_and_no_other(autojump_clock: MockClock) -> None:
    house = House()
    ours = await accepted(house.parts, numbered(10), letter(7))
    theirs = await accepted(house.parts, numbered(10), letter(8))
    await house.settle(ours[:1], Outcome.DEFERRED)
    await house.cancel("campaign", "7")
    async with house.sweeps():
        await trio.sleep(5)
    assert list(house.states()) == theirs
    assert house.parts.spool.counts(7).cancelled == 10
    (order,) = house.parts.stops.all()
    assert (order.swept, order.found) == (True, 10), "it stands for what comes later"
    assert house.noted() == ["cancel 10 campaign 7: 10 envelopes cancelled: a slip"]


async def test_what_comes_later_to_a_cancelled_campaign_ends_too(autojump_clock: MockClock) -> None:
    house = House()
    await accepted(house.parts, numbered(3), letter(7))
    order = await house.cancel("campaign", "7")
    async with house.sweeps():
        await trio.sleep(5)
        await accepted(house.parts, numbered(1), letter(8))
        await accepted(house.parts, numbered(9), letter(7))
        await trio.sleep(5)
        assert house.parts.spool.counts(7).cancelled == 12
        await house.parts.stops.end(house.parts.stops.all()[0])
        await accepted(house.parts, numbered(1), letter(8))
        await accepted(house.parts, numbered(2), letter(7))
        await trio.sleep(20)
    assert order.aim.campaign == 7
    assert len(house.states()) == 4


async def test_what_somebody_holds_is_found_when_it_comes_back(autojump_clock: MockClock) -> None:
    house = House()
    ids = await accepted(house.parts, numbered(10))
    ((lease,),) = await house.parts.spool.lease([ids[2:5]], 0.0)
    await house.cancel("domain", "plain.test")
    later = await accepted(house.parts, numbered(2))
    async with house.sweeps():
        await trio.sleep(20)
        assert list(house.states()) == [*ids[2:5], *later], "what came later is not meant"
        ends = [
            Disposition(ids[2], 0, Outcome.RETURNED),
            Disposition(ids[3], 0, Outcome.DEFERRED, due=1e9),
            Disposition(ids[4], 0, Outcome.DELIVERED),
        ]
        await house.parts.spool.settle([(lease.id, ends)], 0.0)
        await trio.sleep(20)
    assert list(house.states()) == later
    assert house.parts.stops.all() == []
    assert house.noted() == ["cancel 9 domain plain.test: 9 envelopes cancelled: a slip"]


async def test_a_walk_that_dies_is_walked_again_after_the_restart(autojump_clock: MockClock) -> None:
    house = House()
    await accepted(house.parts, numbered(30))
    await house.cancel("all")
    async with house.sweeps():
        while house.parts.spool.counts(7).cancelled < 8:
            await trio.lowlevel.checkpoint()
    assert house.parts.spool.counts(7).cancelled < 30
    house.parts.stops = Stops(house.parts.bus)
    async with house.sweeps():
        await trio.sleep(10)
    assert house.parts.spool.counts(7).cancelled == 30
    assert house.parts.stops.all() == []


async def test_a_cancel_by_site_stands_for_what_gets_its_route_later(autojump_clock: MockClock) -> None:
    house = House()
    ids = await accepted(house.parts, [*numbered(3, "x.test"), *numbered(3, "y.test")])
    house.parts.routes["x.test"] = "out>mx.test"
    await house.cancel("site", "mx.test")
    async with house.sweeps():
        await trio.sleep(20)
        assert list(house.states()) == ids[3:]
        (order,) = house.parts.stops.all()
        assert (order.swept, order.found) == (True, 3)
        stop = house.parts.stops.judge(7, "default", "y.test", "out", "mx.test", ids[3], 0.0)
        assert stop is not None
        assert stop.cancels
        await accepted(house.parts, numbered(1, "x.test"))
        await house.settle(ids[3:], *[Outcome.DELIVERED] * 3)
        await trio.sleep(20)
    assert house.parts.stops.all() == [], "all that it was about is gone"
    assert len(house.states()) == 1


async def test_a_retry_queues_again_what_is_deferred_and_says_so(autojump_clock: MockClock) -> None:
    house = House()
    ids = await accepted(house.parts, numbered(9))
    await house.settle(ids[:7], *[Outcome.DEFERRED] * 7)
    await house.give(StopKind.RETRY, "campaign", "7", before_id=ids[6], states=("deferred",))
    async with house.sweeps():
        await trio.sleep(5)
    told = [entry.spool_id for batch in house.desk.take("scheduler", Queued) for entry in batch.entries]
    assert told == ids[:6]
    assert [spool_id for spool_id, state in house.states().items() if state == "deferred"] == [ids[6]]
    assert house.parts.stops.all() == []
    assert house.noted() == ["retry 6 campaign 7: 6 envelopes queued again: a slip"]


@pytest.mark.parametrize(("assume", "state"), [("delivered", "delivered"), ("failed", "bounced")])
async def test_what_is_held_is_taken_for_what_is_assumed(
    assume: str, state: str, autojump_clock: MockClock
) -> None:
    house = House()
    ids = await accepted(house.parts, numbered(6))
    await house.settle(ids[:3], *[Outcome.AMBIGUOUS] * 3, held=True)
    await house.settle(ids[3:4], Outcome.QUARANTINED)
    await house.give(
        StopKind.RETRY, "all", before_id=ids[-1] + 1, states=("ambiguous", "quarantined"), assume=assume
    )
    async with house.sweeps():
        await trio.sleep(5)
    counts = house.parts.spool.counts(7)
    assert (getattr(counts, state), counts.ambiguous, counts.quarantined) == (4, 0, 0)
    assert house.desk.take("scheduler", Queued) == []
    assert house.noted() == [f"retry 4 all mail: 4 envelopes taken for {assume}: a slip"]


async def test_a_retry_goes_on_where_it_was_noted(autojump_clock: MockClock) -> None:
    house = House()
    ids = await accepted(house.parts, numbered(6))
    await house.settle(ids, *[Outcome.DEFERRED] * 6)
    await house.give(
        StopKind.RETRY, "all", before_id=ids[-1] + 1, states=("deferred",), walked=ids[3], found=4
    )
    async with house.sweeps():
        await trio.sleep(5)
    assert [spool_id for spool_id, state in house.states().items() if state == "queued"] == ids[4:]
    assert house.noted() == ["retry 6 all mail: 6 envelopes queued again: a slip"]


async def test_a_walk_leaves_the_engine_its_time_while_mail_is_on_its_way(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping_module, "PAGE", 1_000)
    house = House()
    ids = await accepted(house.parts, numbered(5_000))
    other = await accepted(house.parts, numbered(1), letter(8))
    sweeper = Sweeper(house.parts, house.desk.peer)
    started = trio.current_time()
    for busy in (False, True):
        if busy:
            await house.parts.spool.lease([other], 0.0)
        order = await house.cancel("workspace", "nobody's")
        walk = Walk(0)
        for _ in range(5):
            await sweeper._cancel_page(order, walk)
        taken = trio.current_time() - started
        assert taken == pytest.approx(len(ids) * 3e-6 * 49 if busy else 0.0)


async def test_an_order_ends_when_its_time_is_over(autojump_clock: MockClock) -> None:
    house = House()
    await house.give(StopKind.SUSPEND, "campaign", "7", until=house.parts.clock.now() + 3)
    async with house.sweeps():
        await trio.sleep(2.9)
        assert house.parts.stops
        await trio.sleep(0.7)
    assert not house.parts.stops
    assert house.desk.take("scheduler") == [StopsChanged()]
    assert house.noted() == ["suspend None campaign 7: its time is over: a slip"]


@pytest.mark.parametrize("late", [False, True])
async def test_a_drain_ends_when_nothing_is_left_or_its_time_is_over(
    late: bool, autojump_clock: MockClock
) -> None:
    house = House()
    house.parts.queues.add(7, "x.test", 1)
    async with house.sweeps():
        await trio.sleep(5)
        assert not house.parts.drained.is_set()
        house.parts.stops.draining = Draining(house.parts.clock.now() + 5, "a reason", "ann")
        await trio.sleep(4)
        assert not house.parts.drained.is_set()
        if late:
            await trio.sleep(2)
        else:
            (queue,) = house.parts.queues.all()
            house.parts.queues.take_until(queue, 1, 2**64 - 1)
            await trio.sleep(0.9)
        assert house.parts.drained.is_set()


@pytest.mark.parametrize("trouble", [StorageError("no room"), BusFull("no room")])
async def test_a_full_disk_costs_patience_only(
    trouble: Exception, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House()
    await accepted(house.parts, numbered(3))
    await house.cancel("all")
    settle = house.parts.spool.settle

    def full(*arguments: Any) -> Any:
        raise trouble

    monkeypatch.setattr(house.parts.spool, "settle", full)
    async with house.sweeps():
        await trio.sleep(5)
        monkeypatch.setattr(house.parts.spool, "settle", settle)
        await trio.sleep(5 + PAUSE_SECONDS)
    assert house.states() == {}


def test_a_walk_and_a_sweeper_say_where_they_are() -> None:
    assert repr(Walk(4)) == "<Walk after 4: 0 met>"
