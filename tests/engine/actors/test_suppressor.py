"""Orders from the bus are applied, each to its end; what makes no sense holds up nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from engine.actors.parts import Parts
from engine.actors.suppressor import ROOM_SECONDS, suppressor
from engine.mta.policy.suppression import SuppressionOrder
from engine.mta.policy.suppression_codec import AddressHasher, encode_order
from engine.mta.spool.suppressions import STREAM, Applied, consumer_name
from engine.mta.spool.suppressions_memory import MemorySuppressions
from engine.storage import StorageFull
from tests.contract.suppressions import HASHER, add, blocked, remove
from tests.fakes.engine_house import memory_parts
from tests.fakes.trees import running_actor

ANN = HASHER.key_of("ann@x.test")
CONSUMER = consumer_name("node")


class NarrowSuppressions(MemorySuppressions):
    """Has no room for the next so many orders."""

    refusals = 0

    async def apply(self, order: SuppressionOrder) -> Applied:
        if self.refusals:
            self.refusals -= 1
            raise StorageFull("no room")
        return await super().apply(order)


@asynccontextmanager
async def at_work(parts: Parts | None = None) -> AsyncIterator[tuple[Parts, NarrowSuppressions]]:
    parts = parts or memory_parts()
    if not isinstance(parts.suppressions, NarrowSuppressions):
        parts.suppressions = NarrowSuppressions(HASHER)
    async with running_actor(suppressor(parts)):
        yield parts, parts.suppressions


async def tell(parts: Parts, *orders: SuppressionOrder) -> None:
    await parts.bus.publish(STREAM, [encode_order(order) for order in orders])


async def caught_up(parts: Parts) -> None:
    with trio.fail_after(60):
        while parts.bus.backlog(STREAM, CONSUMER):
            await trio.sleep(0.01)


async def test_orders_are_applied_in_turn_and_acknowledged(autojump_clock: MockClock) -> None:
    async with at_work() as (parts, kept):
        await tell(parts, add(ANN), remove(ANN), add(HASHER.key_of("bob@x.test")))
        await caught_up(parts)
        assert (blocked(kept), kept.keys()) == (None, 1)
        assert kept.positions() == {"node": 3}


async def test_what_does_not_fit_is_passed_over(autojump_clock: MockClock) -> None:
    other = AddressHasher(bytes(32))
    foreign = SuppressionOrder(
        adds=False, keys=(other.key_of("ann@x.test"),), at_ms=99, key_check=other.check
    )
    async with at_work() as (parts, kept):
        await parts.bus.publish(STREAM, [b"nonsense"])
        await tell(parts, foreign, add(ANN))
        await caught_up(parts)
        assert blocked(kept) is not None


async def test_without_room_an_order_waits_and_is_not_acknowledged(autojump_clock: MockClock) -> None:
    async with at_work() as (parts, kept):
        kept.refusals = 3
        await tell(parts, add(ANN))
        await trio.sleep(ROOM_SECONDS * 2.5)
        assert parts.bus.backlog(STREAM, CONSUMER) == 1
        assert blocked(kept) is None
        await caught_up(parts)
        assert blocked(kept) is not None


async def test_what_was_not_acknowledged_comes_again_and_takes_nothing_back(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    async with at_work(parts):
        await tell(parts, remove(ANN, at_ms=5))
        await caught_up(parts)
        await parts.suppressions.apply(add(ANN, at_ms=7))
    bus = parts.bus
    bus.cursors[STREAM, CONSUMER] = 0  # type: ignore[attr-defined]
    async with at_work(parts) as (_, kept):
        await caught_up(parts)
        assert blocked(kept) is not None


@pytest.mark.parametrize("consumer", ["suppressor.node"])
async def test_every_node_reads_for_itself(autojump_clock: MockClock, consumer: str) -> None:
    async with at_work() as (parts, _):
        assert (STREAM, consumer) in parts.bus.cursors  # type: ignore[attr-defined]
