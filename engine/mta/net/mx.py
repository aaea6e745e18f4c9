"""From MX records and addresses to the hosts that are tried: the rules of RFC 5321 5.1 and RFC 7505.

Decides which of a domain's MX hosts may be used (`choose_hosts`), what is left once their
addresses are known (`make_route`), under which stable name the set is rolled up (`site_key`),
and in which order one attempt tries them (`trial_order`). Everything here is pure; `resolver`
asks the questions. What is read came out of a stranger's DNS: names are checked against the
host-name alphabet before they reach a log, a key or a TLS handshake, and every list is cut.
No outcome raises: a set that cannot be used is a `TransportFailure` that says why.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.model.egress import MxHost, Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.model.tls import TlsDemand
from engine.mta.net.addresses import family_version, is_literal, is_public

MX_RECORDS_MAX = 24  # most preferred first; big mailbox providers publish 1 to 10
HOST_ADDRESSES_MAX = 16  # per host; a hostile zone may list hundreds to make us a scanner
ROUTE_ADDRESSES_MAX = 48  # over all hosts of one route
TROUBLED_TTL_SECONDS = 300.0  # a route that lacks what DNS could not tell is looked up again by then
SITE_KEY_CHARS_MAX = 120  # fits a log column and an LMDB key (511 octets) with company
SITE_HASH_CHARS = 16  # 64 bits: nobody collides with another site's key by accident

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_-]{1,63}\Z")
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain"})


class Exchange(Struct, frozen=True, order=True):
    """One MX record: the host name in lower case without the root dot ("." for the root itself)."""

    preference: int
    name: str


class Addresses(Struct, frozen=True):
    """What the A and AAAA questions about one host gave: literals, or why there are none.

    `trouble` is set when a question failed for now, so that there may be more later; `ttl_seconds`
    is that of the questions that did not fail. `canonical` is the name at the end of an alias, empty
    for none; `secure` says that DNSSEC proves every address.
    """

    addresses: tuple[str, ...]
    ttl_seconds: float
    trouble: str = ""
    canonical: str = ""
    secure: bool = False


class Route(Struct, frozen=True):
    """Where a domain's mail goes. `site` names the MX host set; hosts are sorted by preference.

    `ttl_seconds` is how long this stays true from now on; `implicit` = the domain has no MX and
    is its own host (RFC 5321 5.1). `secure` = DNSSEC proves the MX set, or that there is none;
    `canonical` = the domain's name at the end of an alias, empty for none.
    """

    site: str
    hosts: tuple[MxHost, ...]
    ttl_seconds: float
    implicit: bool = False
    demand: TlsDemand | None = None  # what the recipients' side wants of TLS; None = nothing
    secure: bool = False
    canonical: str = ""

    @property
    def lane(self) -> str:
        """Domains of one site with different demands have connections apart."""
        return "" if self.demand is None else self.demand.lane


def choose_hosts(
    exchanges: Sequence[Exchange], own_names: frozenset[str], *, allow_private: bool
) -> tuple[Exchange, ...] | TransportFailure:
    """The usable hosts of an MX set, most preferred first. Never empty.

    A lone root name is a null MX (RFC 7505: the domain takes no mail). A host that is ourselves
    is dropped with all that are not preferred to it, since mail to those would come back
    (RFC 5321 5.1). Literals, localhost and names outside the host-name alphabet are dropped.
    """
    assert exchanges, "an empty MX set is NODATA, which is the implicit MX"
    if all(exchange.name == "." for exchange in exchanges):
        return _failure(FailureKind.NULL_MX, "the domain accepts no mail (null MX)")
    ours = [exchange.preference for exchange in exchanges if exchange.name in own_names]
    ceiling = min(ours) if ours else None
    usable: list[Exchange] = []
    refused = ""
    for exchange in sorted(set(exchanges)):
        if ceiling is not None and exchange.preference >= ceiling:
            refused = refused or "mail would loop back to this server"
        elif problem := name_problem(exchange.name, allow_private=allow_private):
            refused = refused or f"MX is {problem}"
        elif all(exchange.name != earlier.name for earlier in usable):
            usable.append(exchange)
    if not usable:
        return _failure(FailureKind.MX_REFUSED, refused)
    return tuple(usable[:MX_RECORDS_MAX])


def name_problem(name: str, *, allow_private: bool) -> str:
    """Why a name from DNS cannot be an MX host; empty when it can. The text never quotes the name."""
    if is_literal(name):
        return "" if allow_private else "an address literal"
    if not _HOST_NAME.match(name):
        return "not a host name"
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return "" if allow_private else "localhost"
    if name.rpartition(".")[2].isdigit():
        return "not a host name"
    return ""


def make_route(
    exchanges: Sequence[Exchange],
    found: Mapping[str, Addresses],
    *,
    ttl_seconds: float,
    allow_private: bool,
    implicit: bool = False,
    port: int = 25,
    secure: bool = False,
    canonical: str = "",
) -> Route | TransportFailure:
    """Join hosts with their addresses. `ttl_seconds` is the MX set's own; the route's is the smallest of all
    it rests on.

    The site key covers all hosts, the route only those with an address: a host that is dead for an
    hour must not move the domain to another site and its fresh limits.
    """
    hosts: list[MxHost] = []
    room = ROUTE_ADDRESSES_MAX
    refused = trouble = ""
    for exchange in exchanges:
        answer = found[exchange.name]
        trouble = trouble or answer.trouble
        public = tuple(item for item in answer.addresses if allow_private or is_public(item))
        if len(public) < len(answer.addresses):
            refused = "MX has a private or reserved address"
        kept = public[: min(room, HOST_ADDRESSES_MAX)]
        room -= len(kept)
        if kept:
            ttl_seconds = min(ttl_seconds, answer.ttl_seconds)
            hosts.append(MxHost(exchange.name, kept, exchange.preference, port))
    if hosts:
        if trouble:
            ttl_seconds = min(ttl_seconds, TROUBLED_TTL_SECONDS)
        site = site_key([exchange.name for exchange in exchanges])
        return Route(site, tuple(hosts), ttl_seconds, implicit, None, secure, canonical)
    if trouble:
        return _failure(FailureKind.DNS, trouble)
    if refused:
        return _failure(FailureKind.MX_REFUSED, refused)
    return _failure(FailureKind.NO_ADDRESS, "no MX host has an address")


def site_key(names: Sequence[str]) -> str:
    """One readable name for a set of host names, the same in whatever order and case they come.

    `+` and `~` occur in no host name, so two sets share a key only when their hashes collide.
    """
    key = "+".join(sorted({name.lower() for name in names}))
    if len(key) <= SITE_KEY_CHARS_MAX:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:SITE_HASH_CHARS]
    return f"{key[: SITE_KEY_CHARS_MAX - SITE_HASH_CHARS - 1]}~{digest}"


def trial_order(hosts: Sequence[MxHost], rng: random.Random, source: Source | None = None) -> list[MxHost]:
    """The hosts as one attempt tries them: by preference, equals shuffled (RFC 5321 5.1).

    Addresses are shuffled within a host, then IPv4 and IPv6 alternate, so that the second try is
    another family when one of them is dead here. A `source` with an address of its own takes only
    its family; hosts without one are left out, so the list may be empty.
    """
    version = family_version(source.address) if source is not None and source.address else None
    order: list[MxHost] = []
    for host in sorted(hosts, key=lambda host: (host.preference, rng.random())):
        addresses = [item for item in host.addresses if version is None or family_version(item) == version]
        if addresses:
            order.append(replace(host, addresses=tuple(_alternate_families(addresses, rng))))
    return order


def _alternate_families(addresses: list[str], rng: random.Random) -> list[str]:
    rng.shuffle(addresses)
    first = family_version(addresses[0])
    same = [item for item in addresses if family_version(item) == first]
    other = [item for item in addresses if family_version(item) != first]
    paired = min(len(same), len(other))
    woven = [item for pair in zip(same, other, strict=False) for item in pair]
    return woven + same[paired:] + other[paired:]


def _failure(kind: FailureKind, detail: str) -> TransportFailure:
    return TransportFailure(kind, Verb.RESOLVE, detail)
