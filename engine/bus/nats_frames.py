"""What lies in one JetStream message: a frame of a stream's entries, or a row of a table. Pure.

A frame holds the entries of one publish, as many as fit, so that a batch costs one message and one answer.
Its head says which of the writer's sequences they are; a random id tells whether a frame that lies there is
the one whose answer was lost.

    frame:  version, id (8), first sequence (8), count (4), then the lengths (4 each), then the payloads
    row:    version, id (8), kind (put or deleted), length of the member's name, the name, the value

On trouble: ValueError for octets that are neither.
"""

import secrets
import struct
from collections.abc import Iterator, Sequence

from msgspec import Struct

ID_OCTETS = 8
FRAME_OCTETS = 900 * 1024  # below nats-server's default max_payload of 1 MB, with room for head and headers
ENTRY_OCTETS = 4
VERSION = 1

_FRAME = struct.Struct(">B8sQI")
_ROW = struct.Struct(">B8s?B")


class Frame(Struct, frozen=True):
    """Consecutive entries of one writer; `first` is the sequence of the first of them."""

    id: bytes
    first: int
    payloads: tuple[bytes, ...]

    @property
    def last(self) -> int:
        return self.first + len(self.payloads) - 1

    def __repr__(self) -> str:
        return f"<Frame {self.first}..{self.last}>"


class Row(Struct, frozen=True):
    """A key's value and who wrote it; None when it was deleted."""

    id: bytes
    member: str
    value: bytes | None


def new_id() -> bytes:
    return secrets.token_bytes(ID_OCTETS)


def pack_frame(frame: Frame) -> bytes:
    lengths = struct.pack(f">{len(frame.payloads)}I", *map(len, frame.payloads))
    return b"".join(
        (_FRAME.pack(VERSION, frame.id, frame.first, len(frame.payloads)), lengths, *frame.payloads)
    )


def unpack_frame(octets: bytes) -> Frame:
    try:
        version, id_, first, count = _FRAME.unpack_from(octets)
        lengths = struct.unpack_from(f">{count}I", octets, _FRAME.size)
    except struct.error as error:
        raise ValueError("a frame of a stream is cut off") from error
    at = _FRAME.size + ENTRY_OCTETS * count
    if version != VERSION or len(octets) != at + sum(lengths):
        raise ValueError("a message of a stream is no frame of version 1")
    payloads: list[bytes] = []
    for length in lengths:
        payloads.append(octets[at : at + length])
        at += length
    return Frame(id_, first, tuple(payloads))


def frame_of(octets: bytes) -> Frame | None:
    """The frame; None for octets that are none.

    A server sends its answers wherever a request says, also to the subject of a stream.
    """
    try:
        return unpack_frame(octets)
    except ValueError:
        return None


def cut(payloads: Sequence[bytes], first: int, octets_max: int = FRAME_OCTETS) -> Iterator[Frame]:
    """Frames for payloads in order, none over `octets_max` unless one payload alone is."""
    batch: list[bytes] = []
    octets = 0
    for payload in payloads:
        cost = len(payload) + ENTRY_OCTETS
        if batch and octets + cost > octets_max:
            yield Frame(new_id(), first, tuple(batch))
            first += len(batch)
            batch, octets = [], 0
        batch.append(payload)
        octets += cost
    if batch:
        yield Frame(new_id(), first, tuple(batch))


def pack_row(row: Row) -> bytes:
    member = row.member.encode()
    head = _ROW.pack(VERSION, row.id, row.value is None, len(member))
    return b"".join((head, member, row.value or b""))


def unpack_row(octets: bytes) -> Row:
    try:
        version, id_, deleted, length = _ROW.unpack_from(octets)
        member = octets[_ROW.size : _ROW.size + length].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError("a row of a table is damaged") from error
    if version != VERSION or len(octets) < _ROW.size + length:
        raise ValueError("a message of a table is no row of version 1")
    return Row(id_, member, None if deleted else octets[_ROW.size + length :])
