"""Publish, then trim; keep what the bus refuses; publish again what a crash left in between."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from engine.actors import journal as journal_module
from engine.actors.journal import journal
from engine.actors.messages import Flush
from engine.actors.parts import Parts
from engine.model.event import decode_events
from engine.runtime.spec import ChildSpec, Context, Strategy, SupervisorSpec
from engine.runtime.supervisor import Tree
from tests.fakes.engine_house import EventReader, accepted, memory_parts, numbered
from tests.fakes.memory_bus import MemoryBus
from tests.fakes.trees import Crashes, running_tree


@asynccontextmanager
async def running_journal(parts: Parts, flushed: list[float] | None = None) -> AsyncIterator[Tree]:
    async def spooler(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async for (message,) in context.mailbox.batches(1):
            if message == "crash":
                raise ValueError("told to crash")
            assert isinstance(message, Flush)
            if flushed is not None:
                flushed.append(trio.current_time())
                if len(flushed) == 1:
                    await accepted(parts, numbered(1))  # becomes durable in the last moment
            message.answer.set(None)

    spec = SupervisorSpec(
        "root",
        (
            ChildSpec("spooler", spooler),
            ChildSpec("journal", journal(parts), mailbox_capacity=1, shutdown_seconds=30.0),
        ),
        strategy=Strategy.REST_FOR_ONE,
    )
    async with running_tree(spec, on_crash=Crashes()) as tree:
        yield tree


def published(parts: Parts) -> list[int]:
    """First sequence numbers, as they were published."""
    assert isinstance(parts.bus, MemoryBus)
    return [decode_events(payload).sequence for payload in parts.bus.streams.get("events.node", [])]


async def test_events_are_published_in_order_and_then_trimmed(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running_journal(parts):
        for _ in range(3):
            await accepted(parts, numbered(2))
            await trio.sleep(0.5)
        assert published(parts) == [1, 2, 3]
        assert not parts.spool.events(0, 10)


async def test_many_events_go_in_batches(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setattr(journal_module, "BATCHES_AT_A_TIME", 2)
    parts = memory_parts()
    for _ in range(7):
        await accepted(parts, numbered(1))
    async with running_journal(parts):
        await trio.sleep(0.1)
        assert published(parts) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_full_bus_leaves_events_in_the_spool(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    assert isinstance(parts.bus, MemoryBus)
    parts.bus.refusals = 2
    await accepted(parts, numbered(1))
    with structlog.testing.capture_logs() as lines:
        async with running_journal(parts):
            await trio.sleep(9)
            assert not published(parts)
            assert len(parts.spool.events(0, 10)) == 1
            await trio.sleep(2)
            assert published(parts) == [1]
    assert [line["event"] for line in lines] == ["the bus takes no events; they stay in the spool"] * 2


async def test_a_crash_between_publishing_and_trimming_repeats_and_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    assert isinstance(parts.bus, MemoryBus)
    trim, trims = parts.spool.trim_events, 0

    def die_first(before: int) -> Any:
        nonlocal trims
        trims += 1
        if trims == 1:
            raise OSError("died before the trim")
        return trim(before)

    parts.spool.trim_events = die_first  # type: ignore[method-assign]
    async with running_journal(parts):
        await accepted(parts, numbered(1))
        await accepted(parts, numbered(1))
        await trio.sleep(1)
        await accepted(parts, numbered(1))
        await trio.sleep(1)
    assert published(parts) == [1, 2, 1, 2, 3]
    reader = EventReader(parts.bus.subscribe("events.node", "test"))
    for payload in parts.bus.streams["events.node"]:
        reader.add(decode_events(payload))
    assert (reader.repeats, len(reader.batches)) == (2, 3)


async def test_its_last_stop_waits_for_what_is_becoming_durable(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    flushed: list[float] = []
    async with running_journal(parts, flushed):
        await trio.sleep(1)
        assert not published(parts)
    assert flushed
    assert published(parts)[0] == 1
    assert not parts.spool.events(0, 10)


async def test_a_stop_for_a_neighbour_asks_nobody(autojump_clock: MockClock) -> None:
    """The spooler may be what crashed: a flush would wait for an answer that cannot come."""
    parts = memory_parts()
    async with running_journal(parts) as tree:
        began = trio.current_time()
        await tree.ref("spooler").tell("crash")
        await trio.sleep(0.1)
        assert tree.child_statistics("journal").incarnation == 2
        assert trio.current_time() - began < 1


async def test_a_stop_does_not_wait_for_a_bus_that_is_away(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = MemoryBus("node")
    cluster.online, cluster.delay_seconds = False, 1e9
    parts.cluster = cluster
    await accepted(parts, numbered(2))
    began = trio.current_time()
    async with running_journal(parts):
        await trio.sleep(1)
    assert trio.current_time() - began < 10
    assert parts.spool.events(0, 10)  # they stay


async def test_a_stop_waits_for_a_slow_bus_that_is_there(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = MemoryBus("node")
    cluster.delay_seconds = 8.0
    parts.cluster = cluster
    await accepted(parts, numbered(2))
    async with running_journal(parts):
        await trio.sleep(1)
    assert not parts.spool.events(0, 10)
