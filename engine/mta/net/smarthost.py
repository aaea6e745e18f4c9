"""A route that the operator wrote down: `--route HOST:PORT` sends all mail to one host, a relay gets some.

`parse_host_port` reads the text, `literal_route` makes the `Route` of it, `relay_route` that of a relay,
with what it has to prove by TLS. The host may be an IP literal (IPv6 in brackets), `localhost`, or a name
that is resolved by its addresses, never by its MX. Private addresses are allowed: here the operator
speaks, not a stranger's DNS. A name that does not resolve is a `TransportFailure`; text that makes no
sense is a ValueError for whoever reads the configuration.
"""

from msgspec.structs import replace

from engine.model.egress import MxHost, Relay
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.addresses import is_literal
from engine.mta.net.mx import HOST_ADDRESSES_MAX, Route, name_problem
from engine.mta.net.resolver import Resolver
from engine.mta.policy.egress import relay_demand

LITERAL_TTL_SECONDS = 86_400.0  # an address that was written down does not age; looked at once a day
LOCALHOST = ("127.0.0.1", "::1")  # RFC 6761 6.3: never asked of DNS


def parse_host_port(text: str, default_port: int = 25) -> tuple[str, int]:
    """`host:port`, `[v6]:port`, `host` or `v6` as (host without brackets, port). Raises ValueError."""
    text = text.strip()
    if text.startswith("["):
        host, bracket, port_text = text[1:].partition("]")
        if not bracket or not is_literal(host) or (port_text and not port_text.startswith(":")):
            raise ValueError(f"{text!r} is not [address]:port")
        port_text = port_text[1:]
    elif text.count(":") == 1:
        host, _, port_text = text.partition(":")
    else:
        host, port_text = text, ""
    if text.endswith(":") and not text.endswith("::"):
        raise ValueError(f"{text!r} has no port behind its colon")
    host = host.lower().removesuffix(".")
    if not is_literal(host) and name_problem(host, allow_private=True):
        raise ValueError(f"{text!r} does not name a host: write HOST:PORT")
    if not port_text:
        return host, default_port
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65_536):
        raise ValueError(f"{port_text!r} is not a port between 1 and 65535")
    return host, int(port_text)


async def literal_route(
    text: str, resolver: Resolver | None = None, default_port: int = 25
) -> Route | TransportFailure:
    """The route to one named host and port. Raises ValueError when `text` is not HOST:PORT.

    `resolver` is needed for names only. The site is the text in its plain form.
    """
    host, port = parse_host_port(text, default_port)
    site = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if is_literal(host):
        return Route(site, (MxHost(host, (host,), 0, port),), LITERAL_TTL_SECONDS)
    if host == "localhost":
        return Route(site, (MxHost(host, LOCALHOST, 0, port),), LITERAL_TTL_SECONDS)
    assert resolver is not None, "a host name needs a resolver"
    found = await resolver.host_addresses(host)
    if found.addresses:
        return Route(site, (MxHost(host, found.addresses[:HOST_ADDRESSES_MAX], 0, port),), found.ttl_seconds)
    if found.trouble:
        return TransportFailure(FailureKind.DNS, Verb.RESOLVE, found.trouble)
    return TransportFailure(FailureKind.NO_ADDRESS, Verb.RESOLVE, f"{host} has no address")


async def relay_route(relay: Relay, resolver: Resolver) -> Route | TransportFailure:
    """The route to a relay, with its demand, at the relay's own site."""
    route = await literal_route(str(relay), resolver)
    if isinstance(route, TransportFailure):
        return route
    return replace(route, site=relay.site, demand=relay_demand(relay))
