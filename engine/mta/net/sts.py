"""MTA-STS policies of domains: asked for in DNS, fetched over HTTPS, kept as long as they say (RFC 8461 3).

Decides when a policy is fetched: when the id in DNS is another than the one that is kept, and once a day to
renew it. A policy that is kept counts until its `max_age`, whatever becomes of the record or of the host:
otherwise whoever can suppress an answer could take the policy away. A domain whose policy cannot be had and
that had none has none for now (RFC 8461 3.3, 5.1); after a failure the host is left in peace for minutes.
Touches: DNS, the policy hosts, and the store that the rows survive a restart in. Fetches run beside
(`run`); who asks waits for a while only. On a crash those under way are lost and asked for again.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog
import trio
from dns.rdatatype import RdataType
from msgspec import Struct

from engine.model.decoding import UNDECODABLE
from engine.model.tls import PolicyKind
from engine.model.tls_result import TlsResult
from engine.mta.net.dns_message import AnswerKind
from engine.mta.net.http import HttpClient, HttpResponse, HttpTrouble, HttpTroubleKind
from engine.mta.net.resolver import Resolver
from engine.mta.policy.mta_sts import (
    POLICY_OCTETS_MAX,
    NoPolicy,
    StsMode,
    StsPolicy,
    parse_policy,
    policy_id,
)

POLICIES_MAX = 100_000  # rows in the store; about 0.3 kB each in memory
WAIT_SECONDS = 20.0  # that mail waits for a fetch; then it goes by what is known
FETCH_SECONDS = 60.0  # RFC 8461 3.3 suggests one minute
FETCHES_MAX = 50  # at a time, a socket each
FETCHES_WAITING_MAX = 1_000  # behind those; over it a domain goes by what is known
FAILURE_REST_SECONDS = 300.0  # RFC 8461 3.3: five minutes or longer
RENEW_SECONDS = 86_400.0  # RFC 8461 10.2 suggests to renew once a day
FAILURES_KEPT_MAX = 100_000
TROUBLED_TTL_SECONDS = 300.0  # what was found without DNS or fetch is looked at again by then
PATH = "/.well-known/mta-sts.txt"

Told = Callable[[str, PolicyKind, TlsResult, str], None]
"""Who is told of a policy that cannot be had: domain, kind, result, why."""

log = structlog.get_logger("sts")


class PolicyStore(Protocol):
    """Where policies survive a restart: rows by domain."""

    def items(self) -> dict[str, bytes]:
        """All rows, the oldest first where the store knows."""
        ...

    async def put(self, domain: str, row: bytes) -> None: ...

    async def delete(self, domain: str) -> None: ...


class KeptPolicy(Struct, frozen=True, array_like=True):
    """One policy as it was fetched; times in wall seconds. `id` is the one that DNS had then."""

    id: str
    policy: StsPolicy
    fetched_at: float
    expires_at: float


class StsFailure(Struct, frozen=True):
    """Why a policy could not be had."""

    result: TlsResult
    why: str
    retry_at: float  # wall seconds


class StsFinding(Struct, frozen=True):
    """What holds for a domain: a policy or None, and for how long that is known."""

    policy: StsPolicy | None
    ttl_seconds: float
    failure: StsFailure | None = None  # of the latest fetch, while its host is left in peace


class _Fetch:
    """One fetch under way; those who want the policy wait for `done`."""

    def __init__(self, domain: str, record_id: str) -> None:
        self.domain = domain
        self.record_id = record_id
        self.done = trio.Event()


class StsPolicies:
    """The policies of all domains. `wall` gives wall seconds: policies outlive the process."""

    def __init__(
        self, resolver: Resolver, client: HttpClient, store: PolicyStore, wall: Callable[[], float]
    ) -> None:
        self._resolver = resolver
        self._client = client
        self._store = store
        self._wall = wall
        self._rows = OrderedDict(store.items())
        self._failures: OrderedDict[str, StsFailure] = OrderedDict()
        self._under_way: dict[str, _Fetch] = {}
        self._wanted, self._waiting = trio.open_memory_channel[_Fetch](FETCHES_WAITING_MAX)
        self.fetches = 0
        self.failed_fetches = 0

    def __repr__(self) -> str:
        return (
            f"<StsPolicies: {len(self._rows):,} kept, {len(self._under_way)} under way, "
            f"{self.fetches:,} fetched, {self.failed_fetches:,} failed>"
        )

    async def prefetch(self, domain: str) -> None:
        """Ask DNS ahead, so that `find` has the answer sooner."""
        await self._resolver.ask(_record_name(domain), RdataType.TXT)

    def knows(self, domain: str) -> bool:
        """Whether DNS has been asked, so that `prefetch` is of no use."""
        return self._resolver.knows(_record_name(domain), RdataType.TXT)

    async def find(self, domain: str) -> StsFinding:
        """What holds for a domain (lower-case A-labels). Waits for WAIT_SECONDS at most.

        `run` must be running, or nothing is fetched.
        """
        with trio.move_on_after(WAIT_SECONDS):
            return await self._find(domain)
        return self._finding(domain, TROUBLED_TTL_SECONDS)

    async def _find(self, domain: str) -> StsFinding:
        answer, ttl_seconds = await self._resolver.ask(_record_name(domain), RdataType.TXT)
        if answer.kind is AnswerKind.FAILED:
            ttl_seconds = TROUBLED_TTL_SECONDS
        published = policy_id(answer.texts)
        kept = self._kept(domain)
        if published is not None and (kept is None or published != kept.id):
            fetch = self._fetch(domain, published)
            if fetch is not None:
                await fetch.done.wait()
        elif kept is not None and self._is_old(kept):
            self._fetch(domain, kept.id)  # beside: what is kept counts meanwhile
        return self._finding(domain, ttl_seconds)

    def _finding(self, domain: str, ttl_seconds: float) -> StsFinding:
        kept, failure = self._kept(domain), self._failures.get(domain)
        if failure is not None and self._wall() >= failure.retry_at:
            failure = None
        if kept is not None:
            ttl_seconds = min(ttl_seconds, kept.expires_at - self._wall())
        if failure is not None or domain in self._under_way:
            ttl_seconds = min(ttl_seconds, TROUBLED_TTL_SECONDS)
        policy = kept.policy if kept is not None and kept.policy.mode is not StsMode.NONE else None
        return StsFinding(policy, ttl_seconds, failure)

    def _kept(self, domain: str) -> KeptPolicy | None:
        """What counts still; rows are decoded when they are wanted, so that a start is cheap."""
        row = self._rows.get(domain)
        if row is None:
            return None
        try:
            kept = msgspec.msgpack.decode(row, type=KeptPolicy)
        except UNDECODABLE as error:  # another version wrote it
            log.warning("a policy does not decode", domain=domain, error=str(error))
            del self._rows[domain]
            return None
        return kept if self._wall() < kept.expires_at else None

    def _is_old(self, kept: KeptPolicy) -> bool:
        """Renewed well before it expires, or a policy would lapse that its domain still means."""
        return self._wall() - kept.fetched_at >= min(RENEW_SECONDS, kept.policy.max_age_seconds / 2)

    def _fetch(self, domain: str, record_id: str) -> _Fetch | None:
        """The fetch of a policy, under way or begun; None when it may not be now."""
        fetch = self._under_way.get(domain)
        if fetch is not None:
            return fetch
        failure = self._failures.get(domain)
        if failure is not None and self._wall() < failure.retry_at:
            return None
        fetch = _Fetch(domain, record_id)
        try:
            self._wanted.send_nowait(fetch)
        except trio.WouldBlock:
            return None
        self._under_way[domain] = fetch
        return fetch

    async def run(self, told: Told, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch what is wanted, until cancelled. `told` hears of each fetch that fails."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            for _ in range(FETCHES_MAX):
                nursery.start_soon(self._work, told)

    async def _work(self, told: Told) -> None:
        while True:
            fetch = await self._waiting.receive()
            try:
                await self._renew(fetch, told)
            finally:
                del self._under_way[fetch.domain]
                fetch.done.set()

    async def _renew(self, fetch: _Fetch, told: Told) -> None:
        domain = fetch.domain
        self.fetches += 1
        response = await self._client.get(
            f"mta-sts.{domain}", PATH, octets_max=POLICY_OCTETS_MAX, deadline_seconds=FETCH_SECONDS
        )
        now = self._wall()
        judged = judge_response(response)
        if isinstance(judged, StsPolicy):
            self._failures.pop(domain, None)
            kept = KeptPolicy(fetch.record_id, judged, now, now + judged.max_age_seconds)
            await self._keep(domain, msgspec.msgpack.encode(kept))
            return
        result, why = judged
        self._fail(domain, StsFailure(result, why, now + FAILURE_REST_SECONDS))
        told(domain, PolicyKind.STS, result, why)

    def _fail(self, domain: str, failure: StsFailure) -> None:
        self.failed_fetches += 1
        self._failures[domain] = failure
        self._failures.move_to_end(domain)
        if len(self._failures) > FAILURES_KEPT_MAX:
            self._failures.popitem(last=False)
        log.info("no MTA-STS policy", domain=domain, result=failure.result.value, why=failure.why)

    async def _keep(self, domain: str, row: bytes) -> None:
        """In memory at once, so that it counts; in the store when this returns."""
        self._rows[domain] = row
        self._rows.move_to_end(domain)
        gone = self._rows.popitem(last=False)[0] if len(self._rows) > POLICIES_MAX else None
        await self._store.put(domain, row)
        if gone is not None:
            await self._store.delete(gone)


def judge_response(response: HttpResponse | HttpTrouble) -> StsPolicy | tuple[TlsResult, str]:
    """The policy that came, or what kind of failure it is in reports, and why."""
    if isinstance(response, HttpTrouble):
        if response.kind is HttpTroubleKind.CERTIFICATE:
            return TlsResult.STS_WEBPKI_INVALID, response.detail
        return TlsResult.STS_FETCH_ERROR, response.detail
    if response.status != 200:  # no redirect is followed (RFC 8461 3.3)
        return TlsResult.STS_FETCH_ERROR, f"HTTP status {response.status}"
    if response.content_type != "text/plain":
        return TlsResult.STS_INVALID, "not text/plain"
    policy = parse_policy(response.body)
    return (TlsResult.STS_INVALID, policy.why) if isinstance(policy, NoPolicy) else policy


def _record_name(domain: str) -> str:
    return f"_mta-sts.{domain}"
