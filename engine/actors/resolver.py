"""MX questions on behalf of domains: one task per question in flight, the resolver's cache between them.

With a static route (`--route`) every domain gets that route. Touches: DNS, through `net.resolver`.
On crash: the askers get ActorDied, their domains ask again; the cache lives in `parts`.
"""

from typing import Any

import trio

from engine.actors.messages import Lookup
from engine.actors.parts import Parts
from engine.runtime.mailbox import MailboxClosed
from engine.runtime.spec import Context, Start

LOOKUPS_PER_PASS = 64


def resolver(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        async def look_up(message: Lookup) -> None:
            message.answer.set(await parts.resolver.mail_hosts(message.domain))

        async with trio.open_nursery() as nursery:
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
