"""The row that says how an engine is, and what it finds out by reading it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors.membership import claim_of
from engine.actors.parts import Parts
from engine.actors.presence import EngineStatus, presence
from engine.bus.api import BusFull
from tests.fakes.engine_house import CAMPAIGN, Desk, accepted, memory_parts, numbered
from tests.fakes.memory_bus import MemoryBus

KEY = "node/engine"
INTERVAL = 2.0


def apart(parts: Parts) -> MemoryBus:
    """Give the engine a cluster's bus beside its own."""
    cluster = MemoryBus("node")
    parts.cluster = cluster
    return cluster


@asynccontextmanager
async def present(parts: Parts) -> AsyncIterator[None]:
    context = Desk().context("presence")
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: presence(parts)(context, task_status))
        try:
            yield
        finally:
            context.stop.set()


def row(parts: Parts) -> EngineStatus:
    data = parts.cluster.tables["status"][KEY]  # type: ignore[attr-defined]
    return msgspec.json.decode(data, type=EngineStatus)


def another(**facts: object) -> EngineStatus:
    base = EngineStatus(
        node="node", incarnation="feed", beat=7, interval=INTERVAL, at=0.0, epoch="e", place="/x"
    )
    return replace(base, **facts)


def write(bus: MemoryBus, status: EngineStatus) -> None:
    bus.tables.setdefault("status", {})[KEY] = msgspec.json.encode(status)
    bus.ring()


async def test_a_lone_engine_is_open_at_once_and_counts_on(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with present(parts):
        await trio.sleep(0.1)
        assert not parts.membership.closed
        first = row(parts)
        await trio.sleep(INTERVAL * 3)
        assert row(parts).beat == first.beat + 3
        assert row(parts).incarnation == parts.membership.incarnation


async def test_until_the_bus_was_read_no_work_is_taken(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = apart(parts)

    async def never(table: str, key: str) -> bytes | None:
        await trio.sleep_forever()
        raise AssertionError

    cluster.read = never  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        context = Desk().context("presence")
        await nursery.start(lambda task_status: presence(parts)(context, task_status))
        await trio.sleep(100)
        assert "has not spoken with the bus" in parts.membership.closed
        nursery.cancel_scope.cancel()


async def test_the_row_tells_what_is_queued_and_how_fast_it_goes(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    await accepted(parts, numbered(5))
    async with present(parts):
        await trio.sleep(0.1)
        assert row(parts).queued == 5
        counts = parts.spool.counts(CAMPAIGN)
        assert row(parts).finished == counts.finished == 0
        assert row(parts).rate == 0.0


async def test_a_second_engine_of_the_same_name_takes_no_work_and_says_so(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = apart(parts)
    write(cluster, another())

    async def first_engine() -> None:
        beat = 7
        while beat < 30:
            beat += 1
            await trio.sleep(INTERVAL)
            write(cluster, another(beat=beat))

    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first_engine)
            async with present(parts):
                await trio.sleep(INTERVAL * 10)
                assert "another engine is called node" in parts.membership.closed
                assert row(parts).incarnation == "feed"  # the first one's row is left alone
                await trio.sleep(INTERVAL * 30)  # until the first one is silent
                assert not parts.membership.closed
                assert row(parts).incarnation == parts.membership.incarnation
    assert [line["event"] for line in lines].count("two engines have one name") == 1


async def test_a_copy_of_the_spool_is_named_as_one(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = apart(parts)
    copied = another(epoch=parts.spool.epoch)
    write(cluster, copied)
    async with present(parts):
        await trio.sleep(INTERVAL * 1.5)
        write(cluster, replace(copied, beat=8))
        await trio.sleep(INTERVAL * 2)
        assert "with a copy of this spool" in parts.membership.closed


async def test_the_former_life_at_the_same_place_is_over(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    parts.membership.place = "/srv/data"
    cluster = apart(parts)
    write(cluster, another(place="/srv/data"))
    async with present(parts):
        await trio.sleep(0.1)
        assert not parts.membership.closed


async def test_a_life_that_ended_elsewhere_is_outwaited(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = apart(parts)
    write(cluster, another())
    async with present(parts):
        await trio.sleep(INTERVAL)
        assert parts.membership.closed
        await trio.sleep(INTERVAL * 4)
        assert not parts.membership.closed


async def test_a_bus_that_forgot_gets_its_claims_back_before_work_is_taken(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = apart(parts)
    await accepted(parts, numbered(5))
    async with present(parts):
        await trio.sleep(INTERVAL * 3.5)
        cluster.tables["status"].clear()
        cluster.tables.get("claims", {}).clear()
        await trio.sleep(INTERVAL)
        assert "the bus has forgotten" in parts.membership.closed
        claims = cluster.tables["claims"]
        assert set(claims) == set(parts.spool.chunk_ids())
        assert set(claims.values()) == {claim_of("node", parts.spool.epoch)}
        await trio.sleep(INTERVAL * 20)
        assert not parts.membership.closed


async def test_a_bus_that_forgot_while_the_engine_was_off_is_found_out(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = apart(parts)
    async with present(parts):
        await trio.sleep(INTERVAL * 5)
    older = replace(row(parts), beat=2)
    write(cluster, older)
    again = memory_parts()
    again.bus, again.cluster = parts.bus, cluster
    again.membership.incarnation = older.incarnation
    async with present(again):
        await trio.sleep(0.1)
        assert "beat 2" in again.membership.closed


async def test_a_row_that_does_not_decode_is_written_anew(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = apart(parts)
    cluster.tables["status"] = {KEY: b"{"}
    async with present(parts):
        await trio.sleep(0.1)
        assert row(parts).beat == 1


async def test_a_restart_in_the_grace_does_not_leave_the_engine_closed(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = apart(parts)
    async with present(parts):
        await trio.sleep(INTERVAL * 3.5)
        cluster.tables["status"].clear()
        await trio.sleep(INTERVAL)
        assert "forgotten" in parts.membership.closures
    async with present(parts):  # a new incarnation of the actor, over the same facts
        await trio.sleep(INTERVAL * 20)
        assert not parts.membership.closed


async def test_a_full_bus_is_waited_for_with_the_claims(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = apart(parts)
    await accepted(parts, numbered(5))
    create, refusals = cluster.create, 3

    async def full_at_first(table: str, key: str, value: bytes) -> bytes | None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise BusFull("no room")
        return await create(table, key, value)

    cluster.create = full_at_first  # type: ignore[method-assign]
    async with present(parts):
        await trio.sleep(INTERVAL * 1.5)
        cluster.tables["status"].clear()
        await trio.sleep(INTERVAL * 30)
        assert set(cluster.tables["claims"]) == set(parts.spool.chunk_ids())
        assert not parts.membership.closed
