"""Takes submissions from the bus: contents and chunks. Accepted = durable in the spool, then acknowledged.

Decides whether a submission is fit (addresses parse, rows have the content's width, the campaign's
content is known) and whether there is room (watermark 1, prefetch bound); in a drain, and while this engine's
standing among the others is in doubt (`membership`), it takes nothing.
Claims each chunk once (`claims/<chunk>` = broadcaster + epoch), so that a redelivery to another spool is
never accepted twice. Several chunks are on their way to the spooler at a time. Touches: bus, spooler. On
crash: what was not acknowledged comes again, and a chunk id seen before is acknowledged without effect.
"""

from collections.abc import Collection
from typing import Any

import structlog
import trio

from engine.actors.membership import claim_of
from engine.actors.messages import Accept, Flush, Note, PutContent
from engine.actors.parts import Parts
from engine.bus.api import BusFull, Delivery, Subscription, is_digest
from engine.model.address import AddressError, parse_address
from engine.model.content import Content
from engine.model.decoding import UNDECODABLE
from engine.model.envelope import CHUNK_ENTRIES_MAX, Chunk
from engine.model.event import ChunkRefused
from engine.model.submission import (
    Submission,
    SubmitChunk,
    SubmitContent,
    SubmitContentBlob,
    decode_content,
    decode_submission,
)
from engine.mta.compose.token import CAMPAIGN_MAX
from engine.mta.spool.api import Spool, SpoolError
from engine.runtime.ref import Ref
from engine.runtime.spec import Context, Start
from engine.storage import SpaceLevel, StorageFull

CHUNKS_AT_A_TIME = 4  # 4 x 5,000 envelopes in one commit at most
CHUNK_ID_OCTETS_MAX = 200  # the claims table takes keys of 380
ROOM_SECONDS = 1.0
KEY_SECONDS = 30.0  # for a sealed DKIM key to arrive; the hub seals when it hears of the campaign
FULL_SECONDS = 5.0  # of a disk without room for a chunk, which the watermarks did not foresee

log = structlog.get_logger("intake")


def intake(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        subscription = parts.cluster.subscribe(f"chunks.{parts.config.node.name}", "intake")
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
                submission = await _decode(parts, spooler, delivery)
                if isinstance(submission, SubmitContent | SubmitContentBlob):
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
    """Wait for room on the disk, for the end of a drain, and until this engine may take work at all."""
    while _is_closed(parts):  # noqa: ASYNC110 - neither disk nor operator nor other engines ring a bell
        await trio.sleep(ROOM_SECONDS)


def _is_closed(parts: Parts) -> bool:
    # Measured anew: what is taken at a time must not go past both watermarks.
    full = parts.space is not None and parts.space.measure() is not SpaceLevel.OPEN
    return full or parts.stops.draining is not None or bool(parts.membership.closed)


async def _decode(parts: Parts, spooler: Ref[Any], delivery: Delivery) -> Submission | None:
    """The submission, or None, a log line and an event: what does not decode would not decode again."""
    try:
        return decode_submission(delivery.payload)
    except UNDECODABLE as error:
        log.error(
            "a submission does not decode",
            writer=delivery.writer,
            sequence=delivery.sequence,
            why=str(error),
        )
        await _tell_of_refusal(spooler, delivery, f"does not decode: {error}")
        return None


async def _tell_of_refusal(
    spooler: Ref[Any], delivery: Delivery, why: str, chunk: Chunk | None = None, campaign: int = 0
) -> None:
    """Let whoever submitted it know. Durable on return."""
    facts = (campaign, "", 0) if chunk is None else (chunk.campaign, chunk.id, len(chunk.entries))
    await spooler.tell(Note([ChunkRefused(*facts, why, delivery.writer, delivery.sequence)]))
    await spooler.ask(Flush)


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
    """One submission. What is unfit is refused with a log line and an event; it would be unfit again."""
    chunk = submission.chunk if isinstance(submission, SubmitChunk) else None
    try:
        if chunk is None:
            await _take_content(parts, spooler, submission)
            return
        if problem := chunk_problem(chunk, parts.spool):
            raise SpoolError(problem)
        claim = claim_of(parts.config.node.name, parts.spool.epoch)
        claimed = await parts.cluster.create("claims", chunk.id, claim)
        if claimed is not None and claimed != claim:  # somebody holds it: no loss, so no event
            _say_whose(parts, chunk, claimed.decode(errors="replace"))
            return
        await spooler.ask(lambda answer: Accept(chunk, answer))
    except SpoolError as error:
        log.error(
            "a submission was refused", writer=delivery.writer, sequence=delivery.sequence, why=str(error)
        )
        campaign = 0 if chunk else campaign_of(submission)
        await _tell_of_refusal(spooler, delivery, str(error), chunk, campaign)


async def _take_content(parts: Parts, spooler: Ref[Any], submission: Submission) -> None:
    content = await _content_of(parts, submission)
    problem = content_problem(content, parts.dkim_keys)
    if problem and parts.cluster is not parts.bus:
        with trio.move_on_after(KEY_SECONDS):  # a sealed key may be on its way, too
            while problem:
                await trio.sleep(ROOM_SECONDS)
                problem = content_problem(content, parts.dkim_keys)
    if problem:
        raise SpoolError(problem)
    await spooler.ask(lambda answer: PutContent(content, answer))


async def _content_of(parts: Parts, submission: Submission) -> Content:
    """The content itself. Raises SpoolError when its blob is gone or damaged."""
    if isinstance(submission, SubmitContent):
        return submission.content
    assert isinstance(submission, SubmitContentBlob)
    if not is_digest(submission.digest):
        raise SpoolError(f"the digest of campaign {submission.campaign}'s content is none")
    data = await parts.cluster.read_blob(submission.digest)
    if data is None:
        raise SpoolError(f"the content of campaign {submission.campaign} is not on the bus any more")
    try:
        content = decode_content(data)
    except UNDECODABLE as error:
        raise SpoolError(f"the content of campaign {submission.campaign} does not decode: {error}") from error
    if content.campaign != submission.campaign:
        raise SpoolError(f"the content of campaign {submission.campaign} is that of {content.campaign}")
    return content


def campaign_of(submission: Submission) -> int:
    if isinstance(submission, SubmitContent):
        return submission.content.campaign
    if isinstance(submission, SubmitContentBlob):
        return submission.campaign
    return submission.chunk.campaign


def _say_whose(parts: Parts, chunk: Chunk, claimed: str) -> None:
    if claimed.partition(" ")[0] == parts.config.node.name:
        log.error(
            "a chunk was taken by a spool that this engine has lost: whether it was sent is not known"
            " (`emass broadcaster retire` lists it as ambiguous)",
            chunk=chunk.id,
            claimed=claimed,
        )
    else:
        log.info("a chunk is claimed by another", chunk=chunk.id, claimed=claimed)


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
    if content is None:
        return f"campaign {chunk.campaign} has no content; submit it before its chunks"
    width = len(content.fields)
    if len(chunk.entries) > CHUNK_ENTRIES_MAX:
        return f"the chunk has {len(chunk.entries)} envelopes, more than {CHUNK_ENTRIES_MAX}"
    for number, entry in enumerate(chunk.entries):
        try:
            address = parse_address(entry.recipient)
        except AddressError as error:
            return f"envelope {number}: the address {error}"
        if not entry.recipient.endswith(address.domain):
            return f"envelope {number}: the domain is not in lower-case A-labels"
        if len(entry.row) != width:
            return f"envelope {number}: the row has {len(entry.row)} values for {width} fields"
    return ""
