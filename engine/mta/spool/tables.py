"""The spool's tables, and the writes that belong together in one commit.

`Tables` knows the layout (see `lmdb`) and how one settle changes it: record, due key, counters and
event. It runs inside a transaction that somebody else opens and commits, and keeps nothing in memory,
so an operation may run twice.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.model.content import Content
from engine.model.disposition import Disposition
from engine.model.event import Event, EventBatch, encode_events
from engine.mta.spool import codec
from engine.mta.spool.api import CRASHES_MAX, Acceptance, QueueEntry, Settled, StateCounts
from engine.mta.spool.leases import parked
from engine.storage import Environment
from engine.storage.environment import MAP_OCTETS, Migration, Transaction

SPOOL_VERSION = 1
MIGRATIONS: Mapping[int, Migration] = {}  # version n -> what lifts it to n + 1
DATABASES = ("envelopes", "due", "leases", "events", "chunks", "contents", "counts")

EPOCH = b"epoch"
NEXT_ID = b"next_spool_id"
NEXT_LEASE = b"next_lease"
NEXT_EVENT = b"next_event"

_encode = msgspec.msgpack.Encoder().encode
_decode_counts = msgspec.msgpack.Decoder(StateCounts).decode


class StoredContent(Struct, frozen=True):
    content: Content
    row_key: bytes  # wrapped campaign key


class StoredChunk(Struct, frozen=True, array_like=True):
    campaign: int
    first_id: int
    count: int


_decode_content = msgspec.msgpack.Decoder(StoredContent).decode
_decode_chunk = msgspec.msgpack.Decoder(StoredChunk).decode


def open_spool_environment(
    path: Path, *, map_octets: int = MAP_OCTETS, readonly: bool = False
) -> Environment:
    """Open the spool's folder; a new one gets its epoch. Before a committer runs: it keeps the write lock."""
    environment = Environment(
        path,
        kind="spool",
        version=SPOOL_VERSION,
        databases=DATABASES,
        migrations=MIGRATIONS,
        map_octets=map_octets,
        readonly=readonly,
    )
    with environment.read() as transaction:
        known = environment.get_meta(transaction, EPOCH)
    if known is None:
        with environment.write() as transaction:
            environment.put_meta(transaction, EPOCH, os.urandom(8).hex().encode())
    return environment


