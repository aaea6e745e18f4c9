"""Carries out operators' orders that need a walk over the spool, and takes off those whose time is over.

A cancel: page by page, what it aims at and nobody holds is settled as cancelled; what somebody holds is met
by the gate, or comes back and is found by the next pass; when a pass finds nothing the cancel is done. A
campaign stays cancelled for what comes later; a cancel by site or source stays for what was accepted before
it and gets its route later. A retry: one pass that queues again, or ends as assumed, what it aims at. While
mail is on its way a page costs the engine 2 % of its time at most; an engine with nothing to send is walked
without a rest. Also ends a drain, when nothing is left to send.

Touches: the spool, the bus table through `stops`. On crash: an order is walked again, a retry from where it
was noted last; what was done is not done twice.
"""

from typing import Any

import structlog
import trio

from engine.actors.aiming import count_left, matcher
from engine.actors.messages import Note, Queued, StopsChanged
from engine.actors.parts import Parts
from engine.actors.requests import Peer
from engine.actors.stops import Scope, StopKind, StopOrder
from engine.bus.api import BusFull
from engine.model.disposition import Disposition, Outcome, assumed
from engine.model.event import Adapted
from engine.mta.spool.api import Listed, Settled
from engine.runtime.spec import Context, Start
from engine.storage import Pending, StorageError

PAGE = 1_000  # envelopes per look: 3 ms of the loop, and 15 ms more when all of them are settled
SCAN_SECONDS = 3e-6  # of the loop per envelope looked at
CHANGE_SECONDS = 15e-6  # per envelope settled or queued, its event included
SHARE = 0.02  # of the engine's time, while mail is on its way
LOOK_SECONDS = 0.5
PAUSE_SECONDS = 0.5  # between two passes: what is held at the moment comes to its end
LEFT_SECONDS = 5.0  # between two looks whether a site's cancelled mail is all gone
COMMIT_SECONDS = 30.0  # a change that is ordered is waited for, also by who is told to stop
NOTED_PAGES = 50  # of a retry: what is walked twice after a crash at most

log = structlog.get_logger("sweeping")


def sweeping(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        sweeper = Sweeper(parts, context.peer)
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sweeper.sweep)
            nursery.start_soon(sweeper.look_after)
            await context.stop.wait()
            nursery.cancel_scope.cancel()

    return start


class Walk:
    """How far one order is carried out in this incarnation."""

    __slots__ = ("after", "found", "look_at", "lowest_missed", "matched", "pages")

    def __init__(self, after: int) -> None:
        self.after = after
        self.lowest_missed = 0  # the first id of what somebody held in this pass
        self.matched = 0  # in this pass
        self.found = 0  # since the order was noted last
        self.pages = 0
        self.look_at = 0.0  # monotonic: not before

    def __repr__(self) -> str:
        return f"<Walk after {self.after}: {self.matched} met>"


