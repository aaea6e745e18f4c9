"""Events that never came: found by holding a broadcaster's own counts against what it told.

A bus that was restored from an old copy has lost events which their broadcaster has dropped from its journal.
Then the job would wait for ever. So, once nothing of the list is left to give out, each living broadcaster of
which nothing was heard for some time is asked what its spool counts. When it says twice that it has nothing
left to do, while we know of people without an end, those become ambiguous: they may have got their mail, or
not. A chunk that it has claimed and not yet taken into its spool (it waits for room, or starts anew) is in
none of its counts and will be sent, so such a chunk is waited for. Touches: the bus (asks), the board.
"""

import trio

from control.job.board import Board
from control.job.own_counts import ask_counts
from control.job.roster import INTAKE
from engine.bus.api import Bus

QUIET_SECONDS = 15.0
ANSWER_SECONDS = 5.0


class MissingEvents:
    """Of one job."""

    def __init__(self, bus: Bus, board: Board, campaign: int) -> None:
        self._bus = bus
        self._board = board
        self._campaign = campaign
        self._heard: dict[str, tuple[int, float]] = {}  # events so far, and since when there are no more
        self._suspects: set[str] = set()

    async def look(self) -> None:
        """Look at each broadcaster; call it every few seconds."""
        now = trio.current_time()
        for name, teller in list(self._board.tellers.items()):
            events, since = self._heard.get(name, (-1, now))
            if teller.heard != events or not self._board.unfinished(name):
                self._heard[name] = (teller.heard, now)
                self._suspects.discard(name)
            elif now - since >= QUIET_SECONDS and self._board.roster.is_live(name, now):
                self._heard[name] = (teller.heard, now)
                await self._ask(name)

    async def _ask(self, name: str) -> None:
        if await self._is_to_take(name):  # before the question: what is taken meanwhile is in the answer
            self._suspects.discard(name)
            return
        counts = await ask_counts(self._bus, name, self._campaign, ANSWER_SECONDS)
        if counts is None or counts.get("deferred", 1):
            self._suspects.discard(name)
        elif name not in self._suspects:
            self._suspects.add(name)  # its last events may be on their way
        else:
            lost = self._board.give_up_events(name)
            self._board.warn(
                f"{name} has nothing of this job left to do, and what became of {lost:,} people never came:"
                f" the bus has lost it; they are ambiguous (its spool counts {counts})"
            )

    async def _is_to_take(self, name: str) -> bool:
        """Whether one of its chunks may still lie before its spool. Only who published can say: every
        coordinator of a job is the same member of the bus."""
        if not self._board.awaits_acceptance(name):
            return False
        return await self._bus.pending(f"chunks.{name}", INTAKE) > 0
