"""The look-ups that the scheduler has under way, wants, or has postponed: bookkeeping of destinations.

New destinations come first, by the class and age of their mail; so many at a time as the configuration
says. One whose DNS fails is postponed. A destination is in here at most once. The scheduler starts the
actors that look; it hears of their ends.
"""

import heapq
from collections.abc import Callable

REFRESH_RANK = 99  # of a destination whose route has lapsed: after all that have none


class LookUps:
    """`started` counts actors that live."""

    __slots__ = ("_line", "_looking", "_postponed", "_postponed_names", "limit", "started")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.started = 0
        self._line: list[tuple[int, int, str]] = []  # rank, first id, destination
        self._looking: set[str] = set()  # waits for or is in a look-up, or is postponed
        self._postponed: list[tuple[float, str]] = []
        self._postponed_names: set[str] = set()

    def __repr__(self) -> str:
        return (
            f"<LookUps: {self.started} under way, {len(self._line)} wait, {len(self._postponed)} postponed>"
        )

    def __contains__(self, destination: str) -> bool:
        return destination in self._looking

    def want(self, destination: str, rank: int, first: int) -> None:
        if destination not in self._looking:
            self._looking.add(destination)
            heapq.heappush(self._line, (rank, first, destination))

    def start(self, waits: Callable[[str], bool], start: Callable[[str], bool]) -> None:
        """Have those started that may be, by `start`; it says False when there is no room for an actor.

        One that nothing waits for any more is dropped.
        """
        while self._line and self.started < self.limit:
            destination = self._line[0][2]
            if not waits(destination):
                heapq.heappop(self._line)
                self._looking.discard(destination)
                continue
            if not start(destination):
                return
            heapq.heappop(self._line)
            self.started += 1

    def ended(self) -> None:
        """An actor that looked has ended."""
        self.started -= 1

    def done(self, destination: str) -> None:
        """There is an answer, or there will be none from this look-up."""
        self._looking.discard(destination)

    def postpone(self, destination: str, until: float) -> None:
        heapq.heappush(self._postponed, (until, destination))
        self._postponed_names.add(destination)

    def is_postponed(self, destination: str) -> bool:
        return destination in self._postponed_names

    def due(self, now: float) -> list[str]:
        """Those whose postponement is over."""
        found = []
        while self._postponed and self._postponed[0][0] <= now:
            _, destination = heapq.heappop(self._postponed)
            self._postponed_names.discard(destination)
            self._looking.discard(destination)
            found.append(destination)
        return found
