"""Virtual time: it stands still while any task can run, and then jumps to whatever comes next.

Trio's MockClock asks the kernel whether something came before it jumps. A simulation has no descriptors,
so here trio's question how long to sleep is itself the jump, and what the world does at a later moment
(packets, tarpits) is an action in the clock's agenda instead of a task of its own: both together make a run
twice as fast. Actions run in the order of their time, those of one moment in the order they were entered.
Nothing may wait for real IO or for a thread in here: nobody would wait for it.
"""

import heapq
from collections.abc import Callable
from typing import Any

import trio


class JumpingClock(trio.abc.Clock):
    """Starts at 0; an hour passes in no time. `error` is what an action raised: a bug of the simulation."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._now = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def __repr__(self) -> str:
        return f"<JumpingClock {self._now:.3f}, {len(self._agenda)} actions to come>"

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something when its moment has come. Actions may wake tasks and enter further actions."""
        self._number += 1
        heapq.heappush(self._agenda, (when, self._number, action))

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Only asked when no task can run. With nothing to come at all, trio itself is at its end, and
        waits for its own bell."""
        agenda = self._agenda
        if deadline == float("inf") and not agenda:
            return deadline
        core: Any = trio._core._run
        runnable = core.GLOBAL_RUN_CONTEXT.runner.runq
        while agenda and agenda[0][0] <= deadline and not runnable:
            when, _, action = heapq.heappop(agenda)
            self._now = max(self._now, when)
            try:
                action()
            except Exception as error:
                self.error = self.error or error
        if not runnable and deadline < float("inf"):
            self._now = max(self._now, deadline)
        return 0.0
