"""The writer of the durable queue: accepts chunks, grants leases, settles, tells what is due.

Decides what goes into one commit (everything that came in one wake-up) and never waits for another
actor: what the scheduler's mailbox has no room for is kept and told later. Watches the room on the disk
and the system's clock. Touches: the spool.

On a crash nothing is lost: settles in hand are in `parts.unsettled` and are applied by the next
incarnation with those still in the mailbox; only then are leases without a holder treated as
orphans (ambiguous). On a full disk leases and settles wait in the committer, and so does everybody who
needs them. A commit that fails otherwise is this actor's crash; its supervisor stops the tree when it
repeats, since an engine without a disk must not send.
"""

from collections import deque
from typing import Any

import structlog
import trio

from engine.actors.holder import Holder
from engine.actors.messages import (
    BELL,
    Accept,
    Accepted,
    Bell,
    Flush,
    Leased,
    LeaseFor,
    Note,
    OrderLeases,
    PutContent,
    Queued,
    Settle,
)
from engine.actors.parts import Parts
from engine.keyring import KeyringError
from engine.model.disposition import DelayReason, Disposition, Outcome
from engine.model.event import Adapted
from engine.mta.policy.retry import retry_at
from engine.mta.spool.api import Acceptance, Lease, Settled, SpoolError
from engine.runtime.answer import Answer
from engine.runtime.ref import Ref
from engine.runtime.spec import Context, Start
from engine.runtime.ticking import batch_within
from engine.storage import Pending, SpaceLevel, StorageError, StorageFull

MESSAGES_PER_COMMIT = 512
DUE_SECONDS = 0.25  # how late a retry may be
DUE_LIMIT = 5_000  # due envelopes per look: as many as a chunk
WAIT_SECONDS_MAX = 2 * 86_400.0  # a reply may name a day; what waits longer was put there by a wrong clock
CLOCK_SECONDS = 1.0
SPACE_SECONDS = 1.0
READERS_SECONDS = 60.0

log = structlog.get_logger("spooler")


def spooler(parts: Parts) -> Start:
    """The actor's function for life."""

    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        await Spooler(parts, context).live(task_status)

    return start


