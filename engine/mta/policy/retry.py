"""When a deferred envelope is tried again, and when it is given up.

Exponential back-off with jitter between named bounds (`[engine.retry]`, or the shaping of a path). What
says nothing about the envelope uses the first interval whatever the attempt: greylisting (RFC 6647: the
receiver wants a second try of the same tuple, not patience), and a rate of ours that was too high (the
path slows down; the envelope need not wait for hours). A delay that the reply names is kept: never
earlier, and not much later. The last attempt is brought forward to lie before the expiry.
"""

from typing import Protocol

EXPIRY_MARGIN_SECONDS = 1.0


class Curve(Protocol):
    """Seconds: first, then times factor up to max, each +- jitter (a share)."""

    @property
    def first(self) -> float: ...

    @property
    def factor(self) -> float: ...

    @property
    def max(self) -> float: ...

    @property
    def jitter(self) -> float: ...


def retry_at(
    curve: Curve,
    attempt: int,
    now: float,
    expires_at: float,
    chance: float,
    *,
    blameless: bool = False,
    after_seconds: float | None = None,
) -> float | None:
    """Wall seconds of the next attempt after `attempt` ones, or None: expired.

    `chance` is a random number in [0, 1): the caller's dice. `blameless`: nothing was said about this
    envelope. `after_seconds`: the delay that the reply named.
    """
    if now >= expires_at:
        return None
    if after_seconds is not None:
        pause = after_seconds * (1 + curve.jitter * chance)  # they said when; nobody comes earlier
    else:
        exponent = 0 if blameless else min(attempt, 64)
        pause = min(curve.first * curve.factor**exponent, curve.max)
        pause *= 1 + curve.jitter * (2 * chance - 1)
    due = now + pause
    last = expires_at - EXPIRY_MARGIN_SECONDS
    if due <= last:
        return due
    return last if last > now + curve.first / 2 else None
