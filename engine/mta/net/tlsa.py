"""What DNSSEC says about the TLS of a route's hosts: DANE for SMTP (RFC 7672 2.1 to 2.2).

Asks for TLSA records only where DNSSEC proves the way to them: the MX set and the host's addresses. A host
that is an alias is asked for at its end first, then under its own name. What cannot be had is never taken
for what is not there: a failed or bogus answer refuses the host, since whoever can break an answer must not
be able to take the demand away. Touches: DNS. Every outcome is a value.
"""

import trio
from dns.rdatatype import RdataType
from msgspec import Struct

from engine.model.egress import MxHost
from engine.model.tls import HostDemand, HostTls
from engine.mta.net.addresses import is_literal
from engine.mta.net.dns_message import AnswerKind, is_domain_name
from engine.mta.net.mx import Route
from engine.mta.net.resolver import Resolver
from engine.mta.policy.dane import host_demand


class DaneFinding(Struct, frozen=True):
    """What is demanded of one host, None = nothing; and for how many seconds that is known."""

    demand: HostDemand | None
    ttl_seconds: float


async def find_dane(resolver: Resolver, domain: str, route: Route) -> dict[str, DaneFinding]:
    """What DANE demands of each host of a route. Empty when the MX set is not secure: nothing is asked then.

    Takes as long as the resolver's deadline for each of four questions in a row at most.
    """
    if not route.secure:
        return {}
    found: dict[str, DaneFinding] = {}
    names = (domain, route.canonical) if route.canonical else (domain,)

    async def find(host: MxHost) -> None:
        found[host.name] = await _find(resolver, host, names)

    async with trio.open_nursery() as nursery:
        for host in route.hosts:
            nursery.start_soon(find, host)
    return found


async def _find(resolver: Resolver, host: MxHost, domain: tuple[str, ...]) -> DaneFinding:
    if is_literal(host.name):
        return DaneFinding(None, resolver.config.ttl_seconds_max)
    addresses = await resolver.host_addresses(host.name)
    ttl_seconds = addresses.ttl_seconds
    if not addresses.addresses:  # there were some when the route was made: nobody knows any more
        return DaneFinding(_refused(addresses.trouble or "its addresses are gone"), ttl_seconds)
    if addresses.secure:
        bases = [addresses.canonical, host.name] if addresses.canonical else [host.name]
    elif not addresses.canonical:
        return DaneFinding(None, ttl_seconds)
    else:
        # The alias leaves for an unsigned zone, but it may be proven itself: then the host's own name
        # may have records. Only a question for the alias alone tells (RFC 7672 2.2).
        alias, ttl_seconds = await resolver.ask(host.name, RdataType.CNAME)
        if alias.kind is AnswerKind.FAILED:
            return DaneFinding(_refused(alias.detail), ttl_seconds)
        if not alias.secure:
            return DaneFinding(None, ttl_seconds)
        bases = [host.name]
    for base in bases:
        name = f"_{host.port}._tcp.{base}"
        if not is_domain_name(name):
            continue
        answer, seconds = await resolver.ask(name, RdataType.TLSA)
        ttl_seconds = min(ttl_seconds, seconds)
        if answer.kind is AnswerKind.FAILED:
            return DaneFinding(_refused(answer.detail), ttl_seconds)
        if answer.secure and answer.tlsa:
            return DaneFinding(host_demand(answer.tlsa, base, host.name, domain), ttl_seconds)
    return DaneFinding(None, ttl_seconds)


def _refused(detail: str) -> HostDemand:
    return HostDemand(HostTls.REFUSED, why=f"TLSA records cannot be had: {detail}")
