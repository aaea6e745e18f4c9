"""The octets of an envelope record, and the plain function that settles one.

A record is a fixed head, the recipient's domain (plain: throttles and reports need it), and the
sealed rest (local part and merge row). Only the head changes over an envelope's life, so a retry
rewrites it in place and never needs the key; what must not change in it is bound to the seal, so
that damage shows when the record is opened. A record so damaged that its head cannot be read is not
`is_intact`, and every reader asks that first. `settle_record` is the whole state machine of an
envelope: it takes a record and a disposition and returns what is to be written.
"""

import struct
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from engine.keyring import RowSealer
from engine.model import event as events
from engine.model.disposition import ASSUMED, FINAL, DelayReason, Disposition, Outcome
from engine.model.envelope import CHUNK_ENTRIES_MAX, Chunk, Envelope
from engine.mta.spool.api import CRASHES_MAX, STATE_OF_OUTCOME, Listed, SpoolError

# campaign, subscriber, accepted s, expires s, due ms (0 = none), attempt, crashes, flags, domain octets, salt
HEAD: Final = struct.Struct(">IQIIQBBBB4s")
DUE_KEY: Final = struct.Struct(">QQ")  # due ms, spool id
HEAD_SIZE: Final = HEAD.size
FIXED_SIZE: Final = 20  # campaign to expires: bound to the seal together with the domain
ATTEMPT_MAX: Final = 255
CHUNK_ID_OCTETS_MAX: Final = 511  # LMDB's largest key

WAS_AMBIGUOUS: Final = 1
HELD: Final = 2
QUARANTINED: Final = 4
SUSPECT: Final = 8  # was in an orphaned lease: leased alone from now on

_encode = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(tuple[str, tuple[str, ...]]).decode

EVENT_OF_OUTCOME: Final[dict[Outcome, Callable[..., events.EnvelopeEvent]]] = {
    Outcome.DELIVERED: events.Delivered,
    Outcome.DEFERRED: events.Deferred,
    Outcome.BOUNCED: events.Bounced,
    Outcome.EXPIRED: events.Expired,
    Outcome.SUPPRESSED: events.Suppressed,
    Outcome.CANCELLED: events.Cancelled,
    Outcome.RENDER_FAILED: events.RenderFailed,
    Outcome.AMBIGUOUS: events.Ambiguous,
    Outcome.QUARANTINED: events.Quarantined,
}


def id_key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def due_key(due_ms: int, spool_id: int) -> bytes:
    return DUE_KEY.pack(due_ms, spool_id)


class DamagedRecord(SpoolError):
    """A record that was not written like this, or whose seal does not fit."""


def encode_chunk(
    chunk: Chunk, first_id: int, now: float, sealer: RowSealer, salt: bytes
) -> tuple[list[tuple[bytes, bytes]], tuple[str, ...]]:
    """(key, record) and the domain of each envelope. Raises SpoolError when the chunk cannot be stored."""
    records: list[tuple[bytes, bytes]] = []
    domains: list[str] = []
    try:
        for spool_id, entry in enumerate(chunk.entries, first_id):
            record, domain = encode_record(
                spool_id,
                chunk.campaign,
                entry.subscriber,
                entry.recipient,
                entry.row,
                now,
                chunk.expires_at,
                sealer,
                salt,
            )
            records.append((id_key(spool_id), record))
            domains.append(domain)
    except (struct.error, ValueError, OverflowError) as error:
        place = len(records)
        raise SpoolError(f"chunk {chunk.id}: envelope {place} cannot be stored: {error}") from error
    return records, tuple(domains)


def chunk_key(chunk: Chunk) -> bytes:
    """The chunk's id as a key. Raises SpoolError for a chunk that no spool takes."""
    key = chunk.id.encode()
    if not 0 < len(key) <= CHUNK_ID_OCTETS_MAX:
        raise SpoolError(f"a chunk id of {len(key)} octets is not from 1 to {CHUNK_ID_OCTETS_MAX} long")
    if len(chunk.entries) > CHUNK_ENTRIES_MAX:
        raise SpoolError(
            f"chunk {chunk.id} has {len(chunk.entries)} envelopes, more than {CHUNK_ENTRIES_MAX}"
        )
    return key


def encode_record(
    spool_id: int,
    campaign: int,
    subscriber: int,
    recipient: str,
    row: tuple[str, ...],
    accepted_at: float,
    expires_at: float,
    sealer: RowSealer,
    salt: bytes,
) -> tuple[bytes, str]:
    """A fresh record and the recipient's domain. Raises struct.error, ValueError or OverflowError."""
    local, _, domain = recipient.rpartition("@")
    name = domain.encode("ascii")
    if not local or not name:
        raise ValueError("its recipient is no address")
    head = HEAD.pack(campaign, subscriber, int(accepted_at), int(expires_at), 0, 0, 0, 0, len(name), salt)
    sealed = sealer.seal(salt + spool_id.to_bytes(8, "big"), _encode((local, row)), head[:FIXED_SIZE] + name)
    return head + name + sealed, domain


