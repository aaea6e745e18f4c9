"""The rate of one site: the generic cell rate algorithm (ITU-T I.371), one number of state.

`due` is the theoretical arrival time of the next message. A message conforms when it is not earlier
than `due` less the burst tolerance. Tokens are taken at lease. After a restart the burst is empty, so
a crash loop cannot exceed the rate. The rate may move while it runs: what was sent stays counted, and
a raise opens no burst, or a controller that raises twice a second would hand one out each time.
"""

from engine.config.units import Rate

BURST_SECONDS = 1.0  # one second's worth may go at once: receivers count per minute or hour


class Throttle:
    """GCRA for `rate`; None = unlimited. A message, or `burst_seconds` of the rate, may go at once."""

    __slots__ = ("_burst_seconds", "_due", "_interval", "_tolerance")

    def __init__(self, rate: Rate | None, now: float, burst_seconds: float = BURST_SECONDS) -> None:
        assert burst_seconds >= 0
        self._burst_seconds = burst_seconds
        self._interval = 0.0
        self._tolerance = 0.0
        self._due = now
        self.set_rate(None if rate is None else rate.per_second, now)

    def __repr__(self) -> str:
        if not self._interval:
            return "<Throttle unlimited>"
        return f"<Throttle {1 / self._interval:.3g}/s>"

    @property
    def per_second(self) -> float | None:
        return 1 / self._interval if self._interval else None

    def set_rate(self, per_second: float | None, now: float, burst_seconds: float | None = None) -> None:
        """Another rate (and burst, where it is said) from `now` on; None = unlimited.

        What may go at once after it is never more messages than before it. From unlimited, one may go.
        """
        if burst_seconds is not None:
            self._burst_seconds = burst_seconds
        if per_second is None:
            self._interval = self._tolerance = 0.0
            return
        assert per_second > 0
        interval = 1 / per_second
        tolerance = max(interval, self._burst_seconds)
        if interval == self._interval and tolerance == self._tolerance:
            return
        room = 1.0
        if self._interval:
            room = (now + self._tolerance - max(self._due, now)) / self._interval
        self._interval = interval
        self._tolerance = tolerance
        self._due = now + self._tolerance - min(room * interval, self._tolerance)

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
