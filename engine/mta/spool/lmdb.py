"""The LMDB spool: records appended by id, one commit for a settle and its event.

Layout (one environment): `envelopes` id -> record (ids only grow, so accepting writes sequential
pages), `due` (due ms, id) -> nothing, for deferred envelopes only, `leases` id -> envelope ids and
attempts, `events` first sequence -> encoded batch, `chunks` chunk id -> acceptance, `contents`
campaign -> content and wrapped row key, `counts` campaign -> state counters. Scheduled queues are
not on disk: `queued()` rebuilds them in one scan (1,000,000 envelopes: about a second).

Memory holds what is leased (bounded by the connections) and the position of the due scan. Ids are
taken from memory at once and the high-water mark is written with the chunk, so ids may have gaps but
never repeat. On trouble: StorageError from the committer, and nothing of that commit happened. Where there
is no room, contents and chunks are refused (StorageFull); everything else waits for some.
"""

import secrets
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from engine.config import AmbiguousPolicy
from engine.keyring import KeyringError, RowKeyring, RowSealer
from engine.model.content import Content
from engine.model.disposition import Disposition
from engine.model.envelope import HEAVY_OCTETS, Chunk, Envelope
from engine.model.event import ChunkAccepted, Event
from engine.mta.spool import codec
from engine.mta.spool.api import (
    PROCESS_CRASHES_MAX,
    Acceptance,
    Lease,
    QueueEntry,
    Recovery,
    Settled,
    SpoolError,
)
from engine.mta.spool.leases import OpenLeases, judge_orphans, pack_lease, unpack_lease
from engine.mta.spool.reader import SpoolReads
from engine.mta.spool.tables import NEXT_EVENT, NEXT_ID, NEXT_LEASE, StoredChunk, StoredContent
from engine.storage import Committer, Environment, Pending
from engine.storage.environment import Transaction

SECONDS_PER_DAY = 86_400
REWIND_PAGE = 2_000  # due times per commit: some 20 ms of the loop


