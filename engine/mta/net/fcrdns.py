"""Do our own addresses and names prove each other in DNS? The first thing that receivers look at.

Forward-confirmed reverse DNS: an address has a PTR record, the name in it leads back to the address, and the
EHLO name does, too (Gmail's and Yahoo's sender guidelines; RFC 5321 4.1.4 for EHLO). `check_names` asks for
every source of a public address at once, and gives findings with their cure: none is an error, since mail can
leave anyway. Touches: DNS through the resolver. Bounded; what DNS did not tell in time is a finding.
"""

import ipaddress
from collections.abc import Iterable

import trio
from dns.rdatatype import RdataType

from engine.model.egress import Source
from engine.mta.net.addresses import is_public
from engine.mta.net.dns_message import AnswerKind
from engine.mta.net.resolver import Resolver

CHECK_SECONDS = 10.0  # for all sources together
POINTERS_MAX = 4  # PTR names that are looked up: one is usual, and who has more is checked by each


async def check_names(
    resolver: Resolver, sources: Iterable[Source], timeout_seconds: float = CHECK_SECONDS
) -> dict[str, tuple[str, ...]]:
    """Source name -> what is wrong with its names, for sources of public addresses; () = all is well."""
    late = f"not checked: DNS did not answer within {timeout_seconds:g} s"
    asked = [source for source in sources if source.address is not None and is_public(source.address)]
    found: dict[str, tuple[str, ...]] = {source.name: (late,) for source in asked}

    async def check(source: Source) -> None:
        found[source.name] = await _findings(resolver, source)

    with trio.move_on_after(timeout_seconds):
        async with trio.open_nursery() as nursery:
            for source in asked:
                nursery.start_soon(check, source)
    return found


async def _findings(resolver: Resolver, source: Source) -> tuple[str, ...]:
    address, ehlo = source.address, source.ehlo_name.lower()
    assert address is not None
    answer, _ = await resolver.ask(ipaddress.ip_address(address).reverse_pointer, RdataType.PTR)
    if answer.kind is AnswerKind.FAILED:
        return (f"not checked: the PTR record of {address} cannot be had: {answer.detail}",)
    findings: list[str] = []
    names = answer.names[:POINTERS_MAX]
    if not names:
        findings.append(
            f"{address} has no PTR record, and many receivers refuse such mail:"
            f" have whoever owns the address set one to {ehlo}"
        )
    confirmed = [name for name in names if await _leads_to(resolver, name, address)]
    if names and not confirmed:
        findings.append(
            f"the PTR record of {address} names {names[0]}, which does not lead back to it:"
            f" add an {_record(address)} record for that name, or have the PTR record changed to {ehlo}"
        )
    if ehlo in confirmed:
        return ()
    if not await _leads_to(resolver, ehlo, address):
        findings.append(
            f"the EHLO name {ehlo} does not lead to {address}: add an {_record(address)} record for it,"
            " or set ehlo_name to the name in the PTR record"
        )
    elif confirmed:
        findings.append(
            f"the EHLO name {ehlo} is not the name in the PTR record of {address}, {confirmed[0]}"
        )
    return tuple(findings)


async def _leads_to(resolver: Resolver, name: str, address: str) -> bool:
    wanted = ipaddress.ip_address(address)
    found = await resolver.host_addresses(name)
    return any(ipaddress.ip_address(each) == wanted for each in found.addresses)


def _record(address: str) -> str:
    return "AAAA" if ":" in address else "A"
