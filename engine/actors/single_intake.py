"""Takes single messages from the bus: each becomes an envelope under the standing content of its kind and
day.

Decides whether a single is fit, under which standing content it goes, and how many are on their way to the
spooler at a time (they share commits). A repeat of an id has no effect; ids are forgotten a week after
their message would have expired. Not claimed on the bus as chunks are: the stream is this broadcaster's
alone, and a spool that is lost leaves only those in doubt that it had accepted and not acknowledged, some
milliseconds' worth. What is unfit is told by a log line and an event, since its sender was told that it is
accepted. In a drain, on a full disk, and while this engine's standing is in doubt, it takes nothing.

Touches: bus (stream, blobs), spooler. On crash: what was not acknowledged comes again.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from engine.actors.messages import Accept, Flush, Note, PutContent
from engine.actors.parts import Parts
from engine.bus.api import BusFull, Delivery, Subscription, is_digest
from engine.model.address import AddressError, parse_address
from engine.model.content import Content
from engine.model.decoding import UNDECODABLE
from engine.model.event import ChunkRefused
from engine.model.single import (
    ID_OCTETS_MAX,
    RAW_OCTETS_MAX,
    BlobMessage,
    RawMessage,
    SingleKind,
    SubmitSingle,
    TemplateMessage,
    chunk_id,
    decode_single,
    forgettable,
    is_standing,
    raw_row,
    single_chunk,
    single_stream,
    standing_content,
)
from engine.model.submission import SubmitContent
from engine.mta.compose.token import CAMPAIGN_MAX
from engine.mta.spool.api import SpoolError
from engine.runtime.ref import Ref
from engine.runtime.spec import Context, Start
from engine.storage import SpaceLevel, StorageFull

SINGLES_AT_A_TIME = 32  # one commit's worth; at 700 KB an entry, four batches are 90 MB for a moment
BATCHES_AT_A_TIME = 4  # on their way to the spool: while one is synced the next is made
BLOBS_AT_A_TIME = 2  # of up to 10 MB, each twice in memory while its record is made
PLACES_MAX = 8  # campaign numbers that are tried for one standing content; two share one once in 16,000 kinds
ROOM_SECONDS = 1.0
FULL_SECONDS = 5.0
KEY_SECONDS = 30.0  # for a sealed DKIM key to arrive, as for campaigns
FORGET_EVERY_SECONDS = 600.0
FORGET_COUNT = 2_000  # ids a commit: some 10 ms of the loop
SECONDS_PER_DAY = 86_400

log = structlog.get_logger("single_intake")


def single_intake(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        taking = SingleIntake(parts, context.peer("spooler"))
        subscription = parts.cluster.subscribe(single_stream(parts.config.node.name), "intake")
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(taking.serve, subscription)
            nursery.start_soon(taking.forget)
            await context.stop.wait()
            nursery.cancel_scope.cancel()

    return start


class SingleIntake:
    """One incarnation."""

    def __init__(self, parts: Parts, spooler: Ref[Any]) -> None:
        self._parts = parts
        self._spooler = spooler
        self._blobs = trio.CapacityLimiter(BLOBS_AT_A_TIME)
        self._standing: dict[SingleKind, tuple[int, int]] = {}  # day and campaign of what is in the spool
        self._making = trio.Lock()
        self._places = trio.Semaphore(BATCHES_AT_A_TIME)
        self._batches: deque[_Batch] = deque()  # not acknowledged, in order
        self._bell = trio.Event()

    def __repr__(self) -> str:
        return f"<SingleIntake {len(self._standing)} kinds, {len(self._batches)} batches on their way>"

    async def serve(self, subscription: Subscription) -> None:
        """For life: take what comes, a commit's worth at a time, the next while the last is on its way."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._acknowledge, subscription)
            while True:
                await self._until_open()
                deliveries = await subscription.receive(SINGLES_AT_A_TIME)
                await self._until_open()  # it may have waited for long
                batch = _Batch(deliveries[-1])
                self._batches.append(batch)
                self._bell.set()
                await self._places.acquire()
                if await self._take_contents(deliveries):
                    await self._take_batch(deliveries, batch)  # what follows may need them
                else:
                    nursery.start_soon(self._take_batch, deliveries, batch)

    async def _take_contents(self, deliveries: list[Delivery]) -> bool:
        """Take the contents among them first; whether there were any."""
        found = False
        for delivery in deliveries:
            submission = _decode(delivery)
            if isinstance(submission, SubmitContent):
                found = True
                await self._take_patiently(submission, delivery)
        return found

    async def _take_batch(self, deliveries: list[Delivery], batch: "_Batch") -> None:
        async with trio.open_nursery() as nursery:
            for delivery in deliveries:
                submission = _decode(delivery)
                if isinstance(submission, str):
                    await self._refuse(delivery, submission)
                elif isinstance(submission, SubmitSingle):
                    nursery.start_soon(self._take_patiently, submission, delivery)
                    blob = submission.message if isinstance(submission.message, BlobMessage) else None
                    if blob is not None and blob.last and is_digest(blob.digest):
                        batch.needless.append(blob.digest)
        self._places.release()
        batch.done.set()

    async def _acknowledge(self, subscription: Subscription) -> None:
        """For life: acknowledge what is in the spool, in order, and drop the blobs that nobody needs now."""
        while True:
            while not self._batches:
                await self._bell.wait()
                self._bell = trio.Event()
            done: list[_Batch] = []
            while self._batches and (not done or self._batches[0].done.is_set()):
                await self._batches[0].done.wait()
                done.append(self._batches.popleft())
            await self._patiently(self._finish, subscription, done)

    async def _finish(self, subscription: Subscription, done: "list[_Batch]") -> None:
        for batch in done:
            for digest in batch.needless:
                await self._parts.cluster.drop_blob(digest)
        await subscription.acknowledge(done[-1].last)

    async def _patiently(self, act: Callable[..., Awaitable[None]], *facts: Any) -> None:
        """Do it, however long spool or bus have no room."""
        while True:
            try:
                await act(*facts)
            except (StorageFull, BusFull) as error:
                log.warning("intake of singles waits for room", why=str(error))
                await trio.sleep(FULL_SECONDS)
            else:
                return

    async def forget(self) -> None:
        """For life: forget the ids of messages that have been over for a week."""
        while True:
            try:
                first, before = forgettable(self._parts.clock.now())
                while await self._parts.spool.forget_chunks(first, before, FORGET_COUNT) == FORGET_COUNT:
                    await trio.lowlevel.checkpoint()
            except StorageFull as error:
                log.warning("ids of old singles stay for now", why=str(error))
            await trio.sleep(FORGET_EVERY_SECONDS)

    async def _until_open(self) -> None:
        parts = self._parts
        while (  # noqa: ASYNC110 - neither disk nor operator nor other engines ring a bell
            parts.stops.draining is not None
            or parts.membership.closed
            or (parts.space is not None and parts.space.measure() is not SpaceLevel.OPEN)
        ):
            await trio.sleep(ROOM_SECONDS)

    async def _take_patiently(self, submission: SubmitSingle | SubmitContent, delivery: Delivery) -> None:
        try:
            if isinstance(submission, SubmitContent):
                await self._patiently(self._take_content, submission.content)
            else:
                await self._patiently(self._take, submission)
        except SpoolError as error:
            single = submission.id if isinstance(submission, SubmitSingle) else ""
            await self._refuse(delivery, str(error), single)

    async def _take(self, single: SubmitSingle) -> None:
        """One single. Raises SpoolError when it is unfit."""
        if problem := single_problem(single):
            raise SpoolError(problem)
        spool, message = self._parts.spool, single.message
        if not spool.knows(chunk_id(single)):
            if isinstance(message, TemplateMessage):
                campaign, row = message.campaign, message.row
                self._check_template(message)
            else:
                octets = await self._octets(message)
                campaign, row = await self._standing_campaign(message.kind), raw_row(octets)
            chunk = single_chunk(single, campaign, row)
            await self._spooler.ask(lambda answer: Accept(chunk, answer))

    async def _octets(self, message: RawMessage | BlobMessage) -> bytes:
        if isinstance(message, RawMessage):
            return message.octets
        async with self._blobs:
            octets = await self._parts.cluster.read_blob(message.digest)
        if octets is None:
            raise SpoolError("its blob is gone")
        if len(octets) > RAW_OCTETS_MAX:
            raise SpoolError(f"its blob has {len(octets)} octets, more than {RAW_OCTETS_MAX}")
        return octets

    def _check_template(self, message: TemplateMessage) -> None:
        content = self._parts.spool.content(message.campaign)
        if content is None or not content.single or content.raw:
            raise SpoolError(f"campaign {message.campaign} is no content for single messages")
        if len(message.row) != len(content.fields):
            raise SpoolError(f"the row has {len(message.row)} values for {len(content.fields)} fields")

    async def _standing_campaign(self, kind: SingleKind) -> int:
        """The campaign of the standing content for a kind today, put into the spool where it is not there."""
        day = int(self._parts.clock.now()) // SECONDS_PER_DAY
        async with self._making:  # many of one kind come at once; one of them makes it
            known = self._standing.get(kind)
            if known is not None and known[0] == day:
                return known[1]
            for place in range(PLACES_MAX):
                content = standing_content(kind, day, place)
                there = self._parts.spool.content(content.campaign)
                if there is None:
                    await self._take_content(content)
                if there is None or there == content:
                    self._standing = {
                        each: facts for each, facts in self._standing.items() if facts[0] == day
                    }
                    self._standing[kind] = (day, content.campaign)
                    return content.campaign
        raise SpoolError("no campaign number is free for its kind")

    async def _take_content(self, content: Content) -> None:
        problem = self._content_problem(content)
        if problem and self._parts.cluster is not self._parts.bus:
            with trio.move_on_after(KEY_SECONDS):  # a sealed key may be on its way
                while problem:
                    await trio.sleep(ROOM_SECONDS)
                    problem = self._content_problem(content)
        if problem:
            raise SpoolError(problem)
        await self._spooler.ask(lambda answer: PutContent(content, answer))

    def _content_problem(self, content: Content) -> str:
        if not 0 < content.campaign <= CAMPAIGN_MAX:
            return f"campaign {content.campaign} is not from 1 to {CAMPAIGN_MAX}"
        if not content.single or is_standing(content.campaign) != content.raw:
            return f"campaign {content.campaign} is no content for single messages"
        unknown = [one.key for one in content.dkim if one.key not in self._parts.dkim_keys]
        return f"it is to be signed with a key that is not configured: {unknown[0]}" if unknown else ""

    async def _refuse(self, delivery: Delivery, why: str, single: str = "") -> None:
        """Say what is lost, durably: whoever sent it believes it to be on its way."""
        log.error(
            "a single message was refused",
            single=single,
            writer=delivery.writer,
            sequence=delivery.sequence,
            why=why,
        )
        refused = ChunkRefused(0, single, 1, why, delivery.writer, delivery.sequence)
        await self._spooler.tell(Note([refused]))
        await self._spooler.ask(Flush)


