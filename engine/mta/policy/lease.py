"""How many envelopes a connection asks for: 100 to 200 ms of its own rate, learnt from what it gets answered.

Too few, and it runs dry between leases (each takes a commit or two); too many, and one death leaves
hundreds ambiguous. Pure; the caller brings the time and the count of answered transactions.
"""

LEASE_SECONDS = 0.15  # architecture 5.2: a lease is worth 100-200 ms
FIRST_LEASE = 4


class LeaseSize:
    """The next lease's size for one connection, between FIRST_LEASE and `most`."""

    __slots__ = ("_answered_before", "_granted_at", "_most", "_ran_dry", "size")

    def __init__(self, most: int) -> None:
        self.size = FIRST_LEASE
        self._most = most
        self._granted_at = 0.0
        self._answered_before = 0
        self._ran_dry = False

    def __repr__(self) -> str:
        return f"<LeaseSize {self.size}{' after running dry' if self._ran_dry else ''}>"

    def run_dry(self) -> None:
        """There is nothing left to do, and a lease is on its way."""
        self._ran_dry = True

    def granted(self, now: float, answered: int) -> None:
        """A lease has come at `now`; `answered` transactions had their answer in this connection's life.

        The rate counts answers, not grants: grants would fill queues. A rate measured while running dry is
        that of the disk, and sizes would shrink with it, so then the size doubles instead.
        """
        if self._ran_dry:
            self.size = min(self._most, self.size * 2)
        elif self._granted_at:
            rate = (answered - self._answered_before) / max(now - self._granted_at, 0.001)
            self.size = max(FIRST_LEASE, min(self._most, int(rate * LEASE_SECONDS)))
        self._ran_dry = False
        self._granted_at = now
        self._answered_before = answered