class Spooler:
    """One incarnation."""

    def __init__(self, parts: Parts, context: Context[Any]) -> None:
        self._parts = parts
        self._spool = parts.spool
        self._mailbox = context.mailbox
        self._ref: Ref[Any] = context.ref
        self._scheduler: Ref[Any] = context.peer("scheduler")
        self._outbox: deque[object] = deque()  # for the scheduler, when its mailbox is full
        self._submitted: set[int] = set()  # keys of `parts.unsettled` that are on their way to the disk
        self._failure: BaseException | None = None
        self._next_due = 0.0
        self._next_space = 0.0
        self._level = SpaceLevel.OPEN  # as it was last told
        self._next_clock = 0.0
        self._next_readers = trio.current_time() + READERS_SECONDS

    async def live(self, task_status: trio.TaskStatus[None]) -> None:
        await self._recover()
        task_status.started()
        while (batch := await batch_within(self._mailbox, MESSAGES_PER_COMMIT, DUE_SECONDS)) is not None:
            self._handle(batch)
            self._settle_overlooked()
            self._tick()
            if self._failure is not None:
                raise self._failure
        while self._parts.unsettled:  # the mailbox is closed: whatever is in hand becomes durable
            self._settle_overlooked()
            await self._spool.settle([], self._parts.clock.now())
            if self._failure is not None:
                raise self._failure

    async def _recover(self) -> None:
        now = self._parts.clock.now()
        # What the last incarnation ordered comes to its end first: a lease that finds its taker gone is
        # given back through the mailbox, and is no orphan.
        await self._spool.settle([], now)
        while (message := self._mailbox.get_nowait()) is not None:
            # An OrderLeases of a dead site is void: its envelopes are still queued.
            if isinstance(message, Settle | PutContent | Accept | Note | Flush):
                self._handle([message])
        self._settle_overlooked()
        due = retry_at(self._parts.config.engine.retry, 0, now, float("inf"), self._parts.dice.random())
        assert due is not None, "nothing expires at infinity"
        engine = self._parts.config.engine
        recovery = await self._spool.recover(now, engine.ambiguous, due, engine.retry.first)
        if recovery.orphans:
            log.warning(
                "found leases of an earlier life: their envelopes are ambiguous",
                envelopes=recovery.orphans,
                held=recovery.held,
                quarantined=recovery.quarantined,
            )
        self._requeue_late()

    # --- messages --------------------------------------------------------------------------------------

    def _handle(self, batch: list[Any]) -> None:
        settles: list[Settle] = []
        orders: list[LeaseFor] = []
        for message in batch:
            match message:
                case Settle():
                    settles.append(message)
                case OrderLeases():
                    orders.extend(message.orders)
                case Accept():
                    self._accept(message)
                case PutContent():
                    self._put_content(message)
                case Note():
                    self._note(message)
                case Flush():
                    pass
                case Bell():
                    pass
                case _:
                    raise AssertionError(f"the spooler got {message!r}")
        if settles:
            self._settle(settles)
        if orders:
            self._lease(orders)
        for message in batch:
            if isinstance(message, Flush):
                self._spool.settle([], self._parts.clock.now()).then(_answered(message.answer))

    def _accept(self, message: Accept) -> None:
        def done(pending: Pending[Acceptance]) -> None:
            if pending.error is None:
                acceptance = pending.result()
                if not acceptance.known:
                    self._tell(Accepted(acceptance.campaign, acceptance.first_id, acceptance.domains))
                message.answer.set(acceptance)
            else:
                self._trouble(pending.error, message.answer)

        try:
            pending = self._spool.accept(message.chunk, self._parts.clock.now())
        except SpoolError as error:
            message.answer.fail(error)
            return
        pending.then(done)

    def _put_content(self, message: PutContent) -> None:
        def done(pending: Pending[None]) -> None:
            if pending.error is None:
                message.answer.set(None)
            else:
                self._trouble(pending.error, message.answer)

        try:
            pending = self._spool.put_content(message.content, self._parts.clock.now())
        except KeyringError as error:  # the file of row keys cannot be written
            message.answer.fail(StorageFull(str(error)))
            return
        pending.then(done)

    def _note(self, message: Note) -> None:
        def done(pending: Pending[None]) -> None:
            if pending.error is not None:
                self._trouble(pending.error, None)

        self._spool.note(message.events, self._parts.clock.now()).then(done)

    def _settle_overlooked(self) -> None:
        """What its teller found no room for in our mailbox, or a crashed incarnation had in hand."""
        unsettled, submitted = self._parts.unsettled, self._submitted
        if len(unsettled) > len(submitted):
            self._settle([message for key, message in unsettled.items() if key not in submitted])

    def _settle(self, settles: list[Settle]) -> None:
        batches = [batch for settle in settles for batch in settle.batches]
        keys = {id(settle): settle for settle in settles}
        self._parts.unsettled.update(keys)
        self._submitted.update(keys)

        def done(pending: Pending[Settled]) -> None:
            if pending.error is not None:
                self._trouble(pending.error, None)
                return
            for key in keys:
                self._parts.unsettled.pop(key, None)
            self._submitted.difference_update(keys)
            settled = pending.result()
            self._parts.timelines.settled(batches)
            if settled.requeued:
                self._tell(Queued(settled.requeued))
            if settled.due is not None:
                self._next_due = min(self._next_due, settled.due)

        self._spool.settle(batches, self._parts.clock.now()).then(done)

    def _lease(self, orders: list[LeaseFor]) -> None:
        def done(pending: Pending[list[list[Lease]]]) -> None:
            if pending.error is not None:
                self._trouble(pending.error, None)
                return
            refused: list[tuple[int, list[Disposition]]] = []
            rung: dict[str, Holder] = {}
            for order, leases in zip(orders, pending.result(), strict=True):
                for lease in leases:
                    self._parts.timelines.granted(lease.envelopes)
                    if not order.holder.grant(lease):
                        refused.append((lease.id, _returned(lease, DelayReason.ACTOR_RESTARTED)))
                order.holder.answers += 1
                rung[order.holder.name] = order.holder
            self._tell(Leased(tuple((order.path, order.ids) for order in orders)))
            for holder in rung.values():
                if holder.ref is not None:
                    holder.ref.try_tell(BELL)
            if refused and not self._ref.try_tell(Settle(refused)):
                self._settle([Settle(refused)])

        self._spool.lease([order.ids for order in orders], self._parts.clock.now()).then(done)

    # --- what the clock brings -----------------------------------------------------------------------------

    def _tick(self) -> None:
        while self._outbox and self._scheduler.try_tell(self._outbox[0]):
            self._outbox.popleft()
        monotonic = trio.current_time()
        if monotonic >= self._next_clock:
            self._next_clock = monotonic + CLOCK_SECONDS
            self._check_clock()
        if self._parts.space is not None and monotonic >= self._next_space:
            self._next_space = monotonic + SPACE_SECONDS
            level = self._parts.space.measure()
            if level is not self._level:
                self._level = level
                log.warning(
                    "room on the disk changed",
                    room=level.name.lower(),
                    free_octets=self._parts.space.free_octets,
                )
        if self._parts.committer is not None and monotonic >= self._next_readers:
            self._next_readers = monotonic + READERS_SECONDS
            self._parts.committer.environment.check_readers()
        now = self._parts.clock.now()
        if now >= self._next_due and not self._outbox and self._parts.stops.draining is None:
            entries = self._spool.take_due(now, DUE_LIMIT)
            if entries:
                self._tell(Queued(tuple(entries)))
            coming = self._spool.next_due()
            self._next_due = now + DUE_SECONDS if len(entries) == DUE_LIMIT else (coming or now + 3600)

    def _check_clock(self) -> None:
        """Follow the system's clock when somebody has set it, and say so."""
        step = self._parts.clock.check_step()
        if step is None:
            return
        way = "forward" if step > 0 else "back"
        log.warning("the system's clock was set", step_seconds=round(step, 3))
        why = f"the system's clock was set {way} by {abs(step):.0f} s"
        self._parts.note(Adapted("", "", "clock", None, round(step, 3), why))
        if step > 0:
            return  # a machine that slept comes back like this, too: what is due by this clock is due

        def done(pending: Pending[int]) -> None:
            if pending.error is not None:
                self._trouble(pending.error, None)
            self._next_due = 0.0

        self._spool.rewind(self._parts.clock.now(), -step).then(done)

    def _requeue_late(self) -> None:
        """At a start: an earlier life's clock was ahead, or ours is behind. Nobody waits for that."""
        now = self._parts.clock.now()
        wait = max(WAIT_SECONDS_MAX, 2 * self._parts.config.engine.retry.max)
        late = self._spool.late(now + wait, DUE_LIMIT)
        if not late:
            return
        log.warning("retries lie too far ahead: the clock was wrong; they are due now", envelopes=len(late))

        def done(pending: Pending[Settled]) -> None:
            if pending.error is not None:
                self._trouble(pending.error, None)
                return
            self._tell(Queued(pending.result().requeued))
            if len(late) == DUE_LIMIT:
                self._requeue_late()

        self._spool.requeue(late).then(done)

    def _tell(self, message: object) -> None:
        if self._outbox or not self._scheduler.try_tell(message):
            self._outbox.append(message)

    def _trouble(self, error: BaseException, answer: Answer[Any] | None) -> None:
        """A refusal, or want of room, goes to the one who asked; a store that fails is our crash."""
        if isinstance(error, SpoolError | StorageFull) and answer is not None:
            answer.fail(error)
            return
        if answer is not None and isinstance(error, Exception):
            answer.fail(error)
        if self._failure is None:
            self._failure = error
        self._ref.try_tell(BELL)


def _answered(answer: Answer[None]) -> Any:
    def done(pending: Pending[Any]) -> None:
        if pending.error is None:
            answer.set(None)
        else:
            answer.fail(StorageError(str(pending.error)))

    return done


def _returned(lease: Lease, reason: DelayReason) -> list[Disposition]:
    return [
        Disposition(item.spool_id, item.attempt, Outcome.RETURNED, reason=reason) for item in lease.envelopes
    ]
