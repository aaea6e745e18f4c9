"""MX questions on behalf of domains: one task per question in flight, the resolver's cache between them.

A route that DNS gave also gets what its domain demands of TLS, where policies are looked for. With a static
route (`--route`) every domain gets that route, and no demand: the operator has said where mail goes. A
relay's name is looked up by its addresses.
Touches: DNS and policy hosts, through `net.resolver` and `net.tls_policy`.
On crash: the askers get ActorDied, their domains ask again; caches live in `parts`.
"""

from typing import Any

import trio

from engine.actors.messages import Lookup
from engine.actors.parts import Parts
from engine.actors.routing import RELAY
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.mx import Route
from engine.mta.net.smarthost import relay_route
from engine.runtime.mailbox import MailboxClosed
from engine.runtime.spec import Context, Start

LOOKUPS_PER_PASS = 64


def resolver(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        async def look_up(message: Lookup) -> None:
            if message.domain.startswith(RELAY):
                message.answer.set(await _relay(parts, message.domain.removeprefix(RELAY)))
                return
            if policies is not None and policies.wants(message.domain):
                nursery.start_soon(policies.prefetch, message.domain)
            route = await parts.resolver.mail_hosts(message.domain)
            if policies is not None and isinstance(route, Route):
                route = await policies.demand(message.domain, route)
            message.answer.set(route)

        policies = parts.tls_policies
        async with trio.open_nursery() as nursery:
            if policies is not None:
                await nursery.start(policies.run, parts.tls_results.trouble)
            task_status.started()
            try:
                while True:
                    for message in await context.mailbox.get_batch(LOOKUPS_PER_PASS):
                        route = parts.static_route()
                        if route is not None:
                            message.answer.set(route)
                        else:
                            nursery.start_soon(look_up, message)
            except MailboxClosed:
                nursery.cancel_scope.cancel()

    return start


async def _relay(parts: Parts, name: str) -> Route | TransportFailure:
    """The route to a relay. Whatever is wrong with it is ours, so mail waits and is not given up."""
    relay = parts.egress.relay(name)
    if relay is None:
        return TransportFailure(FailureKind.DNS, Verb.RESOLVE, f"no relay is called {name} any more")
    route = await relay_route(relay, parts.resolver)
    if isinstance(route, TransportFailure):
        return TransportFailure(FailureKind.DNS, Verb.RESOLVE, f"relay {name}: {route.detail}")
    return route
