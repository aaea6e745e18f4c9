"""How many connections one egress path may hold open: the window, found by trying.

It starts with two and doubles while more connections carry more messages. A refused connection names the
receiver's cap: the window falls to what was open, and one more is tried after minutes, ever more rarely
while it is refused again. When messages take twice as long as they did with fewer connections and no
more of them get through, the receiver queues them, and the window steps back. Sessions that break off
in numbers count like refusals.

Pure; `now` is monotonic seconds. Whatever happens the window stays between floor and ceiling, so the
worst mistake is slow growth.
"""

from collections import deque

from msgspec import Struct

FIRST_CONNECTIONS = 2  # RFC 5321 says nothing; two is what the strictest of the large receivers allow
EVENT_SECONDS = 2.0  # dials that were on their way together are refused together
CAP_PROBE_SECONDS, CAP_PROBE_SECONDS_MIN, CAP_PROBE_SECONDS_MAX = 120.0, 30.0, 3_600.0
LATENCY_HOLD_SECONDS, LATENCY_HOLD_SECONDS_MAX = 30.0, 900.0
USELESS_HOLD_SECONDS = 3.0
REPUTATION_HOLD_SECONDS = 600.0
ALONE_HOLD_SECONDS, ALONE_HOLD_SECONDS_MAX = 5.0, 300.0  # not even one connection is let in
MEASURE_SECONDS, MEASURE_COUNT, MEASURE_SECONDS_MAX = 0.45, 10, 30.0
GENTLE_STEP, GENTLE_SECONDS = 8, 2.0  # once it went too far: an eighth more, and a longer look
CONFIRMED_SECONDS, STRIKE_SECONDS = 10.0, 60.0
CUT = 0.7
LATENCY_RATIO = 1.8  # "twice as long", less what a mean of ten measurements is off by
USEFUL_SHARE = 0.25  # of the growth that more connections would bring if nothing else held it
CLOSES_SECONDS, CLOSES_MIN = 10.0, 3
LATENCY_FORGET_SECONDS = 10_000.0  # a route that became twice as long is the new measure in two hours


class Trial(Struct, frozen=True):
    """What was measured before the window grew."""

    connections: int
    per_second: float


