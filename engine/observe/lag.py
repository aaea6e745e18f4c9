"""How late the event loop runs what is due: the first thing to look at when everything is slow at once.

A task sleeps for a tenth of a second, again and again, and counts by how much it overslept. So a stall is
seen when it lasts, and short ones in part; asking the clock at every step of every task would cost more
than it tells. Touches nothing.
"""

from typing import NoReturn

import trio

from engine.observe.metrics import Histogram

LOOK_SECONDS = 0.1  # some 30 us each: 0.03 % of a core
# A signature made in the loop would be 1 ms, a page of LMDB 20, a garbage collection of a large heap 200.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class LoopLag:
    """Run `watch` as a task; read `times`."""

    def __init__(self) -> None:
        self.times = Histogram(BOUNDS)

    def __repr__(self) -> str:
        return f"<LoopLag {self.times!r}>"

    async def watch(self) -> NoReturn:
        """Look for ever."""
        while True:
            due = trio.current_time() + LOOK_SECONDS
            await trio.sleep_until(due)
            self.times.add(max(0.0, trio.current_time() - due))
