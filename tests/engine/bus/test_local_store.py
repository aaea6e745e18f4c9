"""The bell of a bus, its view of the others, and what it does when one cannot be read."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.bus.api import BusFull
from engine.bus.local_members import Members
from engine.bus.local_store import Store
from engine.runtime.clock import SystemClock


def open_store(root: Path, member: str, map_octets: int = 1024**2) -> Store:
    return Store(root, member, SystemClock(), map_octets=map_octets, group_seconds=0.0, poll_seconds=0.005)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store(tmp_path, "a")
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        store.close()
    store.members.close()


def putting(store: Store, value: bytes) -> Any:
    rows = store.own.databases["rows"]
    return lambda transaction: transaction.put(b"key", value, db=rows)


async def rung(store: Store, topic: str) -> bool:
    with trio.move_on_after(0.1):
        await store.wait(topic)
        return True
    return False


async def test_what_is_durable_rings_its_topic_on_every_bus_of_the_process(
    store: Store, tmp_path: Path
) -> None:
    other = open_store(tmp_path, "b")
    found: list[str] = []

    async def wait(name: str, where: Store, topic: str) -> None:
        await where.wait(topic)
        found.append(name)

    async with trio.open_nursery() as nursery:
        await nursery.start(other.run)
        nursery.start_soon(wait, "own", store, "topic")
        nursery.start_soon(wait, "other", other, "topic")
        await trio.testing.wait_all_tasks_blocked()
        await store.durable(putting(store, b"x"), "topic")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(found) == ["other", "own"]
        other.close()
    other.members.close()


async def test_own_commits_alone_ring_nothing_else(store: Store) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.durable, putting(store, b"x"), "topic")
        assert not await rung(store, "elsewhere")


async def test_a_commit_of_another_member_is_seen(store: Store, tmp_path: Path) -> None:
    other = open_store(tmp_path, "b")
    assert store.look_at_others()
    assert not store.look_at_others()
    with other.own.environment.write() as transaction:
        putting(other, b"x")(transaction)
    assert store.look_at_others()
    assert not store.look_at_others()
    other.members.close()


async def test_no_room_is_a_refusal_and_nothing_rings(store: Store) -> None:
    async def fill() -> None:
        with pytest.raises(BusFull, match="no room"):
            await store.durable(putting(store, bytes(2 * 1024**2)), "topic")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill)
        assert not await rung(store, "topic")


async def test_a_member_that_cannot_be_read_is_passed_over(store: Store, tmp_path: Path) -> None:
    for name in ("b", "c"):
        Members(tmp_path, name, 1024**2).close()
    (tmp_path / "b" / "data.mdb").write_bytes(b"rubbish" * 1000)
    store.look_at_others()
    assert [member.name for member in store.readable()] == ["a", "c"]


async def test_a_closed_store_ends_its_waiters(store: Store) -> None:
    store.close()
    with pytest.raises(trio.ClosedResourceError, match="the bus of a is closed"):
        await store.wait("topic")
