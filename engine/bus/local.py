"""The bus of one machine: a folder with one LMDB environment per member, read by all the others.

`LocalBus(root, member)` opens `<root>/<member>/` for writing and finds the others by listing `root`. A
process writes its own environment only, so there is no server and no lock between members but the one
of `create`. News cross processes by polling (50 ms), and within a process at once. This file joins the
parts (streams, tables, questions) and keeps house: it trims, sweeps what is over its time, and removes
temporary members whose process has died. Touches: the folder, one thread (the committer's).

Life: open (constructor), `run` as a task, `close` to let it return, `close_files` at the very end. After a
crash `run` may be started again over the same bus. A *temporary* member (a command that asks a
question) removes its folder in `close_files`. On trouble: StorageError with folder and cure at opening;
see api for the rest.
"""

from collections.abc import Sequence
from pathlib import Path

import structlog
import trio

from engine.bus import local_asks
from engine.bus.api import (
    RETENTION_SECONDS,
    STREAM_OCTETS_MAX,
    BusFull,
    check_key,
    check_name,
    check_payload,
    check_payloads,
)
from engine.bus.local_asks import LocalQuestions
from engine.bus.local_blobs import Blobs
from engine.bus.local_members import TEMPORARY, remove_folder
from engine.bus.local_store import Store
from engine.bus.local_streams import LocalSubscription, Streams, read_tail
from engine.bus.local_tables import LocalWatch, Tables
from engine.runtime.clock import Clock, SystemClock
from engine.storage import StorageError
from engine.storage.committer import GROUP_SECONDS, Operation
from engine.storage.environment import MAP_OCTETS

POLL_SECONDS = 0.05  # architecture 5.1; one look costs some 30 us
TRIM_SECONDS = 1.0  # a work queue's freed pages are used again this soon
SWEEP_SECONDS = 60.0  # architecture 5.1: the reader check comes each minute, the rest with it

log = structlog.get_logger("bus")


