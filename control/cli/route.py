"""`--route HOST:PORT` resolved: asked before a job is made, and again by each run of it.

A name is resolved by its addresses, never by its MX, with the job's own resolver. Raises InputError for
one that does not resolve.
"""

from control.cli.errors import InputError
from engine.app import resolver_config
from engine.config import Config
from engine.model.reply import TransportFailure
from engine.mta.net.egress import egress_sources
from engine.mta.net.mx import Route
from engine.mta.net.resolver import Resolver
from engine.mta.net.smarthost import literal_route
from engine.runtime.clock import SystemClock


async def find_route(text: str, config: Config) -> Route | None:
    """The route that `text` names; None when it is empty."""
    if not text:
        return None
    resolver = Resolver(resolver_config(config, egress_sources(config)), SystemClock().monotonic)
    route = await literal_route(text, resolver)
    if isinstance(route, TransportFailure):
        raise InputError(f"--route {text}: {route.detail or route.kind.value}")
    return route
