"""By which way a message leaves, and from which of the way's sources.

A *way* is a pool of sources, or a relay over the sources of the default way. The narrowest route decides:
campaign, recipient domain, the longest ".domain" above it, workspace, everything; an operator's reroute
comes before all of them. Of a way's sources a domain has one, by weighted rendezvous hashing: greylisting
and reputation want to meet the same address again, and when a source is lost only its own domains move.

Pure, and made once from the configuration. A way or a relay that is not there is the default way or None:
what an operator set may name what a later configuration has no more.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from engine.config.egress import RouteRule, plain_domain
from engine.model.egress import Relay, RelayTls, Source
from engine.model.tls import HostDemand, HostTls, PolicyKind, TlsDemand

FIRSTS_KEPT_MAX = 50_000  # first choices of domains; some 200 octets each
_DRAWS = 2**64  # of the hash's first 8 octets


class Way(Struct, frozen=True):
    """How a message leaves: by the pool or relay `name`, "" = by all sources; `relay` names one or is ""."""

    name: str = ""
    relay: str = ""


DEFAULT_WAY = Way()


class Egress:
    """All ways of one engine. `pools`: name -> source name -> weight."""

    def __init__(
        self,
        sources: Sequence[Source],
        pools: Mapping[str, Mapping[str, int]] | None = None,
        relays: Iterable[Relay] = (),
        routes: Iterable[RouteRule] = (),
    ) -> None:
        assert sources, "mail leaves from somewhere"
        by_name = {source.name: source for source in sources}
        weighted = [(source, source.weight) for source in sources if source.weight]
        self._default = weighted or [(source, 1) for source in sources]
        self._pools = {
            name: [(by_name[member], weight) for member, weight in pool.items()]
            for name, pool in (pools or {}).items()
        }
        self._relays = {relay.name: relay for relay in relays}
        self._sites = {relay.site: relay for relay in self._relays.values()}
        self._ways = {name: Way(name) for name in self._pools}
        self._ways |= {name: Way(name, name) for name in self._relays}
        self._campaigns: dict[int, Way] = {}
        self._domains: dict[str, Way] = {}
        self._suffixes: dict[str, Way] = {}  # without their dot
        self._workspaces: dict[str, Way] = {}
        self._rest = DEFAULT_WAY
        self._firsts: dict[tuple[str, str], Source] = {}
        for route in routes:
            self._put(route)
        self.plain = not (self._campaigns or self._domains or self._suffixes or self._workspaces)
        self.plain = self.plain and self._rest == DEFAULT_WAY
        """All mail leaves by the default way, if no operator reroutes it."""

    def _put(self, route: RouteRule) -> None:
        way = self._ways[route.pool or route.relay]
        if route.campaign:
            self._campaigns[route.campaign] = way
        elif route.domain:
            domain = plain_domain(route.domain)
            where = self._suffixes if domain.startswith(".") else self._domains
            where[domain.removeprefix(".")] = way
        elif route.workspace:
            self._workspaces[route.workspace] = way
        else:
            self._rest = way

    def __repr__(self) -> str:
        routes = len(self._campaigns) + len(self._domains) + len(self._suffixes) + len(self._workspaces)
        return (
            f"<Egress {len(self._default)} sources by default, {len(self._pools)} pools,"
            f" {len(self._relays)} relays, {routes} routes>"
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of pools and relays: what mail may be rerouted to."""
        return tuple(sorted(self._ways))

    def way(self, campaign: int, workspace: str, domain: str, override: str | None = None) -> Way:
        """The way of a campaign's mail to a recipient domain; `override` is what an operator set."""
        if override is not None and (way := self._ways.get(override)) is not None:
            return way
        if (way := self._campaigns.get(campaign)) is not None:
            return way
        if (way := self._domains.get(domain)) is not None:
            return way
        if self._suffixes and (way := self._by_suffix(domain)) is not None:
            return way
        return self._workspaces.get(workspace, self._rest)

    def _by_suffix(self, domain: str) -> Way | None:
        _, _, above = domain.partition(".")
        while above:
            if (way := self._suffixes.get(above)) is not None:
                return way
            _, _, above = above.partition(".")
        return None

    def sources(self, way: Way) -> tuple[Source, ...]:
        """Every source of a way."""
        return tuple(source for source, _ in self._members(way))

    def source_for(self, way: Way, domain: str, usable: Callable[[Source], bool]) -> Source:
        """The source of a domain: its first choice that is usable; its first choice when none is."""
        members = self._members(way)
        if len(members) == 1:
            return members[0][0]
        key = (way.name, domain)
        first = self._firsts.get(key)
        if first is None:
            if len(self._firsts) >= FIRSTS_KEPT_MAX:
                self._firsts.clear()
            first = self._firsts[key] = max(members, key=lambda member: _score(domain, *member))[0]
        if usable(first):
            return first
        order = sorted(members, key=lambda member: _score(domain, *member), reverse=True)
        return next((source for source, _ in order if usable(source)), first)

    def relay(self, name: str) -> Relay | None:
        return self._relays.get(name)

    def relay_at(self, site: str) -> Relay | None:
        """The relay whose site this is."""
        return self._sites.get(site)

    def _members(self, way: Way) -> Sequence[tuple[Source, int]]:
        return self._default if way.relay else self._pools.get(way.name, self._default)


def _score(domain: str, source: Source, weight: int) -> float:
    """Each source draws a number for each domain; the greatest wins, in proportion to the weights."""
    digest = hashlib.blake2b(f"{domain}\0{source.name}".encode(), digest_size=8).digest()
    share = (int.from_bytes(digest, "big") + 0.5) / _DRAWS
    return -weight / math.log(share) if share < 1.0 else math.inf


def relay_demand(relay: Relay) -> TlsDemand | None:
    """What a relay's route demands of TLS; None = what its shaping says."""
    match relay.tls:
        case RelayTls.VERIFIED:
            host = HostDemand(HostTls.VERIFIED, names=(relay.host,))
        case RelayTls.REQUIRED:
            host = HostDemand(HostTls.ENCRYPTED)
        case RelayTls.OPPORTUNISTIC | RelayTls.NEVER:
            return None
    return TlsDemand(f"relay-{relay.name}", PolicyKind.NONE, enforced=True, hosts={relay.host: host})
