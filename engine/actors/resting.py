"""Why nothing goes over a path now: an operator says so, or the state of its source, or the path itself.

The path's own rests (the receiver's wish, a reaction, a warm-up that is used up) are in its memory. Asked
by the site many times a second; changes nothing.
"""

from engine.actors.memory import PathMemory
from engine.actors.parts import Parts

STOPPED_SECONDS = 10 * 365 * 86_400.0  # until somebody says so: a number, since JSON has no infinity


class Resting:
    """Of one path."""

    __slots__ = ("_memory", "_parts")

    def __init__(self, parts: Parts, memory: PathMemory) -> None:
        self._parts = parts
        self._memory = memory

    def __repr__(self) -> str:
        return f"<Resting {self._memory.key}>"

    def until(self, now: float) -> tuple[float, str]:
        """Until when (monotonic seconds), and why; (0, "") = it may send."""
        if stopped := self.stopped:
            return now + STOPPED_SECONDS, stopped
        return max(self._parts.source_states.rest(self._memory.place.source, now), self._memory.rest(now))

    @property
    def stopped(self) -> str:
        """Why an operator has stopped this path; "" when none has."""
        stops, place = self._parts.stops, self._memory.place
        stop = stops.holds_path(place.source, place.site, self._parts.clock.now()) if stops else None
        return "" if stop is None else stop.reason

    def hangs_up(self, now: float) -> bool:
        """Whether connections end as well, and what they hold goes back."""
        return self._memory.hushed(now) or self._source_rests(now) or bool(self.stopped)

    def elsewhere(self, now: float) -> bool:
        """Whether another source may take what waits: this one is gone, or has had its quota."""
        warm_up = self._memory.provider.warmup
        used_up = warm_up is not None and warm_up.overflow and warm_up.exhausted
        return used_up or self._source_rests(now)

    def _source_rests(self, now: float) -> bool:
        return self._parts.source_states.rest(self._memory.place.source, now)[0] > 0
