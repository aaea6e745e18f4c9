"""Streams of the local bus: appended by their writer, read with a cursor, trimmed behind everybody's cursor.

    entries: stream NUL sequence          -> time in ms, payload        in the writer's environment
    streams: stream                       -> last sequence, octets kept             likewise
    cursors: stream NUL consumer NUL writer -> writer's epoch, sequence acknowledged    in the consumer's

A cursor with an empty writer only says that the consumer exists. A consumer is its name: where it once
ran at another member, the most advanced cursor counts. A cursor of another epoch counts as none, since
the writer's store is a new one and counts from 1 again. On trouble: see api and local_store.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import trio

from engine.bus.api import BusFull, Delivery, is_work_queue
from engine.bus.local_members import Member
from engine.bus.local_store import Store

ENTRY_OCTETS = 64  # what an entry costs beside its payload, about
RECEIVE_OCTETS_MAX = 16 * 1024**2  # of payload at a time, the first entry excepted
TRIM_ENTRIES_MAX = 2_000  # per commit: about 5 ms of the loop
TRIM_OCTETS_MAX = 32 * 1024**2  # likewise

_SEQUENCE = struct.Struct(">Q")
_TIME = struct.Struct(">Q")
_TAIL = struct.Struct(">QQ")
_CURSOR = struct.Struct(">8sQ")


def topic_of(stream: str) -> str:
    return f"stream {stream}"


class Streams:
    """What one member publishes, and where the consumers of it stand."""

    def __init__(self, store: Store, *, retention_seconds: float, stream_octets_max: int) -> None:
        self._store = store
        self._retention_ms = int(retention_seconds * 1000)
        self._octets_max = stream_octets_max

    async def publish(self, stream: str, payloads: Sequence[bytes]) -> int:
        append = appending(self._store.own, stream, payloads, self._now_ms(), self._octets_max)
        try:
            return await self._store.durable(append, topic_of(stream))
        except BusFull:
            await self.trim_stream(stream)  # what was acknowledged a moment ago makes room
        return await self._store.durable(append, topic_of(stream))

    def backlog(self, stream: str, consumer: str, writer: Member | None = None) -> int:
        """What a consumer has not acknowledged of a writer's entries; of our own without one."""
        writer = writer or self._store.own
        with writer.read() as transaction:
            last, _ = read_tail(writer, transaction, stream)
            first = next((sequence for sequence, _ in entries(writer, transaction, stream, 0)), last + 1)
        return last - max(first - 1, self.cursors(stream, writer).get(consumer, 0))

    def waiting(self, stream: str, consumer: str) -> int:
        """The same over all writers."""
        return sum(self.backlog(stream, consumer, writer) for writer in self._store.readable())

    def cursors(self, stream: str, writer: Member) -> dict[str, int]:
        """Each known consumer of a stream and the last of the writer's sequences it acknowledged."""
        found: dict[str, int] = {}
        prefix = stream.encode() + b"\0"
        for member in self._store.readable():
            with member.read() as transaction:
                for key, value in scan(transaction, member.databases["cursors"], prefix):
                    consumer, _, of = key[len(prefix) :].decode().partition("\0")
                    epoch, sequence = _CURSOR.unpack(value) if of == writer.name else (b"", 0)
                    reached = sequence if epoch == writer.epoch else 0
                    found[consumer] = max(found.get(consumer, 0), reached)
        return found

    async def trim(self) -> None:
        """Drop what may go, of every stream of this member."""
        own = self._store.own
        with own.read() as transaction:
            streams = [key.decode() for key, _ in scan(transaction, own.databases["streams"], b"")]
        for stream in streams:
            while await self.trim_stream(stream):
                pass

    async def trim_stream(self, stream: str) -> int:
        """Drop entries that may go, a bounded number; returns how many."""
        own = self._store.own
        reached = self.cursors(stream, own)
        through = min(reached.values(), default=0)
        before_ms = 0 if is_work_queue(stream) else self._now_ms() - self._retention_ms
        with own.read() as transaction:
            oldest = next(entries(own, transaction, stream, 0), None)
        if oldest is None or not may_go(*oldest, through, before_ms):
            return 0
        return await self._store.durable(trimming(own, stream, through, before_ms))

    def forget_writers_gone(self) -> Callable[[Any], int] | None:
        """The operation that drops this member's cursors in streams of members that were removed, if any."""
        own = self._store.own
        here = {member.name.encode() for member in self._store.members.everyone()} | {b""}
        cursors = own.databases["cursors"]
        with own.read() as transaction:
            gone = [key for key, _ in scan(transaction, cursors, b"") if key.rpartition(b"\0")[2] not in here]
        return (
            (lambda transaction: sum(transaction.delete(key, db=cursors) for key in gone)) if gone else None
        )

    def unread(self, member: Member) -> bool:
        """Whether a member's streams hold anything that some consumer, or nobody yet, has acknowledged."""
        with member.read() as transaction:
            tails = [
                (key.decode(), value) for key, value in scan(transaction, member.databases["streams"], b"")
            ]
            kept = [name for name, _ in tails if next(entries(member, transaction, name, 0), None)]
        for stream in kept:
            last = _TAIL.unpack(dict(tails)[stream])[0]
            if min(self.cursors(stream, member).values(), default=0) < last:
                return True
        return False

    def _now_ms(self) -> int:
        return int(self._store.clock.now() * 1000)


