"""What an operator asks about suppressions: add or remove some, and know that it holds.

`suppress` applies an order, waits until it is durable, and then until no message that it stops is on its
way: connections show what they have handed to the protocol (`parts.under_way`), everything else is asked
at the gate. So after the answer no RCPT for such an address goes out. It waits a bounded time: a peer
that is silent in the middle of its transaction may hold the last one longer, and the answer says so.
Touches: the store of suppressions.
"""

from collections.abc import Set
from typing import Any

import msgspec
import trio

from engine.actors.operating import Refused
from engine.actors.parts import Parts
from engine.actors.requests import Act, Peer, Request
from engine.model.envelope import Envelope
from engine.mta.policy.suppression import SuppressionError, SuppressionOrder
from engine.mta.policy.suppression_codec import DOMAIN, decode_order, subscriber_key
from engine.mta.spool.suppressions import order_problem

SETTLED_SECONDS = 10.0  # most transactions last less than a second
LOOK_SECONDS = 0.02  # one look costs 1 us for each message under way


def acts(parts: Parts, peer: Peer) -> dict[str, Act]:
    """The acts of this file by name."""

    async def suppress(request: Request) -> dict[str, Any]:
        return await apply_and_wait(parts, read_order(parts, request))

    async def suppressions(request: Request) -> dict[str, Any]:
        return suppression_facts(parts)

    return {"suppress": suppress, "suppressions": suppressions}


def read_order(parts: Parts, request: Request) -> SuppressionOrder:
    """The order in a request: `order` is what travels on the bus, as hexadecimal digits. Raises Refused."""
    try:
        order = decode_order(bytes.fromhex(str(request.asked.get("order", ""))))
        if problem := order_problem(order, parts.suppressions.hasher):
            raise SuppressionError(problem)
    except (SuppressionError, ValueError) as error:
        raise Refused(str(error)) from error
    return order


async def apply_and_wait(parts: Parts, order: SuppressionOrder) -> dict[str, Any]:
    """Apply it; how many messages were on their way then, and how many still are after a bounded wait."""
    applied = await parts.suppressions.apply(order)
    facts: dict[str, Any] = msgspec.to_builtins(applied) | {"keys": len(order.keys)}
    if not order.adds:
        return facts
    keys = frozenset(order.keys)
    first = on_their_way(parts, keys)
    waiting = first
    with trio.move_on_after(SETTLED_SECONDS):
        while waiting:
            await trio.sleep(LOOK_SECONDS)
            waiting = waiting & on_their_way(parts, keys)
    return facts | {"were_on_their_way": len(first), "still_on_their_way": len(waiting)}


def on_their_way(parts: Parts, keys: Set[bytes]) -> set[tuple[str, int]]:
    """Connection and spool id of each message that these keys stop and the protocol has."""
    return {
        (name, envelope.spool_id)
        for name, under_way in list(parts.under_way.items())
        for envelope in under_way()
        if _is_stopped(parts, envelope, keys)
    }


def _is_stopped(parts: Parts, envelope: Envelope, keys: Set[bytes]) -> bool:
    suppressions = parts.suppressions
    standing = parts.standing(envelope.campaign)
    its_keys = {suppressions.hasher.key_of(envelope.recipient), DOMAIN + envelope.domain.encode()}
    if envelope.subscriber and standing.workspace:
        its_keys.add(subscriber_key(standing.workspace, envelope.subscriber))
    if not its_keys & keys:
        return False
    blocking = suppressions.blocked(
        envelope.recipient,
        envelope.domain,
        envelope.subscriber,
        standing.workspace,
        standing.list_id,
        standing.message_class,
    )
    return blocking is not None


def suppression_facts(parts: Parts) -> dict[str, Any]:
    """How many there are, and how far the bus was read: the applied cursor of this engine."""
    suppressions = parts.suppressions
    return {
        "node": parts.config.node.name,
        "key_check": suppressions.hasher.check.hex(),
        "keys": suppressions.keys(),
        "version": suppressions.version,
        "applied": suppressions.positions(),
    }
