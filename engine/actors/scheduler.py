"""Which envelopes are released to which path, and when: the pull side of the engine.

Holds the scheduled queues (packed ids), the routes of domains, and for each path (a site over an
egress source, or a domain without a route) a heap of queues ordered by their first id. A path says
how much it has room for; ids go out in acceptance order, transactional classes first, within the
active set (`active_set_max` in all, a tenth kept for transactional). Ids are in the path's care until
the spooler leased them; a path that ends gives its ids back.

Decides: releases, look-ups, retries of postponed domains. Touches: no disk but the scan at its start.
On crash: rebuilt from the spool; an id that is queued twice then is leased once, since the spool
leaves out what is leased or gone.
"""

import heapq
from array import array
from collections.abc import Iterable
from typing import Any

import structlog
import trio

from engine.actors import domain as domain_actor
from engine.actors import site as site_actor
from engine.actors.messages import (
    BELL,
    Accepted,
    Bell,
    Credit,
    Leased,
    NewRoute,
    Offer,
    Queued,
    Routed,
    Unroutable,
)
from engine.actors.parts import Parts
from engine.model.content import MessageClass
from engine.model.egress import Source
from engine.mta.net.mx import Route
from engine.mta.queue.scheduled import ScheduledQueue, ScheduledQueues
from engine.runtime.dynamic import ChildExists, NotRunning, TooManyChildren
from engine.runtime.ref import Ref
from engine.runtime.spec import Context, Start
from engine.runtime.ticking import batch_within

MESSAGES_PER_PASS = 256
TICK_SECONDS = 0.5
SCAN_PAGE = 20_000  # envelopes per read transaction at start: 30 ms of the loop
TRANSACTIONAL_SHARE = 0.1  # of the active set, kept for transactional classes
ROUTES_KEPT_MAX = 200_000  # idle domains' routes; about 300 octets each

log = structlog.get_logger("scheduler")