class LocalSubscription:
    """One consumer's reading of one stream, over all writers."""

    def __init__(self, store: Store, streams: Streams, stream: str, consumer: str) -> None:
        self.stream = stream
        self.consumer = consumer
        self._store = store
        self._streams = streams
        self._positions: dict[str, tuple[bytes, int]] = {}  # writer -> epoch, last sequence given out
        self._first = 0  # whose turn it is to be read first
        self._known = store.committer.submit(self._registering())

    def __repr__(self) -> str:
        positions = ", ".join(f"{writer} {position}" for writer, (_, position) in self._positions.items())
        return f"<LocalSubscription {self.consumer} of {self.stream}: {positions or 'nothing yet'}>"

    async def receive(self, limit: int) -> list[Delivery]:
        assert limit > 0
        await trio.lowlevel.checkpoint()
        await self._known
        while True:
            found = self._read(limit)
            if found:
                return found
            await self._store.wait(topic_of(self.stream))

    async def acknowledge(self, delivery: Delivery) -> None:
        epoch, given = self._positions.get(delivery.writer, (b"", 0))
        if delivery.stream != self.stream or delivery.sequence > given:
            raise ValueError(
                f"{delivery.stream} {delivery.sequence} of {delivery.writer} was not given out here"
            )
        key = b"\0".join(part.encode() for part in (self.stream, self.consumer, delivery.writer))
        cursors = self._store.own.databases["cursors"]
        cursor = _CURSOR.pack(epoch, delivery.sequence)

        def advance(transaction: Any) -> None:
            old = transaction.get(key, db=cursors)
            if old is None or old[:8] != epoch or old < cursor:
                transaction.put(key, cursor, db=cursors)

        await self._store.durable(advance)

    def _registering(self) -> Callable[[Any], None]:
        key = f"{self.stream}\0{self.consumer}\0".encode()
        cursors = self._store.own.databases["cursors"]
        return lambda transaction: transaction.put(key, b"", db=cursors, overwrite=False) and None

    def _read(self, limit: int) -> list[Delivery]:
        """What is there, fairly: another writer comes first each time."""
        writers = list(self._store.readable())
        self._first += 1
        found: list[Delivery] = []
        octets = 0
        for turn in range(len(writers)):
            writer = writers[(self._first + turn) % len(writers)]
            epoch, position = self._position(writer)
            with writer.read() as transaction:
                for sequence, value in entries(writer, transaction, self.stream, position):
                    octets += len(value)
                    if len(found) == limit or (found and octets > RECEIVE_OCTETS_MAX):
                        return found
                    found.append(Delivery(self.stream, writer.name, sequence, value[_TIME.size :]))
                    self._positions[writer.name] = epoch, sequence
        return found

    def _position(self, writer: Member) -> tuple[bytes, int]:
        position = self._positions.get(writer.name)
        if position is None or position[0] != writer.epoch:
            reached = self._streams.cursors(self.stream, writer).get(self.consumer, 0)
            position = self._positions[writer.name] = writer.epoch, reached
        return position


