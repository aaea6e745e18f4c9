"""What a stream keeps, and for how long, on a clock that the test sets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from engine.bus.api import BusFull
from engine.bus.local_members import remove_folder
from engine.bus.local_store import Store
from engine.bus.local_streams import (
    ENTRY_OCTETS,
    TRIM_ENTRIES_MAX,
    LocalSubscription,
    Streams,
    entries,
    may_go,
    read_tail,
)
from engine.runtime.clock import SystemClock

DAY = 86_400.0


class Wall:
    """Seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    def __init__(self, store: Store, wall: Wall) -> None:
        self.store = store
        self.wall = wall
        self.streams = Streams(store, retention_seconds=7 * DAY, stream_octets_max=10_000)

    def subscription(self, stream: str, consumer: str) -> LocalSubscription:
        return LocalSubscription(self.store, self.streams, stream, consumer)

    def kept(self, stream: str) -> list[int]:
        own = self.store.own
        with own.read() as transaction:
            return [sequence for sequence, _ in entries(own, transaction, stream, 0)]

    def octets(self, stream: str) -> int:
        own = self.store.own
        with own.read() as transaction:
            return read_tail(own, transaction, stream)[1]

    async def close(self) -> None:
        self.store.close()


@asynccontextmanager
async def open_desk(root: Path, member: str, wall: Wall) -> AsyncIterator[Desk]:
    clock = SystemClock(wall=wall, monotonic=wall)
    store = Store(root, member, clock, map_octets=64 * 1024**2, group_seconds=0.0, poll_seconds=0.005)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield Desk(store, wall)
        store.close()
    store.members.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path, "node-1", Wall()) as desk:
        yield desk


@pytest.mark.parametrize("stream", ["chunks.node-1", "events.node-1"])
async def test_an_entry_goes_once_every_known_consumer_acknowledged_it(desk: Desk, stream: str) -> None:
    first, second = desk.subscription(stream, "first"), desk.subscription(stream, "second")
    await desk.streams.publish(stream, [b"a", b"b", b"c"])
    one, two = await first.receive(3), await second.receive(3)
    await first.acknowledge(one[2])
    await desk.streams.trim()
    assert desk.kept(stream) == [1, 2, 3]
    await second.acknowledge(two[0])
    await desk.streams.trim()
    assert desk.kept(stream) == [2, 3]
    await second.acknowledge(two[2])
    await desk.streams.trim()
    assert desk.kept(stream) == []
    assert desk.octets(stream) == 0
    assert await desk.streams.publish(stream, [b"d"]) == 4


async def test_facts_nobody_subscribed_to_stay_until_the_age_limit(desk: Desk) -> None:
    await desk.streams.publish("events.node-1", [b"a"])
    desk.wall.now += 6 * DAY
    await desk.streams.publish("events.node-1", [b"b"])
    await desk.streams.trim()
    assert desk.kept("events.node-1") == [1, 2]
    desk.wall.now += 2 * DAY
    await desk.streams.trim()
    assert desk.kept("events.node-1") == [2]
    assert desk.octets("events.node-1") == 1 + ENTRY_OCTETS


async def test_facts_go_at_the_age_limit_though_a_consumer_lags(desk: Desk) -> None:
    lagging = desk.subscription("events.node-1", "reports")
    await desk.streams.publish("events.node-1", [b"a"])
    desk.wall.now += 8 * DAY
    await desk.streams.publish("events.node-1", [b"b"])
    await desk.streams.trim()
    assert [delivery.payload for delivery in await lagging.receive(9)] == [b"b"]
    assert desk.streams.backlog("events.node-1", "reports") == 1


@pytest.mark.parametrize("subscribed", [False, True])
async def test_work_never_ages_out(desk: Desk, subscribed: bool) -> None:
    if subscribed:
        desk.subscription("chunks.node-1", "intake")
    await desk.streams.publish("chunks.node-1", [b"a"])
    desk.wall.now += 400 * DAY
    await desk.streams.trim()
    assert desk.kept("chunks.node-1") == [1]


async def test_a_full_stream_is_trimmed_before_it_refuses(desk: Desk) -> None:
    subscription = desk.subscription("chunks.node-1", "intake")
    await desk.streams.publish("chunks.node-1", [bytes(9_000)])
    with pytest.raises(BusFull, match="cap of 10000"):
        await desk.streams.publish("chunks.node-1", [bytes(9_000)])
    await subscription.acknowledge((await subscription.receive(1))[0])
    assert await desk.streams.publish("chunks.node-1", [bytes(9_000)]) == 2
    assert desk.kept("chunks.node-1") == [2]