class LmdbSpool(SpoolReads):
    """`Spool` over one environment. One per process; it outlives the spooler actor."""

    def __init__(
        self, environment: Environment, committer: Committer, keyring: RowKeyring, *, producer: str
    ) -> None:
        super().__init__(environment, producer)
        self.producer = producer
        tables = self._tables
        self.epoch = tables.epoch
        self._committer = committer
        self._keyring = keyring
        self._sealers: dict[int, RowSealer] = {}
        self._salt = secrets.token_bytes(4)
        self._open = OpenLeases()
        self._due_position = codec.due_key(0, 0)
        self._dues_in_flight: dict[Pending[Settled], int] = {}
        self._damaged: set[int] = set()
        with environment.read() as transaction:
            self._next_id = tables.number(transaction, NEXT_ID, 1)
            self._next_lease = tables.number(transaction, NEXT_LEASE, 1)

    def __repr__(self) -> str:
        return f"<LmdbSpool {self._environment.path}: {self._open.held} leased in {len(self._open)} leases>"

    @property
    def next_id(self) -> int:
        return self._next_id

    # --- contents --------------------------------------------------------------------------------------

    def put_content(self, content: Content, now: float) -> Pending[None]:
        wrapped = self._keyring.create_campaign_key(int(now // SECONDS_PER_DAY))

        def operation(transaction: Transaction) -> None:
            stored = self._tables.content_of(transaction, content.campaign)
            if stored is None:
                self._tables.put_content(transaction, StoredContent(content, wrapped))
            elif stored.content != content:
                raise SpoolError(f"campaign {content.campaign} is known with another content")

        return self._committer.submit(operation, patient=False)

    def _sealer(self, campaign: int) -> RowSealer:
        sealer = self._sealers.get(campaign)
        if sealer is None:
            with self._environment.read() as transaction:
                stored = self._tables.content_of(transaction, campaign)
            if stored is None:
                raise SpoolError(f"campaign {campaign} has no content; submit it before its chunks")
            sealer = self._sealers[campaign] = self._keyring.sealer(stored.row_key)
        return sealer

    # --- acceptance ------------------------------------------------------------------------------------

    def accept(self, chunk: Chunk, now: float) -> Pending[Acceptance]:
        campaign, key = chunk.campaign, codec.chunk_key(chunk)
        with self._environment.read() as transaction:
            known = self._tables.acceptance(transaction, key)
        if known is not None:
            return Pending.ready(known)
        try:
            sealer = self._sealer(campaign)
        except KeyringError as error:
            raise SpoolError(f"chunk {chunk.id} cannot be sealed: {error}") from error
        first, count = self._next_id, len(chunk.entries)
        records, domains = codec.encode_chunk(chunk, first, now, sealer, self._salt)
        self._next_id = high_water = first + count

        def operation(transaction: Transaction) -> Acceptance:
            known = self._tables.acceptance(transaction, key)
            if known is not None:  # the same chunk twice in one group
                return known
            with transaction.cursor(db=self._tables.envelopes) as cursor:
                added = cursor.putmulti(records, append=True)[1]
            assert added == count, "spool ids only grow"
            self._tables.put_acceptance(transaction, key, StoredChunk(campaign, first, count))
            self._tables.put_number(transaction, NEXT_ID, high_water)
            self._tables.grow(transaction, campaign, {"accepted": count})
            self._tables.write_events(transaction, now, [ChunkAccepted(campaign, chunk.id, count)])
            return Acceptance(chunk.id, campaign, first, count, domains)

        return self._committer.submit(operation, patient=False)  # it would stand before the settles

    def forget_chunks(self, first: str, before: str, limit: int) -> Pending[int]:
        ends = (first.encode(), before.encode())
        return self._committer.submit(
            lambda transaction: self._tables.forget_chunks(transaction, *ends, limit)
        )

    # --- leases ----------------------------------------------------------------------------------------

    def lease(self, orders: Sequence[Sequence[int]], now: float) -> Pending[list[list[Lease]]]:
        first = self._next_lease
        claim = self._open.claim(orders, first)
        # Suspect envelopes get leases of their own, so at most one number per envelope is used.
        self._next_lease = high_water = first + claim.size + 1

        def operation(transaction: Transaction) -> list[list[Lease]]:
            number = first
            made: list[list[Lease]] = []
            for ids in claim.orders:
                groups = self._open_group(
                    transaction, [spool_id for spool_id in ids if self._open.is_claimed(claim, spool_id)], now
                )
                leases = []
                for group in groups:
                    packed = pack_lease((item.spool_id, item.attempt) for item in group)
                    transaction.put(number.to_bytes(8, "big"), packed, db=self._tables.leases, append=True)
                    leases.append(Lease(number, tuple(group)))
                    number += 1
                made.append(leases)
            self._tables.put_number(transaction, NEXT_LEASE, high_water)
            return made

        def remember(pending: Pending[list[list[Lease]]]) -> None:
            if pending.error is None:
                self._open.grant(claim, pending.result())
            else:
                self._open.release(claim)

        pending = self._committer.submit(operation)
        pending.then(remember)
        return pending

    def _open_group(
        self, transaction: Transaction, ids: Iterable[int], now: float
    ) -> Iterable[list[Envelope]]:
        """One order's envelopes, opened: the plain ones together, each suspect one alone."""
        plain: list[Envelope] = []
        groups: list[list[Envelope]] = []
        for spool_id in ids:
            record = transaction.get(spool_id.to_bytes(8, "big"), db=self._tables.envelopes)
            if record is None:
                continue
            damaged = True
            try:
                if not codec.is_intact(record):
                    raise codec.DamagedRecord("its record is damaged")
                if codec.record_is_parked(record):
                    continue
                try:
                    sealer = self._sealer(codec.record_campaign(record))
                except KeyringError:
                    damaged = False
                    raise
                envelope = codec.decode_envelope(spool_id, record, sealer, heavy_octets=HEAVY_OCTETS)
            except (KeyringError, SpoolError, msgspec.DecodeError) as error:
                self._tables.park(transaction, spool_id, str(error), now, damaged=damaged)
                continue
            if codec.record_is_suspect(record):
                groups.append([envelope])
            else:
                plain.append(envelope)
        if plain:
            groups.append(plain)
        return groups

    def row(self, spool_id: int) -> tuple[str, ...] | None:
        with self._environment.read() as transaction:
            record = transaction.get(spool_id.to_bytes(8, "big"), db=self._tables.envelopes)
        try:
            if record is None or not codec.is_intact(record):
                return None
            sealer = self._sealer(codec.record_campaign(record))
            return codec.decode_envelope(spool_id, record, sealer).row
        except (KeyringError, SpoolError, msgspec.DecodeError):
            return None

    def open_leases(self) -> int:
        return len(self._open)

    # --- settling --------------------------------------------------------------------------------------

    def settle(self, batches: Sequence[tuple[int, Sequence[Disposition]]], at: float) -> Pending[Settled]:
        """A disposition for an envelope that its lease does not hold (any more) changes nothing."""
        taken = self._open.take(batches)

        def operation(transaction: Transaction) -> Settled:
            settled = self._tables.settle(transaction, taken.dispositions, at, due_after=self._due_ms())
            for lease in taken.finished:
                if lease not in self._open:  # it is again when an earlier settle of this group failed
                    transaction.delete(lease.to_bytes(8, "big"), db=self._tables.leases)
            for lease, returned in taken.returned.items():
                if lease in self._open:
                    self._take_out(transaction, lease, returned)
            return settled

        def restore(pending: Pending[Settled]) -> None:
            self._dues_in_flight.pop(pending, None)
            if pending.error is not None:
                self._open.restore(taken)

        pending = self._committer.submit(operation)
        due = min((item.due for item in taken.dispositions if item.due), default=0.0)
        if due:
            self._dues_in_flight[pending] = int(due * 1000)
        pending.then(restore)
        return pending

    def _take_out(self, transaction: Transaction, lease: int, returned: set[int]) -> None:
        key = lease.to_bytes(8, "big")
        packed = transaction.get(key, db=self._tables.leases)
        kept = pack_lease(item for item in unpack_lease(packed) if item[0] not in returned)
        transaction.put(key, kept, db=self._tables.leases)

    def requeue(self, ids: Sequence[int]) -> Pending[Settled]:
        free = self._open.free(ids)
        return self._committer.submit(lambda transaction: self._tables.requeue(transaction, free))

    def conclude(self, dispositions: Sequence[Disposition], at: float) -> Pending[Settled]:
        ends = tuple(dispositions)
        return self._committer.submit(lambda transaction: self._tables.conclude(transaction, ends, at))

    # --- opening ---------------------------------------------------------------------------------------

    def recover(
        self, now: float, policy: AmbiguousPolicy, retry_at: float, spread_seconds: float = 0.0
    ) -> Pending[Recovery]:
        """Every lease on disk that nobody holds is an orphan: its unsettled envelopes are ambiguous."""
        self._open.clear()

        def operation(transaction: Transaction) -> Recovery:
            orphans: list[tuple[int, int, bool]] = []
            with transaction.cursor(db=self._tables.leases) as cursor:
                leases = [(bytes(key), unpack_lease(value)) for key, value in cursor]
            for key, items in leases:
                for spool_id, attempt in items:
                    if self._mark_orphan(transaction, spool_id, attempt):
                        orphans.append((spool_id, attempt, len(items) == 1))
                transaction.delete(key, db=self._tables.leases)
            before = self._held(transaction)
            self._tables.settle(
                transaction,
                judge_orphans(orphans, policy, retry_at, spread_seconds),
                now,
                due_after=self._due_ms(),
                crashes_max=PROCESS_CRASHES_MAX,
            )
            held, quarantined = self._held(transaction)
            return Recovery(len(orphans), held - before[0], quarantined - before[1])

        return self._committer.submit(operation)

    def _mark_orphan(self, transaction: Transaction, spool_id: int, attempt: int) -> bool:
        """Mark the record suspect if it is still in the attempt that was leased (or damaged)."""
        key = spool_id.to_bytes(8, "big")
        record = transaction.get(key, db=self._tables.envelopes)
        if record is None:
            return False
        if codec.is_intact(record):
            if codec.record_attempt(record) != attempt or codec.record_is_parked(record):
                return False
            transaction.put(key, codec.mark_suspect(record), db=self._tables.envelopes)
        return True

    def _held(self, transaction: Transaction) -> tuple[int, int]:
        counts = self._tables.read_counts(transaction)
        return sum(item.ambiguous for item in counts), sum(item.quarantined for item in counts)

    def _due_ms(self) -> int:
        return int.from_bytes(self._due_position[:8], "big")

    # --- reads -----------------------------------------------------------------------------------------

    def queued(self, after: int = 0, limit: int = 2**63) -> list[QueueEntry]:
        found: list[QueueEntry] = []
        with (
            self._environment.read() as transaction,
            transaction.cursor(db=self._tables.envelopes) as cursor,
        ):
            if cursor.set_range((after + 1).to_bytes(8, "big")):
                for key, record in cursor:
                    spool_id = int.from_bytes(key, "big")
                    if not codec.is_intact(record):
                        self._damaged.add(spool_id)
                    elif codec.record_is_queued(record) or self._was_given(key, record):
                        campaign, domain = codec.record_campaign(record), codec.record_domain(record)
                        found.append(QueueEntry(spool_id, campaign, domain))
                        if len(found) == limit:
                            break
        return found

    def _was_given(self, key: bytes, record: bytes) -> bool:
        """A deferred envelope that `take_due` gave: it waits in memory like a queued one."""
        due_key = codec.due_key(codec.record_due(record), int.from_bytes(key, "big"))
        return due_key <= self._due_position and not codec.record_is_parked(record)

    def take_due(self, now: float, limit: int) -> list[QueueEntry]:
        """Stops before the earliest due time that is being written: the scan never passes what it cannot see.

        Damaged records that were met are quarantined on the way.
        """
        until = min([int(now * 1000), *(due - 1 for due in self._dues_in_flight.values())])
        last = codec.due_key(max(until, 0), 2**64 - 1)
        taken: list[QueueEntry] = []
        with self._environment.read() as transaction, transaction.cursor(db=self._tables.due) as cursor:
            found = cursor.set_range(self._due_position)
            while found and len(taken) < limit:
                key = bytes(cursor.key())
                if key > last:
                    break
                if key > self._due_position:
                    self._due_position = key
                    spool_id = codec.DUE_KEY.unpack(key)[1]
                    record = transaction.get(spool_id.to_bytes(8, "big"), db=self._tables.envelopes)
                    if record is not None and not codec.is_intact(record):
                        self._damaged.add(spool_id)
                    elif record is not None and not codec.record_is_parked(record):
                        campaign, domain = codec.record_campaign(record), codec.record_domain(record)
                        taken.append(QueueEntry(spool_id, campaign, domain))
                found = cursor.next()
        if self._damaged:
            self._park_damaged(now)
        return taken

    def _park_damaged(self, now: float) -> None:
        damaged, self._damaged = self._damaged, set()

        def operation(transaction: Transaction) -> None:
            for spool_id in damaged:
                self._tables.park(transaction, spool_id, "its record is damaged", now)

        self._committer.submit(operation)

    def next_due(self) -> float | None:
        with self._environment.read() as transaction, transaction.cursor(db=self._tables.due) as cursor:
            found = cursor.set_range(self._due_position)
            while found and bytes(cursor.key()) <= self._due_position:
                found = cursor.next()
            return codec.DUE_KEY.unpack(cursor.key())[0] / 1000 if found else None

    def rewind(self, now: float, seconds: float) -> Pending[int]:
        """One look at all keys, behind what is being written, then pages of commits."""
        given = self._due_position
        self._due_position = min(given, codec.due_key(max(int(now * 1000), 0), 0))
        moved: Pending[int] = Pending()

        def keys(transaction: Transaction) -> list[bytes]:
            with transaction.cursor(db=self._tables.due) as cursor:
                return [key for key in cursor.iternext(values=False) if key > given]

        def move(found: list[bytes], start: int) -> None:
            page = found[start : start + REWIND_PAGE]
            pending = self._committer.submit(
                lambda transaction: self._tables.move_due(
                    transaction, page, -int(seconds * 1000), due_after=self._due_ms()
                )
            )
            pending.then(lambda done: following(done, found, start + len(page)))

        def following(done: Pending[Any], found: list[bytes], start: int) -> None:
            if done.error is not None:
                moved.fail(done.error)
            elif start < len(found):
                move(found, start)
            else:
                moved.resolve(len(found))

        self._committer.submit(keys).then(
            lambda done: following(done, [] if done.error else done.result(), 0)
        )
        return moved

    def late(self, latest: float, limit: int) -> list[int]:
        late: list[int] = []
        with self._environment.read() as transaction, transaction.cursor(db=self._tables.due) as cursor:
            for key in cursor.iterprev(values=False):
                due, spool_id = codec.DUE_KEY.unpack(key)
                if due <= int(latest * 1000) or len(late) == limit:
                    break
                late.append(spool_id)
        return late

    def note(self, events: Sequence[Event], at: float) -> Pending[None]:
        written = list(events)
        if not written:  # a batch without events would take the place of the next one
            return Pending.ready(None)
        return self._committer.submit(lambda transaction: self._tables.write_events(transaction, at, written))

    def trim_events(self, before: int) -> Pending[None]:
        """Batches are whole: the one that holds `before` - 1 goes only if it ends there."""

        def operation(transaction: Transaction) -> None:
            starts: list[int] = []
            with transaction.cursor(db=self._tables.events) as cursor:
                for key in cursor.iternext(values=False):
                    starts.append(int.from_bytes(key, "big"))
                    if starts[-1] >= before:
                        break
            starts.append(self._tables.number(transaction, NEXT_EVENT, 1))
            for start, following in pairwise(starts):
                if following <= before:
                    transaction.delete(start.to_bytes(8, "big"), db=self._tables.events)

        return self._committer.submit(operation)
