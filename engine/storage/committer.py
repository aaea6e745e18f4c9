"""Group commit: many writers, one synced LMDB commit at a time, and a loop that never blocks on fsync.

What it decides: when a group is closed and committed. What it touches: one Environment, one thread.

Operations are functions of a transaction. They run in the loop's thread, in order, at the moment
their group closes; then the *thread* commits, begins the next write transaction and hands it back.
So one transaction is begun and committed by the same thread (LMDB's writer mutex demands that) and
used by exactly one thread at a time (the hand-overs are queue operations, which order memory). That
is outside the letter of LMDB's one-thread rule but inside what its code needs: a write transaction
keeps no thread-local state apart from the mutex. A commit wholly in a thread was tried: its puts
fight the loop for the GIL and latencies reach seconds. The write lock is held between commits, so an
environment has one writing process, by `writer.lock`.

On trouble: an operation that raises gets its exception, the others of its group are applied again
without it in a fresh transaction. A commit that fails (disk full, I/O error) fails all of its group,
nothing of which was kept. *Patient* operations do not fail for want of room: they wait, in their order,
and are tried again each second; only a close ends that, after some tries. An operation may therefore run
twice and must not change memory: effects in memory belong into `Pending.then`, which runs once the commit
is durable.
"""

import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Generic, NamedTuple, TypeVar, cast

import structlog
import trio

from engine.observe.metrics import Histogram
from engine.storage.environment import Environment, StorageError, StorageFull, Transaction, renamed_errors

GROUP_SECONDS = 0.010  # one commit costs 0.3 ms of CPU: 3 % at this pace, and a lease waits <= 2 groups
SWITCH_SECONDS = 0.0005  # the thread must get the GIL back quickly after its fsync
COMMIT_FAILURES_MAX = 3  # then the store is given up: see `failed`
FULL_SECONDS = 1.0  # between two tries of what waits for room
COMMIT_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds
FULL_TRIES_CLOSING = 10  # then what waits fails; a polite stop has 30 s

log = structlog.get_logger("storage")

T = TypeVar("T")
Operation = Callable[[Transaction], T]


class Pending(Generic[T]):
    """The result of an operation, once its commit is durable. Await it, or chain with `then`."""

    __slots__ = ("_callbacks", "_error", "_event", "_result", "done")

    def __init__(self) -> None:
        self.done = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Pending[T]], None]] = []
        self._event: trio.Event | None = None

    @classmethod
    def ready(cls, value: T) -> "Pending[T]":
        """One that is done already: what in-memory twins return."""
        pending = cls()
        pending.resolve(value)
        return pending

    def result(self) -> T:
        """The operation's value; raises what it raised, or StorageError when the commit failed."""
        assert self.done
        if self._error is not None:
            raise self._error
        return cast("T", self._result)

    @property
    def error(self) -> BaseException | None:
        return self._error

    def then(self, callback: "Callable[[Pending[T]], None]") -> None:
        """Call `callback(self)` in the loop when done (at once if it is)."""
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def wait(self) -> T:
        if not self.done:
            if self._event is None:
                self._event = trio.Event()
            await self._event.wait()
        return self.result()

    def __await__(self) -> Generator[Any, Any, T]:
        return self.wait().__await__()

    def resolve(self, value: T) -> None:
        self._result = value
        self._finish()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._finish()

    def _finish(self) -> None:
        assert not self.done
        self.done = True
        for callback in self._callbacks:
            callback(self)
        self._callbacks.clear()
        if self._event is not None:
            self._event.set()


