"""Applies what the bus says about suppressions, and keeps their store running.

Reads the stream `suppressions` (orders of up to 20,000 keys) of the node's own bus and of the cluster's,
under a name of this node's own, so that every engine applies every order. Decides nothing. An order is
acknowledged when it is durable here; one that comes twice has no effect. One that does not decode, or whose
hashes were made under another key, is passed over with a log line: it would never fit. Touches: buses, store.
On a full disk it waits and tries again, and nothing is acknowledged meanwhile; mail goes on by what is known.
On crash: what was not acknowledged comes again.
"""

from typing import Any

import structlog
import trio

from engine.actors.parts import Parts
from engine.bus.api import BusFull, Delivery, Subscription
from engine.mta.policy.suppression import SuppressionError, SuppressionOrder
from engine.mta.policy.suppression_codec import decode_order
from engine.mta.spool.suppressions import STREAM, Suppressions, consumer_name, order_problem
from engine.runtime.spec import Context, Start
from engine.storage import StorageFull

ORDERS_AT_A_TIME = 4
ROOM_SECONDS = 5.0

log = structlog.get_logger("suppressor")


def suppressor(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(parts.suppressions.run)
            for bus in {parts.bus, parts.cluster}:  # this machine's command line, and everybody's
                subscription = bus.subscribe(STREAM, consumer_name(parts.config.node.name))
                nursery.start_soon(_follow, parts.suppressions, subscription)
            task_status.started()
            await context.stop.wait()
            parts.suppressions.close()  # what was told becomes durable
            nursery.cancel_scope.cancel()

    return start


async def _follow(suppressions: Suppressions, subscription: Subscription) -> None:
    while True:
        for delivery in await subscription.receive(ORDERS_AT_A_TIME):
            order = _decode(delivery, suppressions)
            if order is not None:
                await _apply(order, suppressions)
            await _acknowledge(delivery, suppressions, subscription)


async def _apply(order: SuppressionOrder, suppressions: Suppressions) -> None:
    while True:
        try:
            await suppressions.apply(order)
        except StorageFull as error:
            log.error("no room for suppressions: they wait on the bus", why=str(error))
            await trio.sleep(ROOM_SECONDS)
        else:
            return


async def _acknowledge(delivery: Delivery, suppressions: Suppressions, subscription: Subscription) -> None:
    while True:
        try:
            await suppressions.reached(delivery.writer, delivery.sequence)
            await subscription.acknowledge(delivery)
        except (StorageFull, BusFull) as error:
            log.error("no room to acknowledge suppressions: they come again", why=str(error))
            await trio.sleep(ROOM_SECONDS)
        else:
            return


def _decode(delivery: Delivery, suppressions: Suppressions) -> SuppressionOrder | None:
    try:
        order = decode_order(delivery.payload)
        if problem := order_problem(order, suppressions.hasher):
            raise SuppressionError(problem)
    except SuppressionError as error:
        log.error(
            "an order about suppressions is passed over",
            writer=delivery.writer,
            sequence=delivery.sequence,
            why=str(error),
        )
        return None
    return order
