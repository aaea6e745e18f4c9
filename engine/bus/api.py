"""The bus's contract: how processes of e-MASS hand things to each other, durably, in order, in batches.

Two implementations keep it, by one contract test (tests/contract/bus.py): `local` for the processes of
one machine, `nats` for many machines.

| what       | promise                                                                                 |
|------------|-----------------------------------------------------------------------------------------|
| streams    | at least once, in order per (writer, stream); a consumer is a name with a durable cursor |
| tables     | the last value of a key, watchable; each key has one owner that writes it               |
| blobs      | octets under their SHA-256, kept until somebody drops them                              |
| ask/answer | one question, one answer, a deadline; nothing is kept                                    |

Two breadths. `Bus` is what both keep: every call that may cross a network is awaited. `NodeBus` is the bus
of one machine, which can also be read at once; what one node keeps for itself lives there.

Keeping. An entry goes once every consumer that ever subscribed has acknowledged it. Streams `chunks.*`
and `commands.*` are *work queues* with one consumer: what nobody acknowledged stays, whatever its age,
because it is somebody's mail. All other streams hold facts: those go at the age limit even when a
consumer lags, and stay until then when nobody ever subscribed. Over the stream's cap a publisher is
refused (`BusFull`, nothing kept) and keeps its own journal: new entries are discarded, never old ones.

On trouble: a member that dies (kill -9) leaves what was durable, readable by all; what it had not been
told is durable may or may not be there. Cancelled calls likewise. Everything is called from one loop; after
`close`, waiting calls end with trio.ClosedResourceError.
"""

import re
from collections.abc import Sequence
from typing import Protocol

import trio
from msgspec import Struct

PAYLOAD_OCTETS_MAX = 1024 * 1024  # nats-server's default max_payload
PUBLISH_OCTETS_MAX = 16 * PAYLOAD_OCTETS_MAX  # one call is one commit; more would hold up the loop
NAME_OCTETS_MAX = 120  # three names and separators fit an LMDB key (511 octets)
KEY_OCTETS_MAX = 380  # with a table's name before it, likewise
BLOB_OCTETS_MAX = 1024**3  # 10 million suppressions are 0.4 GB
RETENTION_SECONDS = 7 * 86_400.0
STREAM_OCTETS_MAX = 4 * 1024**3  # events of about ten campaigns of 1,000,000 with nobody reading them

WORK_QUEUES = ("chunks.", "commands.")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class BusFull(Exception):
    """Refused: the stream is at its cap or the disk is full. Nothing was kept; the publisher still has it."""


class NoAnswer(Exception):
    """Nobody answered in time."""


class PositionLost(Exception):
    """A watch cannot go on from that position: deletions since then are forgotten. Watch from the start."""


class Delivery(Struct, frozen=True):
    """One entry of a stream. `sequence` counts the writer's entries of that stream, from 1, without gaps."""

    stream: str
    writer: str
    sequence: int
    payload: bytes


