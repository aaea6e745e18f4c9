"""The rate of one site: the generic cell rate algorithm (ITU-T I.371), one number of state.

`due` is the theoretical arrival time of the next message. A message conforms when it is not earlier
than `due` less the burst tolerance. Tokens are taken at lease. After a restart the burst is empty, so
a crash loop cannot exceed the rate.
"""

from engine.config.units import Rate

BURST_SECONDS = 1.0  # one second's worth may go at once: receivers count per minute or hour


class Throttle:
    """GCRA for `rate`; None = unlimited."""

    __slots__ = ("_due", "_interval", "_tolerance")

    def __init__(self, rate: Rate | None, now: float) -> None:
        self._interval = 0.0 if rate is None else rate.seconds / rate.count
        self._tolerance = 0.0 if rate is None else max(self._interval, min(BURST_SECONDS, rate.seconds))
        self._due = now + self._tolerance - self._interval  # an empty burst: one message may go at once

    def __repr__(self) -> str:
        if not self._interval:
            return "<Throttle unlimited>"
        return f"<Throttle {1 / self._interval:.3g}/s>"

    def take(self, now: float, wanted: int) -> int:
        """How many of `wanted` messages may go now; they are counted as sent."""
        if not self._interval:
            return wanted
        base = max(self._due, now)
        room = now + self._tolerance - base
        allowed = min(wanted, max(0, int(room / self._interval + 1e-9)))
        self._due = base + allowed * self._interval
        return allowed

    def give_back(self, count: int) -> None:
        """Messages that were taken and not sent."""
        self._due -= count * self._interval

    def wait_seconds(self, now: float) -> float:
        """How long until the next message may go; 0 = now."""
        if not self._interval:
            return 0.0
        return max(0.0, self._due + self._interval - self._tolerance - now)
