"""What a provider keeps of one source address: its connections, its rate, its good name.

`SourceAccount` counts over all hosts of the provider, as the large ones do. Decides whether one more
message or connection is over a limit, and whether the source is good, throttled (every limit shrinks to
a share) or blocked. Refusals over a limit spoil a name and time mends it, so a sender that slows down
gets its limits back and one that hammers is shut out. Pure: `now` is an argument.
"""

from enum import Enum
from typing import Any

from bench.world.manners import Manners

ROUNDING = 1e-9  # of sums of intervals


class Standing(Enum):
    GOOD = "good"
    THROTTLED = "throttled"
    BLOCKED = "blocked"


class SourceAccount:
    """One source address at one provider."""

    __slots__ = (
        "_blocked_until",
        "_forgotten_at",
        "_manners",
        "_rate_full_at",
        "_remembered",
        "_window_began",
        "_window_count",
        "blocks",
        "connections_open",
        "connections_peak",
        "refusals",
    )

    def __init__(self, manners: Manners) -> None:
        self.connections_open = 0
        self.connections_peak = 0
        self.refusals = 0  # over a limit, in all
        self.blocks = 0
        self._manners = manners
        self._rate_full_at = 0.0  # GCRA: theoretical arrival time of the next message
        self._window_began = float("-inf")  # a window begins with its first message
        self._window_count = 0
        self._remembered = 0.0  # refusals not forgotten yet
        self._forgotten_at = 0.0
        self._blocked_until = 0.0

    def __repr__(self) -> str:
        return (
            f"<SourceAccount {self.connections_open} connections, {self.refusals} refusals, "
            f"{self._remembered:.0f} remembered, {self.blocks} blocks>"
        )

    def opened(self) -> None:
        self.connections_open += 1
        self.connections_peak = max(self.connections_peak, self.connections_open)

    def closed(self) -> None:
        assert self.connections_open > 0
        self.connections_open -= 1

    def over_connections(self, now: float) -> bool:
        """Whether the connection that was opened last is one too many; counted as a refusal if so."""
        cap = self._manners.connections_max
        if not cap or self.connections_open <= max(1, int(cap * self._share(now))):
            return False
        self._refuse(now)
        return True

    def over_rate(self, now: float) -> bool:
        """Take one message from the rate; True if none is left, counted as a refusal."""
        manners = self._manners
        if not manners.rate_per_minute:
            return False
        per_second = manners.rate_per_minute / 60.0 * self._share(now)
        over = (
            self._over_window(now, per_second) if manners.rate_window_seconds else self._over(now, per_second)
        )
        if over:
            self._refuse(now)
        return over

    def _over(self, now: float, per_second: float) -> bool:
        interval = 1.0 / per_second
        full_at = max(self._rate_full_at, now)
        if full_at - now > interval * (self._manners.rate_burst - 1) + ROUNDING:
            return True
        self._rate_full_at = full_at + interval
        return False

    def _over_window(self, now: float, per_second: float) -> bool:
        seconds = self._manners.rate_window_seconds
        if now - self._window_began >= seconds:
            self._window_began, self._window_count = now, 0
        if self._window_count >= max(1, int(per_second * seconds)):
            return True
        self._window_count += 1
        return False

    # --- reputation ---

    def standing(self, now: float) -> Standing:
        reputation = self._manners.reputation
        if reputation is None:
            return Standing.GOOD
        if now < self._blocked_until:
            return Standing.BLOCKED
        passed = max(0.0, now - self._forgotten_at)
        self._remembered = max(0.0, self._remembered - passed * reputation.forgets_per_second)
        self._forgotten_at = now
        return Standing.THROTTLED if self._remembered >= reputation.throttle_refusals else Standing.GOOD

    def _share(self, now: float) -> float:
        reputation = self._manners.reputation
        if reputation is None or self.standing(now) is Standing.GOOD:
            return 1.0
        return reputation.throttled_share

    def _refuse(self, now: float) -> None:
        self.refusals += 1
        reputation = self._manners.reputation
        if reputation is None or self.standing(now) is Standing.BLOCKED:
            return
        self._remembered += 1
        if self._remembered >= reputation.block_refusals:
            self.blocks += 1
            self._blocked_until = self._forgotten_at = now + reputation.block_seconds
            self._remembered = reputation.throttle_refusals  # it comes back throttled

    def statistics(self) -> dict[str, Any]:
        return {
            "connections_peak": self.connections_peak,
            "refusals": self.refusals,
            "blocks": self.blocks,
            "remembered": round(self._remembered, 1),
        }
