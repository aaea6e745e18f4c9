"""What the events still tell of one envelope: read from a data folder, whether an engine runs on it or not.

Events are first in the spool and soon after on the bus, where they stay until all who read them have done so
or they are too old; of a long stream only the last part is looked at. Touches: the folder's stores, read-only
and without a lock.
"""

from pathlib import Path
from typing import Any

import msgspec

from engine.bus.local_members import hold, release
from engine.bus.local_streams import entries, read_tail
from engine.model.event import AttemptEvent, EventBatch, decode_events
from engine.mta.spool.reader import SpoolReader
from engine.storage import StorageError

BATCHES_MAX = 50_000  # of a stream's end: what some 1,000,000 messages leave; a second or two
EVENTS_MAX = 100
STAMP_OCTETS = 8  # before each payload on the bus


def events_of(folder: Path, spool: SpoolReader, spool_id: int) -> list[dict[str, Any]]:
    """What is known of an envelope, oldest first: at most the last EVENTS_MAX events, each once."""
    told = msgspec.msgpack.encode(spool_id)  # most batches do not hold these octets, and are not decoded
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for payload in [*_on_bus(folder, told), *_in_spool(spool, told)]:
        batch = decode_events(payload)
        for place, event in enumerate(batch.events):
            if isinstance(event, AttemptEvent) and event.spool_id == spool_id:
                found[batch.epoch, batch.sequence + place] = _facts(batch, event)
    return [found[key] for key in sorted(found)][-EVENTS_MAX:]


def _on_bus(folder: Path, told: bytes) -> list[bytes]:
    found: list[bytes] = []
    bus = folder / "bus"
    names = sorted(path.name for path in bus.iterdir()) if bus.is_dir() else []
    for name in names:
        if name.startswith(("cli-", ".")):
            continue
        member = hold(bus / name)
        try:
            with member.read() as transaction:
                stream = f"events.{name}"
                last, _ = read_tail(member, transaction, stream)
                for _, value in entries(member, transaction, stream, max(0, last - BATCHES_MAX)):
                    if told in value:
                        found.append(bytes(value[STAMP_OCTETS:]))
        except StorageError:  # a member that is just being made or removed
            continue
        finally:
            release(member)
    return found


def _in_spool(spool: SpoolReader, told: bytes) -> list[bytes]:
    return [payload for _, payload in spool.events(0, BATCHES_MAX) if told in payload]


def _facts(batch: EventBatch, event: AttemptEvent) -> dict[str, Any]:
    names = ("attempt", "verb", "reply", "reason", "rule", "site", "source", "mx_host", "tls", "seconds")
    return {"at": batch.at, "event": type(event).__name__.lower()} | {
        name: getattr(event, name) for name in names
    }
