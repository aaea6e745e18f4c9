"""The coordinator of one job over many broadcasters: cuts, spreads, moves, watches; it sends nothing itself.

Before a chunk is published the ledger has it, so a coordinator may be killed at any moment and be started
again over the same folder. It claims nothing: broadcasters do, and whoever is first has the chunk. Claims
and events are watched, never acknowledged, and read anew by the next coordinator. While the campaign is
paused nothing is published; when it is cancelled nothing more is cut. A bus that has forgotten claims gets
back those that the ledger knows, and what nobody had claimed is published again.

Touches: the cluster's bus, the ledger. While the bus is away, calls wait. Raises LedgerError and CutError.
"""

import time
from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio

from control.job.board import Board
from control.job.campaign_state import TABLE as CAMPAIGNS
from control.job.campaign_state import CampaignState, Wanted, announce, decode_state
from control.job.cutting import Cut, Cutter, chunk_id
from control.job.missing import MissingEvents
from control.job.roster import INTAKE, Status
from control.job.spreading import DEFAULT_BOUNDS, Bounds, deal, moves
from engine.bus.api import Bus, BusFull, PositionLost
from engine.model.content import Content
from engine.model.decoding import UNDECODABLE
from engine.model.event import decode_events
from engine.model.submission import (
    CONTENT_INLINE_OCTETS_MAX,
    SubmitChunk,
    SubmitContent,
    SubmitContentBlob,
    encode_content,
    encode_submission,
)

CLAIMS, STATUS, RETIRED = "claims", "status", "retired"
TICK_SECONDS = 0.1
EVENTS_AT_A_TIME = 512
CAUGHT_UP_SECONDS = 0.1  # who has to wait so long for events has read all that there were
FULL_SECONDS = 5.0  # a stream that refused a chunk is left alone for so long
CANARY_SECONDS = 5.0  # between looks whether the bus still knows what was claimed
LOST_SECONDS = 30.0  # a chunk that nobody claims for so long is looked for on the bus
STUCK_SECONDS = 60.0  # claimed and not accepted for so long: its broadcaster's log says why
CANCELLED_SECONDS = 30.0  # how long a cancelled job waits for claims of what is out
REFUSED_SECONDS = 15.0  # who refused a content, or a chunk, gets no other chunk for so long

log = structlog.get_logger("coordinator")

Prepare = Callable[[str, Status | None], Awaitable[None]]


async def _nothing(name: str, status: Status | None) -> None:
    await trio.lowlevel.checkpoint()


