"""Patient operations and a store without room: they wait in their order, and go on when there is some."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio

from engine.storage import Committer, Environment, Pending, StorageError, StorageFull
from engine.storage import committer as committer_module
from tests.engine.storage.test_committer import MAP_OCTETS, failing_commits, keys, put
from tests.fakes.spool_house import quick_folder


@pytest.fixture
async def store() -> AsyncIterator[Environment]:
    with quick_folder() as folder:
        store = Environment(folder, kind="test", version=1, databases=("things",), map_octets=MAP_OCTETS)
        yield store
        store.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "FULL_SECONDS", 0.01)


@asynccontextmanager
async def patient(store: Environment) -> AsyncIterator[Committer]:
    committer = Committer(store, group_seconds=0.0, patient=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        with structlog.testing.capture_logs():
            yield committer
            committer.close()
            await trio.testing.wait_all_tasks_blocked()


class Room:
    """Room for so many keys; an operation that finds none raises as LMDB would."""

    def __init__(self, committer: Committer, keys_max: int) -> None:
        self.keys_max = keys_max
        self._committer = committer

    def put(self, key: bytes, *, patient: bool | None = None) -> Pending[bytes]:
        def operation(transaction: Any) -> bytes:
            things = self._committer.environment.databases["things"]
            if transaction.stat(things)["entries"] >= self.keys_max:
                raise StorageFull("no room")
            transaction.put(key, b"1", db=things)
            return key

        return self._committer.submit(operation, patient=patient)


async def test_a_commit_without_room_is_tried_again_until_there_is_some(
    store: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with patient(store) as committer:
        await failing_commits(committer, monkeypatch, [StorageFull("full")] * 5)
        waiting = [put(committer, b"a"), put(committer, b"b")]
        while not committer.full:
            await trio.sleep(0.001)
        assert repr(committer).endswith("2 waiting for room>")
        assert not any(pending.done for pending in waiting)
        waiting.append(put(committer, b"c"))
        assert [await pending for pending in waiting] == [b"a", b"b", b"c"]
        assert not committer.full
    assert keys(store) == [b"a", b"b", b"c"]


async def test_an_operation_without_room_holds_those_behind_it_and_none_before(store: Environment) -> None:
    async with patient(store) as committer:
        room = Room(committer, 2)
        done: list[bytes] = []
        pendings = [room.put(key) for key in (b"a", b"b", b"c")] + [put(committer, b"d")]
        for pending in pendings:
            pending.then(lambda each: done.append(each.result()))
        await pendings[1]
        await trio.sleep(0.05)
        assert done == [b"a", b"b"]
        assert keys(store) == [b"a", b"b"], "what would fit behind it keeps its turn"
        room.keys_max = 9
        await pendings[3]
        assert done == [b"a", b"b", b"c", b"d"]


async def test_one_that_is_not_patient_fails_at_once_and_holds_up_nobody(store: Environment) -> None:
    async with patient(store) as committer:
        room = Room(committer, 1)
        first, large, later = put(committer, b"a"), room.put(b"large", patient=False), put(committer, b"z")
        with pytest.raises(StorageFull):
            await large
        assert (await first, await later) == (b"a", b"z")


async def test_a_group_whose_commit_has_no_room_fails_those_that_are_not_patient(
    store: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with patient(store) as committer:
        await failing_commits(committer, monkeypatch, [StorageFull("full")])
        room = Room(committer, 9)
        large, small = room.put(b"large", patient=False), room.put(b"small")
        with pytest.raises(StorageFull):
            await large
        assert await small == b"small"
    assert keys(store) == [b"small"]


async def test_a_close_gives_up_after_some_tries(store: Environment) -> None:
    async with patient(store) as committer:
        stuck = Room(committer, 0).put(b"a")
    assert isinstance(stuck.error, StorageFull)
    assert keys(store) == []


async def test_a_cancellation_waits_for_no_room(store: Environment) -> None:
    committer = Committer(store, group_seconds=0.0, patient=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        with structlog.testing.capture_logs():
            stuck = Room(committer, 0).put(b"a")
            while not committer.full:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    assert isinstance(stuck.error, StorageError)


async def test_waiting_is_told_once_and_so_is_its_end(
    store: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = Committer(store, group_seconds=0.0, patient=True)
    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(committer.run)
            await failing_commits(committer, monkeypatch, [StorageFull("full")] * 4)
            await put(committer, b"a")
            committer.close()
    assert [line["event"] for line in lines] == [
        "no room for a commit: what is to be written waits",
        "there is room again",
    ]
