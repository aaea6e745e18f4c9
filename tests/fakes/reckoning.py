"""What became of a job, told by two who cannot agree on a lie: the world's record and the engine's events.

`Reckoning` belongs to a running engine. `close` stops it and reads its events to the end; `check` insists
that everybody who was to get mail has it, that nobody else has, that two letters went only to who was
admitted as ambiguous, and that the counts add up.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import trio

from bench.world.process import WorldProcess
from bench.world.records import read_records
from engine.app import Engine
from engine.model.event import Ambiguous
from engine.mta.spool.api import StateCounts
from tests.fakes.engine_house import CAMPAIGN, EventReader

READ_SECONDS = 3.0


class Reckoning:
    """Made while the engine runs; read after it has stopped."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = EventReader(engine.parts.bus.subscribe("events.node", "reckoning"))
        self.counts = StateCounts()

    async def close(self) -> None:
        """Stop the engine, keep its counts and read what it has told."""
        await self._engine.stop()
        self.counts = self._engine.counts(CAMPAIGN)
        assert not self._engine.parts.unsettled
        assert not self._engine.parts.spool.open_leases()
        with trio.move_on_after(READ_SECONDS), suppress(trio.ClosedResourceError):
            await self._reader.follow()

    @property
    def admitted(self) -> set[int]:
        """Subscribers (a place in the list, from 1) who may have got two letters."""
        return {event.subscriber for event in self._reader.events if isinstance(event, Ambiguous)}

    def check(self, world: WorldProcess, people: Sequence[str], record: Path) -> Counter[str]:
        """Who got how many letters; nobody is missing."""
        expected = world.expected(people).final
        got = Counter(accepted.recipient.lower() for accepted in read_records(record))
        delivered_to = {name for name in people if world.spec.predict(name).final == "delivered"}
        counts = self.counts
        assert counts.accepted == len(people) == counts.finished, counts
        assert counts.delivered == expected["delivered"], counts
        assert counts.bounced == expected.get("bounced", 0), counts
        assert set(got) == delivered_to
        subscriber_of = {recipient: number + 1 for number, recipient in enumerate(people)}
        doubled = {recipient for recipient, times in got.items() if times > 1}
        assert {subscriber_of[recipient] for recipient in doubled} <= self.admitted
        assert counts.was_ambiguous == len(self.admitted)
        return got
