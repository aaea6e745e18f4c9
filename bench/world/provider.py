"""One mailbox provider: its manners, its memory, its tally, shared by all of its receivers.

Decides what a recipient or a return path meets at each moment of a transaction: greylisting and
troubles; limits are kept in the `SourceAccount` of each source address. Pure but for its memory; `now`
is an argument (any clock that does not jump). Touches nothing else: receivers act on its answers.
Greylisting comes before the troubles, as a policy service in front of a mailbox host would.
"""

from typing import Any

from bench.world.manners import Manners, Moment, Trouble
from bench.world.records import AcceptedSink, Tally, Timeline
from bench.world.sources import SourceAccount

MEMORY_MAX = 5_000_000  # remembered attempts and greylist entries; about 1 GB, a bench never gets there
SOURCES_MAX = 10_000  # source addresses; a sender has a few dozen


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
        self.timeline = Timeline()
        self.open_connections = 0  # of all sources
        self._accounts: dict[str, SourceAccount] = {}
        self._seed = seed
        self._by_moment = {
            moment: tuple(t for t in manners.troubles if t.moment is moment) for moment in Moment
        }
        self._attempts: dict[tuple[str, str], tuple[float, int]] = {}  # first at, attempts so far
        self._greylist: dict[tuple[str, bytes, str], float] = {}  # first at

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

    def account(self, source: str) -> SourceAccount:
        """What is known of a source address, over all hosts of this provider."""
        found = self._accounts.get(source)
        if found is None:
            assert len(self._accounts) < SOURCES_MAX
            found = self._accounts[source] = SourceAccount(self.manners)
        return found

    def opened(self, source: str) -> None:
        """A connection from `source` begins; each needs its `closed`."""
        self.open_connections += 1
        self.tally.counts["connections"] += 1
        self.account(source).opened()

    def closed(self, source: str) -> None:
        self.open_connections -= 1
        self.account(source).closed()

    def serves(self, recipient: str) -> bool:
        return not self.domains or recipient.rpartition("@")[2] in self.domains

    def statistics(self) -> dict[str, Any]:
        counts, accounts = self.tally.counts, self._accounts
        counts["connections_open"] = self.open_connections
        counts["connections_peak"] = max((each.connections_peak for each in accounts.values()), default=0)
        counts["blocks"] = sum(each.blocks for each in accounts.values())
        sources = {source: account.statistics() for source, account in accounts.items()}
        return {**self.tally.statistics(), "sources": sources}
