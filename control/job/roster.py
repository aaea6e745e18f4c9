"""Which broadcasters live: by the rows that they put into table `status`, and by our own clock alone.

A row that changed within LIVE_SECONDS of now is a living broadcaster's; what the row says of the time is not
looked at, since clocks differ. A row that was there before we looked tells nothing until it changes. When
nobody was heard for that long and then somebody is, it was the bus that was away: all get their time anew.
Speeds are measured here, too: envelopes tried a second, while there was work. Pure: times are arguments.
"""

import math
from typing import Any

import msgspec
from msgspec import Struct

from engine.config.base import NAME
from engine.model.decoding import UNDECODABLE

LIVE_SECONDS = 10.0  # five of an engine's rows missed
LIVE_INTERVALS = 5.0  # where they come more seldom
INTERVAL_SECONDS_MAX = 60.0  # the longest that `[bus] status_every` may be
SPEED_SECONDS = 8.0  # how far back a measured speed reaches, about
FIRST_SECONDS = 2.0  # events come in bursts: less tells nothing
PROCESS = "engine"
INTAKE = "intake"  # the consumer of a broadcaster's chunks


class Status(Struct, frozen=True, kw_only=True):
    """A row of `status` as far as a coordinator reads it."""

    epoch: str = ""
    interval: float = 2.0  # seconds between two rows
    closures: dict[str, str] = {}  # why it takes no work
    draining: bool = False
    suppressions: dict[str, int] = {}  # writer -> the last sequence that holds there
    signer_public: str = ""
    queued: int = 0
    rate: float = 0.0
    version: str = ""
    incarnation: str = ""


class Heard:
    """One broadcaster. `at` is the time of its last change, None before the first one."""

    __slots__ = ("at", "row", "status")

    def __init__(self, status: Status, row: bytes) -> None:
        self.status = status
        self.row = row
        self.at: float | None = None


class Roster:
    """Every broadcaster that has a row."""

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}
        self._last = -math.inf  # when anybody was heard

    def __repr__(self) -> str:
        return f"<Roster of {', '.join(sorted(self._heard)) or 'nobody'}>"

    def hear(self, key: str, row: bytes | None, now: float) -> str | None:
        """A row as the table's watch gives it; the broadcaster's name, if it is one's."""
        name, _, process = key.rpartition("/")
        if process != PROCESS or not is_broadcaster(name):
            return None
        if row is None:
            self._heard.pop(name, None)
            return name
        status = decode_status(row)
        if status is None:
            return None
        if now - self._last > LIVE_SECONDS:
            for each in self._heard.values():
                each.at = None if each.at is None else now
        known = self._heard.get(name)
        if known is None:
            self._heard[name] = Heard(status, row)
        elif known.row != row:
            known.status, known.row, known.at = status, row, now
            self._last = now
        return name

    def live(self, now: float) -> list[str]:
        """Who was heard of late, by name."""
        return sorted(name for name in self._heard if self.is_live(name, now))

    def is_live(self, name: str, now: float) -> bool:
        heard = self._heard.get(name)
        if heard is None or heard.at is None:
            return False
        interval = min(heard.status.interval, INTERVAL_SECONDS_MAX)
        return now - heard.at <= max(LIVE_SECONDS, LIVE_INTERVALS * interval)

    def is_open(self, name: str, now: float) -> bool:
        """It lives and takes work."""
        status = self.status(name)
        if status is None or status.closures or status.draining:
            return False
        return self.is_live(name, now)

    def status(self, name: str) -> Status | None:
        """The last row, of a dead one too."""
        heard = self._heard.get(name)
        return None if heard is None else heard.status

    def names(self) -> list[str]:
        return sorted(self._heard)

    def silent_seconds(self, name: str, now: float) -> float | None:
        """Since its last change; None when none was seen."""
        heard = self._heard.get(name)
        return None if heard is None or heard.at is None else now - heard.at


def is_broadcaster(name: str) -> bool:
    """Whether a node can be called so. Streams, tables and questions are named after it: another name would
    be refused by the bus, at every start anew."""
    return NAME.match(name) is not None


def decode_status(row: bytes) -> Status | None:
    """A row, or None for octets that are none: a newer engine may say what we do not know."""
    try:
        told: Any = msgspec.json.decode(row)
        return msgspec.convert(told, Status, strict=False) if isinstance(told, dict) else None
    except UNDECODABLE:
        return None


class Speed:
    """Envelopes tried a second, smoothed; it stands still while there is nothing to do."""

    __slots__ = ("_at", "_done", "per_second")

    def __init__(self) -> None:
        self.per_second: float | None = None
        self._at: float | None = None
        self._done = 0

    def __repr__(self) -> str:
        return f"<Speed {self.per_second}>"

    def start(self, done: int, now: float) -> None:
        """Measure from here on."""
        self._at, self._done = now, done

    def add(self, done: int, waiting: int, now: float) -> None:
        """`done` envelopes were tried by `now` and so many wait still."""
        if self._at is None or (not waiting and done == self._done):
            self.start(done, now)
            return
        seconds = now - self._at
        if self.per_second is None:
            if done == self._done:  # before its first envelope it is not measured, only waited for
                self.start(done, now)
            elif seconds >= FIRST_SECONDS:
                self.per_second = (done - self._done) / seconds
                self.start(done, now)
        elif seconds > 0:
            measured = (done - self._done) / seconds
            self.per_second += (measured - self.per_second) * (1.0 - math.exp(-seconds / SPEED_SECONDS))
            self.start(done, now)
