"""What a table forgets, how a creation waits for others, and what stops it."""

import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from engine.bus import local_tables
from engine.bus.api import PositionLost
from engine.bus.local_members import Members
from engine.bus.local_store import Store
from engine.bus.local_tables import CREATE_LOCK, LocalWatch, Tables, write_row
from engine.runtime.clock import SystemClock
from engine.storage import StorageError

DAY = 86_400.0


class Desk:
    """One member's tables on a clock that the test moves."""

    def __init__(self, root: Path, member: str, poll_seconds: float = 0.005) -> None:
        self.now = 1_800_000_000.0
        clock = SystemClock(wall=lambda: self.now, monotonic=lambda: self.now)
        self.store = Store(
            root, member, clock, map_octets=1024**2, group_seconds=0.0, poll_seconds=poll_seconds
        )
        self.tables = Tables(self.store, retention_seconds=7 * DAY)

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.store.run)
            nursery.start_soon(self.tables.run_creations)
            task_status.started()
            await self.store.closed.wait()
            nursery.cancel_scope.cancel()

    def watch(self, after: bytes = b"") -> LocalWatch:
        return LocalWatch(self.store, self.tables, "campaigns", after)

    def count(self, database: str) -> int:
        with self.store.own.read() as transaction:
            return int(transaction.stat(self.store.own.databases[database])["entries"])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, "control")
    async with trio.open_nursery() as nursery:
        await nursery.start(desk.run)
        yield desk
        desk.store.close()
    desk.store.members.close()


async def test_the_history_of_a_key_is_its_last_change(desk: Desk) -> None:
    for value in (b"run", b"pause", b"run"):
        await desk.tables.put("campaigns", "7", value)
    assert desk.count("changes") == desk.count("rows") == 1
    assert await anext(desk.watch()) == ("7", b"run")


async def test_deletions_are_forgotten_after_the_retention(desk: Desk) -> None:
    await desk.tables.put("campaigns", "kept", b"run")
    for key in ("gone", "back"):
        await desk.tables.put("campaigns", key, b"run")
        await desk.tables.delete("campaigns", key)
    await desk.tables.put("campaigns", "back", b"run")
    assert desk.tables.forget_tombstones() is None
    desk.now += 8 * DAY
    forget = desk.tables.forget_tombstones()
    assert forget is not None
    await desk.store.durable(forget)
    assert desk.tables.forget_tombstones() is None
    assert desk.count("tombstones") == 0
    assert desk.count("changes") == desk.count("rows") == 2
    assert desk.tables.items("campaigns") == {"kept": b"run", "back": b"run"}


async def test_a_position_from_before_a_forgotten_deletion_is_refused(desk: Desk) -> None:
    await desk.tables.put("campaigns", "7", b"run")
    watch = desk.watch()
    await anext(watch)
    position = watch.position
    await desk.tables.delete("campaigns", "7")
    desk.now += 8 * DAY
    forget = desk.tables.forget_tombstones()
    assert forget is not None
    await desk.store.durable(forget)
    with pytest.raises(PositionLost, match="control"), trio.fail_after(5):
        await anext(desk.watch(position))
    await desk.tables.put("campaigns", "8", b"run")
    assert await anext(desk.watch()) == ("8", b"run")


async def test_of_two_writers_the_newer_value_counts(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path, "another")
    async with trio.open_nursery() as nursery:
        await nursery.start(other.run)
        await desk.tables.put("campaigns", "7", b"old")
        other.now += 1
        await other.tables.put("campaigns", "7", b"new")
        desk.store.look_at_others()
        for tables in (desk.tables, other.tables):
            assert tables.get("campaigns", "7") == b"new"
            assert tables.items("campaigns") == {"7": b"new"}
        await desk.tables.delete("campaigns", "7")
        assert desk.tables.get("campaigns", "7") == b"new"
        other.store.close()
    other.store.members.close()


async def test_a_creation_waits_for_the_lock_and_not_for_ever(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_tables, "LOCK_WAIT_SECONDS", 0.05)
    lock = os.open(tmp_path / CREATE_LOCK, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(StorageError, match="keeps the lock"):
        await desk.tables.create("claims", "c1", b"x")
    os.close(lock)
    assert await desk.tables.create("claims", "c1", b"x") is None


async def test_a_member_that_cannot_be_read_stops_creations(desk: Desk, tmp_path: Path) -> None:
    Members(tmp_path, "broken", 1024**2).close()
    (tmp_path / "broken" / "data.mdb").write_bytes(b"rubbish" * 1000)
    with pytest.raises(StorageError, match="broken"):
        await desk.tables.create("claims", "c1", b"x")
    assert desk.tables.get("claims", "c1") is None


async def test_a_creation_sees_a_member_that_came_just_now(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "control", poll_seconds=60.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(desk.run)
        await trio.testing.wait_all_tasks_blocked()
        late = Members(tmp_path, "late", 1024**2)
        with late.own.environment.write() as transaction:
            write_row(late.own, transaction, "claims", "c1", b"late", 0)
        assert await desk.tables.create("claims", "c1", b"x") == b"late"
        desk.store.close()
    late.close()
    desk.store.members.close()


async def test_a_creation_that_was_not_served_fails_when_the_bus_stops(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "control")
    lock = os.open(tmp_path / CREATE_LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)

    async def create() -> None:
        with pytest.raises(StorageError, match="has stopped"):
            await desk.tables.create("claims", "c1", b"x")

    async with trio.open_nursery() as nursery:
        await nursery.start(desk.run)
        nursery.start_soon(create)
        await trio.sleep(0.05)
        desk.store.close()
    desk.store.members.close()
    os.close(lock)
