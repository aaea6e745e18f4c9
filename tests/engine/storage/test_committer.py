"""Group commit: order, groups, failures, and the loop that stays free. Real LMDB, real clock."""

import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.storage import Committer, Environment, Pending, StorageError, StorageFull
from engine.storage.committer import COMMIT_FAILURES_MAX
from tests.fakes.spool_house import quick_folder

MAP_OCTETS = 4 * 1024**2


@pytest.fixture
async def store() -> AsyncIterator[Environment]:
    with quick_folder() as folder:
        store = Environment(folder, kind="test", version=1, databases=("things",), map_octets=MAP_OCTETS)
        yield store
        store.close()


@pytest.fixture
async def committer(store: Environment) -> AsyncIterator[Committer]:
    committer = Committer(store, group_seconds=0.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        yield committer
        committer.close()


def put(committer: Committer, key: bytes, value: bytes = b"1") -> Pending[bytes]:
    def operation(transaction: Any) -> bytes:
        transaction.put(key, value, db=committer.environment.databases["things"])
        return key

    return committer.submit(operation)


def keys(store: Environment) -> list[bytes]:
    with store.read() as transaction, transaction.cursor(db=store.databases["things"]) as cursor:
        return [bytes(key) for key in cursor.iternext(values=False)]


def fail(error: Exception) -> Callable[[Any], None]:
    def operation(transaction: Any) -> None:
        raise error

    return operation


class Faulty:
    """A transaction whose commit does something else first."""

    def __init__(self, transaction: Any, commit: Callable[[], None]) -> None:
        self._transaction = transaction
        self._before = commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def commit(self) -> None:
        try:
            self._before()
        except BaseException:
            self._transaction.abort()
            raise
        self._transaction.commit()


async def failing_commits(committer: Committer, patch: pytest.MonkeyPatch, errors: list[Exception]) -> None:
    """The next commits raise `errors`, one each; those after them work."""
    begin = committer.environment.begin

    def commit() -> None:
        if errors:
            raise errors.pop(0)

    patch.setattr(committer.environment, "begin", lambda **kind: Faulty(begin(**kind), commit))
    await committer.flush()  # the transaction that was open already


# --- pending ---------------------------------------------------------------------------------------------


async def test_a_ready_pending_is_done_and_calls_back_at_once() -> None:
    pending = Pending.ready(5)
    seen: list[int] = []
    pending.then(lambda done: seen.append(done.result()))
    assert (pending.done, pending.error, seen, await pending) == (True, None, [5], 5)


async def test_a_pending_wakes_everybody_after_its_callbacks(nursery: trio.Nursery) -> None:
    pending: Pending[int] = Pending()
    seen: list[str] = []

    async def wait() -> None:
        seen.append(f"waited {await pending}")

    nursery.start_soon(wait)
    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    pending.then(lambda done: seen.append("called"))
    pending.resolve(5)
    await trio.testing.wait_all_tasks_blocked()
    assert seen == ["called", "waited 5", "waited 5"]


async def test_a_failed_pending_raises_for_everybody() -> None:
    pending: Pending[int] = Pending()
    pending.fail(StorageFull("full"))
    for _ in range(2):
        with pytest.raises(StorageFull):
            await pending
    assert isinstance(pending.error, StorageFull)


# --- groups ----------------------------------------------------------------------------------------------


async def test_what_is_submitted_together_is_one_commit_in_order(
    committer: Committer, store: Environment
) -> None:
    order: list[int] = []
    before = store.last_transaction()
    pendings = [put(committer, bytes([i])) for i in range(5)]
    for number, pending in enumerate(pendings):
        pending.then(lambda done, number=number: order.append(number))
    assert keys(store) == []
    assert [await pending for pending in pendings] == [bytes([i]) for i in range(5)]
    assert order == [0, 1, 2, 3, 4]
    assert keys(store) == [bytes([i]) for i in range(5)]
    assert store.last_transaction() == before + 1
    assert (committer.commits, committer.operations) == (1, 5)
    assert committer.commit_times.count == 1


async def test_operations_see_those_before_them(committer: Committer, store: Environment) -> None:
    put(committer, b"a", b"7")
    things = store.databases["things"]
    assert await committer.submit(lambda transaction: transaction.get(b"a", db=things)) == b"7"


async def test_what_is_submitted_during_a_commit_is_the_next_group(
    committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, held, entered = committer.environment.begin, threading.Event(), threading.Event()

    def commit() -> None:
        entered.set()
        held.wait(10)

    monkeypatch.setattr(committer.environment, "begin", lambda **kind: Faulty(begin(**kind), commit))
    await committer.flush()
    first = put(committer, b"a")
    while not entered.is_set():  # the loop is free while the thread commits
        await trio.sleep(0.001)
    second = put(committer, b"b")
    await trio.sleep(0.005)
    assert not first.done
    held.set()
    await second
    assert first.done
    assert committer.commits == 3


async def test_groups_are_a_pause_apart(store: Environment, nursery: trio.Nursery) -> None:
    committer = Committer(store, group_seconds=0.05)
    await nursery.start(committer.run)
    await put(committer, b"a")
    started = trio.current_time()
    await put(committer, b"b")
    assert trio.current_time() - started > 0.02
    assert "2 commits, 2 operations" in repr(committer)
    committer.close()


# --- failures --------------------------------------------------------------------------------------------


async def test_an_operation_that_raises_leaves_the_rest_of_its_group_intact(
    committer: Committer, store: Environment
) -> None:
    things = store.databases["things"]

    def half(transaction: Any) -> None:
        transaction.put(b"half", b"1", db=things)
        raise ValueError("a bug")

    first, broken, other, last = (
        put(committer, b"a"),
        committer.submit(half),
        committer.submit(fail(StorageError("no"))),
        put(committer, b"z"),
    )
    with pytest.raises(ValueError, match="a bug"):
        await broken
    with pytest.raises(StorageError, match="no"):
        await other
    assert (await first, await last) == (b"a", b"z")
    assert keys(store) == [b"a", b"z"]
    assert committer.failed is None


async def test_an_operation_that_fills_the_map_fails_alone(committer: Committer, store: Environment) -> None:
    small, big = put(committer, b"a"), put(committer, b"big", bytes(MAP_OCTETS))
    with pytest.raises(StorageFull):
        await big
    assert await small == b"a"
    assert keys(store) == [b"a"]


@pytest.mark.parametrize("error", [StorageFull("full"), OSError(5, "bad disk"), MemoryError()])
async def test_a_commit_that_fails_fails_its_group_and_later_ones_work(
    committer: Committer, store: Environment, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    await failing_commits(committer, monkeypatch, [error])
    lost = [put(committer, b"a"), put(committer, b"b")]
    for pending in lost:
        with pytest.raises(type(error)):
            await pending
    assert keys(store) == []
    await put(committer, b"c")
    assert keys(store) == [b"c"]
    assert committer.failed is None


async def test_a_store_whose_commits_keep_failing_is_given_up(
    committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await failing_commits(committer, monkeypatch, [StorageError("bad disk")] * COMMIT_FAILURES_MAX)
    for _ in range(COMMIT_FAILURES_MAX):
        with pytest.raises(StorageError, match="bad disk"):
            await put(committer, b"a")
    with pytest.raises(StorageError, match="the store gives up"):
        await put(committer, b"a")


async def test_a_full_disk_is_never_given_up(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    await failing_commits(committer, monkeypatch, [StorageFull("full")] * (COMMIT_FAILURES_MAX + 2))
    for _ in range(COMMIT_FAILURES_MAX + 2):
        with pytest.raises(StorageFull):
            await put(committer, b"a")
    assert await put(committer, b"a") == b"a"


@pytest.mark.parametrize("broken_operation", [False, True])
async def test_a_transaction_that_cannot_be_begun_ends_the_store_and_nobody_waits_for_ever(
    committer: Committer, monkeypatch: pytest.MonkeyPatch, broken_operation: bool
) -> None:
    def refuse(**kind: Any) -> None:
        raise StorageError("no more transactions")

    monkeypatch.setattr(committer.environment, "begin", refuse)
    first = put(committer, b"a")
    if broken_operation:
        broken = committer.submit(fail(ValueError("a bug")))
        with pytest.raises(ValueError):
            await broken
        with pytest.raises(StorageError, match="cannot begin a transaction"):
            await first
    else:
        assert await first == b"a", "its own commit succeeded"
    with pytest.raises(StorageError, match="no more transactions"):
        await put(committer, b"b")


# --- the end ---------------------------------------------------------------------------------------------


async def test_what_waits_is_committed_before_the_end(store: Environment) -> None:
    committer = Committer(store)
    waiting = put(committer, b"a")  # before it runs
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        later = put(committer, b"b")
        committer.close()
    assert (await waiting, await later, keys(store)) == (b"a", b"b", [b"a", b"b"])
    with pytest.raises(StorageError, match="closed"):
        await put(committer, b"c")


async def test_a_cancelled_committer_commits_what_waits(store: Environment) -> None:
    committer = Committer(store, group_seconds=5.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        await put(committer, b"a")
        waiting = put(committer, b"b")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await_done(waiting) == b"b"
    assert keys(store) == [b"a", b"b"]
    with store.write():  # the writer's mutex is free again
        pass


async def test_a_cancelled_committer_refuses_until_it_runs_again(store: Environment) -> None:
    committer = Committer(store)
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        nursery.cancel_scope.cancel()
    with pytest.raises(StorageError, match="closed"):
        await put(committer, b"a")
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        assert await put(committer, b"b") == b"b"
        committer.close()
    assert keys(store) == [b"b"]


def await_done(pending: Pending[bytes]) -> bytes:
    assert pending.done
    return pending.result()


# --- a real full disk ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "emass-test", str(tmp_path)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        done = None
    if done is None or done.returncode:
        pytest.skip("a small disk cannot be mounted; cure: run as root")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


async def test_a_full_disk_fails_the_commit_and_room_brings_the_store_back(small_disk: Path) -> None:
    store = Environment(small_disk, kind="test", version=1, databases=("things",), map_octets=MAP_OCTETS)
    committer = Committer(store, group_seconds=0.0)
    (small_disk / "ballast").write_bytes(bytes(128 * 1024))
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        pendings = [put(committer, b"\0\0", bytes(3_000))]
        while len(pendings) < 1_000:
            with suppress(StorageFull):
                await pendings[-1]
            if pendings[-1].error is not None:
                break
            pendings.append(put(committer, len(pendings).to_bytes(2, "big"), bytes(3_000)))
        written = len(pendings) - 1
        (small_disk / "ballast").unlink()
        await put(committer, b"\xff\xff", bytes(3_000))
        committer.close()
    assert 0 < written < 200
    assert keys(store) == [number.to_bytes(2, "big") for number in range(written)] + [b"\xff\xff"]
    store.close()
