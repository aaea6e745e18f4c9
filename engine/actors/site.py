"""The ready queue and connections of one egress path (a site over a source).

Decides when to open a connection, what each may take (shares of what is ready, transactional mail
first, within rate, window and warm-up, which `memory` keeps; the token is taken at lease), when the path
rests, and how much room the scheduler has. A path that rests gives its ids back. Touches: its
connections, scheduler, spooler. On crash: its ids go back to the scheduler, which kept them; its
connections finish what they hold and settle by themselves, since they are no children of it.
"""

import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import structlog
import trio

from engine.actors import connection as connection_actor
from engine.actors.feedback import Feedback
from engine.actors.handover import judge_granted, settle_remains
from engine.actors.holder import Holder
from engine.actors.messages import (
    Bell,
    ConnectionEnded,
    ConnectionReady,
    Credit,
    GiveBack,
    LeaseFor,
    NewRoute,
    Note,
    Offer,
    OrderLeases,
    Recall,
    Settle,
    Want,
)
from engine.actors.parts import Parts
from engine.actors.ready import ReadyQueue
from engine.actors.resting import Resting
from engine.model.category import Category
from engine.model.egress import Source
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.net.mx import Route
from engine.mta.spool.api import LEASE_ENVELOPES_MAX
from engine.runtime.dynamic import ChildExists, NotRunning, TooManyChildren
from engine.runtime.ref import Ref
from engine.runtime.spec import Context, Start
from engine.runtime.ticking import batch_within
from engine.storage import SpaceLevel

MAILBOX_CAPACITY = 4_096  # one Want and one end per connection, and offers
SHUTDOWN_SECONDS = 20.0  # a stopping site waits for its connections' last replies
READY_MAX = 1_000  # architecture 4: places at most
READY_SECONDS = 2.0  # places for so many seconds of its rate
TICK_SECONDS = 0.5
LINGER_SECONDS = 3.0  # idle this long without connections, it becomes a record
REST_GIVES_BACK_SECONDS = 3.0  # a rest this long empties the ready queue; a shorter one is waited for
PER_CONNECTION_READY = 10  # ready envelopes that are worth one more connection
SUSPEND_SECONDS_MAX = 600.0
CRASH_PAUSE_SECONDS = 1.0
_OURS = frozenset({FailureKind.SOURCE, FailureKind.LOCAL})
_BROKEN = frozenset({FailureKind.CLOSED, FailureKind.TIMEOUT, FailureKind.PROTOCOL})

log = structlog.get_logger("site")

Peer = Callable[[str], Ref[Any]]


def site(parts: Parts, route: Route, source: Source, peer: Peer, domain: str = "") -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        actor = Site(parts, route, source, peer, context, domain)
        task_status.started()
        await actor.live()

    return start


def connections_wanted(ready: int, leased: int, open_now: int, most: int) -> int:
    """How many connections the work is worth; never doubles more than once per look."""
    worth = math.ceil((ready + leased) / PER_CONNECTION_READY)
    return min(most, max(worth, 1 if ready else 0), max(2, open_now * 2))


def suspension_seconds(failures: int, first: float) -> float:
    """How long a path rests after so many connections in a row that never became ready."""
    return min(SUSPEND_SECONDS_MAX, first * 2.0 ** min(failures - 1, 16))


class _Connection:
    __slots__ = ("holder", "name", "ready", "ref", "want")

    def __init__(self, name: str, holder: Holder) -> None:
        self.name = name
        self.holder = holder
        self.ref: Ref[Any] | None = None
        self.ready = False
        self.want = 0


