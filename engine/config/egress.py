"""Ways out, as tables: sources, pools of them, relays, and which mail takes which.

`[[engine.source]]`, `[engine.pools]`, `[[engine.relay]]` and `[[engine.route]]`. What one table says about
another (a pool of a source that is not there) is checked by `check_egress`, which `EngineTable` calls.
Passwords are files in the keys folder, never values in here. Which rule wins is decided in
`engine.mta.policy.egress`.
"""

import difflib
import ipaddress
from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

from engine.config.base import Table, check, check_name, check_unique
from engine.config.shaping import CONNECTIONS_MAX_LIMIT, ShapingRule, TlsPolicy
from engine.config.units import CountRange, HostPort, UnitError
from engine.model.address import AddressError, normalise_domain
from engine.model.egress import Proxy, ProxyKind, Relay, RelayTls

WEIGHT_MAX = 1_000  # shares further apart than this are a warm-up plan's work
SOURCES_MAX = 1_000  # about one /22 of addresses; a domain's first choice costs 4 us for each
ROUTES_MAX = 100_000  # one for each customer of a big installation
SOCKS_TEXT_OCTETS_MAX = 255  # RFC 1929 2: one octet tells the length

PoolMembers: TypeAlias = dict[str, int] | list[str]  # a list = the weights of the sources


class SourceRule(Table, frozen=True):
    """An egress source: the local address to bind, or the proxy that has it, and the name said in EHLO."""

    name: str
    address: str = ""  # empty = the system's choice, or the proxy's
    ehlo_name: str = ""  # empty = the host's name
    proxy: str = ""  # "socks5://HOST:PORT" or "haproxy://HOST:PORT"
    proxy_user: str = ""
    proxy_password_file: str = ""  # in the keys folder
    weight: int = 1

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if self.address:
            check("address", _is_address(self.address), "is no IPv4 or IPv6 address")
        if self.ehlo_name:
            try:
                normalise_domain(self.ehlo_name)
            except AddressError as error:
                raise ValueError(f"ehlo_name: {error}") from None
        check("weight", 0 <= self.weight <= WEIGHT_MAX, f"must be from 0 to {WEIGHT_MAX}")
        self._check_proxy()

    def _check_proxy(self) -> None:
        proxy = self.proxy_facts()
        if proxy is None:
            for key in ("proxy_user", "proxy_password_file"):
                check(key, not getattr(self, key), "is of use with proxy only")
            return
        if proxy.kind is ProxyKind.HAPROXY:
            check("address", bool(self.address), "is what a haproxy is told to send from: write it")
            for key in ("proxy_user", "proxy_password_file"):
                check(key, not getattr(self, key), "is of use with a socks5 proxy only")
        check(
            "proxy_password_file",
            bool(self.proxy_user) == bool(self.proxy_password_file),
            "and proxy_user come together",
        )
        octets = len(self.proxy_user.encode())
        check("proxy_user", octets <= SOCKS_TEXT_OCTETS_MAX, f"is longer than {SOCKS_TEXT_OCTETS_MAX} octets")
        check_file("proxy_password_file", self.proxy_password_file)

    def proxy_facts(self) -> Proxy | None:
        """The proxy, without its password. Raises ValueError for a text that names none."""
        if not self.proxy:
            return None
        scheme, _, place = self.proxy.partition("://")
        try:
            kind = ProxyKind(scheme)
            where = HostPort.parse(place)
        except (ValueError, UnitError):
            example = "write socks5://127.0.0.1:1080 or haproxy://127.0.0.1:2525"
            raise ValueError(f"proxy: is no proxy: {example}") from None
        # A name would have to be looked up for every connection, and mail would hang on that answer.
        check("proxy", _is_address(where.host), "names a host: write its address")
        return Proxy(kind, where.host, where.port, self.proxy_user)


class RelayRule(Table, frozen=True):
    """A host that takes mail for everybody (a smarthost)."""

    name: str
    host: HostPort
    user: str = ""
    password_file: str = ""  # in the keys folder
    tls: RelayTls = RelayTls.OPPORTUNISTIC
    connections: int | None = None  # unset = as the rules for receivers say

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check("password_file", bool(self.user) == bool(self.password_file), "and user come together")
        check_file("password_file", self.password_file)
        count = self.connections
        check("connections", count is None or count >= 1, "must be at least 1")
        check("connections", count is None or count <= CONNECTIONS_MAX_LIMIT, "is too many")
        bare = self.user and self.tls is RelayTls.NEVER and not self.on_loopback
        named = not (self.tls is RelayTls.VERIFIED and _is_address(self.host.host))
        check("tls", named, "a certificate is for a name: write the relay's in host")
        check("tls", not bare, 'would show the password to the network; write "required"')

    @property
    def on_loopback(self) -> bool:
        """Nobody listens between us and it."""
        host = self.host.host
        return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)

    def shaping(self) -> ShapingRule | None:
        """What it says among the rules for receivers, if anything: a relay is a site of its own."""
        if self.connections is None and self.tls is RelayTls.OPPORTUNISTIC:
            return None
        tls = {RelayTls.NEVER: TlsPolicy.NEVER, RelayTls.OPPORTUNISTIC: None}.get(
            self.tls, TlsPolicy.REQUIRED
        )
        count = None if self.connections is None else CountRange(1, self.connections)
        return ShapingRule(site=self.facts().site, connections=count, tls=tls)

    def facts(self) -> Relay:
        """The relay, without its credentials."""
        host = self.host.host.lower().removesuffix(".")
        return Relay(self.name, host, self.host.port, None, self.tls, self.connections)


