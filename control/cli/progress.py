"""How a campaign is coming along: a bar on a terminal, a line every few seconds anywhere else.

`Meter` is the arithmetic (rate over the last seconds, time left), `Progress` the display; both are
given snapshots and the time, and read no clock. A terminal sees nothing in the first second: what
is done by then needs no bar. Everything goes to stderr, so that `--json` on stdout stays clean.
"""

import sys
from collections import deque
from types import TracebackType
from typing import TextIO

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from engine.mta.spool.api import StateCounts

RATE_WINDOW_SECONDS = 10.0  # long enough to be calm, short enough to show trouble
QUIET_SECONDS = 1.0  # interfaces: a bar when it takes longer than a second
REDRAW_SECONDS = 0.1
LINE_SECONDS = 5.0  # between lines where there is no terminal


class Snapshot(Struct, frozen=True):
    """Where the campaign stands. `to_send` grows while the list is read; `retrying` = deferred by a peer."""

    counts: StateCounts
    to_send: int
    retrying: int = 0
    note: str = ""  # what is going on beside sending, e.g. "reading people.csv, 40 %"
    forecast: str = ""  # when it will be done, by what is known of the receivers; "" = by the rate alone


class Meter:
    """Rate and time left from (now, done) pairs."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """`done` messages are over by `now` (any clock's seconds that never step back)."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Messages a second over the window; 0 while nothing can be said."""
        if len(self._seen) < 2:
            return 0.0
        (then, before), (now, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - then) if now > then else 0.0

    def seconds_left(self, left: int) -> float | None:
        """Until `left` more messages are over at this rate; None = it cannot be told."""
        if left <= 0:
            return 0.0
        return left / self.rate if self.rate > 0 else None


def count_sent(counts: StateCounts) -> int:
    """Messages that no further attempt is planned for: finished, held or parked."""
    return counts.finished + counts.ambiguous + counts.quarantined


def describe(snapshot: Snapshot, meter: Meter) -> str:
    """One line: sent / to send, rate, deferred, bounced, time left."""
    counts, sent = snapshot.counts, count_sent(snapshot.counts)
    parts = [
        f"{sent:,} of {snapshot.to_send:,} sent",
        f"{meter.rate:,.0f}/s",
        f"{snapshot.retrying:,} deferred",
        f"{counts.bounced:,} bounced",
    ]
    if counts.ambiguous:
        parts.append(f"{counts.ambiguous:,} ambiguous")
    if snapshot.forecast:
        parts.append(snapshot.forecast)
    else:
        left = meter.seconds_left(snapshot.to_send - sent)
        parts.append("time left unknown" if left is None else f"{describe_seconds(left)} left")
    if snapshot.note:
        parts.append(snapshot.note)
    return ", ".join(parts)


def describe_seconds(seconds: float) -> str:
    """ "0:07", "12:34", "5:01:07"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """The display; a context manager. Call `show` as often as you like, it draws as often as it helps."""

    def __init__(self, stream: TextIO | None = None, *, terminal: bool | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty() if terminal is None else terminal
        self._meter = Meter()
        self._started: float | None = None
        self._drawn = float("-inf")
        self._bar: RichProgress | None = None

    def show(self, snapshot: Snapshot, now: float) -> None:
        """Take a snapshot at `now`, in seconds of a clock that never steps back."""
        if self._started is None:
            self._started = now
        self._meter.add(now, count_sent(snapshot.counts))
        if self._terminal:
            if now - self._started >= QUIET_SECONDS and now - self._drawn >= REDRAW_SECONDS:
                self._drawn = now
                self._draw(snapshot)
        elif now - max(self._drawn, self._started) >= LINE_SECONDS:
            self._drawn = now
            print(describe(snapshot, self._meter), file=self._stream, flush=True)

    def _draw(self, snapshot: Snapshot) -> None:
        if self._bar is None:
            # No refresh thread: it would take the interpreter lock from the loop that sends.
            self._bar = RichProgress(
                BarColumn(bar_width=30),
                TextColumn("{task.description}", markup=False),
                console=Console(file=self._stream, force_terminal=True),
                auto_refresh=False,
            )
            self._bar.start()
            self._bar.add_task("", total=None)
        self._bar.update(
            self._bar.task_ids[0],
            total=max(snapshot.to_send, 1),
            completed=count_sent(snapshot.counts),
            description=describe(snapshot, self._meter),
            refresh=True,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
