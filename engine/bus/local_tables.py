"""Tables of the local bus: a key lives in its writer's environment; the newest of several writers counts.

    rows:       table NUL key       -> change, time in ms, put or deleted, value
    changes:    table NUL change    -> key                 one per row: the history is its last change
    tombstones: time in ms, change  -> table NUL key       of deleted rows, forgotten after the retention
    counters:   "change" -> the last change; "floor" NUL table -> the last forgotten tombstone's change

`create` must be atomic among processes, and an environment knows only its own: so whoever creates holds
the file lock `.create.lock` from looking at the others until its commit is durable. Creations that wait
together share one lock and one commit. The kernel drops the lock of a process that dies. On trouble: a
member that cannot be read refuses every creation (StorageError), since the key might be there.
"""

import fcntl
import os
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import trio
from msgspec import Struct

from engine.bus.api import PositionLost
from engine.bus.local_members import Member
from engine.bus.local_store import Store
from engine.bus.local_streams import scan
from engine.storage import Pending, StorageError

CREATE_LOCK = ".create.lock"
LOCK_RETRY_SECONDS = 0.002
LOCK_WAIT_SECONDS = 30.0  # holders keep it for one commit; one that is stopped must not stop us for ever
FORGET_MAX = 2_000  # tombstones per commit

_CHANGE = struct.Struct(">Q")
_ROW = struct.Struct(">QQ?")
_TOMBSTONE = struct.Struct(">QQ")
_CHANGE_KEY = b"change"
_FLOOR_PREFIX = b"floor\0"


def topic_of(table: str) -> str:
    return f"table {table}"


class Row(Struct, frozen=True):
    """A key at one member. A deleted one has no value."""

    change: int
    time_ms: int
    value: bytes | None


class Creation(Struct):
    """A key that wants to be created, and who waits for it."""

    table: str
    key: str
    value: bytes
    found: Pending[bytes | None]