class Site:
    """One incarnation. Its memory of the peer (`PathMemory`) outlives it."""

    def __init__(
        self,
        parts: Parts,
        route: Route,
        source: Source,
        peer: Peer,
        context: Context[Any],
        domain: str = "",
    ) -> None:
        self.key = context.name
        self.route = route
        self.source = source
        self._parts = parts
        self._peer = peer
        self._mailbox = context.mailbox
        self.ref: Ref[Any] = context.ref
        self._scheduler = peer("scheduler")
        self._spooler = peer("spooler")
        now = trio.current_time()
        self.memory = parts.path(self.key, route, source, domain, now)
        self._resting = Resting(parts, self.memory)
        self.feedback = Feedback(parts, self.memory)
        self.ready = ReadyQueue()
        self.connections: dict[str, _Connection] = {}
        self._seen = 0
        self._exhausted = False
        self._tick_at = now
        self._sent_away = False  # what waits for us was told to go elsewhere
        self._throttled = False  # since the last tick something was ready and had to wait for its turn
        self._busy_at = now
        self._credit_at = 0.0
        self._room_told = 0  # less what came since: as the scheduler sees it
        self._elders = parts.connections.names(f"{self.key}#")  # of an earlier incarnation: they count, too
        for name in self._elders:  # they would wait for work from a site that is no more
            parts.connections.ask_child_to_stop(name)
        self._trouble = TransportFailure(FailureKind.CLOSED, Verb.CONNECT)
        self._refusals = Holder(self.key)  # leases of envelopes that a dead path defers

    def __repr__(self) -> str:
        ready = sum(item.ready for item in self.connections.values())
        now = trio.current_time()
        until, why = self._resting.until(now)
        state = f", rests {until - now:.1f} s: {why}" if until else ""
        throttled = self.memory.wait_seconds(now)
        rate = f", throttled {throttled:.1f} s" if throttled > 0 else ""
        return (
            f"<Site {self.route.site} via {self.source.name}: {ready}/{self.memory.governor.connections} "
            f"connections, {self.ready!r}{rate}{state}>"
        )

    @property
    def places(self) -> int:
        """How many ids may be ready here: a moment's work at the present rate."""
        rate = self.memory.governor.rate_per_second
        if rate is None:
            return READY_MAX
        return max(1, int(min(READY_MAX, rate * READY_SECONDS)))

    @property
    def _room(self) -> int:
        """Below 0: so much transactional mail is here beyond the places."""
        return self.places - len(self.ready)

    @property
    def _disk_allows(self) -> bool:
        space = self._parts.space
        return space is None or space.level is not SpaceLevel.STOP_LEASING

    async def live(self) -> None:
        self._refusals.ref = self.ref
        try:
            await self._tell_credit()
            while True:
                batch = await batch_within(self._mailbox, MAILBOX_CAPACITY, self._patience())
                if batch is None:
                    break
                for message in batch:
                    self._take(message)
                await self._act()
                if self._idle():
                    return
            await self._finish()
        finally:
            self.memory.content()  # nobody waits behind one that is no more
            settle_remains(self._parts, self._refusals, self._spooler, crashed=False)

    # --- messages --------------------------------------------------------------------------------------

    def _take(self, message: object) -> None:
        match message:
            case Offer():
                self.ready.add(message.ids, message.urgent)
                self._seen += len(message.ids)
                self._room_told -= len(message.ids)
                self._exhausted = message.exhausted
                self._busy_at = trio.current_time()
            case Want():
                connection = self.connections.get(message.connection)
                if connection is not None:
                    connection.want = message.count
            case ConnectionReady():
                connection = self.connections.get(message.connection)
                if connection is not None:
                    connection.ready = True
                self.memory.let_in()
                self._parts.source_states.works(self.source.name)
            case ConnectionEnded():
                self._connection_ended(message)
            case NewRoute():
                self.route = message.route
            case Recall():
                self._give_back(elsewhere=False)
            case Bell():
                pass
            case _:
                raise AssertionError(f"site {self.key} got {message!r}")

    def _connection_ended(self, message: ConnectionEnded) -> None:
        self.connections.pop(message.connection, None)
        now = trio.current_time()
        self._busy_at = now
        if message.crashed:
            if not message.reached:  # a bug while connecting must not spin
                self.memory.suspend(now + CRASH_PAUSE_SECONDS, "its last connection crashed")
            return
        if message.trouble is None:
            return
        if isinstance(message.trouble, TransportFailure) and message.trouble.kind in _OURS:
            self._our_trouble(message.trouble, now)
            return
        ready = sum(item.ready for item in self.connections.values())
        if message.reached and message.served:
            self._broken_off(message.trouble, ready)
            return
        # It never served anything: a refusal of the host, or a peer that hangs up on us.
        verb = Verb.MAIL if message.reached else Verb.BANNER
        verdict = self.feedback.not_served(message.trouble, verb, ready, self.route.hosts[0].name)
        if ready or self.connections:
            return  # the governor keeps to what stands, or others are still trying
        self.memory.failures += 1
        turned_away = verdict.category is Category.RATE_LIMITED  # the governor pauses
        if turned_away or self.memory.failures < self.memory.shaping.failures_max:
            return
        over = self.memory.failures - self.memory.shaping.failures_max + 1
        rest = suspension_seconds(over, self.memory.shaping.retry.first)
        why = f"no connection succeeded: {str(message.trouble)[:200]}"
        self.memory.rest_for(now, rest, why)
        self._refuse_ready(message.trouble)
        log.info("site suspended", site=self.key, seconds=round(rest, 1), why=why)

    def _our_trouble(self, trouble: TransportFailure, now: float) -> None:
        """Our address, proxy or machine could not: the receiver is not to blame, nor is the path."""
        if trouble.kind is FailureKind.SOURCE:
            self._parts.source_states.failed(self.source.name, trouble, now)
        else:
            self.memory.turned_away(now)

    def _broken_off(self, trouble: Reply | TransportFailure, ready: int) -> None:
        """A session that had served ended early. A cap of the session (421 between messages) is none."""
        if not isinstance(trouble, TransportFailure):
            return
        if trouble.kind in _BROKEN and trouble.verb is not Verb.IDLE:
            self.feedback.closed(trouble, ready + 1)

    def _refuse_ready(self, trouble: Reply | TransportFailure) -> None:
        """Everything at hand had its attempt: lease it, and defer it when the lease is there."""
        self._trouble = (
            trouble
            if isinstance(trouble, TransportFailure)
            else TransportFailure(FailureKind.CLOSED, Verb.BANNER, str(trouble))
        )
        orders = []
        urgent = self.ready.urgent
        while self.ready:
            orders.append(LeaseFor(self.key, self._refusals, self.ready.take(LEASE_ENVELOPES_MAX)))
        if orders and not self._spooler.try_tell(OrderLeases(orders)):
            self._put_back(orders, urgent)

    # --- acting ----------------------------------------------------------------------------------------

    async def _act(self) -> None:
        now = trio.current_time()
        if self._refusals.granted:
            await self._spooler.tell(
                Settle(judge_granted(self._parts, self._refusals, self._trouble, self.route.site))
            )
        for name in [name for name in self.connections if name not in self._parts.connections]:
            del self.connections[name]  # its end was not told: our mailbox was full
        await self._heed_warm_up()
        until, _ = self._resting.until(now)
        if until:
            self._busy_at = now  # who rested is not idle yet
            if until - now > REST_GIVES_BACK_SECONDS:
                self._retreat(now)
        else:
            self._sent_away = False
            if self._disk_allows:
                self._order_leases(now)
            self._open_connections(now)
        self._look(now)
        await self._tell_notes()
        places, room, due = self.places, self._room, now >= self._credit_at
        if (room > 0 and (room >= places // 2 or due)) or (due and room > self._room_told):
            await self._tell_credit()

    def _look(self, now: float) -> None:
        """Twice a second: the control loop looks, and places that others need are given up."""
        if now < self._tick_at:
            return
        self._tick_at = now + TICK_SECONDS
        busy = self._throttled or bool(self.ready)
        self.feedback.flush(now)
        self.memory.tick(now, busy=busy, open_connections=len(self.connections))
        self._throttled = False
        if not self.ready:
            self.memory.content()
        excess = len(self.connections) - self.memory.governor.connections
        if excess > 0 or self.memory.must_yield(now):
            dispensable = sorted(self.connections.values(), key=lambda item: item.ready)  # dials first
            for item in dispensable[: max(1, excess)]:
                self._parts.connections.ask_child_to_stop(item.name)

    async def _heed_warm_up(self) -> None:
        """Have the next part of today's quota written down; tell when it is used up."""
        warm_up = self.memory.provider.warmup
        if warm_up is None:
            return
        await warm_up.reserve()
        if news := warm_up.news():
            self.memory.note_rest(warm_up.seconds_left, news)

    async def _tell_notes(self) -> None:
        notes = self._parts.notes
        if notes:
            told = Note(list(notes))
            notes.clear()
            await self._spooler.tell(told)

    def _retreat(self, now: float) -> None:
        """The path rests for longer: its ids wait with the scheduler, and its connections return theirs."""
        if self._resting.hangs_up(now):
            for name in self.connections:
                self._parts.connections.ask_child_to_stop(name)
        self._give_back(elsewhere=self._resting.elsewhere(now))

    def _give_back(self, *, elsewhere: bool) -> None:
        """`elsewhere`: another source may take them, and what waits for us."""
        ids = self.ready.all()
        if not ids and (self._sent_away or not elsewhere):
            return
        if self._scheduler.try_tell(GiveBack(self.key, ids, elsewhere)):
            self._sent_away = elsewhere
            self.ready.clear()

    def _order_leases(self, now: float) -> None:
        waiting = len(self.ready)
        wanting = [item for item in self.connections.values() if item.want and item.ready]
        if not wanting or not waiting:
            return
        share = max(1, math.ceil(waiting / max(len(wanting), len(self.connections))))
        orders: list[LeaseFor] = []
        served: list[_Connection] = []
        urgent = self.ready.urgent
        for item in wanting:
            wanted = min(item.want, share, len(self.ready), LEASE_ENVELOPES_MAX)
            count = self.memory.take(now, wanted)
            self._throttled = self._throttled or count < wanted
            if not count:
                break
            orders.append(LeaseFor(self.key, item.holder, self.ready.take(count)))
            served.append(item)
        if not orders:
            return
        if self._spooler.try_tell(OrderLeases(orders)):
            for item in served:
                item.want = 0
            self._parts.timelines.ordered(chain.from_iterable(order.ids for order in orders))
        else:
            self.memory.give_back(sum(len(order.ids) for order in orders))
            self._put_back(orders, urgent)

    def _put_back(self, orders: list[LeaseFor], urgent: int) -> None:
        """The spooler had no room: everything as it was, when `urgent` ids were urgent."""
        self.ready.put_back([spool_id for order in orders for spool_id in order.ids], urgent)

    def _open_connections(self, now: float) -> None:
        waiting = len(self.ready)
        if not waiting or any(item.ready and item.want for item in self.connections.values()):
            return  # nothing to do, or somebody waits for work already
        self._elders = {name for name in self._elders if name in self._parts.connections}
        open_now = len(self.connections) + len(self._elders)
        leased = sum(len(item.holder.held) for item in self.connections.values())
        most = self.memory.governor.connections
        if self.memory.failures:
            most = 1  # whoever let nobody in may count those that wait for a banner, and refuse both of two
        missing = connections_wanted(waiting, leased, open_now, most) - open_now
        if missing <= 0:
            return
        for _ in range(self.memory.openings(now, missing)):
            name = f"{self.key}#{next(self._parts.connection_numbers)}"
            holder = Holder(name)
            connection = _Connection(name, holder)
            try:
                connection.ref = self._parts.connections.start_child(
                    name,
                    connection_actor.connection(self, holder, self._parts, self._peer),
                    mailbox_capacity=connection_actor.MAILBOX_CAPACITY,
                    shutdown_seconds=connection_actor.SHUTDOWN_SECONDS,
                    on_end=connection_actor.ended(
                        self._parts, holder, self.ref, self._spooler, self.memory.closed
                    ),
                )
            except (NotRunning, TooManyChildren, ChildExists):
                return
            self.memory.opened(now)
            holder.ref = connection.ref
            self.connections[name] = connection

    async def _tell_credit(self) -> None:
        self._credit_at = trio.current_time() + TICK_SECONDS
        if self._resting.until(trio.current_time())[0]:
            return
        if self._scheduler.try_tell(Credit(self.key, self._room, self._seen)):
            self._room_told = self._room

    def _patience(self) -> float:
        """Until when nothing would happen if nobody wrote."""
        now = trio.current_time()
        until, _ = self._resting.until(now)
        wait = max(until - now, self.memory.wait_seconds(now))
        wanted = self.ready and any(item.want for item in self.connections.values())
        return min(TICK_SECONDS, max(0.001, wait)) if wanted and self._disk_allows else TICK_SECONDS

    def _idle(self) -> bool:
        return (
            not self.ready
            and not self.connections
            and not self._refusals.held
            and trio.current_time() - self._busy_at > LINGER_SECONDS
            and not self._resting.until(trio.current_time())[0]
        )

    async def _finish(self) -> None:
        """Stop: no new leases; the connections finish what is on the wire and settle."""
        for name in list(self.connections):
            self._parts.connections.ask_child_to_stop(name)
        for name in list(self.connections):
            await self._parts.connections.stop_child(name)
