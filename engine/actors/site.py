"""The ready queue and connections of one egress path (a site over a source).

Decides when to open a connection, what each may take (shares of what is ready, within the rate; the
token is taken at lease), when the path is suspended, and how much room the scheduler has. Touches:
its connections, scheduler, spooler. On crash: its ids go back to the scheduler, which kept them; its
connections finish what they hold and settle by themselves, since they are no children of it.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
import trio

from engine.actors import connection as connection_actor
from engine.actors.handover import judge_granted, settle_remains
from engine.actors.holder import Holder
from engine.actors.messages import (
    Bell,
    ConnectionEnded,
    ConnectionReady,
    Credit,
    LeaseFor,
    NewRoute,
    Offer,
    OrderLeases,
    Settle,
    Want,
)
from engine.actors.parts import Parts, SiteMemory
from engine.model.egress import Source
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.net.mx import Route
from engine.mta.policy.site import SiteLimits, site_limits
from engine.mta.policy.throttle import Throttle
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
PER_CONNECTION_READY = 10  # ready envelopes that are worth one more connection
SUSPEND_SECONDS_MAX = 600.0
CRASH_PAUSE_SECONDS = 1.0

log = structlog.get_logger("site")

Peer = Callable[[str], Ref[Any]]


def path_key(source: Source, site: str) -> str:
    """The name of an egress path."""
    return f"{source.name}>{site}"


def site(parts: Parts, route: Route, source: Source, peer: Peer) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        actor = Site(parts, route, source, peer, context)
        task_status.started()
        await actor.live()

    return start


def connections_wanted(ready: int, leased: int, open_now: int, limits: SiteLimits) -> int:
    """How many connections the work is worth; never doubles more than once per look."""
    worth = math.ceil((ready + leased) / PER_CONNECTION_READY)
    return min(limits.connections, max(worth, 1 if ready else 0), max(2, open_now * 2))


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
    """One incarnation. Its memory of the peer (`SiteMemory`) outlives it."""

    def __init__(self, parts: Parts, route: Route, source: Source, peer: Peer, context: Context[Any]) -> None:
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
        self.limits = site_limits(parts.config.engine.site, route.site, [host.name for host in route.hosts])
        memory = parts.memory.get(self.key)
        if memory is None:
            memory = parts.memory[self.key] = SiteMemory(Throttle(self.limits.rate, now))
        self.memory = memory
        self.ready: deque[int] = deque()
        self.connections: dict[str, _Connection] = {}
        self.places = READY_MAX
        if self.limits.rate is not None:
            per_second = self.limits.rate.count / self.limits.rate.seconds
            self.places = max(1, min(READY_MAX, int(per_second * READY_SECONDS)))
        self._seen = 0
        self._exhausted = False
        self._cap = self.limits.connections  # lower for a while after a refused extra connection
        self._cap_until = 0.0
        self._busy_at = now
        self._credit_at = 0.0
        self._elders = parts.connections.names(f"{self.key}#")  # of an earlier incarnation: they count, too
        for name in self._elders:  # they would wait for work from a site that is no more
            parts.connections.ask_child_to_stop(name)
        self._trouble = TransportFailure(FailureKind.CLOSED, Verb.CONNECT)
        self._refusals = Holder(self.key)  # leases of envelopes that a dead path defers

    def __repr__(self) -> str:
        ready = sum(item.ready for item in self.connections.values())
        wait = self.memory.suspended_until - trio.current_time()
        state = f", suspended {wait:.1f} s" if wait > 0 else ""
        throttled = self.memory.throttle.wait_seconds(trio.current_time())
        rate = f", throttled {throttled:.1f} s" if throttled > 0 else ""
        return (
            f"<Site {self.route.site} via {self.source.name}: {ready}/{self.limits.connections} connections, "
            f"{len(self.ready)} ready{rate}{state}>"
        )

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
            settle_remains(self._parts, self._refusals, self._spooler, crashed=False)

    # --- messages --------------------------------------------------------------------------------------

    def _take(self, message: object) -> None:
        match message:
            case Offer():
                self.ready.extend(message.ids)
                self._seen += len(message.ids)
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
                self.memory.failures = 0
            case ConnectionEnded():
                self._connection_ended(message)
            case NewRoute():
                self.route = message.route
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
                self.memory.suspended_until = max(self.memory.suspended_until, now + CRASH_PAUSE_SECONDS)
            return
        if message.trouble is None:
            return
        if message.reached and message.served:
            return
        # It never served anything: a refusal of the host, or a peer that hangs up on us.
        if any(item.ready for item in self.connections.values()):
            self._cap = max(1, len(self.connections))
            self._cap_until = now + self._parts.config.engine.retry.first
            return
        if self.connections:
            return  # others are still trying
        self.memory.failures += 1
        rest = suspension_seconds(self.memory.failures, self._parts.config.engine.retry.first)
        self.memory.suspended_until = now + rest
        self._refuse_ready(message.trouble)
        log.info("site suspended", site=self.key, seconds=round(rest, 1), why=str(message.trouble)[:200])

    def _refuse_ready(self, trouble: Reply | TransportFailure) -> None:
        """Everything at hand had its attempt: lease it, and defer it when the lease is there."""
        self._trouble = (
            trouble
            if isinstance(trouble, TransportFailure)
            else TransportFailure(FailureKind.CLOSED, Verb.BANNER, str(trouble))
        )
        orders = []
        while self.ready:
            ids = [self.ready.popleft() for _ in range(min(len(self.ready), LEASE_ENVELOPES_MAX))]
            orders.append(LeaseFor(self.key, self._refusals, ids))
        if orders and not self._spooler.try_tell(OrderLeases(orders)):
            for order in orders:
                self.ready.extend(order.ids)

    # --- acting ----------------------------------------------------------------------------------------

    async def _act(self) -> None:
        now = trio.current_time()
        if self._refusals.granted:
            await self._spooler.tell(
                Settle(judge_granted(self._parts, self._refusals, self._trouble, self.route.site))
            )
        for name in [name for name in self.connections if name not in self._parts.connections]:
            del self.connections[name]  # its end was not told: our mailbox was full
        if now >= self._cap_until:
            self._cap = self.limits.connections
        if now >= self.memory.suspended_until:
            space = self._parts.space
            if space is None or space.level is not SpaceLevel.STOP_LEASING:
                self._order_leases(now)
            self._open_connections()
        room = self.places - len(self.ready)
        if room and (room >= self.places // 2 or now >= self._credit_at):
            await self._tell_credit()

    def _order_leases(self, now: float) -> None:
        wanting = [item for item in self.connections.values() if item.want and item.ready]
        if not wanting or not self.ready:
            return
        share = max(1, math.ceil(len(self.ready) / max(len(wanting), len(self.connections))))
        orders: list[LeaseFor] = []
        served: list[_Connection] = []
        for item in wanting:
            count = min(item.want, share, len(self.ready), LEASE_ENVELOPES_MAX)
            count = self.memory.throttle.take(now, count)
            if not count:
                break
            orders.append(LeaseFor(self.key, item.holder, [self.ready.popleft() for _ in range(count)]))
            served.append(item)
        if not orders:
            return
        if self._spooler.try_tell(OrderLeases(orders)):
            for item in served:
                item.want = 0
        else:
            for order in reversed(orders):
                self.ready.extendleft(reversed(order.ids))
                self.memory.throttle.give_back(len(order.ids))

    def _open_connections(self) -> None:
        self._elders = {name for name in self._elders if name in self._parts.connections}
        open_now = len(self.connections) + len(self._elders)
        leased = sum(len(item.holder.held) for item in self.connections.values())
        if not self.ready or any(item.ready and item.want for item in self.connections.values()):
            return  # nothing to do, or somebody waits for work already
        wanted = min(self._cap, connections_wanted(len(self.ready), leased, open_now, self.limits))
        for _ in range(wanted - open_now):
            name = f"{self.key}#{next(self._parts.connection_numbers)}"
            holder = Holder(name)
            connection = _Connection(name, holder)
            try:
                connection.ref = self._parts.connections.start_child(
                    name,
                    connection_actor.connection(self, holder, self._parts, self._peer),
                    mailbox_capacity=connection_actor.MAILBOX_CAPACITY,
                    shutdown_seconds=connection_actor.SHUTDOWN_SECONDS,
                    on_end=connection_actor.ended(self._parts, holder, self.ref, self._spooler),
                )
            except (NotRunning, TooManyChildren, ChildExists):
                return
            holder.ref = connection.ref
            self.connections[name] = connection

    async def _tell_credit(self) -> None:
        self._credit_at = trio.current_time() + TICK_SECONDS
        if trio.current_time() < self.memory.suspended_until:
            return
        self._scheduler.try_tell(Credit(self.key, self.places - len(self.ready), self._seen))

    def _patience(self) -> float:
        """Until when nothing would happen if nobody wrote."""
        now = trio.current_time()
        patience = TICK_SECONDS
        if self.ready and any(item.want for item in self.connections.values()):
            patience = min(patience, max(0.001, self.memory.throttle.wait_seconds(now)))
        return patience

    def _idle(self) -> bool:
        return (
            not self.ready
            and not self.connections
            and not self._refusals.held
            and trio.current_time() - self._busy_at > LINGER_SECONDS
            and trio.current_time() >= self.memory.suspended_until
        )

    async def _finish(self) -> None:
        """Stop: no new leases; the connections finish what is on the wire and settle."""
        for name in list(self.connections):
            self._parts.connections.ask_child_to_stop(name)
        for name in list(self.connections):
            await self._parts.connections.stop_child(name)
