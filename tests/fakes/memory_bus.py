"""The bus in memory, for actors on a jumping clock: durable at once, one process, nothing ages.

Keeps what `engine.bus.api` promises as far as one process can see it: streams in order with one cursor
per consumer, tables with create-if-absent, questions with a deadline. `refusals` lets the next so many
publishes fail as a full stream does; `delay_seconds` makes each publish take (jumping) time.
"""

import hashlib
from collections.abc import Sequence

import trio

from engine.bus.api import (
    BusFull,
    Delivery,
    NoAnswer,
    Question,
    check_key,
    check_name,
    check_payload,
    check_payloads,
)


class MemoryBus:
    """`engine.bus.api.Bus` of one member."""

    def __init__(self, member: str) -> None:
        self.member = check_name(member)
        self.online = True
        self.refusals = 0
        self.delay_seconds = 0.0
        self.streams: dict[str, list[bytes]] = {}
        self.cursors: dict[tuple[str, str], int] = {}
        self.tables: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.questions: dict[str, list[_Question]] = {}
        self.closed = trio.Event()
        self._bell = trio.Event()

    def __repr__(self) -> str:
        return f"<MemoryBus {self.member}: {len(self.streams)} streams>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await self.closed.wait()

    def close(self) -> None:
        self.closed.set()
        self.ring()

    def ring(self) -> None:
        self._bell.set()
        self._bell = trio.Event()

    async def wait(self) -> None:
        if self.closed.is_set():
            raise trio.ClosedResourceError("the bus is closed")
        await self._bell.wait()

    async def publish(self, stream: str, payloads: Sequence[bytes]) -> int:
        check_name(stream)
        check_payloads(payloads)
        await trio.sleep(self.delay_seconds)
        if self.refusals:
            self.refusals -= 1
            raise BusFull(f"stream {stream} is at its cap")
        entries = self.streams.setdefault(stream, [])
        entries.extend(payloads)
        self.ring()
        return len(entries)

    def subscribe(self, stream: str, consumer: str) -> "MemorySubscription":
        return MemorySubscription(self, check_name(stream), check_name(consumer))

    def backlog(self, stream: str, consumer: str) -> int:
        return len(self.streams.get(stream, [])) - self.cursors.get((stream, consumer), 0)

    async def pending(self, stream: str, consumer: str) -> int:
        await trio.lowlevel.checkpoint()
        return self.backlog(stream, consumer)

    async def create(self, table: str, key: str, value: bytes) -> bytes | None:
        await trio.lowlevel.checkpoint()
        entries = self.tables.setdefault(check_name(table), {})
        there = entries.get(check_key(key))
        if there is None:
            entries[key] = check_payload(value)
            self.ring()
        return there

    async def put(self, table: str, key: str, value: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.tables.setdefault(check_name(table), {})[check_key(key)] = check_payload(value)
        self.ring()

    def get(self, table: str, key: str) -> bytes | None:
        return self.tables.get(check_name(table), {}).get(check_key(key))

    async def read(self, table: str, key: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self.get(table, key)

    async def delete(self, table: str, key: str) -> None:
        await trio.lowlevel.checkpoint()
        self.tables.get(check_name(table), {}).pop(key, None)
        self.ring()

    def items(self, table: str) -> dict[str, bytes]:
        return dict(self.tables.get(check_name(table), {}))

    async def read_all(self, table: str) -> dict[str, bytes]:
        await trio.lowlevel.checkpoint()
        return self.items(table)

    async def put_blob(self, data: bytes) -> str:
        await trio.lowlevel.checkpoint()
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    async def read_blob(self, digest: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self.blobs.get(digest)

    async def drop_blob(self, digest: str) -> None:
        await trio.lowlevel.checkpoint()
        self.blobs.pop(digest, None)

    def watch(self, table: str, after: bytes = b"") -> "MemoryWatch":
        return MemoryWatch(self, check_name(table))

    async def ask(self, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
        question = _Question(check_payload(payload))
        self.questions.setdefault(check_name(subject), []).append(question)
        self.ring()
        with trio.move_on_after(timeout_seconds):
            return await question.answered()
        question.over = True
        raise NoAnswer(f"nobody answered {subject} within {timeout_seconds:g} s")

    def serve(self, subject: str) -> "MemoryQuestions":
        return MemoryQuestions(self, check_name(subject))


class MemorySubscription:
    """One consumer's reading of one stream."""

    def __init__(self, bus: MemoryBus, stream: str, consumer: str) -> None:
        self._bus = bus
        self._stream = stream
        self._key = (stream, consumer)
        self._given = bus.cursors.setdefault(self._key, 0)

    async def receive(self, limit: int) -> list[Delivery]:
        assert limit > 0
        await trio.lowlevel.checkpoint()
        while True:
            entries = self._bus.streams.get(self._stream, [])[self._given :][:limit]
            if entries:
                first = self._given + 1
                self._given += len(entries)
                return [
                    Delivery(self._stream, self._bus.member, first + number, payload)
                    for number, payload in enumerate(entries)
                ]
            await self._bus.wait()

    async def acknowledge(self, delivery: Delivery) -> None:
        await trio.lowlevel.checkpoint()
        if delivery.stream != self._stream or delivery.sequence > self._given:
            raise ValueError(f"{delivery.stream} {delivery.sequence} was not given out here")
        self._bus.cursors[self._key] = max(self._bus.cursors[self._key], delivery.sequence)


class MemoryWatch:
    """The changes of a table, found by comparing."""

    def __init__(self, bus: MemoryBus, table: str) -> None:
        self._bus = bus
        self._table = table
        self._shown: dict[str, bytes] = {}

    @property
    def position(self) -> bytes:
        return b""

    def __aiter__(self) -> "MemoryWatch":
        return self

    async def __anext__(self) -> tuple[str, bytes | None]:
        await trio.lowlevel.checkpoint()
        while True:
            there = self._bus.items(self._table)
            for key in self._shown.keys() | there.keys():
                value = there.get(key)
                if value != self._shown.get(key):
                    if value is None:
                        del self._shown[key]
                    else:
                        self._shown[key] = value
                    return key, value
            await self._bus.wait()


class MemoryQuestions:
    """The questions of one subject."""

    def __init__(self, bus: MemoryBus, subject: str) -> None:
        self._bus = bus
        self._subject = subject

    async def receive(self, limit: int) -> list[Question]:
        await trio.lowlevel.checkpoint()
        while True:
            waiting = [item for item in self._bus.questions.get(self._subject, []) if not item.over]
            self._bus.questions[self._subject] = waiting[limit:]
            if waiting:
                return list(waiting[:limit])
            await self._bus.wait()


class _Question:
    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.over = False
        self._answer: bytes | None = None
        self._given = trio.Event()

    async def answer(self, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if not self.over:
            self.over = True
            self._answer = payload
            self._given.set()

    async def answered(self) -> bytes:
        await self._given.wait()
        assert self._answer is not None
        return self._answer
