"""Counts what became of TLS sessions under a policy, by recipient domain and UTC day, for reports (RFC 8460).

The dialler makes a `TlsTally` for each connection; the connection says whose mail it carried, and each
domain gets the session once. Kept in memory and written to the bus table `tls_results` each minute and at
a stop (`tls_keeping`), so a kill -9 loses at most the last minute's counts. Bounded: domains beyond the
limit are not counted, and the log says so. Days long over are removed. Touches: the bus table.
"""

import datetime
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable

import msgspec
import structlog
import trio
from msgspec import Struct

from engine.bus.api import NodeBus
from engine.model.decoding import UNDECODABLE
from engine.model.tls import HostTls, PolicyKind, TlsDemand
from engine.model.tls_result import (
    TLS_RESULTS_TABLE,
    DomainResults,
    PolicyResults,
    TlsFailure,
    TlsResult,
    row_key,
)
from engine.mta.policy.dane import record_text

DOMAINS_MAX = 20_000  # of one day; only domains that publish a policy are here, some 1 kB each
POLICIES_MAX = 20  # of one domain: DANE has one for each MX host, STS has one
FAILURES_MAX = 100  # kinds of failure under one policy; more are counted as one
DAYS_KEPT = 4  # with today: a report that nobody made over a long weekend can still be made
REASON_MAX = 300  # characters
MISSED_MAX = 5_000  # paths; a tally is 1 kB, and told within a second
WRITES_AT_A_TIME = 256  # rows that share a group commit

log = structlog.get_logger("tls_results")


class Policy(Struct, frozen=True):
    """What a session was held against. `domain` "" = the recipient's."""

    kind: PolicyKind
    domain: str = ""
    policy: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()


class TlsSession(Struct, frozen=True):
    """One session or one try of it. `failure` None = it met its policy."""

    policy: Policy
    failure: TlsFailure | None = None


class _Counts:
    """Of one policy."""

    __slots__ = ("failed", "failures", "policy", "successful")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.successful = 0
        self.failed = 0
        self.failures: dict[TlsFailure, int] = {}  # by what they were, with a count of 1

    def add(self, failure: TlsFailure | None, count: int = 1) -> None:
        if failure is None:
            self.successful += count
            return
        self.failed += count
        if failure not in self.failures and len(self.failures) >= FAILURES_MAX:
            failure = TlsFailure(failure.result, reason="others")
        self.failures[failure] = self.failures.get(failure, 0) + count

    def results(self, domain: str) -> PolicyResults:
        policy = self.policy
        failures = tuple(msgspec.structs.replace(each, count=n) for each, n in self.failures.items())
        whose = policy.domain or domain
        return PolicyResults(
            policy.kind, whose, policy.policy, policy.mx, self.successful, self.failed, failures
        )


class TlsResults:
    """All counts of one engine. `now` gives wall seconds."""

    def __init__(self, bus: NodeBus, now: Callable[[], float]) -> None:
        self._bus = bus
        self._now = now
        self._days: dict[str, dict[str, dict[Hashable, _Counts]]] = {}
        self._changed: set[tuple[str, str]] = set()
        self._loaded: set[str] = set()
        self._swept = ""  # the day of the last look for old rows
        self.counted: Counter[tuple[PolicyKind, bool]] = Counter()  # in this life: kind, whether it was met
        self.lost = 0  # sessions of domains that there was no room for
        self.missed: OrderedDict[str, TlsTally] = OrderedDict()  # by path: its last dial reached nobody

    def __repr__(self) -> str:
        count = sum(map(len, self._days.values()))
        return f"<TlsResults: {count} domains, {len(self._changed)} to be written, {self.lost} lost>"

    def add(self, domain: str, session: TlsSession) -> None:
        """Count a session for a recipient domain, today."""
        day = utc_day(self._now())
        domains = self._day(day)
        policies = domains.get(domain)
        if policies is None:
            if len(domains) >= DOMAINS_MAX:
                self.lost += 1
                return
            policies = domains[domain] = {}
        policy = session.policy
        counts = policies.get(policy)
        if counts is None:
            if len(policies) >= POLICIES_MAX:
                self.lost += 1
                return
            counts = policies[policy] = _Counts(policy)
        counts.add(session.failure)
        self.counted[policy.kind, session.failure is None] += 1
        self._changed.add((day, domain))

    def trouble(self, domain: str, kind: PolicyKind, result: TlsResult, reason: str) -> None:
        """Count a policy that could not be had or used: nobody was met under it."""
        failure = TlsFailure(result, reason=reason[:REASON_MAX])
        self.add(domain, TlsSession(Policy(kind), failure))

    def dialled(self, path: str, tally: "TlsTally", *, reached: bool) -> None:
        """A dial is over. When nobody was Ready, whoever gives back its mail tells the tally."""
        self.missed.pop(path, None)
        if not reached and tally.sessions:
            self.missed[path] = tally
            if len(self.missed) > MISSED_MAX:
                self.missed.popitem(last=False)

    def of(self, day: str, domain: str) -> DomainResults:
        """What is counted so far."""
        policies = self._day(day).get(domain, {})
        return DomainResults(day, domain, tuple(counts.results(domain) for counts in policies.values()))

    async def flush(self) -> int:
        """Write what changed; durable on return. The number of rows. What fails to be written stays."""
        changed = list(self._changed)
        await _side_by_side([self._writer(day, domain) for day, domain in changed])
        today = utc_day(self._now())
        for day in [day for day in self._days if day < today]:
            if not any(each == day for each, _ in self._changed):
                del self._days[day]
                self._loaded.discard(day)
        if self._swept != today:
            await self._sweep(today)
        if self.lost:
            log.warning("no room to count TLS sessions of more domains", sessions=self.lost)
            self.lost = 0
        return len(changed)

    def _writer(self, day: str, domain: str) -> Callable[[], Awaitable[None]]:
        async def write() -> None:
            self._changed.discard((day, domain))  # what comes while it is written is for the next time
            try:
                value = msgspec.json.encode(self.of(day, domain))
                await self._bus.put(TLS_RESULTS_TABLE, row_key(day, self._bus.member, domain), value)
            except BaseException:
                self._changed.add((day, domain))
                raise

        return write

    async def _sweep(self, today: str) -> None:
        """Remove our rows of days that are long over."""
        oldest = utc_day(self._now() - (DAYS_KEPT - 1) * 86_400)

        def remover(key: str) -> Callable[[], Awaitable[None]]:
            return lambda: self._bus.delete(TLS_RESULTS_TABLE, key)

        old = [key for key in self._bus.items(TLS_RESULTS_TABLE) if key < oldest and self._is_ours(key)]
        await _side_by_side([remover(key) for key in old])
        self._swept = today

    def _day(self, day: str) -> dict[str, dict[Hashable, _Counts]]:
        """The counts of a day: what an earlier run has written goes on being counted."""
        domains = self._days.setdefault(day, {})
        if day in self._loaded:
            return domains
        self._loaded.add(day)
        for key, value in self._bus.items(TLS_RESULTS_TABLE).items():
            if not (key.startswith(day) and self._is_ours(key)):
                continue
            try:
                row = msgspec.json.decode(value, type=DomainResults)
            except UNDECODABLE as error:
                log.warning("counts of TLS sessions do not decode", key=key, error=str(error))
                continue
            domains[row.domain] = {
                counts.policy: counts for counts in (_counts_of(row.domain, each) for each in row.policies)
            }
        return domains

    def _is_ours(self, key: str) -> bool:
        return key.split(" ", 2)[1:2] == [self._bus.member]


