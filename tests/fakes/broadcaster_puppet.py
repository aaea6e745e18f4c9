"""A broadcaster without an engine: it claims chunks, says so, and delivers at a set speed, on any bus.

For tests of a coordinator on a jumping clock. It keeps its spool over `kill` and `revive`, as a disk would,
and what it has delivered is in `sent`. `refuses` makes it answer chunks with a reason instead.
"""

import json
from collections import Counter
from typing import Any

import trio

from engine.bus.api import Bus
from engine.model.event import ChunkAccepted, ChunkRefused, Delivered, Event, EventBatch, encode_events
from engine.model.submission import SubmitChunk, decode_submission

STATUS_SECONDS = 2.0


class Puppet:
    """One of them. `per_second` is its speed."""

    def __init__(self, bus: Bus, name: str, *, per_second: float = 500.0, epoch: str = "e1") -> None:
        self.bus = bus
        self.name = name
        self.per_second = per_second
        self.epoch = epoch
        self.sent: Counter[int] = Counter()
        self.refuses = ""
        self.stuck = False  # takes nothing from the bus
        self.contents = 0
        self.accepted = 0
        self.deaf_after: int | None = None  # deliveries that the bus keeps events of; it loses the others
        self.beat = 0
        self.status_seconds = STATUS_SECONDS
        self.answers: dict[str, Any] = {}  # to questions, whatever they ask
        self.asked: list[Any] = []
        self.extra: dict[str, Any] = {}
        self._queue: list[tuple[int, int]] = []  # campaign, subscriber
        self._known: set[str] = set()
        self._sequence = 1
        self._scope: trio.CancelScope | None = None

    async def run(self) -> None:
        """Until it is killed; call it again to revive it."""
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_status)
                nursery.start_soon(self._take)
                nursery.start_soon(self._send)
                nursery.start_soon(self._answer)

    def kill(self) -> None:
        assert self._scope is not None
        self._scope.cancel()

    async def _tell_status(self) -> None:
        while True:
            self.beat += 1
            row = {"node": self.name, "beat": self.beat, "epoch": self.epoch, "at": 0}
            row |= {"interval": self.status_seconds} | self.extra
            await self.bus.put("status", f"{self.name}/engine", json.dumps(row).encode())
            await trio.sleep(self.status_seconds)

    async def _answer(self) -> None:
        questions = self.bus.serve(f"engine.{self.name}")
        while True:
            for question in await questions.receive(4):
                self.asked.append(json.loads(question.payload))
                await question.answer(json.dumps(self.answers).encode())

    async def _take(self) -> None:
        chunks = self.bus.subscribe(f"chunks.{self.name}", "intake")
        while True:
            while self.stuck:
                await trio.sleep(0.1)
            for delivery in await chunks.receive(4):
                submission = decode_submission(delivery.payload)
                if isinstance(submission, SubmitChunk):
                    await self._accept(submission, delivery.sequence)
                else:
                    self.contents += 1
                await chunks.acknowledge(delivery)

    async def _accept(self, submission: SubmitChunk, sequence: int) -> None:
        chunk = submission.chunk
        if self.refuses:
            entries = len(chunk.entries)
            await self._tell(ChunkRefused(chunk.campaign, chunk.id, entries, self.refuses, "w", sequence))
            return
        claim = f"{self.name} {self.epoch}".encode()
        claimed = await self.bus.create("claims", chunk.id, claim)
        if claimed not in (None, claim) or chunk.id in self._known:
            return
        self._known.add(chunk.id)
        self.accepted += len(chunk.entries)
        self._queue += [(chunk.campaign, entry.subscriber) for entry in chunk.entries]
        await self._tell(ChunkAccepted(chunk.campaign, chunk.id, len(chunk.entries)))

    async def _send(self) -> None:
        while True:
            await trio.sleep(0.5)
            count = int(self.per_second / 2)
            now, self._queue = self._queue[:count], self._queue[count:]
            self.sent.update(subscriber for _, subscriber in now)
            told = [self.delivered(campaign, subscriber) for campaign, subscriber in now]
            if self.deaf_after is not None:
                told = told[: max(0, self.deaf_after - (self.sent.total() - len(told)))]
            await self._tell(*told)

    def delivered(self, campaign: int, subscriber: int) -> Delivered:
        rest = ("", "", "mx", "default", "mx", "", 0.1)
        return Delivered(campaign, subscriber, subscriber, "x.test", 0, "content", "250 ok", *rest)

    async def _tell(self, *events: Event) -> None:
        if not events:
            return
        with trio.CancelScope(shield=True):  # an engine's journal outlives a kill, too
            batch = EventBatch(self.name, self.epoch, self._sequence, 1.0, self.name, events)
            self._sequence += len(events)
            await self.bus.publish(f"events.{self.name}", [encode_events(batch)])
