"""Which IP addresses mail may be sent to, when a stranger's DNS names them.

Decides, by the IANA special-purpose registries, whether an address is one of the public Internet.
An MX record is a stranger's text: pointed at 127.0.0.1 or 10.0.0.5 it makes the engine talk to
its own network (SSRF), so anything that is not plainly public is refused. The table is our own
and explicit, since `ipaddress.is_global` changed between Python releases. Pure: no IO, no clock.
An address that does not parse is not public.
"""

import ipaddress
from functools import lru_cache

_MEMO_ENTRIES = 16_384  # the same few thousand MX addresses are judged again and again, at 12 us each

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this network" (RFC 791); Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # carrier NAT (RFC 6598)
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, cloud metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890)
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.88.99.0/24",  # 6to4 relays, deprecated (RFC 7526)
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks (RFC 2544)
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
    )
)
_GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")  # the only space IANA hands out
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4: carries any IPv4 address, deprecated (RFC 7526)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052; DNS64 resolvers make these up


@lru_cache(maxsize=_MEMO_ENTRIES)
def is_public(address: str) -> bool:
    """True when `address` (an IP literal) is an ordinary host of the public Internet.

    The well-known NAT64 prefix is judged by the IPv4 address it carries: on an IPv6-only network
    it is the honest way to an IPv4 host. IPv4-mapped addresses are refused: no DNS needs them.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
        else:
            return parsed in _GLOBAL_UNICAST_V6 and not any(parsed in refused for refused in _REFUSED_V6)
    return not any(parsed in refused for refused in _REFUSED_V4)


@lru_cache(maxsize=_MEMO_ENTRIES)
def is_literal(text: str) -> bool:
    """True when `text` is an IP address rather than a name, also in brackets as SMTP writes it."""
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


@lru_cache(maxsize=_MEMO_ENTRIES)
def family_version(address: str) -> int | None:
    """4 or 6 for an IP literal, None for anything else."""
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return None
