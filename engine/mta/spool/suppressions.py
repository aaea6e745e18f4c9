"""The suppressions of one engine: a durable set of 10 million keys that answers in microseconds.

An LMDB environment of its own (`data/suppressions`), so that an import never waits for a settle, nor the
other way round. One value holds all that stands under a key, so a question costs at most two reads, in
one transaction that ends with it. Recipient domains are kept in memory. `version` moves with each commit
that changed something; the write is visible before it moves. Orders are applied in slices, since they
run in the loop's thread. The key check of the hasher is stamped into a new store.

Touches: one folder. On trouble: a store of another master key is refused with the cure; a record that
does not decode stops all mail to its key; a full disk is StorageFull and nothing of that slice is kept.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import trio
from msgspec import Struct
from msgspec.structs import replace

from engine.model.content import MessageClass
from engine.mta.policy.suppression import (
    EVERYWHERE,
    Reason,
    SuppressionEntry,
    SuppressionError,
    SuppressionOrder,
    find_blocking,
    merge,
)
from engine.mta.policy.suppression_codec import (
    ADDRESS,
    DOMAIN,
    SUBSCRIBER,
    AddressHasher,
    decode_record,
    encode_record,
    subscriber_key,
)
from engine.storage import Committer, Environment, Pending, StorageError
from engine.storage.environment import Transaction

KIND = "suppressions"
VERSION = 1
MAP_OCTETS = 32 * 1024**3  # sparse; 10 million entries take 1 GB
SLICE_KEYS = 2_500  # applied at once: 3 ms of the loop where they are new, 12 ms where they are not
DOMAINS_KEPT_MAX = 100_000  # in memory, 200 octets each; of more the disk is asked
PREFIXES_MAX = 1_000  # workspaces at work at a time
RECORDS_KEPT_MAX = 1_000  # decoded
PAGE = 10_000  # keys read in one transaction while listing

READERS_SECONDS = 60.0
STREAM = "suppressions"  # of orders, on the bus

_CHECK = b"key_check"

DAMAGED = SuppressionEntry(EVERYWHERE, Reason.MANUAL, 0, 0, "its record does not decode: nothing is sent")


class Applied(Struct, frozen=True):
    """What an order did: keys that changed, those that were new, those that are gone."""

    changed: int = 0
    added: int = 0
    removed: int = 0


class Suppressions(Protocol):
    """What stands, as everybody else sees it."""

    hasher: AddressHasher
    version: int

    def blocked(
        self,
        recipient: str,
        domain: str,
        subscriber: int,
        workspace: str,
        list_id: str,
        message_class: MessageClass,
    ) -> SuppressionEntry | None:
        """The entry that stops this message, if any does. Never blocks; sees what is durable."""
        ...

    def standing(self, key: bytes) -> tuple[SuppressionEntry, ...]:
        """Everything under a key."""
        ...

    def keys(self) -> int:
        """How many keys have an entry."""
        ...

    def positions(self) -> dict[str, int]:
        """The last sequence of each writer that was applied from the bus."""
        ...

    async def apply(self, order: SuppressionOrder) -> Applied:
        """Do as the order says; all of it is durable on return. Raises StorageError; a part may be kept."""
        ...

    async def reached(self, writer: str, sequence: int) -> None:
        """Everything of this writer up to there is applied; kept, for who asks how far we are."""
        ...

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The background work, as a task; returns after `close`."""
        ...

    def close(self) -> None: ...


