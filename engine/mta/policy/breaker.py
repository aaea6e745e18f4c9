"""A circuit breaker for one provider: when its answers are about us, no address pays for it.

A provider that lists our IP or doubts our signature may say "user unknown" to good addresses too. When
more than SHARE of the attempts of the last ten minutes, and at least COUNT, are answered with something
of the group `sender`, the breaker opens: nothing is suppressed on this provider's word, and what was
suppressed since `suspect_since` is to be judged anew. After a while it is half open: still nothing is
suppressed, and the next attempts decide whether it closes or opens for twice as long.

Pure; mail goes on whatever the breaker says. In doubt it stays open: a bad address costs one more try,
a suppressed good one costs a reader.
"""

from enum import Enum

from engine.mta.policy.rolling import RollingCount

# The reference's rule for bursts: more than 5 % and at least 20 within 10 minutes.
SHARE, COUNT, SPAN_SECONDS = 0.05, 20, 600.0
OPEN_SECONDS, OPEN_SECONDS_MAX = 600.0, 7_200.0
PROBES = 20  # one refusal among them is SHARE
CALM_SECONDS = 7_200.0  # closed for so long, the next opening is short again


class BreakerState(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class Breaker:
    """The breaker of one provider; `count` is told of every answered attempt."""

    def __init__(self, now: float) -> None:
        self._attempts = RollingCount(SPAN_SECONDS, now)
        self._sender = RollingCount(SPAN_SECONDS, now)
        self._state = BreakerState.CLOSED
        self._until = now
        self._open_seconds = OPEN_SECONDS
        self._closed_at = now
        self._probes = 0
        self._probes_refused = 0
        self.suspect_since: float | None = None
        self.reason = ""

    def __repr__(self) -> str:
        return f"<Breaker {self._state.value}{': ' if self.reason else ''}{self.reason}>"

    def state(self, now: float) -> BreakerState:
        if self._state is BreakerState.OPEN and now >= self._until:
            self._state = BreakerState.HALF_OPEN
            self._probes = self._probes_refused = 0
        return self._state

    def hard_allowed(self, now: float) -> bool:
        """May an answer of this provider put an address on the suppression list?"""
        return self.state(now) is BreakerState.CLOSED

    def count(self, now: float, sender: bool) -> bool:
        """An attempt was answered, with the group `sender` or not. True: the breaker opened or closed."""
        attempts = self._attempts.add(now)
        refused = self._sender.add(now) if sender else self._sender.total(now)
        match self.state(now):
            case BreakerState.CLOSED:
                if not sender or refused < COUNT or refused <= SHARE * attempts:
                    return False
                if now - self._closed_at >= CALM_SECONDS:
                    self._open_seconds = OPEN_SECONDS
                self.suspect_since = now - SPAN_SECONDS
                self._open(now, refused, attempts)
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                self._probes += 1
                self._probes_refused += sender
                if self._probes_refused > SHARE * PROBES:
                    self._open(now, self._probes_refused, self._probes)
                    return True
                if self._probes < PROBES:
                    return False
                self._state = BreakerState.CLOSED
                self._closed_at = now
                self._attempts.clear()
                self._sender.clear()
                self.suspect_since = None
                self.reason = ""
                return True

    def answered(self, now: float, count: int) -> bool:
        """`count` attempts were answered with anything but the group `sender`. True as with `count`."""
        if self._state is BreakerState.CLOSED:
            self._attempts.add(now, count)
            return False
        changed = False
        for _ in range(min(count, PROBES)):
            changed = self.count(now, sender=False) or changed
        return changed

    def _open(self, now: float, refused: int, attempts: int) -> None:
        self._state = BreakerState.OPEN
        self._until = now + self._open_seconds
        self.reason = (
            f"{refused} of the last {attempts} attempts were refused for what we are: "
            f"nothing is suppressed for {self._open_seconds / 60:.0f} min"
        )
        self._open_seconds = min(2 * self._open_seconds, OPEN_SECONDS_MAX)