class Committer:
    """Group commit for one environment. Run `run()` as a task; then `submit()` from the same loop."""

    def __init__(
        self,
        environment: Environment,
        *,
        group_seconds: float = GROUP_SECONDS,
        extra_sync_seconds: float = 0.0,
        patient: bool = False,
    ) -> None:
        """`patient` is what operations are by default.

        `extra_sync_seconds` sleeps in each commit: for benches that show what a slow disk costs.
        """
        self.environment = environment
        self.group_seconds = group_seconds
        self.full = False  # patient operations wait for room
        self._patient = patient
        self.commits = 0
        self.operations = 0
        self.commit_seconds = 0.0  # moving mean
        self.commit_seconds_max = 0.0
        self.commit_times = Histogram(COMMIT_BOUNDS)
        self.failed: StorageError | None = None
        self._extra_sync_seconds = extra_sync_seconds
        self._waiting: list[_Item] = []
        self._wake = trio.Event()
        self._returned = trio.Event()
        self._closing = False
        self._cut_short = False  # the last run was cancelled; the store is sound
        self._failures = 0
        self._to_thread: queue.SimpleQueue[Transaction | _Abort | None] = queue.SimpleQueue()
        self._from_thread: queue.SimpleQueue[_Answer] = queue.SimpleQueue()

    def __repr__(self) -> str:
        return (
            f"<Committer {self.environment.kind}: {self.commits} commits, {self.operations} operations, "
            f"{self.commit_seconds * 1e3:.1f} ms each, {len(self._waiting)} waiting"
            f"{' for room' if self.full else ''}>"
        )

    def submit(self, operation: Operation[T], *, patient: bool | None = None) -> Pending[T]:
        """Queue `operation` for the next commit. Never blocks; the caller bounds what it submits."""
        pending: Pending[T] = Pending()
        if self.failed is not None:
            pending.fail(self.failed)
            return pending
        self._waiting.append(_Item(operation, pending, self._patient if patient is None else patient))
        if not self._wake.is_set():
            self._wake.set()
        return pending

    async def flush(self) -> None:
        """Return when everything submitted so far is durable."""
        await self.submit(lambda transaction: None)

    def close(self) -> None:
        """Let `run` commit what waits and return."""
        self._closing = True
        self._wake.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit groups until closed; what waits then is committed first. On cancellation too.

        May run again after it was cancelled; in between every operation is refused.
        """
        if self._cut_short:
            self._cut_short, self.failed = False, None
            self._returned = trio.Event()
        if sys.getswitchinterval() > SWITCH_SECONDS:
            sys.setswitchinterval(SWITCH_SECONDS)
        token = trio.lowlevel.current_trio_token()

        def in_thread() -> None:
            self._serve(lambda: token.run_sync_soon(self._ring))

        thread = threading.Thread(target=in_thread, name=f"commit-{self.environment.kind}", daemon=True)
        thread.start()
        transaction: Transaction | None = None
        try:
            with trio.CancelScope(shield=True):
                await self._returned.wait()
                transaction = self._take_back().transaction
            task_status.started()
            started = -math.inf
            tries = FULL_TRIES_CLOSING
            while True:
                if not self._waiting:
                    if self._closing:
                        break
                    self._wake = trio.Event()
                    await self._wake.wait()
                    continue
                pause = started + self.group_seconds - trio.current_time()
                if self.full:
                    await trio.sleep(FULL_SECONDS)
                    tries -= self._closing
                elif pause > 0 and not self._closing:
                    await trio.sleep(pause)
                started = trio.current_time()
                with trio.CancelScope(shield=True):
                    transaction = await self._commit_group(transaction, patient=tries > 0)
        finally:
            with trio.CancelScope(shield=True):
                if self._waiting and transaction is not None and self.failed is None:
                    transaction = await self._commit_group(transaction, patient=False)
            if transaction is not None:
                # Begun by the thread, so the thread must end it too (the writer mutex is its own).
                self._to_thread.put(None)
            thread.join()
            if self.failed is None:
                self._cut_short = not self._closing
                self.failed = StorageError(f"{self.environment.path}: the store is closed")
            for item in self._drain():
                item.pending.fail(self.failed)

    async def _commit_group(self, transaction: Transaction | None, *, patient: bool) -> Transaction | None:
        """Commit what waits. Without `patient` nothing is kept for later."""
        group = self._drain()
        if transaction is None:
            self._fail(group)
            return None
        applied, held, applied_in = self._apply(group, transaction, patient)
        if applied_in is None:
            self._fail([*group, *held])
            return None
        if held and not applied:
            self._hold(held)
            return applied_in
        self._returned = trio.Event()
        self._to_thread.put(applied_in)
        await self._returned.wait()
        answer = self._take_back()
        error = answer.error
        self._count(len(applied), answer.seconds)
        if error is None:
            self._failures = 0
            self._hold(held)
            for item, value in applied:
                item.pending.resolve(value)
            return answer.transaction
        if isinstance(error, StorageFull):  # nothing was kept, and there may be room again
            waits = [item for item, _ in applied if item.patient and patient]
            failed = [item for item, _ in applied if not (item.patient and patient)]
            self._hold([*waits, *held])
        else:
            self._failures += 1
            failed = [*(item for item, _ in applied), *held]
        if self.failed is None and self._failures >= COMMIT_FAILURES_MAX:
            self.failed = StorageError(f"{self.environment.path}: commits fail, the store gives up: {error}")
        for item in failed:
            item.pending.fail(error)
        return answer.transaction

    def _hold(self, items: "list[_Item]") -> None:
        """Keep what waits for room at the front, and tell of a change."""
        self._waiting[:0] = items
        full = bool(items)
        if full and not self.full:
            log.warning("no room for a commit: what is to be written waits", store=str(self.environment.path))
        elif self.full and not full:
            log.warning("there is room again", store=str(self.environment.path))
        self.full = full

    def _fail(self, items: "list[_Item]") -> None:
        for item in items:
            item.pending.fail(self.failed or StorageError(f"{self.environment.path}: the store is closed"))

    def _apply(
        self, group: "list[_Item]", transaction: Transaction, patient: bool
    ) -> "tuple[list[tuple[_Item, Any]], list[_Item], Transaction | None]":
        """Run a group's operations; one that raises is left out and the rest starts again.

        Returns what was applied, what waits for room (a patient operation that found none, and all behind
        it), and the transaction to commit, None when no new one can be begun.
        """
        held: list[_Item] = []
        while True:
            applied: list[tuple[_Item, Any]] = []
            for index, item in enumerate(group):
                try:
                    with renamed_errors(self.environment.path):
                        applied.append((item, item.operation(transaction)))
                except StorageFull as error:
                    if item.patient and patient:
                        held[:0] = group[index:]
                        del group[index:]
                    else:
                        del group[index]
                        item.pending.fail(error)
                    break
                except Exception as error:
                    del group[index]
                    item.pending.fail(error)
                    break
            else:
                return applied, held, transaction
            transaction = self._begin_again(transaction)
            if transaction is None:
                return [], held, None

    def _ring(self) -> None:
        self._returned.set()

    def _begin_again(self, transaction: Transaction) -> Transaction | None:
        """Drop a spoilt transaction; the thread aborts it, since it began it."""
        self._to_thread.put(_Abort(transaction))
        return self._take_back().transaction  # an abort touches no disk: the loop waits microseconds

    def _take_back(self) -> "_Answer":
        answer = self._from_thread.get()
        if answer.transaction is None and self.failed is None:
            self.failed = StorageError(
                f"{self.environment.path}: cannot begin a transaction: {answer.begin_error}"
            )
        return answer

    def _drain(self) -> "list[_Item]":
        group, self._waiting = self._waiting, []
        return group

    def _count(self, operations: int, seconds: float) -> None:
        self.commits += 1
        self.operations += operations
        self.commit_seconds += (seconds - self.commit_seconds) * 0.1
        self.commit_seconds_max = max(self.commit_seconds_max, seconds)
        self.commit_times.add(seconds)

    def _serve(self, ring: Callable[[], None]) -> None:
        """The thread: begins, commits, aborts; never puts."""
        transaction = self._begin(None, 0.0)
        ring()
        while True:
            order = self._to_thread.get()
            if order is None:
                if transaction is not None:
                    transaction.abort()
                return
            if isinstance(order, _Abort):
                order.transaction.abort()
                transaction = self._begin(None, 0.0)
                if transaction is None:
                    return
                continue
            started = time.perf_counter()
            error: Exception | None = None
            try:
                with renamed_errors(self.environment.path):
                    order.commit()
            except Exception as failure:  # whatever it is, the loop waits for an answer
                error = failure
            if self._extra_sync_seconds:
                time.sleep(self._extra_sync_seconds)
            transaction = self._begin(error, time.perf_counter() - started)
            ring()
            if transaction is None:
                return

    def _begin(self, error: Exception | None, seconds: float) -> Transaction | None:
        """Begin the next transaction and hand it over, with what became of the commit before it."""
        transaction: Transaction | None = None
        begin_error: Exception | None = None
        try:
            transaction = self.environment.begin(write=True)
        except Exception as failure:
            begin_error = failure
        self._from_thread.put(_Answer(transaction, error, begin_error, seconds))
        return transaction


class _Item(NamedTuple):
    """An operation, who hears of it, and whether it waits for room."""

    operation: Operation[Any]
    pending: Pending[Any]
    patient: bool


class _Answer(NamedTuple):
    """From the thread: the next transaction (None = cannot be begun), and the commit's error and time.

    The two errors stay apart: a commit is durable although no transaction can follow it.
    """

    transaction: Transaction | None
    error: Exception | None
    begin_error: Exception | None
    seconds: float


class _Abort:
    """An order to the thread: end this transaction without effect."""

    __slots__ = ("transaction",)

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