class Tables:
    """All tables, written in this member's environment, read in everyone's."""

    def __init__(self, store: Store, *, retention_seconds: float) -> None:
        self._store = store
        self._retention_ms = int(retention_seconds * 1000)
        self._creations: list[Creation] = []
        self._wake = trio.Event()

    def get(self, table: str, key: str) -> bytes | None:
        newest: Row | None = None
        for member in self._store.readable():
            with member.read() as transaction:
                row = read_row(member, transaction, table, key)
            if row is not None and row.value is not None and (newest is None or row.time_ms > newest.time_ms):
                newest = row
        return newest.value if newest else None

    def items(self, table: str) -> dict[str, bytes]:
        newest: dict[str, Row] = {}
        prefix = table.encode() + b"\0"
        for member in self._store.readable():
            with member.read() as transaction:
                for name, packed in scan(transaction, member.databases["rows"], prefix):
                    key, row = name[len(prefix) :].decode(), unpack_row(packed)
                    old = newest.get(key)
                    if row.value is not None and (old is None or row.time_ms > old.time_ms):
                        newest[key] = row
        return {key: row.value for key, row in newest.items() if row.value is not None}

    async def put(self, table: str, key: str, value: bytes) -> None:
        now_ms = self._now_ms()

        def put(transaction: Any) -> None:
            write_row(self._store.own, transaction, table, key, value, now_ms)

        await self._store.durable(put, topic_of(table))

    async def delete(self, table: str, key: str) -> None:
        now_ms = self._now_ms()

        def delete(transaction: Any) -> None:
            row = read_row(self._store.own, transaction, table, key)
            if row is not None and row.value is not None:
                write_row(self._store.own, transaction, table, key, None, now_ms)

        await self._store.durable(delete, topic_of(table))

    async def create(self, table: str, key: str, value: bytes) -> bytes | None:
        there = self.get(table, key)
        if there is not None:
            await trio.lowlevel.checkpoint()
            return there
        creation = Creation(table, key, value, Pending())
        self._creations.append(creation)
        self._wake.set()
        return await creation.found

    async def run_creations(self) -> None:
        """Serve creations, a group at a time, for ever."""
        lock = os.open(self._store.members.root / CREATE_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        group: list[Creation] = []
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                try:
                    await take_lock(lock)
                    group, self._creations = self._creations, []
                    with trio.CancelScope(shield=True):  # the lock outlives the commit, whatever happens
                        await self._create_group(group)
                except (StorageError, OSError) as error:
                    fail_all(group + self._creations, StorageError(f"{CREATE_LOCK}: {error}"))
                    self._creations.clear()
                finally:
                    fcntl.flock(lock, fcntl.LOCK_UN)
                await trio.sleep(2 * LOCK_RETRY_SECONDS)  # let another member have it
        finally:
            os.close(lock)
            fail_all(group + self._creations, StorageError(f"the bus of {self._store.own.name} has stopped"))
            self._creations.clear()

    async def _create_group(self, group: list[Creation]) -> None:
        """With the lock held: nobody else's creation can become durable until we are through."""
        self._store.members.refresh()
        others = self._store.members.everyone()[1:]
        taken = [find(others, creation.table, creation.key) for creation in group]
        async with trio.open_nursery() as nursery:
            for creation, value in zip(group, taken, strict=True):
                if value is not None:
                    creation.found.resolve(value)
                else:
                    nursery.start_soon(self._create_here, creation)

    async def _create_here(self, creation: Creation) -> None:
        now_ms = self._now_ms()

        def create(transaction: Any) -> bytes | None:
            row = read_row(self._store.own, transaction, creation.table, creation.key)
            if row is not None and row.value is not None:
                return row.value
            write_row(self._store.own, transaction, creation.table, creation.key, creation.value, now_ms)
            return None

        try:
            creation.found.resolve(await self._store.durable(create, topic_of(creation.table)))
        except Exception as error:  # the creator's to handle
            creation.found.fail(error)

    def forget_tombstones(self) -> Callable[[Any], None] | None:
        """The operation that forgets deletions older than the retention, a bounded number, if any."""
        own = self._store.own
        databases = own.databases
        before_ms = self._now_ms() - self._retention_ms
        old: list[tuple[bytes, bytes]] = []
        with own.read() as transaction:
            for stamp, name in scan(transaction, databases["tombstones"], b""):
                if _TOMBSTONE.unpack(stamp)[0] >= before_ms or len(old) == FORGET_MAX:
                    break
                old.append((stamp, name))

        def forget(transaction: Any) -> None:
            for stamp, name in old:
                change = stamp[_CHANGE.size :]
                transaction.delete(stamp, db=databases["tombstones"])
                packed = transaction.get(name, db=databases["rows"])
                if packed is not None and packed.startswith(change):  # else it was put again since
                    table = name.partition(b"\0")[0]
                    transaction.delete(name, db=databases["rows"])
                    transaction.delete(table + b"\0" + change, db=databases["changes"])
                    floor = transaction.get(_FLOOR_PREFIX + table, db=databases["counters"]) or b""
                    transaction.put(_FLOOR_PREFIX + table, max(floor, change), db=databases["counters"])

        return forget if old else None

    def _now_ms(self) -> int:
        return int(self._store.clock.now() * 1000)


class LocalWatch:
    """The changes of one table over all members; a position is each member's last change seen."""

    def __init__(self, store: Store, tables: Tables, table: str, after: bytes) -> None:
        self.table = table
        self._store = store
        self._tables = tables
        self._positions: dict[str, tuple[bytes, int]] = {}
        if after:
            self._positions = msgspec.msgpack.decode(after, type=dict[str, tuple[bytes, int]])

    def __repr__(self) -> str:
        return f"<LocalWatch of {self.table}: { ({name: at for name, (_, at) in self._positions.items()}) }>"

    @property
    def position(self) -> bytes:
        return msgspec.msgpack.encode(self._positions)

    def __aiter__(self) -> "LocalWatch":
        return self

    async def __anext__(self) -> tuple[str, bytes | None]:
        await trio.lowlevel.checkpoint()
        while True:
            key = self._next_key()
            if key is not None:
                return key, self._tables.get(self.table, key)
            await self._store.wait(topic_of(self.table))

    def _next_key(self) -> str | None:
        prefix = self.table.encode() + b"\0"
        for member in self._store.readable():
            epoch, position = self._positions.get(member.name, (b"", 0))
            if epoch != member.epoch:
                position = 0
            with member.read() as transaction:
                floor = transaction.get(_FLOOR_PREFIX + prefix[:-1], db=member.databases["counters"])
                if position and floor and _CHANGE.unpack(floor)[0] > position:
                    raise PositionLost(f"table {self.table}: changes of {member.name} are forgotten")
                start = prefix + _CHANGE.pack(position + 1)
                for name, key in scan(transaction, member.databases["changes"], prefix, start):
                    change = _CHANGE.unpack_from(name, len(prefix))[0]
                    self._positions[member.name] = member.epoch, change
                    return key.decode()
        return None


def read_row(member: Member, transaction: Any, table: str, key: str) -> Row | None:
    """A key's row at one member; a deleted one's has no value."""
    packed = transaction.get(f"{table}\0{key}".encode(), db=member.databases["rows"])
    return None if packed is None else unpack_row(packed)


def unpack_row(packed: bytes) -> Row:
    change, time_ms, there = _ROW.unpack_from(packed)
    return Row(change, time_ms, packed[_ROW.size :] if there else None)


def write_row(own: Member, transaction: Any, table: str, key: str, value: bytes | None, now_ms: int) -> None:
    """Put a row, or its tombstone, as this environment's next change."""
    databases = own.databases
    name, prefix = f"{table}\0{key}".encode(), table.encode() + b"\0"
    old = read_row(own, transaction, table, key)
    if old is not None:
        transaction.delete(prefix + _CHANGE.pack(old.change), db=databases["changes"])
        now_ms = max(now_ms, old.time_ms)
    last = transaction.get(_CHANGE_KEY, db=databases["counters"])
    change = _CHANGE.unpack(last)[0] + 1 if last else 1
    transaction.put(_CHANGE_KEY, _CHANGE.pack(change), db=databases["counters"])
    transaction.put(prefix + _CHANGE.pack(change), key.encode(), db=databases["changes"])
    transaction.put(name, _ROW.pack(change, now_ms, value is not None) + (value or b""), db=databases["rows"])
    if value is None:
        transaction.put(_TOMBSTONE.pack(now_ms, change), name, db=databases["tombstones"])


def find(members: list[Member], table: str, key: str) -> bytes | None:
    """The value of a key at any of the members. Raises StorageError when one cannot be read."""
    for member in members:
        try:
            with member.read() as transaction:
                row = read_row(member, transaction, table, key)
        except StorageError:
            if member.exists():
                raise
            continue  # it left just now
        if row is not None and row.value is not None:
            return row.value
    return None


async def take_lock(lock: int) -> None:
    """Take the file lock without blocking the loop. StorageError when another keeps it."""
    with trio.move_on_after(LOCK_WAIT_SECONDS):
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                await trio.sleep(LOCK_RETRY_SECONDS)
    raise StorageError(f"another process keeps the lock for {LOCK_WAIT_SECONDS:g} s")


def fail_all(creations: list[Creation], error: StorageError) -> None:
    for creation in creations:
        if not creation.found.done:
            creation.found.fail(error)
