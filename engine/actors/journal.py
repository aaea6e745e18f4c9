"""Publishes events in order and in batches, and trims what the bus has taken.

The spool wrote each event with the settle it tells of; here they travel to `events.<producer>`. A
batch that was published but not trimmed before a crash is published again: consumers drop what they
have seen by (producer, epoch, sequence). While the bus refuses, events stay in the spool. Touches:
bus, spool (reads, and the trim).
"""

from typing import Any

import structlog
import trio

from engine.actors.messages import Flush
from engine.actors.parts import Parts
from engine.bus.api import BusFull
from engine.model.event import decode_events
from engine.runtime.spec import Context, Start

PUBLISH_SECONDS = 0.2
BATCHES_AT_A_TIME = 256  # about 1 MB
REFUSED_SECONDS = 5.0
LOOK_SECONDS = 1.0
AWAY_LOOKS = 5  # a reconnection takes about two

log = structlog.get_logger("journal")


def journal(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_give_up, parts, context, nursery.cancel_scope)
            await _publish_for_life(parts, context)
            nursery.cancel_scope.cancel()

    return start


async def _publish_for_life(parts: Parts, context: Context[Any]) -> None:
    position = 0
    while True:
        stopping = context.stop.is_set()
        if stopping and not context.ref.ended:
            return  # only until the actor to the left is back; it may be the spooler itself
        if stopping:  # everybody who settles has ended; what they told becomes durable first
            await context.peer("spooler").ask(Flush)
        moved = await publish_events(parts, position)
        if moved == position:
            if stopping:
                return
            with trio.move_on_after(PUBLISH_SECONDS):
                await context.stop.wait()
        position = moved


async def _give_up(parts: Parts, context: Context[Any], scope: trio.CancelScope) -> None:
    """A stop does not wait for a bus that is away: what is not published stays in the spool."""
    await context.stop.wait()
    away = 0
    while away < AWAY_LOOKS:
        await trio.sleep(LOOK_SECONDS)
        away = 0 if parts.cluster.online else away + 1
    log.warning("the bus is away; the last events stay in the spool")
    scope.cancel()


async def publish_events(parts: Parts, after: int) -> int:
    """Publish the next batches with sequence > `after`; returns the last sequence published."""
    batches = parts.spool.events(after, BATCHES_AT_A_TIME)
    if not batches:
        return after
    try:
        await parts.cluster.publish(f"events.{parts.spool.producer}", [data for _, data in batches])
    except BusFull as error:
        log.warning("the bus takes no events; they stay in the spool", why=str(error))
        await trio.sleep(REFUSED_SECONDS)
        return after
    following = decode_events(batches[-1][1]).next_sequence
    await parts.spool.trim_events(following)
    return following - 1
