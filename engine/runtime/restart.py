"""The supervisor's decisions, pure: who comes back, with whom, and when it is too much.

Plain functions and one small counter over facts and `now`; `supervisor` acts on them.
"""

from collections import deque

from engine.runtime.spec import Restart, Strategy


def comes_back(restart: Restart, crashed: bool) -> bool:
    """Whether a child that ended by itself is started again."""
    match restart:
        case Restart.PERMANENT:
            return True
        case Restart.TRANSIENT:
            return crashed
        case Restart.TEMPORARY:
            return False


def affected(strategy: Strategy, index: int, count: int) -> range:
    """Which of `count` children are restarted when the one at `index` has to be."""
    match strategy:
        case Strategy.ONE_FOR_ONE:
            return range(index, index + 1)
        case Strategy.REST_FOR_ONE:
            return range(index, count)
        case Strategy.ONE_FOR_ALL:
            return range(count)


class Intensity:
    """Counts restarts in a sliding period."""

    __slots__ = ("_times", "period_seconds", "restarts_max")

    def __init__(self, restarts_max: int, period_seconds: float) -> None:
        self.restarts_max = restarts_max
        self.period_seconds = period_seconds
        self._times: deque[float] = deque()

    def allow(self, now: float) -> bool:
        """Count one restart at `now` (seconds, never going back); False when it is one too many."""
        self._times.append(now)
        self._forget(now)
        return len(self._times) <= self.restarts_max

    def recent(self, now: float) -> int:
        """Restarts within the period that ends at `now`."""
        self._forget(now)
        return len(self._times)

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] <= now - self.period_seconds:
            self._times.popleft()