class LocalBus:
    """One member on the local bus; see engine.bus.api.Bus for what each call promises."""

    def __init__(
        self,
        root: Path,
        member: str,
        *,
        temporary: bool = False,
        clock: Clock | None = None,
        map_octets: int = MAP_OCTETS,
        group_seconds: float = GROUP_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        trim_seconds: float = TRIM_SECONDS,
        retention_seconds: float = RETENTION_SECONDS,
        stream_octets_max: int = STREAM_OCTETS_MAX,
    ) -> None:
        """Opens the files. StorageError when they cannot be used or another process is this member."""
        self.member = check_name(member)
        self._store = Store(
            root,
            member,
            clock or SystemClock(),
            map_octets=map_octets,
            group_seconds=group_seconds,
            poll_seconds=poll_seconds,
        )
        self._clock_is_ours = clock is None
        self._temporary = temporary
        self._trim_seconds = trim_seconds
        self._files_closed = False
        self._streams = Streams(
            self._store, retention_seconds=retention_seconds, stream_octets_max=stream_octets_max
        )
        self._tables = Tables(self._store, retention_seconds=retention_seconds)
        self._blobs = Blobs(root.resolve())
        mark = self._store.own.path / TEMPORARY
        if temporary:
            mark.touch(mode=0o600)
        else:
            mark.unlink(missing_ok=True)

    def __repr__(self) -> str:
        return f"<LocalBus {self.member}: {self._store.committer!r}, {self._store.members!r}>"

    @property
    def online(self) -> bool:
        return True

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._store.own.environment.check_files()  # a run that failed for their absence begins again here
        async with trio.open_nursery() as nursery:
            await nursery.start(self._store.run)
            nursery.start_soon(self._tables.run_creations)
            nursery.start_soon(self._keep_house)
            task_status.started()
            await self._store.closed.wait()
            nursery.cancel_scope.cancel()  # the committer makes durable what waits first

    def close(self) -> None:
        self._store.close()

    def close_files(self) -> None:
        """Close the environments, after `run` has returned. A temporary member leaves no folder behind."""
        if not self._files_closed:
            self._files_closed = True
            path = self._store.own.path
            leave = self._temporary and not self._streams.unread(self._store.own)
            self._store.close()
            self._store.members.close()
            if leave:
                remove_folder(path)

    @staticmethod
    def remove_member(root: Path, member: str) -> bool:
        """Remove a member that no process runs, with whatever it had published; whether it is gone."""
        return remove_folder(root.resolve() / check_name(member))

    async def publish(self, stream: str, payloads: Sequence[bytes]) -> int:
        check_name(stream)
        check_payloads(payloads)
        if payloads:
            return await self._streams.publish(stream, payloads)
        await trio.lowlevel.checkpoint()
        with self._store.own.read() as transaction:
            return read_tail(self._store.own, transaction, stream)[0]

    def subscribe(self, stream: str, consumer: str) -> LocalSubscription:
        return LocalSubscription(self._store, self._streams, check_name(stream), check_name(consumer))

    def backlog(self, stream: str, consumer: str) -> int:
        return self._streams.backlog(check_name(stream), check_name(consumer))

    def waiting(self, stream: str, consumer: str) -> int:
        """What a consumer has not acknowledged, whoever published it."""
        return self._streams.waiting(check_name(stream), check_name(consumer))

    async def pending(self, stream: str, consumer: str) -> int:
        await trio.lowlevel.checkpoint()
        return self.backlog(stream, consumer)

    async def create(self, table: str, key: str, value: bytes) -> bytes | None:
        return await self._tables.create(check_name(table), check_key(key), check_payload(value))

    async def put(self, table: str, key: str, value: bytes) -> None:
        await self._tables.put(check_name(table), check_key(key), check_payload(value))

    def get(self, table: str, key: str) -> bytes | None:
        return self._tables.get(check_name(table), check_key(key))

    async def read(self, table: str, key: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self.get(table, key)

    async def delete(self, table: str, key: str) -> None:
        await self._tables.delete(check_name(table), check_key(key))

    def items(self, table: str) -> dict[str, bytes]:
        return self._tables.items(check_name(table))

    async def read_all(self, table: str) -> dict[str, bytes]:
        await trio.lowlevel.checkpoint()
        return self.items(table)

    def watch(self, table: str, after: bytes = b"") -> LocalWatch:
        return LocalWatch(self._store, self._tables, check_name(table), after)

    async def put_blob(self, data: bytes) -> str:
        return await self._blobs.put(data)

    async def read_blob(self, digest: str) -> bytes | None:
        return await self._blobs.read(digest)

    async def drop_blob(self, digest: str) -> None:
        await self._blobs.drop(digest)

    async def ask(self, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
        return await local_asks.ask(self._store, check_name(subject), check_payload(payload), timeout_seconds)

    def serve(self, subject: str) -> LocalQuestions:
        return LocalQuestions(self._store, check_name(subject))

    async def _keep_house(self) -> None:
        """Trim and sweep until cancelled. A full disk must not end it: trimming is what makes room."""
        swept = -SWEEP_SECONDS
        while True:
            if self._clock_is_ours:
                self._store.clock.check_step()  # deadlines are compared with other processes' clocks
            try:
                await self._streams.trim()
                await self._submit(local_asks.expired(self._store))
                if trio.current_time() - swept >= SWEEP_SECONDS:
                    swept = trio.current_time()
                    await self._sweep()
            except (BusFull, StorageError) as error:
                log.warning("the bus could not keep house", member=self.member, why=str(error))
            await trio.sleep(self._trim_seconds)

    async def _sweep(self) -> None:
        """What is due each minute: dead readers, members whose process died, old deletions and cursors."""
        for member in list(self._store.readable()):
            member.environment.check_readers()
            if (member.path / TEMPORARY).exists() and not self._streams.unread(member):
                remove_folder(member.path)
        self._store.look_at_others()
        await self._submit(self._tables.forget_tombstones())
        await self._submit(self._streams.forget_writers_gone())

    async def _submit(self, operation: Operation[object] | None) -> None:
        if operation is not None:
            await self._store.durable(operation)
