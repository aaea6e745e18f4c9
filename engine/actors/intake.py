"""Takes submissions from the bus: contents and chunks. Accepted = durable in the spool, then acknowledged.

Decides whether a submission is fit (addresses parse, rows have the content's width, the campaign's
content is known) and whether there is room (watermark 1, prefetch bound); in a drain it takes nothing.
Claims each chunk once (`claims/<chunk>` = broadcaster + epoch), so that a redelivery to another spool is
never accepted twice. Several chunks are on their way to the spooler at a time. Touches: bus, spooler. On
crash: what was not acknowledged comes again, and a chunk id seen before is acknowledged without effect.
"""

from collections.abc import Collection
from typing import Any

import msgspec
import structlog
import trio

from engine.actors.messages import Accept, PutContent
from engine.actors.parts import Parts
from engine.bus.api import BusFull, Delivery, Subscription
from engine.model.address import AddressError, parse_address
from engine.model.content import Content
from engine.model.envelope import CHUNK_ENTRIES_MAX, Chunk
from engine.model.submission import Submission, SubmitContent, decode_submission
from engine.mta.compose.token import CAMPAIGN_MAX
from engine.mta.spool.api import Spool, SpoolError
from engine.runtime.ref import Ref
from engine.runtime.spec import Context, Start
from engine.storage import SpaceLevel, StorageFull

CHUNKS_AT_A_TIME = 4  # 4 x 5,000 envelopes in one commit at most
CHUNK_ID_OCTETS_MAX = 200  # the claims table takes keys of 380
ROOM_SECONDS = 1.0
FULL_SECONDS = 5.0  # of a disk without room for a chunk, which the watermarks did not foresee

log = structlog.get_logger("intake")


def intake(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        subscription = parts.bus.subscribe(f"chunks.{parts.config.node.name}", "intake")
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, parts, context, subscription)
            await context.stop.wait()
            nursery.cancel_scope.cancel()

    return start


async def _serve(parts: Parts, context: Context[Any], subscription: Subscription) -> None:
    spooler = context.peer("spooler")
    while True:
        await _until_open(parts)
        deliveries = await subscription.receive(CHUNKS_AT_A_TIME)
        await _until_open(parts)  # it may have waited for long
        async with trio.open_nursery() as nursery:
            for delivery in deliveries:
                submission = _decode(delivery)
                if isinstance(submission, SubmitContent):
                    await _take_patiently(parts, spooler, submission, delivery)  # what follows needs it
                elif submission is not None:
                    nursery.start_soon(_take_patiently, parts, spooler, submission, delivery)
        await _acknowledge(subscription, deliveries[-1])


async def _acknowledge(subscription: Subscription, delivery: Delivery) -> None:
    while True:
        try:
            await subscription.acknowledge(delivery)
        except BusFull as error:
            await _without_room(error)
        else:
            return


async def _until_open(parts: Parts) -> None:
    """Wait for room on the disk, and for the end of a drain."""
    while _is_closed(parts):  # noqa: ASYNC110 - neither disk nor operator rings a bell
        await trio.sleep(ROOM_SECONDS)


def _is_closed(parts: Parts) -> bool:
    # Measured anew: what is taken at a time must not go past both watermarks.
    full = parts.space is not None and parts.space.measure() is not SpaceLevel.OPEN
    return full or parts.stops.draining is not None


def _decode(delivery: Delivery) -> Submission | None:
    """The submission, or None and a log line: what does not decode would not decode again."""
    try:
        return decode_submission(delivery.payload)
    except msgspec.MsgspecError as error:
        log.error(
            "a submission does not decode",
            writer=delivery.writer,
            sequence=delivery.sequence,
            why=str(error),
        )
        return None


async def _take_patiently(
    parts: Parts, spooler: Ref[Any], submission: Submission, delivery: Delivery
) -> None:
    """Take one submission, however long spool or bus have no room for it."""
    while True:
        try:
            await _take(parts, spooler, submission, delivery)
        except (StorageFull, BusFull) as error:
            await _without_room(error)
        else:
            return


async def _without_room(error: Exception) -> None:
    log.warning("intake waits for room", why=str(error))
    await trio.sleep(FULL_SECONDS)


async def _take(parts: Parts, spooler: Ref[Any], submission: Submission, delivery: Delivery) -> None:
    """One submission. What is unfit is refused with a log line; it would be unfit again."""
    try:
        if isinstance(submission, SubmitContent):
            content = submission.content
            if problem := content_problem(content, parts.dkim_keys):
                raise SpoolError(problem)
            await spooler.ask(lambda answer: PutContent(content, answer))
            return
        chunk = submission.chunk
        if problem := chunk_problem(chunk, parts.spool):
            raise SpoolError(problem)
        claim = f"{parts.config.node.name} {parts.spool.epoch}".encode()
        claimed = await parts.bus.create("claims", chunk.id, claim)
        if claimed is not None and claimed != claim:
            raise SpoolError(f"is claimed by {claimed.decode(errors='replace')}")
        await spooler.ask(lambda answer: Accept(chunk, answer))
    except SpoolError as error:
        log.error(
            "a submission was refused", writer=delivery.writer, sequence=delivery.sequence, why=str(error)
        )


def content_problem(content: Content, dkim_keys: Collection[str]) -> str:
    """Why a content is unfit, or nothing. Its templates were compiled by whoever made it."""
    if not 0 < content.campaign <= CAMPAIGN_MAX:
        return f"campaign {content.campaign} is not from 1 to {CAMPAIGN_MAX}"
    unknown = [identity.key for identity in content.dkim if identity.key not in dkim_keys]
    if unknown:
        return f"campaign {content.campaign} is to be signed with a key that is not configured: {unknown[0]}"
    return ""


def chunk_problem(chunk: Chunk, spool: Spool) -> str:
    """Why a chunk is unfit, or nothing. What the spool itself refuses is left to it."""
    if not 0 < len(chunk.id.encode()) <= CHUNK_ID_OCTETS_MAX or "\0" in chunk.id:
        return "the chunk's id is empty, too long or holds NUL"
    if not 0 < chunk.campaign <= CAMPAIGN_MAX:
        return f"campaign {chunk.campaign} is not from 1 to {CAMPAIGN_MAX}"
    content = spool.content(chunk.campaign)
    width = None if content is None else len(content.fields)
    if len(chunk.entries) > CHUNK_ENTRIES_MAX:
        return f"the chunk has {len(chunk.entries)} envelopes, more than {CHUNK_ENTRIES_MAX}"
    for number, entry in enumerate(chunk.entries):
        try:
            address = parse_address(entry.recipient)
        except AddressError as error:
            return f"envelope {number}: the address {error}"
        if not entry.recipient.endswith(address.domain):
            return f"envelope {number}: the domain is not in lower-case A-labels"
        if width is not None and len(entry.row) != width:
            return f"envelope {number}: the row has {len(entry.row)} values for {width} fields"
    return ""