def appending(
    own: Member, stream: str, payloads: Sequence[bytes], now_ms: int, octets_max: int
) -> Callable[[Any], int]:
    """The operation that appends payloads and returns the last sequence; raises BusFull."""
    databases = own.databases
    name = stream.encode()
    stamp = _TIME.pack(now_ms)
    more = sum(map(len, payloads)) + ENTRY_OCTETS * len(payloads)

    def append(transaction: Any) -> int:
        last, octets = read_tail(own, transaction, stream)
        if octets + more > octets_max:
            raise BusFull(f"stream {stream} of {own.name} is at its cap of {octets_max} octets")
        for payload in payloads:
            last += 1
            transaction.put(name + b"\0" + _SEQUENCE.pack(last), stamp + payload, db=databases["entries"])
        transaction.put(name, _TAIL.pack(last, octets + more), db=databases["streams"])
        return last

    return append


def trimming(own: Member, stream: str, through: int, before_ms: int) -> Callable[[Any], int]:
    """The operation that drops old entries, a bounded number, and returns how many."""
    databases = own.databases
    name = stream.encode()

    def trim(transaction: Any) -> int:
        last, octets = read_tail(own, transaction, stream)
        dropped: list[int] = []
        freed = 0
        for sequence, value in entries(own, transaction, stream, 0):
            enough = len(dropped) == TRIM_ENTRIES_MAX or freed > TRIM_OCTETS_MAX
            if enough or not may_go(sequence, value, through, before_ms):
                break
            dropped.append(sequence)
            freed += len(value) - _TIME.size + ENTRY_OCTETS
        for sequence in dropped:  # not while the cursor stands among them
            transaction.delete(name + b"\0" + _SEQUENCE.pack(sequence), db=databases["entries"])
        transaction.put(name, _TAIL.pack(last, octets - freed), db=databases["streams"])
        return len(dropped)

    return trim


def may_go(sequence: int, value: bytes, through: int, before_ms: int) -> bool:
    """Whether an entry was acknowledged by all, or is over the age limit."""
    return sequence <= through or _TIME.unpack_from(value)[0] < before_ms


def read_tail(writer: Member, transaction: Any, stream: str) -> tuple[int, int]:
    """A stream's last sequence and the octets it keeps."""
    tail = transaction.get(stream.encode(), db=writer.databases["streams"])
    last, octets = _TAIL.unpack(tail) if tail else (0, 0)
    return last, octets


def entries(writer: Member, transaction: Any, stream: str, after: int) -> Iterator[tuple[int, bytes]]:
    """Sequence and record of a stream's entries behind `after`, in order."""
    prefix = stream.encode() + b"\0"
    start = prefix + _SEQUENCE.pack(after + 1)
    for key, value in scan(transaction, writer.databases["entries"], prefix, start):
        yield _SEQUENCE.unpack_from(key, len(prefix))[0], value


def scan(
    transaction: Any, database: Any, prefix: bytes, start: bytes | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values under a prefix, in order, from `start`."""
    cursor = transaction.cursor(db=database)
    if cursor.set_range(start or prefix) if (start or prefix) else cursor.first():
        for key, value in cursor:
            if not key.startswith(prefix):
                return
            yield key, value
