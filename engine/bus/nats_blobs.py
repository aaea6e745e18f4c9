"""Blobs over NATS: parts of half a megabyte under their SHA-256, and a manifest that is written last.

    emass.b.<digest>.<number>     a part, from 0
    emass.b.<digest>.manifest     how many octets there are

A blob without its manifest is not there. Two members that put the same octets write the same parts. What is
read is checked, and what is damaged is written again by who puts it. Nobody but `drop` removes one. On
trouble: see nats_jetstream; a blob that is damaged or incomplete is not used, with a line in the log.
"""

import hashlib
import struct

import structlog
import trio

from engine.bus.api import BLOB_OCTETS_MAX, BusFull, check_digest
from engine.bus.nats_jetstream import JetStream, Refused, StreamSpec
from engine.bus.nats_names import BLOB_SUBJECTS, BLOBS, blob_subject

PART_OCTETS = 512 * 1024
PARTS_AT_ONCE = 4
MANIFEST = "manifest"
SPEC = StreamSpec(BLOBS, BLOB_SUBJECTS, one_per_subject=True)

_MANIFEST = struct.Struct(">Q")

log = structlog.get_logger("bus")


class Blobs:
    """The blobs of one bus."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream

    async def put(self, data: bytes) -> str:
        """As `Bus.put_blob`. Raises BusFull when the server has no room."""
        if len(data) > BLOB_OCTETS_MAX:
            raise ValueError(f"a blob has {len(data)} octets, more than {BLOB_OCTETS_MAX}")
        digest = await trio.to_thread.run_sync(_digest, data)
        if await self.read(digest) is not None:
            return digest
        try:
            for at in range(0, len(data), PART_OCTETS):
                part = data[at : at + PART_OCTETS]
                await self._jetstream.publish(SPEC, blob_subject(digest, str(at // PART_OCTETS)), part)
            await self._jetstream.publish(SPEC, blob_subject(digest, MANIFEST), _MANIFEST.pack(len(data)))
        except Refused as refused:
            if refused.full:
                raise BusFull(f"a blob of {len(data)} octets: {refused}") from refused
            raise
        return digest

    async def read(self, digest: str) -> bytes | None:
        """As `Bus.read_blob`."""
        manifest = await self._jetstream.last(SPEC, blob_subject(check_digest(digest), MANIFEST))
        if manifest is None:
            return None
        octets = _MANIFEST.unpack(manifest.data)[0] if len(manifest.data) == _MANIFEST.size else 0
        count = -(-min(octets, BLOB_OCTETS_MAX) // PART_OCTETS)
        parts: list[bytes] = [b""] * count

        async def fetch(numbers: range) -> None:
            for number in numbers:
                message = await self._jetstream.last(SPEC, blob_subject(digest, str(number)))
                parts[number] = message.data if message else b""

        async with trio.open_nursery() as nursery:
            for first in range(PARTS_AT_ONCE):
                nursery.start_soon(fetch, range(first, count, PARTS_AT_ONCE))
        data = b"".join(parts)
        if await trio.to_thread.run_sync(_digest, data) != digest:
            log.error("a blob is damaged or incomplete and is not used", digest=digest)
            return None
        return data

    async def drop(self, digest: str) -> None:
        """As `Bus.drop_blob`; who may not leaves it."""
        await self._jetstream.purge(SPEC, 0, blob_subject(check_digest(digest), "*"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