async def test_trimming_goes_on_over_many_commits(desk: Desk) -> None:
    desk.streams = Streams(desk.store, retention_seconds=DAY, stream_octets_max=10**9)
    count = 2 * TRIM_ENTRIES_MAX + 1
    await desk.streams.publish("events.node-1", [b"x"] * count)
    desk.wall.now += 2 * DAY
    assert await desk.streams.trim_stream("events.node-1") == TRIM_ENTRIES_MAX
    await desk.streams.trim()
    assert desk.kept("events.node-1") == []


async def test_a_consumer_that_moved_goes_on_at_its_most_advanced_cursor(desk: Desk, tmp_path: Path) -> None:
    await desk.streams.publish("events.node-1", [b"a", b"b", b"c"])
    async with open_desk(tmp_path, "control-1", desk.wall) as before:
        subscription = before.subscription("events.node-1", "reports")
        await subscription.acknowledge((await subscription.receive(2))[-1])
    async with open_desk(tmp_path, "control-2", desk.wall) as after:
        found = await after.subscription("events.node-1", "reports").receive(9)
        assert [delivery.payload for delivery in found] == [b"c"]


async def test_a_writer_with_a_new_store_is_read_from_its_first_entry(desk: Desk, tmp_path: Path) -> None:
    subscription = desk.subscription("suppressions", "node-1")
    for payload in (b"old", b"new"):
        async with open_desk(tmp_path, "control", desk.wall) as writer:
            await writer.streams.publish("suppressions", [payload])
            with trio.fail_after(5):
                [delivery] = await subscription.receive(9)
            assert (delivery.sequence, delivery.payload) == (1, payload)
            await subscription.acknowledge(delivery)
            assert writer.streams.backlog("suppressions", "node-1") == 0
        assert remove_folder(tmp_path / "control")


async def test_cursors_of_removed_writers_are_forgotten(desk: Desk, tmp_path: Path) -> None:
    subscription = desk.subscription("suppressions", "node-1")
    async with open_desk(tmp_path, "cli-1", desk.wall) as writer:
        await writer.streams.publish("suppressions", [b"a"])
        with trio.fail_after(5):
            await subscription.acknowledge((await subscription.receive(1))[0])
    assert desk.streams.forget_writers_gone() is None
    remove_folder(tmp_path / "cli-1")
    desk.store.look_at_others()
    forget = desk.streams.forget_writers_gone()
    assert forget is not None
    assert await desk.store.durable(forget) == 1
    assert desk.streams.forget_writers_gone() is None


async def test_unread_is_what_somebody_or_nobody_yet_has_to_acknowledge(desk: Desk) -> None:
    own = desk.store.own
    assert not desk.streams.unread(own)
    await desk.streams.publish("commands.node-1", [b"a", b"b"])
    assert desk.streams.unread(own)
    subscription = desk.subscription("commands.node-1", "node")
    found = await subscription.receive(2)
    await subscription.acknowledge(found[0])
    assert desk.streams.unread(own)
    await subscription.acknowledge(found[1])
    assert not desk.streams.unread(own)


@pytest.mark.parametrize(
    ("sequence", "time_ms", "through", "before_ms", "goes"),
    [
        (5, 100, 5, 0, True),
        (6, 100, 5, 0, False),
        (6, 100, 5, 100, False),
        (6, 100, 5, 101, True),
    ],
)
def test_what_may_go(sequence: int, time_ms: int, through: int, before_ms: int, goes: bool) -> None:
    assert may_go(sequence, time_ms.to_bytes(8, "big") + b"payload", through, before_ms) is goes


async def test_what_waits_is_counted_over_all_writers(tmp_path: Path) -> None:
    wall = Wall()
    async with open_desk(tmp_path, "node-1", wall) as one, open_desk(tmp_path, "node-2", wall) as two:
        await one.streams.publish("chunks.node-1", [b"a", b"b"])
        await two.streams.publish("chunks.node-1", [b"c"])
        one.store.members.refresh()
        assert one.streams.backlog("chunks.node-1", "intake") == 2
        assert one.streams.waiting("chunks.node-1", "intake") == 3