class Coordinator:
    """One run of one job. `run` returns when all is over, or when `stop` is set."""

    def __init__(
        self,
        bus: Bus,
        board: Board,
        cutter: Cutter,
        content: Content,
        *,
        job: str,
        author: str,
        left: Callable[[], int],
        bounds: Bounds = DEFAULT_BOUNDS,
        prepare: Prepare = _nothing,
    ) -> None:
        """`left` estimates how many people are not cut; `prepare` is awaited once before a broadcaster
        gets its first chunk."""
        self.board = board
        self.stop = trio.Event()
        self.state = CampaignState()
        self.reading = True  # the list is not cut to its end
        self.again = bool(board.ledger.chunks)  # what was cut before is cut again
        self._bus = bus
        self._cutter = cutter
        self._content = content
        self._job = job
        self._author = author
        self._left = left
        self._bounds = bounds
        self._prepare = prepare
        self._prepared: set[str] = set()
        self._followed: set[str] = set()
        self._missing = MissingEvents(bus, board, content.campaign)
        self._bell = trio.Event()
        self._cancelled_at: float | None = None
        self._claimed_at: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"<Coordinator of {self._job}: {self.state.state.value}, {self.board!r}>"

    @property
    def is_over(self) -> bool:
        """Nothing is left to do; of a cancelled job, when all that was taken is over."""
        if self.state.state is Wanted.CANCEL and not self.again:
            return self._cancel_is_over()
        return not self.reading and self.board.is_over

    async def run(self, look: Callable[[], bool] = lambda: False) -> None:
        """Until all is over, `look` (called at each tick) says so, or `stop` is set."""
        board = self.board
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._begin, nursery)
            while True:
                for name in board.names() - self._followed:
                    self._followed.add(name)
                    nursery.start_soon(self._follow, name)
                now = trio.current_time()
                board.measure(now)
                board.finish_chunks()
                board.ledger.sync()
                if look() or self.is_over or self.stop.is_set():
                    break
                with trio.move_on_after(TICK_SECONDS):
                    await self.stop.wait()
            nursery.cancel_scope.cancel()
        board.finish_chunks()
        board.ledger.sync()

    async def _begin(self, nursery: trio.Nursery) -> None:
        """Everything that wants the bus, which may not be there yet."""
        self.state = await announce(self._bus, self._content.campaign, by=self._author, at=time.time())
        await self._compare_claims()
        for table, hear in (
            (STATUS, self._hear_status),
            (CLAIMS, self._hear_claim),
            (CAMPAIGNS, self._hear_campaign),
            (RETIRED, self.board.hear_retired),
        ):
            nursery.start_soon(self._heed, table, hear)
        nursery.start_soon(self._feed)
        nursery.start_soon(self._look_after)

    # --- hearing -------------------------------------------------------------------------------------------

    async def _heed(self, table: str, hear: Callable[[str, bytes | None], object]) -> None:
        """A table's rows and changes, for ever."""
        while True:
            try:
                async for key, value in self._bus.watch(table):
                    hear(key, value)
                    self._ring()
            except PositionLost:
                await trio.lowlevel.checkpoint()

    async def _follow(self, name: str) -> None:
        """A broadcaster's events, for ever. Never acknowledged: the next coordinator reads them again."""
        events = self._bus.subscribe(f"events.{name}", f"report-{self._job}")
        teller = self.board.teller(name)
        while True:
            since = trio.current_time()
            deliveries = await events.receive(EVENTS_AT_A_TIME)
            teller.caught_up = teller.caught_up or trio.current_time() - since > CAUGHT_UP_SECONDS
            for delivery in deliveries:
                try:
                    batch = decode_events(delivery.payload)
                except UNDECODABLE as error:
                    self._warn(f"events of {name} do not decode: {error}")
                    continue
                self.board.hear_events(name, batch)
            self._ring()
            await trio.lowlevel.checkpoint()

    def _hear_status(self, key: str, value: bytes | None) -> None:
        self.board.roster.hear(key, value, trio.current_time())

    def _hear_claim(self, key: str, value: bytes | None) -> None:
        self.board.hear_claim(key, value)

    def _hear_campaign(self, key: str, value: bytes | None) -> None:
        if key == str(self._content.campaign) and value is not None:
            self.state = decode_state(value)

    def _ring(self) -> None:
        self._bell.set()

    def _warn(self, text: str) -> None:
        if self.board.warn(text):
            log.warning(text)

    # --- giving out ----------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        for line in list(self.board.ledger):
            cut = self._cutter.again(line.first, line.last, line.count)
            line = self.board.plan(cut, self._payload(cut))  # noqa: PLW2901
            await trio.lowlevel.checkpoint()
        self.again = False
        self.reading = not self.board.ledger.complete
        await self._publish_again()
        while True:
            self._bell = trio.Event()
            given = False
            await self._heed_refusals()
            if self.state.state is Wanted.RUN:
                given = await self._move() or await self._deal()
            if not given:
                with trio.move_on_after(TICK_SECONDS):
                    await self._bell.wait()
            await trio.lowlevel.checkpoint()

    async def _publish_again(self) -> None:
        """What was on its way when the last coordinator died: twice in one stream is taken once."""
        if self.state.state is Wanted.CANCEL:
            return
        for chunk in list(self.board.unclaimed(trio.current_time())):
            if chunk.targets:
                await self._publish(chunk.number, chunk.targets[-1])

    async def _move(self) -> bool:
        """Chunks that their broadcasters cannot take, and those that nobody was given yet."""
        now = trio.current_time()
        for move in moves(self.board.unclaimed(now), self.board.standings(now), self._bounds):
            before = self.board.ledger[move.number].targets
            if before:
                claimed = await self._bus.read(CLAIMS, self._id(move.number))
                if claimed is not None:
                    self.board.hear_claim(self._id(move.number), claimed)
                    continue
                log.info("a chunk moves", chunk=move.number, before=before[-1], to=move.name)
            if self.board.ledger[move.number].claimed is None:
                await self._publish(move.number, move.name)
                return True
        return False

    async def _deal(self) -> bool:
        """Cut the next chunk for whose turn it is."""
        if not self.reading:
            return False
        dealt = deal(self.board.standings(trio.current_time()), max(1, self._left()), self._bounds)
        if dealt is None:
            return False
        cut = self._cutter.next(dealt.size)
        if cut is None:
            self.board.ledger.end()
            self.board.ledger.sync()
            self.reading = False
            return False
        line = self.board.plan(cut, self._payload(cut))
        await self._publish(line.number, dealt.name)
        return True

    async def _heed_refusals(self) -> None:
        """What a broadcaster will not have goes to another; a claimed chunk can only go to it again."""
        refusals, self.board.refusals = self.board.refusals, []
        for name, refused in refusals:
            line = self.board.line_of(refused.chunk)
            if line is not None and line.accepted:
                continue  # of a former run
            what = "the content" if line is None else f"chunk {line.number}"
            self._warn(f"{name} refuses {what}: {refused.reason}")
            self._prepared.discard(name)
            self.board.close_for(name, trio.current_time() + REFUSED_SECONDS)
            if line is None or not self.board.refuse(line.number, name):
                continue
            if line.claimed is not None and line.claimed[0] == name:
                await self._publish(line.number, name)

    async def _publish(self, number: int, name: str) -> None:
        """Into the ledger first, then onto the bus."""
        payload = self.board.payloads.get(number)
        if payload is None:
            return  # it was accepted meanwhile
        try:
            await self._introduce(name)
            claimed = self.board.ledger[number].claimed
            if claimed is None:
                self.board.give(number, name, trio.current_time())
                self.board.ledger.sync()
            elif claimed[0] != name:
                return
            await self._bus.publish(f"chunks.{name}", [payload])
        except BusFull as error:
            self.board.close_for(name, trio.current_time() + FULL_SECONDS)
            log.warning("the bus takes no chunk", broadcaster=name, why=str(error))
            line = self.board.ledger[number]
            if line.claimed is None and name in line.targets:
                self.board.take_back(number, name)

    async def _introduce(self, name: str) -> None:
        """What a broadcaster wants before its first chunk: keys and the content. Raises BusFull."""
        if name not in self._prepared:
            await self._prepare(name, self.board.roster.status(name))
            await self._bus.publish(f"chunks.{name}", [await self._content_payload()])
            self._prepared.add(name)

    async def _content_payload(self) -> bytes:
        data = encode_content(self._content)
        if len(data) <= CONTENT_INLINE_OCTETS_MAX:
            return encode_submission(SubmitContent(self._content))
        digest = await self._bus.put_blob(data)
        return encode_submission(SubmitContentBlob(self._content.campaign, digest))

    def _payload(self, cut: Cut) -> bytes:
        return encode_submission(SubmitChunk(cut.chunk))

    def _id(self, number: int) -> str:
        return chunk_id(self._job, number)

    # --- looking after -------------------------------------------------------------------------------------

    async def _look_after(self) -> None:
        """Does the bus still know what it knew, and where are chunks that nobody claims?"""
        while True:
            await trio.sleep(CANARY_SECONDS)
            canary = self.board.last_claim()
            if self.board.forgotten or (canary is not None and await self._bus.read(CLAIMS, canary) is None):
                await self._compare_claims()
            await self._look_for_lost()
            self._look_for_stuck()
            if not self.reading and self.board.nothing_unclaimed:
                await self._missing.look()

    async def _compare_claims(self) -> None:
        """Every claim of ours on the bus into the ledger, and those that it has lost back onto it."""
        ours = list(self.board.claims())  # before the bus is read: what is heard meanwhile is not lost
        known = await self._bus.read_all(CLAIMS)
        for key, value in known.items():
            self.board.hear_claim(key, value)
        lost = [(key, value) for key, value in ours if key not in known]
        if not lost:
            self.board.forgotten.clear()
            return
        self._warn(
            f"the bus has forgotten {len(lost):,} claims of this job (was it restored from an old copy?):"
            " they are put back, and none of these chunks is given to anybody else"
        )
        for key, value in lost:
            there = await self._bus.create(CLAIMS, key, value)
            if there is not None:
                self.board.hear_claim(key, there)
        if self.state != CampaignState():
            await self._bus.create(CAMPAIGNS, str(self._content.campaign), msgspec.json.encode(self.state))
        self._prepared.clear()  # contents are published again
        self.board.forgotten.clear()

    async def _look_for_lost(self) -> None:
        """A chunk that waits for a living broadcaster whose stream is read to its end is not on the bus."""
        now = trio.current_time()
        old = [each for each in self.board.unclaimed(now) if each.since_seconds >= LOST_SECONDS]
        for name in sorted({target for each in old for target in each.targets}):
            if not self.board.is_open(name, now) or await self._bus.pending(f"chunks.{name}", INTAKE):
                continue
            for each in old:
                if name not in each.targets:
                    continue
                claimed = await self._bus.read(CLAIMS, self._id(each.number))
                if claimed is not None:
                    self.board.hear_claim(self._id(each.number), claimed)
                elif self.board.ledger[each.number].claimed is None:
                    self._warn(
                        f"chunk {each.number} is not on the bus any more, or {name} refused it"
                        " (then its log says why): it is published again"
                    )
                    self.board.take_back(each.number, name)
                    self._prepared.discard(name)

    def _look_for_stuck(self) -> None:
        now = trio.current_time()
        for line in self.board.ledger:
            if line.claimed is None or line.accepted or line.retired:
                self._claimed_at.pop(line.number, None)
            elif now - self._claimed_at.setdefault(line.number, now) > STUCK_SECONDS:
                name = line.claimed[0]
                if self.board.roster.is_live(name, now):
                    self._warn(
                        f"{name} has claimed chunk {line.number} and has not said that it took it:"
                        " its log says why, or the bus has lost its events"
                    )

    def _cancel_is_over(self) -> bool:
        """All that was taken is over, and what was not taken had its time."""
        now = trio.current_time()
        if self._cancelled_at is None:
            self._cancelled_at = now
        if self.board.counts().deferred:
            return False
        open_still = any(
            self.board.is_open(name, now) for each in self.board.unclaimed(now) for name in each.targets
        )
        if open_still or self.board.nothing_unclaimed is False:
            return not open_still or now - self._cancelled_at > CANCELLED_SECONDS
        return not any(line.claimed and not line.accepted and not line.retired for line in self.board.ledger)