class WindowControl:
    """The connections of one path, `floor` to `ceiling`."""

    def __init__(self, floor: int, ceiling: int, start: int, now: float) -> None:
        assert 1 <= floor <= ceiling
        self.floor = floor
        self.ceiling = ceiling
        self.value = self._bounded(start)
        self.cap: int | None = None  # what the receiver allows, once it has refused
        self.grow_at = now
        self.closed_until = now  # no dial before: not even one connection was let in
        self._probe_seconds = CAP_PROBE_SECONDS
        self._hold_seconds = LATENCY_HOLD_SECONDS
        self._alone_seconds = ALONE_HOLD_SECONDS
        self._trial: Trial | None = None
        self._best_seconds = 0.0
        self._event_until = now
        self._strike_at: float | None = None
        self._full_since: float | None = None
        self._closes: deque[float] = deque(maxlen=64)
        self._measured_from = now
        self._count = 0
        self._seconds = 0.0

    def __repr__(self) -> str:
        cap = "" if self.cap is None else f", {self.cap} allowed"
        return f"<WindowControl {self.value} of {self.floor}..{self.ceiling}{cap}>"

    def set_bounds(self, floor: int, ceiling: int) -> None:
        self.floor, self.ceiling = floor, ceiling
        self.value = self._bounded(self.value)

    def refused(self, now: float, open_connections: int) -> str:
        """A dial was turned away while `open_connections` others stood. Says what happened, or ""."""
        if now < self._event_until:
            if self.cap is not None and open_connections > self.value:  # others of the same flight got in
                self.cap = self.value = self._bounded(open_connections)
            return ""
        self._event_until = now + EVENT_SECONDS
        confirmed = self._full_since is not None and now - self._full_since >= CONFIRMED_SECONDS
        recent = self._strike_at is not None and now - self._strike_at < STRIKE_SECONDS
        self._strike_at = now
        if confirmed and not recent and open_connections >= self.value - 1:
            return ""  # all were open a moment ago: a session just closed is still being counted there
        tried_more = self.cap is not None and self.value > self.cap
        target = open_connections if 0 < open_connections < self.value else int(self.value * CUT)
        if open_connections == 0:
            self.closed_until = now + self._alone_seconds
            self._alone_seconds = min(2 * self._alone_seconds, ALONE_HOLD_SECONDS_MAX)
        self._probe_seconds = (
            min(2 * self._probe_seconds, CAP_PROBE_SECONDS_MAX) if tried_more else CAP_PROBE_SECONDS
        )
        self._shrink(now, max(1, target), self._probe_seconds)
        self.cap = self.value
        return "too many connections"

    def closed(self, now: float) -> str:
        """A session broke off in the middle."""
        self._closes.append(now)
        while self._closes and self._closes[0] < now - CLOSES_SECONDS:
            self._closes.popleft()
        if now < self._event_until or len(self._closes) < max(CLOSES_MIN, self.value // 2):
            return ""
        count = len(self._closes)
        self._closes.clear()
        self._event_until = now + EVENT_SECONDS
        self._shrink(now, max(1, int(self.value * CUT)), CAP_PROBE_SECONDS)
        return f"{count} sessions broke off within {CLOSES_SECONDS:.0f} s"

    def reputation(self, now: float) -> None:
        self._shrink(now, max(1, self.value // 2), REPUTATION_HOLD_SECONDS)

    def tick(
        self, now: float, busy: bool, rate_bound: bool, open_connections: int, count: int, seconds: float
    ) -> str:
        """`count` answers since the last tick took `seconds` together. Says why the window moved, or ""."""
        if count:
            self._alone_seconds = ALONE_HOLD_SECONDS
        if not busy or open_connections < self.value:
            self._full_since = None
            self._measure_anew(now)
            return ""
        if self._full_since is None:
            self._full_since = now
        self._count += count
        self._seconds += seconds
        span = now - self._measured_from
        least = GENTLE_SECONDS if self._gentle and self._trial else MEASURE_SECONDS
        if span < least or (self._count < MEASURE_COUNT and span < MEASURE_SECONDS_MAX):
            return ""
        if rate_bound:  # more connections would only wait for the throttle together
            self._measure_anew(now)
            return ""
        per_second = self._count / span
        latency = self._seconds / self._count if self._count else 0.0
        self._measure_anew(now)
        trial, self._trial = self._trial, None
        before, reason = self.value, ""
        if trial is not None and trial.connections < self.value:
            reason = self._judge(now, trial, per_second, latency)
        if latency and self.value == before:
            best = self._best_seconds * (1 + span / LATENCY_FORGET_SECONDS)
            self._best_seconds = min(latency, best) if best else latency
        if not reason and now >= self.grow_at and self.value < self.ceiling:
            reason = self._grow(now, per_second)
        if self.value != before:
            self._full_since = None
        return reason

    def _judge(self, now: float, trial: Trial, per_second: float, latency: float) -> str:
        more = self.value / trial.connections - 1
        if per_second >= trial.per_second * (1 + USEFUL_SHARE * more):
            if self.cap is not None and self.value > self.cap:
                self._probe_seconds = max(self._probe_seconds / 2, CAP_PROBE_SECONDS_MIN)
                self.cap = self.value
            return ""
        if self._best_seconds and latency > LATENCY_RATIO * self._best_seconds:
            hold = self._hold_seconds
            self._hold_seconds = min(2 * hold, LATENCY_HOLD_SECONDS_MAX)
            self._shrink(now, trial.connections, hold)
            best = f"{self._best_seconds * 1e3:.0f}"
            return f"a message takes {latency * 1e3:.0f} ms instead of {best} and no more get through"
        self.grow_at = max(self.grow_at, now + USELESS_HOLD_SECONDS)
        return ""

    def _grow(self, now: float, per_second: float) -> str:
        self._trial = Trial(self.value, per_second)
        if self.cap is not None:
            self.value = self._bounded(self.value + 1)
            self.grow_at = now + self._probe_seconds
            return "tries one connection more"
        more = max(1, self.value // GENTLE_STEP) if self._gentle else self.value
        self.value = self._bounded(self.value + more)
        return "all connections are busy"

    @property
    def _gentle(self) -> bool:
        return self._hold_seconds > LATENCY_HOLD_SECONDS

    def _shrink(self, now: float, connections: int, hold_seconds: float) -> None:
        self.value = self._bounded(min(self.value, connections))
        self.grow_at = now + hold_seconds
        self._trial = None
        self._full_since = None

    def _measure_anew(self, now: float) -> None:
        self._measured_from = now
        self._count = 0
        self._seconds = 0.0

    def _bounded(self, connections: int) -> int:
        return max(self.floor, min(connections, self.ceiling))