def decode_envelope(
    spool_id: int, record: bytes, sealer: RowSealer, *, heavy_octets: int | None = None
) -> Envelope:
    """Open a record. Raises DamagedRecord, or KeyringError when the seal does not fit.

    Of one that is larger than `heavy_octets` the row is left out, and `Envelope.heavy_octets` says so.
    """
    if not is_intact(record):
        raise DamagedRecord("the record's head is damaged")
    campaign, subscriber, accepted, expires, _, attempt, crashes, flags, length, salt = HEAD.unpack_from(
        record
    )
    end = HEAD_SIZE + length
    name = record[HEAD_SIZE:end]
    sealed = sealer.open(salt + spool_id.to_bytes(8, "big"), record[end:], record[:FIXED_SIZE] + name)
    local, row = _decode_row(sealed)
    domain = name.decode("ascii")
    is_heavy = heavy_octets is not None and len(record) > heavy_octets
    return Envelope(
        spool_id,
        campaign,
        subscriber,
        f"{local}@{domain}",
        domain,
        () if is_heavy else row,
        accepted,
        expires,
        attempt,
        crashes,
        bool(flags & WAS_AMBIGUOUS),
        len(record) if is_heavy else 0,
    )


def is_intact(record: bytes) -> bool:
    """Whether head and domain can be read at all."""
    size = len(record)
    if size < HEAD_SIZE:
        return False
    end = HEAD_SIZE + record[HEAD_SIZE - 5]
    return end <= size and record[HEAD_SIZE:end].isascii()


def rebuilt(campaign: int, record: bytes) -> bytes:
    """A readable head before the octets of a damaged record, so that it can be counted and parked."""
    return HEAD.pack(campaign, 0, 0, 0, 0, 0, 0, 0, 0, b"\0\0\0\0") + record


def record_campaign(record: bytes) -> int:
    return int.from_bytes(record[:4], "big")


def record_domain(record: bytes) -> str:
    return record[HEAD_SIZE : HEAD_SIZE + record[HEAD_SIZE - 5]].decode("ascii")


def record_is_suspect(record: bytes) -> bool:
    """Leased alone: an actor died with it, or it was in an orphaned lease."""
    return bool(record[HEAD_SIZE - 7] or record[HEAD_SIZE - 6] & SUSPECT)


def record_is_parked(record: bytes) -> bool:
    """Held or quarantined: nobody gets it."""
    return bool(record[HEAD_SIZE - 6] & (HELD | QUARANTINED))


def record_is_queued(record: bytes) -> bool:
    """Neither deferred, nor held, nor quarantined."""
    return not record[HEAD_SIZE - 6] & (HELD | QUARANTINED) and record[20:28] == b"\0\0\0\0\0\0\0\0"


def record_due(record: bytes) -> int:
    """Milliseconds; 0 = not deferred."""
    return int.from_bytes(record[20:28], "big")


def record_attempt(record: bytes) -> int:
    return record[HEAD_SIZE - 8]


def listed(spool_id: int, record: bytes) -> Listed:
    """The line for people; a damaged record shows as one that is not parked yet."""
    if not is_intact(record):
        record = rebuilt(0, record)
    campaign, subscriber, _, expires, due, attempt, crashes, flags, _, _ = HEAD.unpack_from(record)
    state = _parked_state(flags) or ("deferred" if due else "queued")
    return Listed(
        spool_id=spool_id,
        campaign=campaign,
        subscriber=subscriber,
        domain=record_domain(record),
        state=state,
        attempt=attempt,
        crashes=crashes,
        due=due / 1000,
        expires_at=expires,
        was_ambiguous=bool(flags & WAS_AMBIGUOUS),
    )


class Step(Struct, frozen=True, gc=False):
    """What one disposition does to one record.

    `record` None = the envelope is gone. `old_due`/`new_due` are due times in ms (0 = none) whose
    keys are dropped and written. `states` are the counters that grow by one, `left` is one that shrinks.
    """

    campaign: int
    domain: str
    record: bytes | None
    old_due: int
    new_due: int
    states: tuple[str, ...]
    event: events.EnvelopeEvent | None
    requeue: bool
    left: str = ""


