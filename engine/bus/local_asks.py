"""Questions and answers on the local bus: a question lies at who asks, its answer at who answers.

    asks:    subject NUL id (random)  -> deadline in ms of wall time, payload
    answers: id                       -> deadline of the question, payload

The asker removes its question when it has the answer or gives up; what a dead process leaves is over its
deadline soon and swept by its owner (`expired`). Nothing here is worth keeping: it is durable because
environments are how members see each other. On trouble: no answer.
"""

import secrets
import struct
from collections.abc import Callable
from typing import Any

import trio

from engine.bus.api import NoAnswer, Question
from engine.bus.local_store import Store
from engine.bus.local_streams import scan

ID_OCTETS = 16

_DEADLINE = struct.Struct(">Q")


def subject_topic(subject: str) -> str:
    return f"ask {subject}"


def answer_topic(ask_id: bytes) -> str:
    return f"answer {ask_id.hex()}"


class LocalQuestion:
    """One question, as its server sees it."""

    def __init__(self, store: Store, ask_id: bytes, deadline_ms: int, payload: bytes) -> None:
        self.payload = payload
        self._store = store
        self._id = ask_id
        self._deadline_ms = deadline_ms

    def __repr__(self) -> str:
        left = self._deadline_ms / 1000 - self._store.clock.now()
        return f"<LocalQuestion {len(self.payload)} octets, {left:.1f} s left>"

    async def answer(self, payload: bytes) -> None:
        answers = self._store.own.databases["answers"]
        record = _DEADLINE.pack(self._deadline_ms) + payload
        if now_ms(self._store) >= self._deadline_ms:
            await trio.lowlevel.checkpoint()
            return
        await self._store.durable(
            lambda transaction: transaction.put(self._id, record, db=answers, overwrite=False),
            answer_topic(self._id),
        )


class LocalQuestions:
    """The questions of one subject, from every member."""

    def __init__(self, store: Store, subject: str) -> None:
        self.subject = subject
        self._store = store
        self._given: set[bytes] = set()

    def __repr__(self) -> str:
        return f"<LocalQuestions {self.subject}: {len(self._given)} given out>"

    async def receive(self, limit: int) -> list[Question]:
        assert limit > 0
        await trio.lowlevel.checkpoint()
        while True:
            found = self._read(limit)
            if found:
                return found
            await self._store.wait(subject_topic(self.subject))

    def _read(self, limit: int) -> list[Question]:
        prefix = self.subject.encode() + b"\0"
        now = now_ms(self._store)
        own = self._store.own
        with own.read() as transaction:
            answered = {key for key, _ in scan(transaction, own.databases["answers"], b"")}
        found: list[Question] = []
        there: set[bytes] = set()
        for member in self._store.readable():
            with member.read() as transaction:
                for key, record in scan(transaction, member.databases["asks"], prefix):
                    ask_id, (deadline,) = key[len(prefix) :], _DEADLINE.unpack_from(record)
                    there.add(ask_id)
                    if ask_id in self._given or ask_id in answered or deadline <= now or len(found) == limit:
                        continue
                    self._given.add(ask_id)
                    found.append(LocalQuestion(self._store, ask_id, deadline, record[_DEADLINE.size :]))
        self._given &= there
        return found


async def ask(store: Store, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
    """Put a question and wait for its answer. Raises NoAnswer."""
    ask_id = secrets.token_bytes(ID_OCTETS)
    key = subject.encode() + b"\0" + ask_id
    asks = store.own.databases["asks"]
    record = _DEADLINE.pack(now_ms(store) + int(timeout_seconds * 1000)) + payload
    try:
        with trio.move_on_after(timeout_seconds):
            await store.durable(
                lambda transaction: transaction.put(key, record, db=asks), subject_topic(subject)
            )
            while True:
                answer = find_answer(store, ask_id)
                if answer is not None:
                    return answer
                await store.wait(answer_topic(ask_id))
        raise NoAnswer(f"nobody answered {subject} within {timeout_seconds:g} s")
    finally:
        store.forget(answer_topic(ask_id))
        store.committer.submit(lambda transaction: transaction.delete(key, db=asks))


def find_answer(store: Store, ask_id: bytes) -> bytes | None:
    for member in store.readable():
        with member.read() as transaction:
            record = transaction.get(ask_id, db=member.databases["answers"])
        if record is not None:
            return bytes(record[_DEADLINE.size :])
    return None


def expired(store: Store) -> Callable[[Any], int] | None:
    """The operation that sweeps this member's questions and answers that are over their deadline, if any."""
    old: list[tuple[Any, bytes]] = []
    now = now_ms(store)
    with store.own.read() as transaction:
        for database in (store.own.databases["asks"], store.own.databases["answers"]):
            for key, record in scan(transaction, database, b""):
                if _DEADLINE.unpack_from(record)[0] <= now:
                    old.append((database, key))
    return (lambda transaction: sum(transaction.delete(key, db=db) for db, key in old)) if old else None


def now_ms(store: Store) -> int:
    return int(store.clock.now() * 1000)