class StoredSuppressions:
    """`Suppressions` over an open environment. Without `run` it only reads, and writes with `apply_now`."""

    def __init__(self, environment: Environment, hasher: AddressHasher) -> None:
        self.hasher = hasher
        self.version = 0
        self.environment = environment
        self._begin = environment.begin_read
        self._key_of = hasher.key_of
        self._table = environment.databases["entries"]
        self._committer: Committer | None = None
        self._domains: dict[str, bytes] = {}
        self._all_domains = True  # are in memory
        self._keys = 0
        self._subscribers = False  # any
        self._prefixes: dict[str, bytes] = {}  # of subscribers' keys, by workspace
        self._look()

    def __repr__(self) -> str:
        return f"<Suppressions: {self._keys:,} keys, version {self.version}>"

    def blocked(
        self,
        recipient: str,
        domain: str,
        subscriber: int,
        workspace: str,
        list_id: str,
        message_class: MessageClass,
    ) -> SuppressionEntry | None:
        if not self._keys:
            return None
        record = self._domains.get(domain)
        if record is not None:
            found = find_blocking(_decode(record), workspace, list_id, message_class)
            if found is not None:
                return found
        key = self._key_of(recipient)
        table = self._table
        second = third = None
        transaction = self._begin()
        try:
            record = transaction.get(key, None, table)
            if self._subscribers and subscriber and workspace:
                second = transaction.get(self._subscriber_key(workspace, subscriber), None, table)
            if not self._all_domains:
                third = transaction.get(DOMAIN + domain.encode(), None, table)
        finally:
            transaction.abort()
        if record is second is third is None:
            return None
        for each in (record, second, third):
            if each is not None:
                found = find_blocking(_decode(each), workspace, list_id, message_class)
                if found is not None:
                    return found
        return None

    def _subscriber_key(self, workspace: str, subscriber: int) -> bytes:
        """As `subscriber_key`, in a third of the time: it is asked for each message."""
        prefix = self._prefixes.get(workspace)
        if prefix is None:
            if len(self._prefixes) >= PREFIXES_MAX:
                self._prefixes.clear()
            prefix = self._prefixes[workspace] = subscriber_key(workspace, 1)[:-8]
        return prefix + subscriber.to_bytes(8, "big")

    def standing(self, key: bytes) -> tuple[SuppressionEntry, ...]:
        with self.environment.read() as transaction:
            record = transaction.get(key, db=self._table)
        return () if record is None else _decode(record)

    def keys(self) -> int:
        return self._keys

    def positions(self) -> dict[str, int]:
        table = self.environment.databases["positions"]
        with self.environment.read() as transaction, transaction.cursor(db=table) as cursor:
            return {key.decode(): int(value) for key, value in cursor}

    def listing(
        self, after: bytes = b"", limit: int = PAGE
    ) -> list[tuple[bytes, tuple[SuppressionEntry, ...]]]:
        """Up to `limit` keys behind `after` with what stands there, in the order of keys."""
        found = []
        with self.environment.read() as transaction, transaction.cursor(db=self._table) as cursor:
            if cursor.set_range(after):
                for key, record in cursor:
                    if key == after:
                        continue
                    found.append((key, _decode(record)))
                    if len(found) == limit:
                        break
        return found

    async def apply(self, order: SuppressionOrder) -> Applied:
        assert self._committer is not None, "runs: who does not run applies now"
        total = Applied()
        for part in slices(order):
            pending = self._committer.submit(partial(self._write, order=part))
            pending.then(self._note)  # and not after the wait: its caller may be cancelled, it is durable
            done = (await pending).applied
            total = _sum(total, done)
        return total

    def apply_now(self, orders: Iterable[SuppressionOrder]) -> Applied:
        """Several orders in one synced commit of this thread, where no engine runs. Raises StorageError."""
        assert self._committer is None
        total = Applied()
        with self.environment.write() as transaction:
            written = [self._write(transaction, order) for order in orders]
        for each in written:
            self._take_over(each)
            total = _sum(total, each.applied)
        return total

    async def reached(self, writer: str, sequence: int) -> None:
        assert self._committer is not None, "runs"
        table = self.environment.databases["positions"]
        key, value = writer.encode(), str(sequence).encode()
        await self._committer.submit(lambda transaction: transaction.put(key, value, db=table))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._committer = Committer(self.environment)  # one that was closed does not run again
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._free_readers)
            await self._committer.run(task_status)
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        if self._committer is not None:
            self._committer.close()

    async def _free_readers(self) -> None:
        """A command that died while it looked in here must not pin old pages for ever."""
        while True:
            await trio.sleep(READERS_SECONDS)
            self.environment.check_readers()

    def _write(self, transaction: Transaction, order: SuppressionOrder) -> "_Written":
        """Apply an order in a transaction; changes no memory, since it may run twice."""
        table = self._table
        added = removed = changed = 0
        domains: dict[str, bytes | None] = {}
        fresh = encode_record((order.entry,)) if order.adds else b""
        for key in sorted(order.keys):
            if order.adds and transaction.put(key, fresh, db=table, overwrite=False):
                record: bytes | None = fresh
                added += 1
            else:
                old = transaction.get(key, db=table)
                if old is None:
                    continue
                standing = _decode(old)
                left = merge(standing, order)
                if left is standing:
                    continue
                changed += 1
                if left:
                    record = encode_record(left)
                    transaction.put(key, record, db=table)
                else:
                    record = None
                    transaction.delete(key, db=table)
                    removed += 1
            if key[:1] == DOMAIN:
                domains[key[1:].decode()] = record
        subscribers = order.adds and any(key[:1] == SUBSCRIBER for key in order.keys)
        count = int(transaction.stat(table)["entries"])
        return _Written(Applied(changed + added, added, removed), count, domains, subscribers)

    def _note(self, pending: Pending["_Written"]) -> None:
        if pending.error is None:
            self._take_over(pending.result())

    def _take_over(self, written: "_Written") -> None:
        """What a commit that is durable changes in memory."""
        self._keys = written.keys
        self._subscribers = self._subscribers or written.subscribers
        for domain, record in written.domains.items():
            if record is None:
                self._domains.pop(domain, None)
            elif domain in self._domains or len(self._domains) < DOMAINS_KEPT_MAX:
                self._domains[domain] = record
            else:
                self._all_domains = False
        if written.applied.changed:
            self.version += 1

    def _look(self) -> None:
        """What is kept in memory of what is there."""
        with self.environment.read() as transaction, transaction.cursor(db=self._table) as cursor:
            self._keys = int(transaction.stat(self._table)["entries"])
            self._subscribers = cursor.set_range(SUBSCRIBER) and cursor.key()[:1] == SUBSCRIBER
            if not cursor.set_range(DOMAIN):
                return
            for key, record in cursor:
                if key[:1] != DOMAIN:
                    break
                if len(self._domains) == DOMAINS_KEPT_MAX:
                    self._all_domains = False
                    break
                self._domains[key[1:].decode()] = record