def scheduler(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        await Scheduler(parts, context).live(task_status)

    return start


class _Path:
    """One path as the scheduler sees it."""

    __slots__ = ("credit", "heap", "key", "offered", "ref", "released", "route", "source")

    def __init__(self, key: str, ref: Ref[Any] | None, route: Route | None, source: Source | None) -> None:
        self.key = key
        self.ref = ref
        self.route = route
        self.source = source
        self.credit = 0
        self.offered = 0
        self.heap: list[tuple[int, int, int, ScheduledQueue]] = []  # rank, first id, tie-breaker
        self.released: dict[int, tuple[int, str]] = {}  # id -> campaign, domain


class _KnownRoute:
    __slots__ = ("expires", "path")

    def __init__(self, path: str, expires: float) -> None:
        self.path = path
        self.expires = expires


class Scheduler:
    """One incarnation."""

    def __init__(self, parts: Parts, context: Context[Any]) -> None:
        self._parts = parts
        self._mailbox = context.mailbox
        self._ref: Ref[Any] = context.ref
        self._peer = context.peer
        self._queues = ScheduledQueues()
        self._paths: dict[str, _Path] = {}
        self._routes: dict[str, _KnownRoute] = {}
        self._lookups: list[tuple[int, str]] = []  # first id, domain: waits for a look-up
        self._looking: set[str] = set()  # waits for or is in a look-up
        self._looking_up = 0
        self._postponed: list[tuple[float, str]] = []
        self._postponed_names: set[str] = set()
        self._ended = parts.ended  # kind, name: filled by observers, those of our last incarnation too
        self._ended.clear()
        self._dirty: dict[str, None] = {}
        self._ranks: dict[int, int] = {}
        self._active = 0
        self._ticket = 0
        self._active_max = parts.config.engine.active_set_max
        self._bulk_max = int(self._active_max * (1 - TRANSACTIONAL_SHARE))

    def __repr__(self) -> str:
        return f"<Scheduler {self._queues!r}, {self._active} released to {len(self._paths)} paths>"

    async def live(self, task_status: trio.TaskStatus[None]) -> None:
        await self._rebuild()
        task_status.started()
        while (batch := await batch_within(self._mailbox, MESSAGES_PER_PASS, TICK_SECONDS)) is not None:
            for message in batch:
                self._take(message)
            self._reap()
            self._tick()
            self._serve()

    async def _rebuild(self) -> None:
        after = 0
        while page := self._parts.spool.queued(after, SCAN_PAGE):
            for entry in page:
                self._add(entry.campaign, entry.domain, entry.spool_id)
            after = page[-1].spool_id
            await trio.lowlevel.checkpoint()

    # --- messages --------------------------------------------------------------------------------------

    def _take(self, message: object) -> None:
        match message:
            case Accepted():
                for offset, domain in enumerate(message.domains):
                    self._add(message.campaign, domain, message.first_id + offset)
            case Queued():
                for entry in message.entries:
                    self._add(entry.campaign, entry.domain, entry.spool_id)
            case Leased():
                for key, ids in message.paths:
                    path = self._paths.get(key)
                    if path is not None:
                        before = len(path.released)
                        for spool_id in ids:
                            path.released.pop(spool_id, None)
                        self._active -= before - len(path.released)
                        self._dirty[key] = None
            case Credit():
                self._credit(message)
            case Routed():
                self._routed(message.domain, message.route)
            case Unroutable():
                self._unroutable(message)
            case Bell():
                pass
            case _:
                raise AssertionError(f"the scheduler got {message!r}")

    def _add(self, campaign: int, domain: str, spool_id: int) -> None:
        queue = self._queues.add(campaign, domain, spool_id)
        if queue is not None:
            self._place(queue)

    def _place(self, queue: ScheduledQueue) -> None:
        """Give a queue that has become non-empty to its path, or ask for one."""
        known = self._routes.get(queue.domain)
        if known is not None and known.expires > trio.current_time() and known.path in self._paths:
            self._push(self._paths[known.path], queue)
        elif queue.domain not in self._looking:
            self._looking.add(queue.domain)
            heapq.heappush(self._lookups, (queue.first, queue.domain))

    def _push(self, path: _Path, queue: ScheduledQueue) -> None:
        self._ticket += 1
        heapq.heappush(path.heap, (self._rank(queue.campaign), queue.first, self._ticket, queue))
        self._dirty[path.key] = None

    def _rank(self, campaign: int) -> int:
        rank = self._ranks.get(campaign)
        if rank is None:
            content = self._parts.spool.content(campaign)
            bulk = content is None or content.message_class is MessageClass.BULK
            rank = self._ranks[campaign] = 1 if bulk else 0
        return rank

    def _credit(self, message: Credit) -> None:
        path = self._paths.get(message.path)
        if path is None or path.ref is None:  # a site from before our crash, or one that has ended
            ref = self._parts.sites.ref(message.path)
            if ref is None:
                return
            if path is None:
                path = self._paths[message.path] = _Path(message.path, ref, None, None)
            path.ref = ref
            path.offered = message.seen
        path.credit = max(0, message.places - (path.offered - message.seen))
        self._dirty[message.path] = None

    # --- routes ----------------------------------------------------------------------------------------

    def _routed(self, domain: str, route: Route) -> None:
        self._looking.discard(domain)
        source = self._source(domain)
        key = site_actor.path_key(source, route.site)
        if len(self._routes) >= ROUTES_KEPT_MAX:
            self._routes.pop(next(iter(self._routes)))
        self._routes[domain] = _KnownRoute(key, trio.current_time() + route.ttl_seconds)
        path = self._paths.get(key)
        if path is None:
            path = self._paths[key] = _Path(key, None, route, source)
        elif path.route != route:
            path.route, path.source = route, source
            if path.ref is not None:
                path.ref.try_tell(NewRoute(route))
        for queue in self._queues.of_domain(domain):
            self._push(path, queue)

    def _source(self, domain: str) -> Source:
        """The same source for a domain every time: greylisting wants the same tuple again."""
        sources = self._parts.sources
        return sources[sum(domain.encode()) % len(sources)]

    def _unroutable(self, message: Unroutable) -> None:
        path = _Path(message.path, message.ref, None, None)
        path.credit = message.places
        self._paths[message.path] = path
        for queue in self._queues.of_domain(message.domain):
            self._push(path, queue)
        if message.retry_at is not None:
            heapq.heappush(self._postponed, (message.retry_at, message.domain))
            self._postponed_names.add(message.domain)
        self._dirty[message.path] = None

    def _look_up(self) -> None:
        limit = self._parts.config.engine.lookups_max
        while self._lookups and self._looking_up < limit:
            _, domain = self._lookups[0]
            if not self._queues.of_domain(domain):
                heapq.heappop(self._lookups)
                self._looking.discard(domain)
                continue
            try:
                self._parts.domains.start_child(
                    domain,
                    domain_actor.domain(self._parts, domain, self._peer),
                    on_end=self._domain_ended,
                )
            except (NotRunning, TooManyChildren, ChildExists):
                return  # the tick tries again
            heapq.heappop(self._lookups)
            self._looking_up += 1

    def _domain_ended(self, name: str, error: Exception | None) -> None:
        self._ended.append(("domain", name))
        self._ref.try_tell(BELL)

    def _site_ended(self, name: str, error: Exception | None) -> None:
        self._ended.append(("site", name))
        self._ref.try_tell(BELL)

    def _reap(self) -> None:
        """What observers saw end: its ids come back, its domains look for a route again."""
        while self._ended:
            kind, name = self._ended.popleft()
            if kind == "site":
                path = self._paths.get(name)
                if path is not None:
                    path.ref = None
                    self._give_back(path)
                    self._dirty[name] = None
                    if not path.heap:
                        del self._paths[name]
                        self._dirty.pop(name, None)
                continue
            self._looking_up -= 1
            path = self._paths.pop(domain_actor.path_key(name), None)
            self._dirty.pop(domain_actor.path_key(name), None)
            if path is not None:
                self._give_back(path)
            if name not in self._postponed_names:
                self._looking.discard(name)
                known = self._routes.get(name)
                if known is None or known.path not in self._paths:
                    for queue in self._queues.of_domain(name):
                        self._place(queue)

    def _give_back(self, path: _Path) -> None:
        released, path.released = path.released, {}
        self._active -= len(released)
        path.credit = path.offered = 0
        for spool_id, (campaign, domain) in released.items():
            self._add(campaign, domain, spool_id)

    def _tick(self) -> None:
        now = trio.current_time()
        while self._postponed and self._postponed[0][0] <= now:
            _, domain = heapq.heappop(self._postponed)
            self._postponed_names.discard(domain)
            self._looking.discard(domain)
            for queue in self._queues.of_domain(domain):
                self._place(queue)
        self._look_up()

    # --- releasing -------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Release to every path that has work and room; start the sites that have work."""
        for key in list(self._dirty):
            path = self._paths.get(key)
            if path is None or not path.heap:
                self._dirty.pop(key, None)
                continue
            if path.ref is None and not self._start_site(path):
                continue  # stays dirty: the tick tries again
            if not path.credit:
                del self._dirty[key]
                continue
            if self._release(path):
                self._dirty.pop(key, None)

    def _start_site(self, path: _Path) -> bool:
        if path.route is None or path.source is None:
            return False
        try:
            path.ref = self._parts.sites.start_child(
                path.key,
                site_actor.site(self._parts, path.route, path.source, self._peer),
                mailbox_capacity=site_actor.MAILBOX_CAPACITY,
                shutdown_seconds=site_actor.SHUTDOWN_SECONDS,
                on_end=self._site_ended,
            )
        except (NotRunning, TooManyChildren, ChildExists):
            return False
        path.credit = path.offered = 0
        return True

    def _release(self, path: _Path) -> bool:
        """Offer ids up to the path's credit. False when the active set has no room: try again later."""
        ids = array("Q")
        heap = path.heap
        full = False
        while path.credit > len(ids) and heap:
            rank, _, _, queue = heap[0]
            room = (self._active_max if rank == 0 else self._bulk_max) - self._active
            if room <= 0:
                full = True
                break
            if not len(queue):  # taken from elsewhere
                heapq.heappop(heap)
                continue
            limit = min(path.credit - len(ids), room)
            taken = self._queues.take_until(queue, limit, _next_first(heap))
            ids.extend(taken)
            self._active += len(taken)
            for spool_id in taken:
                path.released[spool_id] = (queue.campaign, queue.domain)
            if len(queue):
                self._ticket += 1
                heapq.heapreplace(heap, (rank, queue.first, self._ticket, queue))
            else:
                heapq.heappop(heap)
        if ids:
            path.credit -= len(ids)
            path.offered += len(ids)
            assert path.ref is not None
            if not path.ref.try_tell(Offer(ids, not heap)):
                path.offered -= len(ids)
                self._take_back(path, ids)
        return not full

    def _take_back(self, path: _Path, ids: Iterable[int]) -> None:
        for spool_id in ids:
            campaign, domain = path.released.pop(spool_id)
            self._active -= 1
            self._add(campaign, domain, spool_id)


def _next_first(heap: list[tuple[int, int, int, ScheduledQueue]]) -> int:
    """The first id of the queue that comes after the heap's top, in its class."""
    rank = heap[0][0]
    following = [item[1] for item in heap[1:3] if item[0] == rank]
    return min(following) if following else 2**64 - 1