class Tables:
    """One environment's databases and the composite writes on them."""

    def __init__(self, environment: Environment, producer: str) -> None:
        self.environment = environment
        self.producer = producer
        databases = environment.databases
        self.envelopes = databases["envelopes"]
        self.due = databases["due"]
        self.leases = databases["leases"]
        self.events = databases["events"]
        self.chunks = databases["chunks"]
        self.contents = databases["contents"]
        self.counts = databases["counts"]
        with environment.read() as transaction:
            epoch = environment.get_meta(transaction, EPOCH)
        assert epoch is not None, "open_spool_environment gives every store an epoch"
        self.epoch = epoch.decode()

    def settle(
        self,
        transaction: Transaction,
        dispositions: Sequence[Disposition],
        at: float,
        *,
        due_after: int,
        crashes_max: int = CRASHES_MAX,
    ) -> Settled:
        """Apply dispositions in order. New due times lie after `due_after` (ms), where the scan stands.

        A record that cannot be read is quarantined, whatever its disposition says.
        """
        written: list[Event] = []
        growth: dict[int, dict[str, int]] = {}
        requeued: list[QueueEntry] = []
        earliest: float | None = None
        applied = 0
        for disposition in dispositions:
            key = disposition.spool_id.to_bytes(8, "big")
            record = transaction.pop(key, db=self.envelopes)
            if record is None:
                continue
            if not codec.is_intact(record):
                record = codec.rebuilt(self.campaign_of(transaction, disposition.spool_id), record)
                disposition = parked(disposition.spool_id, 0, "its record is damaged")  # noqa: PLW2901
            step = codec.settle_record(record, disposition, crashes_max)
            if step is None:
                transaction.put(key, record, db=self.envelopes)
                continue
            applied += 1
            settled = step.record
            if step.old_due:
                transaction.delete(codec.due_key(step.old_due, disposition.spool_id), db=self.due)
            if step.new_due and settled is not None:
                due = max(step.new_due, due_after + 1)
                if due != step.new_due:
                    settled = codec.with_due(settled, due)
                transaction.put(codec.due_key(due, disposition.spool_id), b"", db=self.due)
                earliest = due / 1000 if earliest is None else min(earliest, due / 1000)
            if settled is not None:
                transaction.put(key, settled, db=self.envelopes)
            if step.event is not None:
                written.append(step.event)
            if step.states:
                _count(growth, step)
            if step.requeue:
                requeued.append(QueueEntry(disposition.spool_id, step.campaign, step.domain))
        self._grow_all(transaction, growth)
        if written:
            self.write_events(transaction, at, written)
        return Settled(applied, tuple(requeued), earliest)

    def requeue(self, transaction: Transaction, ids: Sequence[int]) -> Settled:
        """Queue at once what is deferred or parked."""
        growth: dict[int, dict[str, int]] = {}
        requeued: list[QueueEntry] = []
        for spool_id in ids:
            key = spool_id.to_bytes(8, "big")
            record = transaction.get(key, db=self.envelopes)
            step = codec.requeue_record(record) if record is not None and codec.is_intact(record) else None
            if step is None:
                continue
            if step.old_due:
                transaction.delete(codec.due_key(step.old_due, spool_id), db=self.due)
            transaction.put(key, step.record, db=self.envelopes)
            _count(growth, step)
            requeued.append(QueueEntry(spool_id, step.campaign, step.domain))
        self._grow_all(transaction, growth)
        return Settled(len(requeued), tuple(requeued))

    def move_due(self, transaction: Transaction, keys: Sequence[bytes], by: int, *, due_after: int) -> None:
        """Move due times by so many ms, as far as they still stand."""
        for key in keys:
            if not transaction.delete(key, db=self.due):
                continue
            old, spool_id = codec.DUE_KEY.unpack(key)
            due, place = max(old + by, due_after + 1), spool_id.to_bytes(8, "big")
            record = transaction.get(place, db=self.envelopes)
            if record is not None and codec.is_intact(record):
                transaction.put(place, codec.with_due(record, due), db=self.envelopes)
                transaction.put(codec.due_key(due, spool_id), b"", db=self.due)

    def conclude(self, transaction: Transaction, dispositions: Sequence[Disposition], at: float) -> Settled:
        """End what is parked."""
        growth: dict[int, dict[str, int]] = {}
        written: list[Event] = []
        for disposition in dispositions:
            key = disposition.spool_id.to_bytes(8, "big")
            record = transaction.get(key, db=self.envelopes)
            if record is None or not codec.is_intact(record):
                continue
            step = codec.conclude_record(record, disposition)
            if step is None:
                continue
            assert step.event is not None
            transaction.delete(key, db=self.envelopes)
            _count(growth, step)
            written.append(step.event)
        self._grow_all(transaction, growth)
        if written:
            self.write_events(transaction, at, written)
        return Settled(len(written), ())

    def _grow_all(self, transaction: Transaction, growth: dict[int, dict[str, int]]) -> None:
        for campaign, counters in growth.items():
            self.grow(transaction, campaign, counters)

    def write_events(self, transaction: Transaction, at: float, batch: list[Event]) -> None:
        sequence = self.number(transaction, NEXT_EVENT, 1)
        encoded = encode_events(
            EventBatch(self.producer, self.epoch, sequence, at, self.producer, tuple(batch))
        )
        transaction.put(sequence.to_bytes(8, "big"), encoded, db=self.events, append=True)
        self.put_number(transaction, NEXT_EVENT, sequence + len(batch))

    def grow(self, transaction: Transaction, campaign: int, growth: dict[str, int]) -> None:
        key = campaign.to_bytes(4, "big")
        counts = self.counts_of(transaction, campaign)
        for state, amount in growth.items():
            counts.add(state, amount)
        transaction.put(key, _encode(counts), db=self.counts)

    def read_counts(self, transaction: Transaction) -> list[StateCounts]:
        with transaction.cursor(db=self.counts) as cursor:
            return [_decode_counts(value) for value in cursor.iternext(keys=False)]

    def counts_of(self, transaction: Transaction, campaign: int) -> StateCounts:
        stored = transaction.get(campaign.to_bytes(4, "big"), db=self.counts)
        return StateCounts() if stored is None else _decode_counts(stored)

    def park(
        self, transaction: Transaction, spool_id: int, why: str, at: float, *, damaged: bool = True
    ) -> None:
        """Quarantine an envelope that cannot be opened. `damaged` = its head may not be believed either."""
        key = spool_id.to_bytes(8, "big")
        record = transaction.get(key, db=self.envelopes)
        if record is None:
            return
        if damaged:
            campaign = self.campaign_of(transaction, spool_id)
            if not codec.is_intact(record) or codec.record_campaign(record) != campaign:
                record = codec.rebuilt(campaign, record)
                transaction.put(key, record, db=self.envelopes)
        self.settle(transaction, [parked(spool_id, codec.record_attempt(record), why)], at, due_after=0)

    def campaign_of(self, transaction: Transaction, spool_id: int) -> int:
        """The campaign of an envelope whose record does not tell, from its chunk; 0 if there is none."""
        with transaction.cursor(db=self.chunks) as cursor:
            for value in cursor.iternext(keys=False):
                chunk = _decode_chunk(value)
                if chunk.first_id <= spool_id < chunk.first_id + chunk.count:
                    return chunk.campaign
        return 0

    def content_of(self, transaction: Transaction, campaign: int) -> StoredContent | None:
        stored = transaction.get(campaign.to_bytes(4, "big"), db=self.contents)
        return None if stored is None else _decode_content(stored)

    def put_content(self, transaction: Transaction, stored: StoredContent) -> None:
        key = stored.content.campaign.to_bytes(4, "big")
        transaction.put(key, _encode(stored), db=self.contents)

    def acceptance(self, transaction: Transaction, key: bytes) -> Acceptance | None:
        """What was accepted under this chunk id before."""
        stored = transaction.get(key, db=self.chunks)
        if stored is None:
            return None
        chunk = _decode_chunk(stored)
        return Acceptance(key.decode(), chunk.campaign, chunk.first_id, chunk.count, known=True)

    def put_acceptance(self, transaction: Transaction, key: bytes, chunk: StoredChunk) -> None:
        transaction.put(key, _encode(chunk), db=self.chunks)

    def forget_chunks(self, transaction: Transaction, first: bytes, before: bytes, limit: int) -> int:
        """Drop up to `limit` acceptances with first <= chunk id < before; how many there were."""
        dropped = 0
        with transaction.cursor(db=self.chunks) as cursor:
            found = cursor.set_range(first)
            while found and dropped < limit and cursor.key() < before:
                dropped += 1
                found = cursor.delete()  # and stands on the next one
        return dropped

    def number(self, transaction: Transaction, key: bytes, default: int) -> int:
        stored = self.environment.get_meta(transaction, key)
        return default if stored is None else int.from_bytes(stored, "big")

    def put_number(self, transaction: Transaction, key: bytes, number: int) -> None:
        self.environment.put_meta(transaction, key, number.to_bytes(8, "big"))


def _count(growth: dict[int, dict[str, int]], step: codec.Step) -> None:
    """By how much each counter of the step's campaign moves."""
    counters = growth.setdefault(step.campaign, {})
    for state in step.states:
        counters[state] = counters.get(state, 0) + 1
    if step.left:
        counters[step.left] = counters.get(step.left, 0) - 1
