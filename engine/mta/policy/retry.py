"""When a deferred envelope is tried again, and when it is given up.

Exponential back-off with jitter between named bounds (`[engine.retry]`). A deferral that looks like
greylisting (RFC 6647) uses the first interval, whatever the attempt: the receiver wants a second try
of the same tuple, not patience. The last attempt is brought forward to lie before the expiry.
"""

from engine.config.tables import RetryTable

EXPIRY_MARGIN_SECONDS = 1.0


def retry_at(
    table: RetryTable, attempt: int, now: float, expires_at: float, chance: float, *, greylisted: bool = False
) -> float | None:
    """Wall seconds of the next attempt after `attempt` ones, or None: expired.

    `chance` is a random number in [0, 1): the caller's dice.
    """
    if now >= expires_at:
        return None
    exponent = 0 if greylisted else min(attempt, 64)
    pause = min(table.first * table.factor**exponent, table.max)
    pause *= 1 + table.jitter * (2 * chance - 1)
    due = now + pause
    last = expires_at - EXPIRY_MARGIN_SECONDS
    if due <= last:
        return due
    return last if last > now + table.first / 2 else None