class _Batch:
    """What came together: its last entry, the blobs that go with it, and whether all of it is taken."""

    __slots__ = ("done", "last", "needless")

    def __init__(self, last: Delivery) -> None:
        self.last = last
        self.needless: list[str] = []
        self.done = trio.Event()


def _decode(delivery: Delivery) -> SubmitSingle | SubmitContent | str:
    """The submission, or why it is none: it would be none again."""
    try:
        return decode_single(delivery.payload)
    except UNDECODABLE as error:
        return f"does not decode: {error}"


def single_problem(single: SubmitSingle) -> str:
    """Why a single is unfit whatever the spool holds, or nothing."""
    if not 0 < len(single.id.encode()) <= ID_OCTETS_MAX or "\0" in single.id:
        return "its id is empty, too long or holds NUL"
    message = single.message
    if isinstance(message, TemplateMessage) and not 0 < message.campaign <= CAMPAIGN_MAX:
        return f"campaign {message.campaign} is not from 1 to {CAMPAIGN_MAX}"
    if isinstance(message, BlobMessage) and not is_digest(message.digest):
        return "the digest of its blob is none"
    if not 0.0 <= single.expires_at < 2**32:
        return "its expiry is no time"
    try:
        address = parse_address(single.recipient)
    except AddressError as error:
        return f"its recipient {error}"
    if not single.recipient.endswith(address.domain):
        return "its recipient's domain is not in lower-case A-labels"
    return ""
