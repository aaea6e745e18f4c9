"""Takes submissions from the bus: contents and chunks. Accepted = durable in the spool, then acknowledged.

Decides whether a submission is fit (addresses parse, rows have the content's width, the campaign's
content is known) and whether there is room (watermark 1, prefetch bound). Claims each chunk once
(`claims/<chunk>` = broadcaster + epoch), so that a redelivery to another spool is never accepted
twice. Several chunks are on their way to the spooler at a time. Touches: bus, spooler. On crash: what
was not acknowledged comes again, and a chunk id seen before is acknowledged without effect.
"""

from typing import Any

import msgspec
import structlog
import trio

from engine.actors.messages import Accept, PutContent
from engine.actors.parts import Parts
from engine.bus.api import Delivery, Subscription
from engine.model.address import AddressError, parse_address
from engine.model.envelope import CHUNK_ENTRIES_MAX, Chunk
from engine.model.submission import Submission, SubmitContent, decode_submission
from engine.mta.spool.api import SpoolError
from engine.runtime.ref import Ref
from engine.runtime.spec import Context, Start
from engine.storage import SpaceLevel

CHUNKS_AT_A_TIME = 4  # 4 x 5,000 envelopes in one commit at most
ROOM_SECONDS = 1.0

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
        while parts.space is not None and parts.space.level is not SpaceLevel.OPEN:  # noqa: ASYNC110
            await trio.sleep(ROOM_SECONDS)  # the disk rings no bell
        deliveries = await subscription.receive(CHUNKS_AT_A_TIME)
        async with trio.open_nursery() as nursery:
            for delivery in deliveries:
                submission = _decode(delivery)
                if isinstance(submission, SubmitContent):
                    await _take(parts, spooler, submission, delivery)  # what follows needs it
                elif submission is not None:
                    nursery.start_soon(_take, parts, spooler, submission, delivery)
        await subscription.acknowledge(deliveries[-1])


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


async def _take(parts: Parts, spooler: Ref[Any], submission: Submission, delivery: Delivery) -> None:
    """One submission. What is unfit is refused with a log line; it would be unfit again."""
    try:
        if isinstance(submission, SubmitContent):
            content = submission.content
            await spooler.ask(lambda answer: PutContent(content, answer))
            return
        chunk = submission.chunk
        problem = chunk_problem(chunk)
        if problem:
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


def chunk_problem(chunk: Chunk) -> str:
    """Why a chunk is unfit, or nothing."""
    if not chunk.id or len(chunk.id) > 200:
        return "the chunk's id is empty or too long"
    if len(chunk.entries) > CHUNK_ENTRIES_MAX:
        return f"the chunk has {len(chunk.entries)} envelopes, more than {CHUNK_ENTRIES_MAX}"
    for number, entry in enumerate(chunk.entries):
        try:
            address = parse_address(entry.recipient)
        except AddressError as error:
            return f"envelope {number}: the address {error}"
        if not entry.recipient.endswith(address.domain):
            return f"envelope {number}: the domain is not in lower-case A-labels"
    return ""