class Sweeper:
    """One incarnation."""

    def __init__(self, parts: Parts, peer: Peer) -> None:
        self._parts = parts
        self._peer = peer
        self._walks: dict[tuple[int, float], Walk] = {}  # by number and time of its order

    def __repr__(self) -> str:
        return f"<Sweeper of {len(self._walks)} orders>"

    async def sweep(self) -> None:
        """For life: each order that has something to walk gets a page in turn."""
        while True:
            worked = False
            orders = [
                each for each in self._parts.stops.all() if each.kind in (StopKind.CANCEL, StopKind.RETRY)
            ]
            self._forget_walks(orders)
            for order in orders:
                try:
                    worked = await self._step(order) or worked
                except (
                    StorageError,
                    BusFull,
                ) as error:  # a full disk: the spooler says more
                    log.warning(
                        "an order could not be carried out for now", order=str(order.aim), why=str(error)
                    )
            await self._tell_notes()
            if not worked:
                await trio.sleep(LOOK_SECONDS)

    def _forget_walks(self, orders: list[StopOrder]) -> None:
        standing = {(order.number, order.at) for order in orders}
        for key in self._walks.keys() - standing:
            del self._walks[key]

    async def _step(self, order: StopOrder) -> bool:
        """Walk one page. False when there is nothing to do now."""
        walk = self._walks.get((order.number, order.at))
        if walk is None:
            # What had an id when the order was given is on the disk when this returns.
            await self._parts.spool.settle([], self._parts.clock.now())
            walk = self._walks[order.number, order.at] = Walk(order.walked)
        if trio.current_time() < walk.look_at:
            return False
        if order.kind is StopKind.CANCEL and order.swept:
            return await self._guard(order, walk)
        if order.kind is StopKind.CANCEL:
            return await self._cancel_page(order, walk)
        return await self._retry_page(order, walk)

    # --- cancel ----------------------------------------------------------------------------------------

    async def _guard(self, order: StopOrder, walk: Walk) -> bool:
        """A cancel that was carried out, and stands for what comes later."""
        spool = self._parts.spool
        if order.aim.scope is Scope.CAMPAIGN:
            walk.look_at = trio.current_time() + LOOK_SECONDS
            if not spool.counts(order.aim.campaign).deferred:
                return False
            if not spool.listing(walk.after, 1):  # nothing new: something that was held has come back
                walk.after, walk.look_at = 0, trio.current_time() + LEFT_SECONDS
            return await self._cancel_page(order, walk)
        walk.look_at = trio.current_time() + LEFT_SECONDS
        first = spool.listing(0, 1)
        if not first or first[0].spool_id >= order.before_id:
            await self._parts.stops.end(order)
        return False

    async def _cancel_page(self, order: StopOrder, walk: Walk) -> bool:
        page = self._page(order, walk)
        matches = matcher(self._parts, order.aim)
        aimed = [item for item in page if item.state in ("queued", "deferred") and matches(item)]
        ended = 0
        if aimed:
            ends = [
                Disposition(item.spool_id, item.attempt, Outcome.CANCELLED, reply=order.text)
                for item in aimed
            ]
            settled = await _finished(self._parts.spool.settle([(0, ends)], self._parts.clock.now()))
            ended = settled.applied
            if ended < len(aimed):
                walk.lowest_missed = walk.lowest_missed or aimed[0].spool_id
        walk.matched += len(aimed)
        if page:
            walk.after = page[-1].spool_id
        over = len(page) < PAGE or self._is_empty(order)
        walk.found += ended
        walk.pages += 1
        if over:
            await self._pass_over(order, walk)
        elif not walk.pages % NOTED_PAGES:
            await self._keep(order, walk)
        await self._rest(len(page), ended)
        return True

    def _is_empty(self, order: StopOrder) -> bool:
        campaign = order.aim.campaign
        return bool(campaign) and not self._parts.spool.counts(campaign).deferred

    async def _keep(self, order: StopOrder, walk: Walk, **facts: object) -> bool:
        """Note how far it has come; False when the order stands no longer."""
        found, walk.found = walk.found, 0
        kept = await self._parts.stops.change(order, found=order.found + found, **facts)
        return kept is not None

    async def _pass_over(self, order: StopOrder, walk: Walk) -> None:
        clean = not walk.matched or self._is_empty(order)
        walk.after = walk.lowest_missed - 1 if walk.lowest_missed else walk.after
        walk.matched = walk.lowest_missed = 0
        walk.look_at = max(walk.look_at, trio.current_time() + PAUSE_SECONDS)
        if not clean:
            return
        found = order.found + walk.found
        if order.aim.scope in (Scope.CAMPAIGN, Scope.SITE, Scope.SOURCE):
            done = walk.found > 0 or not order.swept
            done = done and await self._keep(order, walk, swept=True)
        else:
            done = await self._parts.stops.end(order)
        if done:
            self._note(order, f"{order.aim}: {found:,} envelopes cancelled: {order.reason}", found)

    # --- retry -----------------------------------------------------------------------------------------

    async def _retry_page(self, order: StopOrder, walk: Walk) -> bool:
        page = self._page(order, walk)
        matches = matcher(self._parts, order.aim)
        aimed = [item for item in page if item.state in order.states and matches(item)]
        changed = await self._conclude(order, aimed) if order.assume else await self._requeue(aimed)
        if page:
            walk.after = page[-1].spool_id
        walk.pages += 1
        walk.found += changed
        found = order.found + walk.found
        if len(page) < PAGE:
            if await self._parts.stops.end(order):
                did = f"taken for {order.assume}" if order.assume else "queued again"
                self._note(order, f"{order.aim}: {found:,} envelopes {did}: {order.reason}", found)
        elif not walk.pages % NOTED_PAGES:
            await self._keep(order, walk, walked=walk.after)
        await self._rest(len(page), changed)
        return True

    async def _requeue(self, aimed: list[Listed]) -> int:
        if not aimed:
            return 0
        with trio.CancelScope(shield=True, deadline=trio.current_time() + COMMIT_SECONDS):
            settled = await self._parts.spool.requeue([item.spool_id for item in aimed])
            if settled.requeued:  # the scheduler may live on when we are stopped: it must hear of them
                await self._peer("scheduler").tell(Queued(settled.requeued))
            return settled.applied
        raise StorageError(f"no commit within {COMMIT_SECONDS:g} s")

    async def _conclude(self, order: StopOrder, aimed: list[Listed]) -> int:
        if not aimed:
            return 0
        delivered = order.assume == "delivered"
        ends = [
            assumed(
                item.spool_id, item.attempt, f"assumed by {order.author}: {order.reason}", delivered=delivered
            )
            for item in aimed
        ]
        return (await _finished(self._parts.spool.conclude(ends, self._parts.clock.now()))).applied

    # --- pages -----------------------------------------------------------------------------------------

    def _page(self, order: StopOrder, walk: Walk) -> list[Listed]:
        page = self._parts.spool.listing(walk.after, PAGE)
        if order.before_id and page and page[-1].spool_id >= order.before_id:
            return [item for item in page if item.spool_id < order.before_id]
        return page

    async def _rest(self, looked_at: int, changed: int) -> None:
        """Give the loop to those who send."""
        if not self._parts.spool.open_leases():
            await trio.lowlevel.checkpoint()
            return
        await trio.sleep((looked_at * SCAN_SECONDS + changed * CHANGE_SECONDS) * (1 / SHARE - 1))

    # --- what the clock brings --------------------------------------------------------------------------

    async def look_after(self) -> None:
        """For life: orders whose time is over, and the end of a drain."""
        while True:
            await self._end_over()
            await self._end_drain()
            await trio.sleep(LOOK_SECONDS)

    async def _end_over(self) -> None:
        stops = self._parts.stops
        ended = False
        for order in stops.over(self._parts.clock.now()):
            try:
                ended = await stops.end(order) or ended
            except (StorageError, BusFull) as error:
                log.warning(
                    "an order that is over could not be removed", order=str(order.aim), why=str(error)
                )
                continue
            self._note(order, f"{order.aim}: its time is over: {order.reason}")
        if ended:
            await self._tell_notes()
            await self._peer("scheduler").tell(StopsChanged())

    async def _end_drain(self) -> None:
        parts, draining = self._parts, self._parts.stops.draining
        if draining is None or parts.drained.is_set():
            return
        left = await count_left(parts)
        if left and parts.clock.now() < draining.until:
            return
        log.info("drained: the engine stops", left=left, by=draining.author, reason=draining.reason)
        parts.drained.set()

    def _note(self, order: StopOrder, text: str, after: float | None = None) -> None:
        self._parts.note(
            Adapted(
                "", "", order.kind.value, None, after, text, author=order.author, campaign=order.aim.campaign
            )
        )

    async def _tell_notes(self) -> None:
        """Hand changes to the journal: no site may be awake to do it."""
        notes = self._parts.notes
        if notes:
            told = Note(list(notes))
            notes.clear()
            await self._peer("spooler").tell(told)


async def _finished(pending: Pending[Settled]) -> Settled:
    return await pending
