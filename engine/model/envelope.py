"""One recipient's part of a campaign, on its way through the engine."""

from msgspec import Struct


class ChunkEntry(Struct, frozen=True, array_like=True, gc=False):
    """One envelope inside a chunk: who, and the values for the content's `fields`."""

    subscriber: int
    recipient: str
    row: tuple[str, ...] = ()


class Chunk(Struct, frozen=True, array_like=True):
    """The unit of hand-over, acceptance and commit: a content and up to CHUNK_ENTRIES_MAX envelopes.

    `id` is stable over repeats: a chunk seen before is acknowledged without effect.
    """

    id: str
    campaign: int
    expires_at: float  # wall seconds; envelopes not delivered by then expire
    entries: tuple[ChunkEntry, ...]


CHUNK_ENTRIES_MAX = 5_000
HEAVY_OCTETS = 16 * 1024  # of a record; a lease of 64 lighter ones is 1 MB, whatever their rows
CHUNK_BYTES_MAX = 512 * 1024  # nats-server's default payload limit is 1 MB


class Envelope(Struct, frozen=True, array_like=True, gc=False):
    """An accepted envelope as a connection gets it in a lease."""

    spool_id: int
    campaign: int
    subscriber: int
    recipient: str  # local@domain, domain as A-label in lower case
    domain: str
    row: tuple[str, ...]
    accepted_at: float  # wall seconds
    expires_at: float  # wall seconds
    attempt: int = 0  # attempts that are over
    crashes: int = 0  # actors or processes that died with it in hand
    was_ambiguous: bool = False
    heavy_octets: int = 0  # of a large row that was left in the spool: `row` is empty, `Spool.row` reads it
