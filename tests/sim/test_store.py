"""What the simulated disk and bus promise: durable after a sync, whole or gone when the power goes."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from engine.bus.api import BusFull
from engine.mta.spool.api import SpoolError
from engine.mta.spool.memory import Disk
from engine.storage import StorageError
from tests.fakes.engine_house import CAMPAIGN, chunks, letter, numbered
from tests.sim.clock import JumpingClock
from tests.sim.scenario import DiskManners
from tests.sim.store import BusStore, SimBus, SimSpool
from tests.sim.witness import Witness

NOW = 1_767_225_600.0
CHUNK = next(chunks(numbered(3)))


def live(
    story: Callable[[SimSpool], Awaitable[Any]],
    *,
    failing: float = 0.0,
    seed: int = 1,
    disk: Disk | None = None,
) -> Disk:
    """Run a story with a spool whose committer runs; returns the disk."""
    clock = JumpingClock()
    manners = DiskManners(0.01, (0.1, 0.1), failing)
    disk = disk or Disk()
    spool = SimSpool(disk, manners, clock, random.Random(seed), Witness())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(spool.run)
            await story(spool)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
    return disk


def test_a_write_is_durable_when_its_sync_is_over() -> None:
    async def story(spool: SimSpool) -> None:
        pending = spool.put_content(letter(), NOW)
        await trio.sleep(0.05)
        assert not pending.done
        assert spool.content(CAMPAIGN) is None
        await pending
        assert trio.current_time() == pytest.approx(0.11)
        assert spool.content(CAMPAIGN) == letter()

    live(story)


def test_a_chunk_without_content_is_refused_at_once() -> None:
    async def story(spool: SimSpool) -> None:
        with pytest.raises(SpoolError):
            spool.accept(CHUNK, NOW)

    live(story)


def test_a_failing_commit_keeps_nothing() -> None:
    async def story(spool: SimSpool) -> None:
        with pytest.raises(StorageError):
            await spool.put_content(letter(), NOW)

    assert not live(story, failing=1.0).contents


def test_a_power_cut_keeps_the_synced_group_as_a_whole_or_not_at_all() -> None:
    async def story(spool: SimSpool) -> None:
        first, second = spool.put_content(letter(1), NOW), spool.put_content(letter(2), NOW)
        await trio.sleep(0.05)
        waiting = spool.put_content(letter(3), NOW)
        spool.lose_power()
        await trio.sleep(1.0)
        assert not any(pending.done for pending in (first, second, waiting))
        assert not spool.put_content(letter(4), NOW).done

    kept = {tuple(live(story, seed=seed).contents) for seed in range(20)}
    assert kept == {(), (1, 2)}


def test_a_committer_that_was_killed_goes_on_where_it_was() -> None:
    async def story(spool: SimSpool) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(spool.run)
            pending = spool.put_content(letter(), NOW)
            await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        await trio.sleep(1.0)
        assert not pending.done
        async with trio.open_nursery() as nursery:
            await nursery.start(spool.run)
            await pending
            nursery.cancel_scope.cancel()

    clock = JumpingClock()
    spool = SimSpool(Disk(), DiskManners(0.01, (0.1, 0.1), 0.0), clock, random.Random(1), Witness())
    trio.run(story, spool, clock=clock)


def test_a_bus_that_lost_its_process_takes_nothing_more() -> None:
    async def story() -> None:
        store = BusStore()
        dead = SimBus("node", store, random.Random(1), refusing=0.0, witness=Witness())
        alive = SimBus("feeder", store, random.Random(2), refusing=0.0, witness=Witness())
        await dead.publish("events.node", [b"1"])
        dead.lose_power()
        with trio.move_on_after(5.0) as patience:
            await dead.publish("events.node", [b"2"])
        assert patience.cancelled_caught
        await alive.publish("events.node", [b"3"])
        assert store.streams["events.node"] == [b"1", b"3"]

    trio.run(story, clock=JumpingClock())


def test_a_bus_may_refuse() -> None:
    async def story() -> None:
        store = BusStore()
        bus = SimBus("node", store, random.Random(1), refusing=1.0, witness=Witness())
        with pytest.raises(BusFull):
            await bus.publish("events.node", [b"1"])
        assert not store.streams.get("events.node")

    trio.run(story, clock=JumpingClock())
