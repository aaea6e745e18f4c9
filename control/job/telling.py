"""What one broadcaster tells: its events in order, each once, and what of them is missing.

A batch that was seen is dropped by producer, epoch and sequence. A batch whose sequence leaves a gap says
that the bus has lost some; how many is counted, and the rest is folded all the same. What it says of people
whom it was not given counts nowhere. Pure.
"""

import math
from collections.abc import Callable

from msgspec.structs import replace

from control.cli.fold import Fold
from control.job.outcomes import Outcomes
from control.job.roster import Speed
from engine.model.event import AttemptEvent, ChunkAccepted, ChunkRefused, Event, EventBatch


class Teller:
    """The events of one broadcaster, folded for the report and into the outcomes of all."""

    def __init__(
        self, name: str, campaign: int, outcomes: Outcomes, holds: Callable[["Teller", int, str], bool]
    ) -> None:
        """`holds` says whether it may tell, under an epoch, of the person at that place in the list."""
        self.name = name
        self.missing = 0  # events that never came
        self.foreign = 0  # events of people whom it was not given
        self.took: set[str] = set()  # chunks that it says it has accepted
        self.heard = 0  # events that did
        self.caught_up = False  # what comes is news, not what a former coordinator has read, too
        self.speed = Speed()
        self.fold = Fold(campaign)
        self._campaign = campaign
        self._outcomes = outcomes
        self._holds = holds
        self._next: dict[tuple[str, str], int] = {}

    def __repr__(self) -> str:
        return f"<Teller {self.name}: {self.tried} tried, {self.missing} missing, {self.speed!r}>"

    @property
    def tried(self) -> int:
        """Envelopes whose first attempt is over."""
        return self.fold.first_attempts

    def add(self, batch: EventBatch) -> tuple[list[ChunkAccepted | ChunkRefused], list[int]]:
        """What it says of chunks (and of the content), and people who have got a final state."""
        key = (batch.producer, batch.epoch)
        following = self._next.get(key)
        if following is not None:
            if batch.sequence < following:
                return [], []
            self.missing += batch.sequence - following
        self._next[key] = batch.next_sequence
        self.heard += len(batch.events)
        chunks: list[ChunkAccepted | ChunkRefused] = []
        finished: list[int] = []
        told: list[Event] = []
        for event in batch.events:
            if event.campaign != self._campaign:
                continue
            if isinstance(event, AttemptEvent) and not self._holds(self, event.subscriber, batch.epoch):
                self.foreign += 1
                continue
            told.append(event)
            if isinstance(event, ChunkAccepted):
                chunks.append(event)
                self.took.add(event.chunk)
                self.fold.expect(event.chunk, ())  # people are counted one by one, in the outcomes
            elif isinstance(event, ChunkRefused):
                chunks.append(event)
            elif isinstance(event, AttemptEvent) and self._outcomes.add(event, self.name):
                finished.append(event.subscriber)
        at = batch.at if math.isfinite(batch.at) else 0.0  # a report's length is made of it
        self.fold.add(replace(batch, at=at, events=tuple(told)))
        return chunks, finished
