"""The in-memory twin of the LMDB spool: the same contract, durable at once, for tests on a jumping clock.

It keeps the same records (`codec`) and the same lease bookkeeping (`leases`), so the state machine of
an envelope exists once; what it does anew is everything that LMDB's tables do, plainly, so that the
contract tests compare two ways of doing it. Every `Pending` it returns is done. `reopened()` is a
crash: a new incarnation over the same `Disk`, with every open lease an orphan until `recover`.
Touches nothing outside. Fails never; it refuses what the real one refuses.
"""

import secrets
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise

import msgspec

from engine.config import AmbiguousPolicy
from engine.keyring import KeyringError, RowSealer
from engine.model.content import Content
from engine.model.disposition import Disposition
from engine.model.envelope import HEAVY_OCTETS, Chunk, Envelope
from engine.model.event import ChunkAccepted, Event, EventBatch, encode_events
from engine.mta.spool import codec
from engine.mta.spool.api import (
    CRASHES_MAX,
    PROCESS_CRASHES_MAX,
    Acceptance,
    Lease,
    Listed,
    QueueEntry,
    Recovery,
    Settled,
    SpoolError,
    StateCounts,
)
from engine.mta.spool.leases import OpenLeases, judge_orphans, parked
from engine.storage import Pending


class Disk:
    """What survives a crash. `records` are in id order, since ids only grow; `due` is (ms, id), sorted."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8)
        self.contents: dict[int, Content] = {}
        self.sealers: dict[int, RowSealer] = {}
        self.chunks: dict[str, Acceptance] = {}
        self.records: dict[int, bytes] = {}
        self.due: list[tuple[int, int]] = []
        self.leases: dict[int, dict[int, int]] = {}  # lease -> envelope -> attempt
        self.events: list[tuple[int, bytes]] = []
        self.counts: dict[int, StateCounts] = {}
        self.next_id = 1
        self.next_lease = 1
        self.next_event = 1


class MemorySpool:
    """`Spool` over a `Disk` that is no disk."""

    def __init__(self, *, producer: str = "memory", disk: Disk | None = None) -> None:
        self.producer = producer
        self.disk = Disk() if disk is None else disk
        self.epoch = self.disk.epoch
        self._open = OpenLeases()
        self._salt = secrets.token_bytes(4)
        self._due_position = (0, 0)
        self._damaged: set[int] = set()  # met by a read that has no time at hand

    def __repr__(self) -> str:
        return f"<MemorySpool {self.producer}: {self._open.held} leased in {len(self._open)} leases>"

    def reopened(self) -> "MemorySpool":
        """The next incarnation after a crash; this one is not used any more."""
        return MemorySpool(producer=self.producer, disk=self.disk)

    @property
    def next_id(self) -> int:
        return self.disk.next_id

    # --- contents --------------------------------------------------------------------------------------

    def put_content(self, content: Content, now: float) -> Pending[None]:
        known = self.disk.contents.setdefault(content.campaign, content)
        if known != content:
            return _failed(SpoolError(f"campaign {content.campaign} is known with another content"))
        self.disk.sealers.setdefault(content.campaign, RowSealer(secrets.token_bytes(32)))
        return Pending.ready(None)

    def content(self, campaign: int) -> Content | None:
        return self.disk.contents.get(campaign)

    def campaigns(self) -> list[int]:
        return sorted(self.disk.contents)

    def knows(self, chunk_id: str) -> bool:
        return chunk_id in self.disk.chunks

    def forget_chunks(self, first: str, before: str, limit: int) -> Pending[int]:
        chosen = sorted(chunk for chunk in self.disk.chunks if first <= chunk < before)[:limit]
        for chunk in chosen:
            del self.disk.chunks[chunk]
        return Pending.ready(len(chosen))

    def chunk_ids(self) -> list[str]:
        return sorted(self.disk.chunks)

    # --- acceptance ------------------------------------------------------------------------------------

    def accept(self, chunk: Chunk, now: float) -> Pending[Acceptance]:
        codec.chunk_key(chunk)
        disk, campaign = self.disk, chunk.campaign
        known = disk.chunks.get(chunk.id)
        if known is not None:
            return Pending.ready(known)
        sealer = self._sealer(campaign)
        first, count = disk.next_id, len(chunk.entries)
        records, domains = codec.encode_chunk(chunk, first, now, sealer, self._salt)
        disk.next_id += count
        disk.records.update((int.from_bytes(key, "big"), record) for key, record in records)
        disk.chunks[chunk.id] = Acceptance(chunk.id, campaign, first, count, known=True)
        self._counts(campaign).add("accepted", count)
        self._write_events(now, [ChunkAccepted(campaign, chunk.id, count)])
        return Pending.ready(Acceptance(chunk.id, campaign, first, count, domains))

    def _sealer(self, campaign: int) -> RowSealer:
        sealer = self.disk.sealers.get(campaign)
        if sealer is None:
            raise SpoolError(f"campaign {campaign} has no content; submit it before its chunks")
        return sealer

    # --- leases ----------------------------------------------------------------------------------------

    def lease(self, orders: Sequence[Sequence[int]], now: float) -> Pending[list[list[Lease]]]:
        claim = self._open.claim(orders, self.disk.next_lease)
        made: list[list[Lease]] = []
        for ids in claim.orders:
            plain: list[Envelope] = []
            groups: list[list[Envelope]] = []
            for spool_id in ids:
                envelope = self._open_envelope(spool_id, now)
                if envelope is not None and codec.record_is_suspect(self.disk.records[spool_id]):
                    groups.append([envelope])
                elif envelope is not None:
                    plain.append(envelope)
            if plain:
                groups.append(plain)
            made.append([self._write_lease(group) for group in groups])
        self._open.grant(claim, made)
        return Pending.ready(made)

    def _open_envelope(self, spool_id: int, now: float) -> Envelope | None:
        record = self.disk.records.get(spool_id)
        if record is None or (codec.is_intact(record) and codec.record_is_parked(record)):
            return None
        try:
            if not codec.is_intact(record):
                raise codec.DamagedRecord("its record is damaged")
            sealer = self._sealer(codec.record_campaign(record))
            return codec.decode_envelope(spool_id, record, sealer, heavy_octets=HEAVY_OCTETS)
        except (KeyringError, SpoolError, msgspec.DecodeError) as error:
            self._park(spool_id, str(error), now)
            return None

    def row(self, spool_id: int) -> tuple[str, ...] | None:
        record = self.disk.records.get(spool_id)
        if record is None or not codec.is_intact(record):
            return None
        try:
            return codec.decode_envelope(spool_id, record, self._sealer(codec.record_campaign(record))).row
        except (KeyringError, SpoolError, msgspec.DecodeError):
            return None

    def _write_lease(self, group: list[Envelope]) -> Lease:
        lease = Lease(self.disk.next_lease, tuple(group))
        self.disk.next_lease += 1
        self.disk.leases[lease.id] = {envelope.spool_id: envelope.attempt for envelope in group}
        return lease

    def open_leases(self) -> int:
        return len(self._open)

    # --- settling --------------------------------------------------------------------------------------

    def settle(self, batches: Sequence[tuple[int, Sequence[Disposition]]], at: float) -> Pending[Settled]:
        taken = self._open.take(batches)
        for lease in taken.finished:
            del self.disk.leases[lease]
        for lease, returned in taken.returned.items():
            if lease in self.disk.leases:
                for spool_id in returned:
                    del self.disk.leases[lease][spool_id]
        return Pending.ready(self._apply(taken.dispositions, at))

    def _apply(
        self, dispositions: Iterable[Disposition], at: float, crashes_max: int = CRASHES_MAX
    ) -> Settled:
        written: list[Event] = []
        requeued: list[QueueEntry] = []
        dues: list[int] = []
        applied = 0
        for disposition in dispositions:
            spool_id = disposition.spool_id
            record = self.disk.records.get(spool_id)
            if record is None:
                continue
            if not codec.is_intact(record):
                record = codec.rebuilt(self._campaign_of(spool_id), record)
                disposition = parked(spool_id, 0, "its record is damaged")  # noqa: PLW2901
            step = codec.settle_record(record, disposition, crashes_max)
            if step is None:
                continue
            applied += 1
            if step.old_due and (step.old_due, spool_id) in self.disk.due:
                self.disk.due.remove((step.old_due, spool_id))
            if step.record is None:
                del self.disk.records[spool_id]
            else:
                self.disk.records[spool_id] = step.record
            if step.new_due and step.record is not None:
                due = max(step.new_due, self._due_position[0] + 1)
                self.disk.records[spool_id] = codec.with_due(step.record, due)
                insort(self.disk.due, (due, spool_id))
                dues.append(due)
            if step.event is not None:
                written.append(step.event)
            self._count(step)
            if step.requeue:
                requeued.append(QueueEntry(spool_id, step.campaign, step.domain))
        self._write_events(at, written)
        return Settled(applied, tuple(requeued), min(dues) / 1000 if dues else None)

    def requeue(self, ids: Sequence[int]) -> Pending[Settled]:
        requeued: list[QueueEntry] = []
        for spool_id in self._open.free(ids):
            record = self.disk.records.get(spool_id)
            step = codec.requeue_record(record) if record is not None and codec.is_intact(record) else None
            if step is None or step.record is None:
                continue
            if step.old_due and (step.old_due, spool_id) in self.disk.due:
                self.disk.due.remove((step.old_due, spool_id))
            self.disk.records[spool_id] = step.record
            self._count(step)
            requeued.append(QueueEntry(spool_id, step.campaign, step.domain))
        return Pending.ready(Settled(len(requeued), tuple(requeued)))

    def conclude(self, dispositions: Sequence[Disposition], at: float) -> Pending[Settled]:
        written: list[Event] = []
        for disposition in dispositions:
            record = self.disk.records.get(disposition.spool_id)
            if record is None or not codec.is_intact(record):
                continue
            step = codec.conclude_record(record, disposition)
            if step is not None and step.event is not None:
                del self.disk.records[disposition.spool_id]
                self._count(step)
                written.append(step.event)
        self._write_events(at, written)
        return Pending.ready(Settled(len(written), ()))

    def _count(self, step: codec.Step) -> None:
        for state in step.states:
            self._counts(step.campaign).add(state, 1)
        if step.left:
            self._counts(step.campaign).add(step.left, -1)

    def _park(self, spool_id: int, why: str, at: float) -> None:
        record, campaign = self.disk.records.get(spool_id), self._campaign_of(spool_id)
        if record is None:
            return
        if not codec.is_intact(record) or codec.record_campaign(record) != campaign:
            record = self.disk.records[spool_id] = codec.rebuilt(campaign, record)
        self._apply([parked(spool_id, codec.record_attempt(record), why)], at)

    def _campaign_of(self, spool_id: int) -> int:
        for chunk in self.disk.chunks.values():
            if chunk.first_id <= spool_id < chunk.first_id + chunk.count:
                return chunk.campaign
        return 0

    def _counts(self, campaign: int) -> StateCounts:
        return self.disk.counts.setdefault(campaign, StateCounts())

    def _write_events(self, at: float, batch: list[Event]) -> None:
        if batch:
            sequence = self.disk.next_event
            self.disk.next_event += len(batch)
            encoded = EventBatch(self.producer, self.epoch, sequence, at, self.producer, tuple(batch))
            self.disk.events.append((sequence, encode_events(encoded)))

    # --- opening ---------------------------------------------------------------------------------------

    def recover(
        self, now: float, policy: AmbiguousPolicy, retry_at: float, spread_seconds: float = 0.0
    ) -> Pending[Recovery]:
        self._open.clear()
        before = self._held()
        orphans: list[tuple[int, int, bool]] = []
        for items in self.disk.leases.values():
            for spool_id, attempt in items.items():
                record = self.disk.records.get(spool_id)
                if record is None:
                    continue
                if codec.is_intact(record):
                    if codec.record_attempt(record) != attempt or codec.record_is_parked(record):
                        continue
                    self.disk.records[spool_id] = codec.mark_suspect(record)
                orphans.append((spool_id, attempt, len(items) == 1))
        self.disk.leases.clear()
        self._apply(judge_orphans(orphans, policy, retry_at, spread_seconds), now, PROCESS_CRASHES_MAX)
        held, quarantined = self._held()
        return Pending.ready(Recovery(len(orphans), held - before[0], quarantined - before[1]))

    def _held(self) -> tuple[int, int]:
        counts = self.disk.counts.values()
        return sum(item.ambiguous for item in counts), sum(item.quarantined for item in counts)

    # --- reads -----------------------------------------------------------------------------------------

    def queued(self, after: int = 0, limit: int = 2**63) -> list[QueueEntry]:
        found: list[QueueEntry] = []
        for spool_id, record in self.disk.records.items():
            if len(found) == limit:
                break
            if not codec.is_intact(record):
                self._damaged.add(spool_id)
            elif spool_id > after and (codec.record_is_queued(record) or self._was_given(spool_id, record)):
                found.append(QueueEntry(spool_id, codec.record_campaign(record), codec.record_domain(record)))
        return found

    def _was_given(self, spool_id: int, record: bytes) -> bool:
        due_key = (codec.record_due(record), spool_id)
        return due_key <= self._due_position and not codec.record_is_parked(record)

    def take_due(self, now: float, limit: int) -> list[QueueEntry]:
        taken: list[QueueEntry] = []
        for due, spool_id in self.disk.due[bisect_right(self.disk.due, self._due_position) :]:
            if due > int(now * 1000) or len(taken) == limit:
                break
            self._due_position = (due, spool_id)
            record = self.disk.records.get(spool_id)
            if record is not None and not codec.is_intact(record):
                self._damaged.add(spool_id)
            elif record is not None and not codec.record_is_parked(record):
                taken.append(QueueEntry(spool_id, codec.record_campaign(record), codec.record_domain(record)))
        while self._damaged:
            self._park(self._damaged.pop(), "its record is damaged", now)
        return taken

    def next_due(self) -> float | None:
        at = bisect_right(self.disk.due, self._due_position)
        return self.disk.due[at][0] / 1000 if at < len(self.disk.due) else None

    def rewind(self, now: float, seconds: float) -> Pending[int]:
        given = self._due_position
        self._due_position = min(given, (max(int(now * 1000), 0), 0))
        waiting = [item for item in self.disk.due if item > given]
        for due, spool_id in waiting:
            self.disk.due.remove((due, spool_id))
            moved = max(due - int(seconds * 1000), self._due_position[0] + 1)
            self.disk.records[spool_id] = codec.with_due(self.disk.records[spool_id], moved)
            insort(self.disk.due, (moved, spool_id))
        return Pending.ready(len(waiting))

    def late(self, latest: float, limit: int) -> list[int]:
        late = [spool_id for due, spool_id in reversed(self.disk.due) if due > int(latest * 1000)]
        return late[:limit]

    def events(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        return list(islice((batch for batch in self.disk.events if batch[0] > after), limit))

    def note(self, events: Sequence[Event], at: float) -> Pending[None]:
        self._write_events(at, list(events))
        return Pending.ready(None)

    def trim_events(self, before: int) -> Pending[None]:
        starts = [sequence for sequence, _ in self.disk.events]
        ends = [following for _, following in pairwise([*starts, self.disk.next_event])]
        self.disk.events = [batch for batch, end in zip(self.disk.events, ends, strict=True) if end > before]
        return Pending.ready(None)

    def counts(self, campaign: int) -> StateCounts:
        return msgspec.structs.replace(self.disk.counts.get(campaign, StateCounts()))

    def listing(self, after: int, limit: int) -> list[Listed]:
        later = ((key, record) for key, record in self.disk.records.items() if key > after)
        return [codec.listed(key, record) for key, record in islice(later, limit)]


def _failed(error: Exception) -> Pending[None]:
    pending: Pending[None] = Pending()
    pending.fail(error)
    return pending