def settle_record(record: bytes, disposition: Disposition, crashes_max: int = CRASHES_MAX) -> Step | None:
    """The next step of an envelope, or None when the disposition is a repeat (attempt does not match)."""
    campaign, subscriber, accepted, expires, due, attempt, crashes, flags, length, salt = HEAD.unpack_from(
        record
    )
    if attempt != disposition.attempt or flags & (HELD | QUARANTINED):
        return None
    outcome = disposition.outcome
    domain = record[HEAD_SIZE : HEAD_SIZE + length].decode("ascii")
    if outcome in FINAL:
        final = _event(outcome, campaign, subscriber, domain, disposition)
        ends: tuple[str, ...] = (STATE_OF_OUTCOME[outcome],)
        if disposition.rule == ASSUMED and not flags & WAS_AMBIGUOUS:
            ends = ("was_ambiguous", *ends)
        return Step(campaign, domain, None, due, 0, ends, final, False)

    states: tuple[str, ...] = ()
    new_due = 0
    requeue = False
    if disposition.crashed:
        crashes += 1
    if crashes >= crashes_max and disposition.crashed:
        outcome = Outcome.QUARANTINED
    if disposition.outcome is Outcome.AMBIGUOUS and not flags & WAS_AMBIGUOUS:
        flags |= WAS_AMBIGUOUS
        states = ("was_ambiguous",)
    match outcome:
        case Outcome.QUARANTINED:
            flags |= QUARANTINED
            states = (*states, "quarantined")
        case Outcome.DEFERRED:
            attempt = min(attempt + 1, ATTEMPT_MAX)
            new_due = _milliseconds(disposition.due)
        case Outcome.AMBIGUOUS:
            attempt = min(attempt + 1, ATTEMPT_MAX)
            if disposition.reason is DelayReason.AMBIGUOUS_HELD:
                flags |= HELD
                states = (*states, "ambiguous")
            else:
                new_due = _milliseconds(disposition.due)
        case Outcome.RETURNED:
            requeue = True
        case _:
            raise AssertionError(f"no step for {outcome}")
    head = HEAD.pack(
        campaign, subscriber, accepted, expires, new_due, attempt, min(crashes, 255), flags, length, salt
    )
    event = (
        None if outcome is Outcome.RETURNED else _event(outcome, campaign, subscriber, domain, disposition)
    )
    return Step(campaign, domain, head + record[HEAD_SIZE:], due, new_due, states, event, requeue)


def requeue_record(record: bytes) -> Step | None:
    """Queued at once, whatever it waited for; None when it waits for nothing.

    One that was quarantined begins without crashes, but is leased alone: it may kill again. The attempt that
    it was quarantined in counts, since a lease on disk may still name it.
    """
    campaign, subscriber, accepted, expires, due, attempt, crashes, flags, length, salt = HEAD.unpack_from(
        record
    )
    left = _parked_state(flags)
    if not left and not due:
        return None
    if flags & QUARANTINED:
        attempt, crashes, flags = min(attempt + 1, ATTEMPT_MAX), 0, flags | SUSPECT
    flags &= ~(HELD | QUARANTINED)
    head = HEAD.pack(campaign, subscriber, accepted, expires, 0, attempt, crashes, flags, length, salt)
    domain = record[HEAD_SIZE : HEAD_SIZE + length].decode("ascii")
    return Step(campaign, domain, head + record[HEAD_SIZE:], due, 0, (), None, True, left)


def conclude_record(record: bytes, disposition: Disposition) -> Step | None:
    """The end of a parked envelope; None for one that is not, or a repeat (attempt does not match)."""
    assert disposition.outcome in FINAL, "a parked envelope ends, or it is queued again"
    campaign, subscriber, _, _, due, attempt, _, flags, length, _ = HEAD.unpack_from(record)
    left = _parked_state(flags)
    if not left or attempt != disposition.attempt:
        return None
    domain = record[HEAD_SIZE : HEAD_SIZE + length].decode("ascii")
    final = _event(disposition.outcome, campaign, subscriber, domain, disposition)
    return Step(campaign, domain, None, due, 0, (STATE_OF_OUTCOME[disposition.outcome],), final, False, left)


def _parked_state(flags: int) -> str:
    if flags & QUARANTINED:
        return "quarantined"
    return "ambiguous" if flags & HELD else ""


def with_due(record: bytes, due_ms: int) -> bytes:
    """The record with another due time."""
    return record[:20] + due_ms.to_bytes(8, "big") + record[28:]


def mark_suspect(record: bytes) -> bytes:
    """The record with its SUSPECT flag set."""
    at = HEAD_SIZE - 6
    return record[:at] + bytes([record[at] | SUSPECT]) + record[at + 1 :]


def _milliseconds(seconds: float) -> int:
    assert seconds > 0, "a deferred envelope needs a due time"
    return int(seconds * 1000)


def _event(
    outcome: Outcome, campaign: int, subscriber: int, domain: str, disposition: Disposition
) -> events.EnvelopeEvent:
    return EVENT_OF_OUTCOME[outcome](
        campaign,
        subscriber,
        disposition.spool_id,
        domain,
        disposition.attempt,
        disposition.verb.value,
        disposition.reply,
        disposition.reason.value,
        disposition.rule,
        disposition.site,
        disposition.source,
        disposition.mx_host,
        disposition.tls,
        round(disposition.seconds, 4),
        disposition.category,
    )