class RouteRule(Table, frozen=True):
    """Which mail leaves by a pool or a relay. At most one of the keys is set; none = everything.

    `domain` is of recipients; with a dot in front it is every domain below.
    """

    campaign: int = 0
    workspace: str = ""
    domain: str = ""
    pool: str = ""
    relay: str = ""

    def __post_init__(self) -> None:
        said = [key for key in ("campaign", "workspace", "domain") if getattr(self, key)]
        check(said[-1] if said else "domain", len(said) <= 1, f"one route matches by one key, not {said}")
        check("campaign", self.campaign >= 0, "is the number of a campaign")
        check("pool", bool(self.pool) != bool(self.relay), "or relay: name one of them")
        if self.domain:
            try:
                plain_domain(self.domain)
            except AddressError as error:
                raise ValueError(f"domain: {error}") from None

    @property
    def match(self) -> str:
        """What it matches, as an operator would say it."""
        if self.campaign:
            return f"campaign {self.campaign}"
        if self.domain:
            return f"domain {plain_domain(self.domain)}"
        return f"workspace {self.workspace}" if self.workspace else "everything"


def plain_domain(text: str) -> str:
    """A domain as recipients' domains are compared, the dot in front kept. Raises AddressError."""
    below = "x" if text.startswith(".") else ""  # ".de" is no domain of mail, but something below it is
    return normalise_domain(below + text).removeprefix(below)


def members_of(pool: PoolMembers, weights: Mapping[str, int]) -> dict[str, int]:
    """Sources and weights of a pool; one that is only listed has its own weight, at least 1."""
    if isinstance(pool, dict):
        return pool
    return {name: max(1, weights[name]) for name in pool}


def check_egress(
    sources: Collection[SourceRule],
    pools: Mapping[str, PoolMembers],
    relays: Collection[RelayRule],
    routes: Collection[RouteRule],
) -> None:
    """Raises ValueError for relations that cannot be."""
    names = [source.name for source in sources]
    check_unique("source", names)
    check("source", len(names) <= SOURCES_MAX, f"has more than {SOURCES_MAX} entries")
    check(
        "source",
        not sources or any(source.weight for source in sources),
        "has no weight above 0: mail that no route matches could not leave",
    )
    check_unique("relay", [relay.name for relay in relays])
    check_unique("route", [route.match for route in routes])
    check("route", len(routes) <= ROUTES_MAX, f"has more than {ROUTES_MAX} entries")
    for name, pool in pools.items():
        check_name("pools", name)
        for problem in _pool_problems(pool, names):
            raise ValueError(f"pools: {name} {problem}")
    for relay in relays:
        check("relay", relay.name not in pools, f"{relay.name!r} is the name of a pool, too")
    known = {
        "pool": (list(pools), "[engine.pools]"),
        "relay": ([one.name for one in relays], "[[engine.relay]]"),
    }
    for route in routes:
        for key, (there, table) in known.items():
            target = getattr(route, key)
            if target and target not in there:
                raise ValueError(
                    f"route: {route.match}: no {key} {target!r} in {table}{_guess(target, there)}"
                )


def _pool_problems(pool: PoolMembers, sources: list[str]) -> Iterator[str]:
    if not pool:
        yield "is empty: name sources in it"
    for member in pool:
        if member not in sources:
            yield f"names {member!r}, which is no [[engine.source]]{_guess(member, sources)}"
    if isinstance(pool, list) and len(set(pool)) < len(pool):
        yield "names a source twice"
    if isinstance(pool, dict) and not all(1 <= weight <= WEIGHT_MAX for weight in pool.values()):
        yield f"has a weight that is not from 1 to {WEIGHT_MAX}"


def _guess(name: str, known: list[str]) -> str:
    if close := difflib.get_close_matches(name, known, n=1):
        return f'; did you mean "{close[0]}"?'
    return f"; known: {', '.join(sorted(known)[:10])}" if known else "; there is none"


def check_file(key: str, name: str) -> None:
    """Raises ValueError for what is a secret itself rather than the name of its file."""
    check(key, "\n" not in name and "-----" not in name, "holds the secret itself; name its file here")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
