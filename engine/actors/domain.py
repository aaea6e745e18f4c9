"""One destination (mostly a recipient domain) while it has work and no route: asks for its hosts, settles
what has nowhere to go.

Decides nothing itself (`policy.classify` judges the failure, `policy.dns_doubt` whether it is believed). A
domain that does not exist or takes no mail has all its envelopes bounced; one whose DNS fails for now, or
is not believed, has the front of its queue deferred, so that the reason is seen and the expiry holds, and
the rest waits. Touches: resolver, scheduler, spooler.
On crash: its ids go back to the scheduler, its leases are returned by the observer of its holder.
"""

from typing import Any

import trio

from engine.actors.handover import judge_granted, settle_remains
from engine.actors.holder import Holder
from engine.actors.messages import (
    Bell,
    Credit,
    LeaseFor,
    Lookup,
    Offer,
    OrderLeases,
    Recall,
    Routed,
    Settle,
    Unroutable,
)
from engine.actors.parts import Parts
from engine.actors.path import NO_ROUTE
from engine.actors.routing import domain_of
from engine.model.disposition import Outcome
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.mx import Route
from engine.mta.spool.api import LEASE_ENVELOPES_MAX
from engine.runtime.spec import Context, Start
from engine.runtime.ticking import batch_within

PLACES_BOUNCING = 1_000  # at a time, like a busy site
PLACES_DEFERRING = 100  # enough to show why the domain waits; the rest of its queue is not touched
IDLE_SECONDS = 2.0  # without an offer or a lease this long, it ends


def path_key(domain: str) -> str:
    """The name under which the scheduler knows a domain without a route."""
    return f"{NO_ROUTE}{domain}"


def domain(parts: Parts, name: str, peer: Any) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        looked_up, began = domain_of(name), trio.current_time()
        waited_for = name not in parts.routes  # else the old route serves meanwhile
        found = await peer("resolver").ask(lambda answer: Lookup(looked_up, answer))
        if waited_for:
            parts.timelines.looked_up(looked_up, began)
        if isinstance(found, Route):
            parts.dns_doubt.found(looked_up, trio.current_time())
            await peer("scheduler").tell(Routed(name, found))
            return
        holder = Holder(context.name)
        holder.ref = context.ref
        try:
            await _settle_all(parts, name, peer, context, holder, _believed(parts, looked_up, found))
        finally:
            settle_remains(parts, holder, peer("spooler"), crashed=False)

    return start


def _believed(parts: Parts, name: str, failure: TransportFailure) -> TransportFailure:
    """The failure as it counts: one that would end all mail of the domain may be doubted for a while."""
    if parts.judge.failure(failure).outcome is not Outcome.BOUNCED:
        return failure
    why = parts.dns_doubt.absent(name, trio.current_time())
    return TransportFailure(FailureKind.DNS, Verb.RESOLVE, f"{failure}; {why}") if why else failure


async def _settle_all(
    parts: Parts, name: str, peer: Any, context: Context[Any], holder: Holder, failure: TransportFailure
) -> None:
    verdict = parts.judge.failure(failure)
    bouncing = verdict.outcome is Outcome.BOUNCED
    key = path_key(name)
    places = PLACES_BOUNCING if bouncing else PLACES_DEFERRING
    pause = None if bouncing else parts.config.engine.retry.first
    retry_time = None if pause is None else trio.current_time() + pause
    scheduler, spooler = peer("scheduler"), peer("spooler")
    await scheduler.tell(Unroutable(name, key, context.ref, places, retry_time))
    quiet_since = trio.current_time()
    exhausted = False
    ordered = seen = 0
    while (
        not (exhausted and holder.answers == ordered and not holder.held)
        and trio.current_time() - quiet_since < IDLE_SECONDS
    ):
        batch = await batch_within(context.mailbox, 64, IDLE_SECONDS)
        if batch is None:
            return
        for message in batch:
            match message:
                case Offer():
                    quiet_since = trio.current_time()
                    exhausted = message.exhausted or not bouncing
                    orders = [
                        LeaseFor(key, holder, message.ids[at : at + LEASE_ENVELOPES_MAX])
                        for at in range(0, len(message.ids), LEASE_ENVELOPES_MAX)
                    ]
                    ordered += len(orders)
                    seen += len(message.ids)
                    await spooler.tell(OrderLeases(orders))
                case Bell() | Recall():
                    pass  # rung for what is in the holder now; and nothing is kept ready here
                case _:
                    raise AssertionError(f"domain {name} got {message!r}")
        if holder.granted:
            quiet_since = trio.current_time()
            await spooler.tell(Settle(judge_granted(parts, holder, failure)))
            if bouncing and holder.answers == ordered:
                await scheduler.tell(Credit(key, places, seen))
