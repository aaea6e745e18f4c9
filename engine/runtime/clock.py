"""The only clock of the engine: wall time that never jumps between two readings of ours.

Wall time is `anchor + monotonic`: due times, expiry and journal entries stay in order while somebody sets
the system's clock. A periodic caller runs `check_step`; when the system's wall clock has left ours by more
than the limit (a step by NTP or an operator, or a machine that slept), the anchor moves, and the caller
publishes the step it gets back as an event. Touches: two system clocks, which tests may replace.
`TrioClock` reads the same from trio, so that tests run on a jumping clock.
"""

import time
from collections.abc import Callable
from typing import Protocol

import trio

STEP_LIMIT_SECONDS = 2.0  # NTP slews below 0.128 s and steps above; two seconds is a step nobody can overlook
EPOCH_SECONDS = 1_767_225_600.0  # 2026-01-01T00:00:00Z, where a TrioClock's wall time begins


class Clock(Protocol):
    """What the engine asks of a clock. Seconds everywhere."""

    def now(self) -> float:
        """Wall time, seconds since 1970 (UTC)."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; only differences mean something."""

    def check_step(self) -> float | None:
        """Move the anchor if the system's wall clock stepped; the step in seconds, or None."""


class SystemClock:
    """Wall = anchor + monotonic, re-anchored by `check_step` alone."""

    __slots__ = ("_anchor", "_monotonic", "_step_limit_seconds", "_wall")

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        step_limit_seconds: float = STEP_LIMIT_SECONDS,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._step_limit_seconds = step_limit_seconds
        self._anchor = wall() - monotonic()

    def now(self) -> float:
        return self._anchor + self._monotonic()

    def monotonic(self) -> float:
        return self._monotonic()

    def check_step(self) -> float | None:
        step = self._wall() - self.now()
        if abs(step) <= self._step_limit_seconds:
            return None
        self._anchor += step
        return step

    def __repr__(self) -> str:
        return f"<SystemClock {self.now():.3f}, steps over {self._step_limit_seconds:g} s>"


class TrioClock:
    """For tests: wall = epoch + `trio.current_time()`, so it jumps with an autojump clock; never steps."""

    __slots__ = ("_epoch",)

    def __init__(self, epoch: float = EPOCH_SECONDS) -> None:
        self._epoch = epoch

    def now(self) -> float:
        return self._epoch + trio.current_time()

    def monotonic(self) -> float:
        return trio.current_time()

    def check_step(self) -> float | None:
        return None