class Subscription(Protocol):
    """One consumer's reading of a stream; starts behind the cursor of its name."""

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for at least one entry; up to `limit`, in order per writer. None comes twice here.

        What was not acknowledged comes again to the next subscription of the same consumer.
        """
        ...

    async def acknowledge(self, delivery: Delivery) -> None:
        """Move the cursor over this entry and all before it of that writer; durable on return.

        ValueError for an entry that this subscription did not give out.
        """
        ...


class Question(Protocol):
    """What somebody asks, once."""

    @property
    def payload(self) -> bytes: ...

    async def answer(self, payload: bytes) -> None:
        """Answer it. Has no effect when the deadline is over or another has answered."""
        ...


class Questions(Protocol):
    """The questions of one subject. Those older than their deadline are never given out."""

    async def receive(self, limit: int) -> list[Question]:
        """Wait for at least one question; up to `limit`, none twice."""
        ...


class Watch(Protocol):
    """The changes of a table: first its keys as they stand, then each change; iterate it.

    Yields (key, value), or (key, None) for one that is gone (perhaps before anybody saw it). Several
    changes of a key may show as its last one. `position` says how far the iteration came.
    """

    @property
    def position(self) -> bytes: ...

    def __aiter__(self) -> "Watch": ...

    async def __anext__(self) -> tuple[str, bytes | None]:
        """The next change. PositionLost when the watch had stood still for longer than the retention."""
        ...


class Bus(Protocol):
    """One member's connection to the bus. Names: letters, digits, `.`, `_`, `-`; ValueError else."""

    @property
    def member(self) -> str: ...

    @property
    def online(self) -> bool:
        """Whether it can be reached just now, as far as this member knows. A folder always can."""
        ...

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The member's background work, as a task; returns after `close`."""
        ...

    def close(self) -> None:
        """Let `run` make durable what waits, and return."""
        ...

    async def publish(self, stream: str, payloads: Sequence[bytes]) -> int:
        """Append to this member's part of the stream, in order; all durable on return.

        Returns the last sequence. Raises BusFull (nothing kept), ValueError over the size limits.
        """
        ...

    def subscribe(self, stream: str, consumer: str) -> Subscription:
        """Read a stream. A new consumer starts with the oldest entry kept; a name runs once at a time."""
        ...

    async def pending(self, stream: str, consumer: str) -> int:
        """How many entries of this member in the stream that consumer has not acknowledged."""
        ...

    async def create(self, table: str, key: str, value: bytes) -> bytes | None:
        """Put a key that no member has. None = created now, durable; else the value that is there."""
        ...

    async def put(self, table: str, key: str, value: bytes) -> None:
        """Set a key; durable on return."""
        ...

    async def read(self, table: str, key: str) -> bytes | None:
        """A key's last durable value, whoever wrote it."""
        ...

    async def delete(self, table: str, key: str) -> None:
        """Remove a key that this member wrote; another's stays. Durable on return."""
        ...

    async def read_all(self, table: str) -> dict[str, bytes]:
        """All of a table, as it stands."""
        ...

    def watch(self, table: str, after: bytes = b"") -> Watch:
        """The changes of a table behind `after`, a former watch's `position`; without it, from the start."""
        ...

    async def put_blob(self, data: bytes) -> str:
        """Keep octets (up to BLOB_OCTETS_MAX), durably; returns their SHA-256 in hex. A repeat is no harm."""
        ...

    async def read_blob(self, digest: str) -> bytes | None:
        """The octets of that SHA-256, checked; None when nobody keeps them."""
        ...

    async def drop_blob(self, digest: str) -> None:
        """Keep them no longer. Has no effect when they are not there."""
        ...

    async def ask(self, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
        """One answer to one question. Raises NoAnswer."""
        ...

    def serve(self, subject: str) -> Questions:
        """The questions of a subject. One that is left unanswered comes again to the next `serve`."""
        ...


class NodeBus(Bus, Protocol):
    """The bus of one machine: its files can be read without waiting."""

    def backlog(self, stream: str, consumer: str) -> int:
        """As `pending`."""
        ...

    def get(self, table: str, key: str) -> bytes | None:
        """As `read`."""
        ...

    def items(self, table: str) -> dict[str, bytes]:
        """As `read_all`."""
        ...


def is_work_queue(stream: str) -> bool:
    """Whether the stream's entries are work, which never ages out, and not facts."""
    return stream.startswith(WORK_QUEUES)


def check_name(name: str) -> str:
    """The name of a stream, consumer, table, subject or member, if it is one; ValueError."""
    if not _NAME.fullmatch(name) or len(name) > NAME_OCTETS_MAX:
        raise ValueError(
            f"{name[:40]!r} is no name for the bus: up to {NAME_OCTETS_MAX} letters, digits, '.', '_', '-'"
        )
    return name


def check_key(key: str) -> str:
    """A table's key, if it is one: text without NUL of up to KEY_OCTETS_MAX octets; ValueError."""
    if not key or "\0" in key or len(key.encode()) > KEY_OCTETS_MAX:
        raise ValueError(f"{key[:40]!r} is no key: 1 to {KEY_OCTETS_MAX} octets of text without NUL")
    return key


def check_payload(payload: bytes) -> bytes:
    """A payload within the limit; ValueError."""
    if len(payload) > PAYLOAD_OCTETS_MAX:
        raise ValueError(f"a payload has {len(payload)} octets, more than {PAYLOAD_OCTETS_MAX}")
    return payload


def check_payloads(payloads: Sequence[bytes]) -> None:
    """Payloads of one publish within the limits; ValueError."""
    octets = sum(len(check_payload(payload)) for payload in payloads)
    if octets > PUBLISH_OCTETS_MAX:
        raise ValueError(f"a publish has {octets} octets, more than {PUBLISH_OCTETS_MAX}; cut it")


def is_digest(digest: str) -> bool:
    """Whether it is a SHA-256 in lower-case hex: a blob's name."""
    return _DIGEST.fullmatch(digest) is not None


def check_digest(digest: str) -> str:
    """A blob's name, if it is one; ValueError."""
    if not is_digest(digest):
        raise ValueError(f"{digest[:80]!r} is no SHA-256 in lower-case hexadecimal digits")
    return digest