class _Written(Struct, frozen=True):
    """What one slice did, and what memory must know of it once it is durable."""

    applied: Applied
    keys: int
    domains: dict[str, bytes | None]
    subscribers: bool


def open_suppressions(
    path: Path, hasher: AddressHasher, *, map_octets: int = MAP_OCTETS, readonly: bool = False
) -> StoredSuppressions:
    """Open the folder; a new one gets the hasher's check. Raises StorageError, also for another key."""
    environment = Environment(
        path,
        kind=KIND,
        version=VERSION,
        databases=("entries", "positions"),
        map_octets=map_octets,
        readonly=readonly,
    )
    try:
        with environment.read() as transaction:
            check = environment.get_meta(transaction, _CHECK)
        if check is None and not readonly:
            with environment.write() as transaction:
                environment.put_meta(transaction, _CHECK, hasher.check)
        elif check != hasher.check:
            raise StorageError(
                f"{path}: the suppressions were kept under another master key, so no address would be found; "
                "put back the key file they were made with"
            )
        return StoredSuppressions(environment, hasher)
    except BaseException:
        environment.close()
        raise


def consumer_name(node: str) -> str:
    """Whose acknowledgement on the bus says that this node's engine has applied an order."""
    return f"suppressor.{node}"


def order_problem(order: SuppressionOrder, hasher: AddressHasher) -> str:
    """Why an order cannot be applied where this hasher is used, or nothing."""
    hashed = any(key[:1] == ADDRESS for key in order.keys)
    if hashed and order.key_check != hasher.check:
        return "its address hashes were made under another master key"
    return ""


def slices(order: SuppressionOrder, size: int = SLICE_KEYS) -> Iterator[SuppressionOrder]:
    """The same order in parts, in the order of keys: neighbours share pages of the store."""
    keys = sorted(order.keys)
    for start in range(0, len(keys), size):
        yield replace(order, keys=tuple(keys[start : start + size]))


@lru_cache(maxsize=RECORDS_KEPT_MAX)  # those of one import are all alike
def _decode(record: bytes) -> tuple[SuppressionEntry, ...]:
    try:
        return decode_record(record)
    except SuppressionError:
        return (DAMAGED,)


def _sum(one: Applied, other: Applied) -> Applied:
    return Applied(one.changed + other.changed, one.added + other.added, one.removed + other.removed)
