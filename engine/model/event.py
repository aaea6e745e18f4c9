"""Facts on their way to the bus: one tagged record each, in batches with a gap-free sequence.

A batch carries what its events share: producer, the epoch of its store (random at birth), the
sequence number of its first event, the time and the node. Records are arrays: new fields are added
at the end, fields are never reused, and old readers skip what they do not know.
"""

import msgspec
from msgspec import Struct


class ChunkAccepted(Struct, frozen=True, array_like=True, tag="chunk_accepted"):
    """One event for a whole chunk, not one per envelope."""

    campaign: int
    chunk: str
    count: int


class ChunkRefused(Struct, frozen=True, array_like=True, tag="chunk_refused"):
    """A submission that no repeat would make fit: nothing of it was taken, nobody else holds it.

    What did not even decode has no campaign and no chunk: `writer` and `sequence` say which entry of
    `chunks.<node>` it was.
    """

    campaign: int
    chunk: str
    count: int
    reason: str
    writer: str
    sequence: int


class AttemptEvent(Struct, frozen=True, array_like=True, gc=False):
    """What became of one envelope at the end of one attempt."""

    campaign: int
    subscriber: int
    spool_id: int
    domain: str
    attempt: int
    verb: str
    reply: str
    reason: str
    rule: str
    site: str
    source: str
    mx_host: str
    tls: str
    seconds: float
    category: str = ""  # of a reply that was not 2xx, in the words of `model.category`


class Delivered(AttemptEvent, frozen=True, array_like=True, gc=False, tag="delivered"):
    pass


class Deferred(AttemptEvent, frozen=True, array_like=True, gc=False, tag="deferred"):
    pass


class Bounced(AttemptEvent, frozen=True, array_like=True, gc=False, tag="bounced"):
    pass


class Expired(AttemptEvent, frozen=True, array_like=True, gc=False, tag="expired"):
    pass


class Suppressed(AttemptEvent, frozen=True, array_like=True, gc=False, tag="suppressed"):
    pass


class Cancelled(AttemptEvent, frozen=True, array_like=True, gc=False, tag="cancelled"):
    pass


class RenderFailed(AttemptEvent, frozen=True, array_like=True, gc=False, tag="render_failed"):
    pass


class Ambiguous(AttemptEvent, frozen=True, array_like=True, gc=False, tag="ambiguous"):
    pass


class Quarantined(AttemptEvent, frozen=True, array_like=True, gc=False, tag="quarantined"):
    pass


class Adapted(Struct, frozen=True, array_like=True, tag="adapted"):
    """What may be done over one path, or for whom, has changed: by the control loop or an operator.

    `knob` is what was moved ("connections", "rate", "rest", "hold", "breaker", ...), with its unit in the
    reason, not in the number; None = no limit. `rule` is the reply rule behind it, `author` the operator.
    """

    path: str
    provider: str
    knob: str
    before: float | None
    after: float | None
    reason: str
    rule: str = ""
    author: str = ""
    campaign: int = 0


EnvelopeEvent = (
    Delivered | Deferred | Bounced | Expired | Suppressed | Cancelled | RenderFailed | Ambiguous | Quarantined
)
Event = ChunkAccepted | ChunkRefused | Adapted | EnvelopeEvent


class EventBatch(Struct, frozen=True, array_like=True):
    """Events `sequence`, `sequence` + 1, ... of (producer, epoch)."""

    producer: str
    epoch: str
    sequence: int
    at: float  # wall seconds
    node: str
    events: tuple[Event, ...]

    @property
    def next_sequence(self) -> int:
        return self.sequence + len(self.events)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(EventBatch)


def encode_events(batch: EventBatch) -> bytes:
    return _encoder.encode(batch)


def decode_events(data: bytes) -> EventBatch:
    """Raises msgspec.ValidationError or DecodeError for octets that are no batch."""
    return _decoder.decode(data)
