"""How many in the last so many seconds: a count in rolling buckets, constant in time and memory.

It forgets by whole buckets, so the span counted is up to one bucket shorter than asked for: a rule that
waits for more than a share is a little slower to fire, never quicker than the truth.
"""

BUCKETS = 10  # of 10 minutes one is a minute: as exact as a rule of thumb deserves


class RollingCount:
    """A count over the last `span_seconds`."""

    __slots__ = ("_bucket_seconds", "_buckets", "_slot", "_total")

    def __init__(self, span_seconds: float, now: float) -> None:
        assert span_seconds > 0
        self._bucket_seconds = span_seconds / BUCKETS
        self._buckets = [0] * BUCKETS
        self._slot = int(now // self._bucket_seconds)
        self._total = 0

    def __repr__(self) -> str:
        return f"<RollingCount {self._total} in {self._bucket_seconds * BUCKETS:g} s>"

    def add(self, now: float, count: int = 1) -> int:
        """Count `count` more; the sum of the span."""
        total = self.total(now)
        self._buckets[self._slot % BUCKETS] += count
        self._total = total + count
        return self._total

    def total(self, now: float) -> int:
        slot = int(now // self._bucket_seconds)
        if slot > self._slot:
            for stale in range(self._slot + 1, min(slot, self._slot + BUCKETS) + 1):
                self._total -= self._buckets[stale % BUCKETS]
                self._buckets[stale % BUCKETS] = 0
            self._slot = slot
        return self._total

    def clear(self) -> None:
        self._buckets = [0] * BUCKETS
        self._total = 0