class TlsTally:
    """What one connection met on its way, told to the domains whose mail it carries or would have."""

    __slots__ = ("_counted", "_demand", "_results", "sessions")

    def __init__(self, results: TlsResults, demand: TlsDemand | None) -> None:
        self._results = results
        self._demand = demand
        self.sessions: list[TlsSession] = []
        self._counted: set[str] = set()

    def __repr__(self) -> str:
        return f"<TlsTally: {len(self.sessions)} sessions, counted for {len(self._counted)} domains>"

    def met(self, host: str) -> None:
        """The session with this host met its policy."""
        if (policy := self._policy(host)) is not None:
            self.sessions.append(TlsSession(policy))

    def failed(self, host: str, failure: TlsFailure) -> None:
        if (policy := self._policy(host)) is not None:
            self.sessions.append(TlsSession(policy, failure))

    def counted(self, domain: str) -> None:
        """Mail of this recipient domain is in it: count it for that domain, once."""
        if not self.sessions or domain in self._counted:
            return
        self._counted.add(domain)
        for session in self.sessions:
            self._results.add(domain, session)

    def _policy(self, host: str) -> Policy | None:
        demand = self._demand
        if demand is None or demand.kind is PolicyKind.NONE:
            return None
        if demand.kind is not PolicyKind.DANE:
            return Policy(demand.kind, "", demand.policy, demand.mx)
        of_host = demand.hosts.get(host.lower())
        if of_host is not None and of_host.tls is HostTls.VERIFIED:
            return Policy(PolicyKind.STS)  # a host without TLSA records beside others that have some
        if of_host is None or not of_host.tlsa:
            return Policy(demand.kind, host)
        records = tuple(map(record_text, of_host.tlsa))
        return Policy(demand.kind, of_host.names[0] if of_host.names else host, records)


def utc_day(wall: float) -> str:
    """The UTC day of a wall time, as in "2026-03-01"."""
    return datetime.datetime.fromtimestamp(wall, datetime.UTC).date().isoformat()


def _counts_of(domain: str, row: PolicyResults) -> _Counts:
    """Counts as they were written."""
    whose = row.domain if row.kind is PolicyKind.DANE or row.domain != domain else ""
    counts = _Counts(Policy(row.kind, whose, row.policy, row.mx))
    counts.add(None, row.successful)
    for failure in row.failures:
        counts.add(msgspec.structs.replace(failure, count=1), failure.count)
    return counts


async def _side_by_side(acts: list[Callable[[], Awaitable[None]]]) -> None:
    """Writes that share commits: one after the other each would wait for its own."""
    for start in range(0, len(acts), WRITES_AT_A_TIME):
        async with trio.open_nursery() as nursery:
            for act in acts[start : start + WRITES_AT_A_TIME]:
                nursery.start_soon(act)
