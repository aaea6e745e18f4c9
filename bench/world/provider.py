"""One mailbox provider: its manners, its memory, its tally, shared by all of its receivers.

Decides what a recipient or a return path meets at each moment of a transaction: greylisting, rate,
troubles. Pure but for its memory; `now` is an argument (any clock that does not jump). Touches
nothing else: receivers act on its answers. Greylisting comes before the troubles, as a policy
service in front of a mailbox host would.
"""

from typing import Any

from bench.world.manners import Manners, Moment, Trouble
from bench.world.records import AcceptedSink, Tally

MEMORY_MAX = 5_000_000  # remembered attempts and greylist entries; about 1 GB, a bench never gets there


class Provider:
    """What several receivers share. `domains` empty = takes mail for any domain."""

    def __init__(
        self,
        name: str,
        manners: Manners,
        *,
        seed: int = 1,
        domains: frozenset[str] = frozenset(),
        sink: AcceptedSink | None = None,
        keep_content: bool = False,
    ) -> None:
        self.name = name
        self.manners = manners
        self.domains = domains
        self.sink = sink
        self.keep_content = keep_content
        self.tally = Tally()
        self.open_connections = 0
        self._seed = seed
        self._by_moment = {
            moment: tuple(t for t in manners.troubles if t.moment is moment) for moment in Moment
        }
        self._attempts: dict[tuple[str, str], tuple[float, int]] = {}  # first at, attempts so far
        self._greylist: dict[tuple[str, bytes, str], float] = {}  # first at
        self._rate_full_at = 0.0  # GCRA: theoretical arrival time of the next message

    def __repr__(self) -> str:
        counts = self.tally.counts
        return f"<Provider {self.name}: {self.open_connections} connections, {counts['accepted']} accepted>"

    def trouble(self, moment: Moment, whom: str, now: float) -> Trouble | None:
        """The trouble that this attempt meets, counted as met. `whom` is the lower-case recipient, or
        the return path at Moment.MAIL, where the recipient is not known yet."""
        for trouble in self._by_moment[moment]:
            if trouble.hits(self._seed, whom) and self._still_on(trouble, whom, now):
                self.tally.troubles[trouble.kind] += 1
                return trouble
        return None

    def _still_on(self, trouble: Trouble, whom: str, now: float) -> bool:
        if trouble.lasts:
            return True
        assert len(self._attempts) < MEMORY_MAX
        first_at, attempts = self._attempts.get((whom, trouble.kind), (now, 0))
        self._attempts[whom, trouble.kind] = (first_at, attempts + 1)
        if trouble.times and attempts >= trouble.times:
            return False
        return not (trouble.seconds and now - first_at >= trouble.seconds)

    def greylisted(self, source: str, mail_from: bytes, recipient: str, now: float) -> bool:
        """Whether this triplet has to come again later (RFC 6647 2.1)."""
        wait_seconds = self.manners.greylist_seconds
        if not wait_seconds:
            return False
        assert len(self._greylist) < MEMORY_MAX
        first_at = self._greylist.setdefault((source, mail_from, recipient), now)
        return now - first_at < wait_seconds

    def over_rate(self, now: float) -> bool:
        """Take one message from the rate; True if none is left."""
        manners = self.manners
        if not manners.rate_per_minute:
            return False
        interval = 60.0 / manners.rate_per_minute
        full_at = max(self._rate_full_at, now)
        if full_at - now > interval * (manners.rate_burst - 1) + 1e-9:
            return True
        self._rate_full_at = full_at + interval
        return False

    def serves(self, recipient: str) -> bool:
        return not self.domains or recipient.rpartition("@")[2] in self.domains

    def statistics(self) -> dict[str, Any]:
        self.tally.counts["connections_open"] = self.open_connections
        return self.tally.statistics()
