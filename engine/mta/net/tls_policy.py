"""What a domain demands of the TLS of its hosts: DANE and MTA-STS joined into the demand of its route.

Decides which of the two holds for each host: DANE wherever DNSSEC proves records, whatever MTA-STS says, so
that a certificate of some authority never rescues a host whose DANE fails (RFC 8461 2); MTA-STS for the
others. Domains with equal demands share a lane of their site, others are apart. Touches: DNS and policy
hosts, through `tlsa` and `sts`. What cannot be found out is a value; the route stays a route even when no
host may be used, and the dialler says why.
"""

import hashlib

import msgspec
import trio
from msgspec.structs import replace

from engine.model.tls import HostDemand, HostTls, PolicyKind, TlsDemand
from engine.mta.net.addresses import is_literal
from engine.mta.net.mx import Route
from engine.mta.net.resolver import Resolver
from engine.mta.net.sts import StsPolicies, Told
from engine.mta.net.tlsa import DaneFinding, find_dane
from engine.mta.policy.dane import record_text
from engine.mta.policy.mta_sts import StsMode, StsPolicy, allows

TTL_SECONDS_MIN = 60.0  # a zone with a TTL of 0 is not asked for each message
TTL_SECONDS_MAX = 86_400.0  # a policy that comes new is seen within a day
REFUSED_TTL_SECONDS = 300.0  # a host that DNS trouble refuses is looked at again by then
LANE_HASH_CHARS = 8  # 32 bits, among the policies of one site; a lane is in every line of a log
NOT_IN_POLICY = "not in the domain's MTA-STS policy"


class TlsPolicies:
    """Finds demands. `sts` None = MTA-STS is off; `dane` False = DANE is off."""

    def __init__(self, resolver: Resolver, sts: StsPolicies | None, *, dane: bool) -> None:
        self._resolver = resolver
        self.sts = sts
        self._dane = dane

    def __repr__(self) -> str:
        return f"<TlsPolicies: DANE {'on' if self._dane else 'off'}, {self.sts or 'MTA-STS off'}>"

    async def run(self, told: Told, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The background work: fetching policies. Until cancelled; at once over when MTA-STS is off."""
        if self.sts is None:
            task_status.started()
            return
        await self.sts.run(told, task_status=task_status)

    def wants(self, domain: str) -> bool:
        """Whether `prefetch` would save time."""
        return self.sts is not None and not is_literal(domain) and not self.sts.knows(domain)

    async def prefetch(self, domain: str) -> None:
        """Ask what the domain's demand needs, side by side with the look-up of its route."""
        assert self.sts is not None
        await self.sts.prefetch(domain)

    async def demand(self, domain: str, route: Route) -> Route:
        """The route with what its domain (lower-case A-labels) demands, and for how long that is known."""
        if is_literal(domain):
            return route
        ttl_seconds = route.ttl_seconds
        found: dict[str, DaneFinding] = {}
        if self._dane:
            found = await find_dane(self._resolver, domain, route)
            for finding in found.values():
                refused = finding.demand is not None and finding.demand.tls is HostTls.REFUSED
                ttl_seconds = min(ttl_seconds, REFUSED_TTL_SECONDS if refused else finding.ttl_seconds)
        dane = {name: finding.demand for name, finding in found.items() if finding.demand is not None}
        policy: StsPolicy | None = None
        if self.sts is not None and len(dane) < len(route.hosts):
            told = await self.sts.find(domain)
            policy, ttl_seconds = told.policy, min(ttl_seconds, told.ttl_seconds)
        return replace(
            route,
            demand=join_demands([host.name for host in route.hosts], dane, policy),
            ttl_seconds=min(max(ttl_seconds, TTL_SECONDS_MIN), TTL_SECONDS_MAX),
        )


def join_demands(hosts: list[str], dane: dict[str, HostDemand], policy: StsPolicy | None) -> TlsDemand | None:
    """The demand on a route's hosts; None when there is none on any.

    Where DANE holds for a host, the demand is enforced, and a policy in mode "testing" asks nothing of the
    other hosts: a demand is enforced as a whole or not at all.
    """
    testing = policy is not None and policy.mode is StsMode.TESTING
    if not dane and policy is None:
        return None
    demands: dict[str, HostDemand] = {}
    for name in hosts:
        if name in dane:
            demands[name] = dane[name]
        elif policy is None or (dane and testing):
            demands[name] = HostDemand(HostTls.OPPORTUNISTIC)
        elif allows(policy, name):
            demands[name] = HostDemand(HostTls.VERIFIED, (name,))
        else:
            demands[name] = HostDemand(HostTls.REFUSED, why=NOT_IN_POLICY)
    if dane:
        records = dict.fromkeys(record_text(record) for each in dane.values() for record in each.tlsa)
        return _with_lane("dane", TlsDemand("", PolicyKind.DANE, True, demands, tuple(records)))
    assert policy is not None
    kind = "sts-testing" if testing else "sts"
    return _with_lane(kind, TlsDemand("", PolicyKind.STS, not testing, demands, policy.lines, policy.mx))


def _with_lane(name: str, demand: TlsDemand) -> TlsDemand:
    """All of the demand is hashed, also what only reports quote: a lane's sessions are told of as its own."""
    octets = msgspec.json.encode(demand, order="sorted")
    digest = hashlib.blake2s(octets).hexdigest()[:LANE_HASH_CHARS]
    return replace(demand, lane=f"{name}-{digest}")
