"""Which envelopes are released to which path, and when: the pull side of the engine.

Holds the scheduled queues (packed ids), the routes of domains, and for each path (a site over an
egress source, or a domain without a route) what waits for it (`queue.fair`: transactional mail first,
then weighted shares of workspaces and campaigns, each in acceptance order). A path says how much it has
room for; transactional mail has places of its own beyond that, and a tenth of the active set
(`active_set_max`). Ids are in the path's care until the spooler leased them; a path that ends or has to
rest gives its ids back.

Decides: releases, look-ups, retries of postponed domains. Touches: no disk but the scan at its start.
On crash: rebuilt from the spool; an id that is queued twice then is leased once, since the spool
leaves out what is leased or gone.
"""

from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import structlog
import trio

from engine.actors import domain as domain_actor
from engine.actors import site as site_actor
from engine.actors.allowances import FLOW_SECONDS, Allowances, FlowStanding
from engine.actors.lookups import REFRESH_RANK, LookUps
from engine.actors.messages import (
    BELL,
    Accepted,
    Bell,
    Credit,
    GiveBack,
    Leased,
    NewRoute,
    Offer,
    Queued,
    Recall,
    Routed,
    StopsChanged,
    Unroutable,
)
from engine.actors.parts import Parts
from engine.actors.path import Path, path_key
from engine.actors.routing import REFRESHES_PER_LOOK, Destinations, Routes, domain_of
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
REVIEWED_PER_PASS = 20_000  # queues that are looked at after an operator's act: some 30 ms

log = structlog.get_logger("scheduler")


def scheduler(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        await Scheduler(parts, context).live(task_status)

    return start


class Scheduler:
    """One incarnation."""

    def __init__(self, parts: Parts, context: Context[Any]) -> None:
        self._parts = parts
        self._mailbox = context.mailbox
        self._ref: Ref[Any] = context.ref
        self._peer = context.peer
        self._queues = parts.queues = ScheduledQueues()
        self._paths = parts.paths
        self._paths.clear()
        self._destinations = Destinations(parts)
        self._routes = Routes(parts.routes)
        self._lookups = LookUps(parts.config.engine.lookups_max)
        self._review: Iterator[ScheduledQueue] | None = None  # of what is stopped, after a change of that
        self._ended = parts.ended  # kind, name: filled by observers, those of our last incarnation too
        self._ended.clear()
        self._dirty: dict[str, None] = {}
        self._allowances = Allowances(parts)
        self._active = 0
        self._active_max = parts.config.engine.active_set_max
        self._bulk_max = int(self._active_max * (1 - TRANSACTIONAL_SHARE))

    def __repr__(self) -> str:
        return f"<Scheduler {self._queues!r}, {self._active} released to {len(self._paths)} paths>"

    async def live(self, task_status: trio.TaskStatus[None]) -> None:
        await self._rebuild()
        task_status.started()
        while (batch := await batch_within(self._mailbox, MESSAGES_PER_PASS, self._patience)) is not None:
            if self._allowances.follow_rules():  # what waits goes to the path that it has by them
                for path in list(self._paths.values()):
                    self._route_anew(path)
            for message in batch:
                self._take(message)
            self._reap()
            self._review_some()
            self._tick()
            self._serve()

    @property
    def _patience(self) -> float:
        if self._review is not None:
            return 0.0
        return FLOW_SECONDS if self._allowances.hurried else TICK_SECONDS

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
            case GiveBack():
                self._given_back(message)
            case Routed():
                self._routed(message.domain, message.route)
            case Unroutable():
                self._unroutable(message)
            case StopsChanged():
                self._stops_changed()
            case Bell():
                pass
            case _:
                raise AssertionError(f"the scheduler got {message!r}")

    def _add(self, campaign: int, domain: str, spool_id: int) -> None:
        queue = self._queues.add(campaign, domain, spool_id)
        if queue is not None:
            self._place(queue)

    def _place(self, queue: ScheduledQueue) -> None:
        """Give a queue that has no place to its path, or ask for one."""
        standing = self._allowances.standing(queue.campaign)
        if self._stopped(queue, standing):
            queue.place = None
            return
        destination = self._destinations.of(queue, standing.workspace)
        path = self._paths.get(self._routes.paths.get(destination, ""))
        if path is not None:
            self._push(path, queue)
        else:
            queue.place = None
            self._lookups.want(destination, standing.rank, queue.first)

    def _place_all(self, destination: str) -> None:
        """Place what waits for a destination that has no route; where nothing does, forget it."""
        if not self._waits(destination):
            self._destinations.forget(destination)
        for queue in self._destinations.queues(destination):
            self._place(queue)

    def _push(self, path: Path, queue: ScheduledQueue) -> None:
        standing = self._allowances.standing(queue.campaign)
        if queue.place is path.waiting or self._stopped(queue, standing):
            return
        path.waiting.push(
            queue, standing.rank, standing.workspace, standing.workspace_weight, standing.campaign_weight
        )
        self._dirty[path.key] = None

    def _credit(self, message: Credit) -> None:
        path = self._paths.get(message.path)
        if path is None or path.ref is None:  # a site from before our crash, or one that has ended
            ref = self._parts.sites.ref(message.path)
            if ref is None:
                return
            if path is None:
                path = self._paths[message.path] = Path(message.path, ref)
            path.ref = ref
            path.offered = message.seen
        path.credit = message.places - (path.offered - message.seen)
        self._dirty[message.path] = None

    def _given_back(self, message: GiveBack) -> None:
        """A path has to rest: its ids wait here, and are not offered before it has credit again."""
        path = self._paths.get(message.path)
        if path is None:
            return
        path.close()
        self._take_back(path, message.ids)
        if message.elsewhere and len(self._parts.sources) > 1:
            self._route_anew(path)

    # --- stops -----------------------------------------------------------------------------------------

    def _stopped(self, queue: ScheduledQueue, standing: FlowStanding) -> bool:
        """An operator has stopped this mail: it has no place, and is not looked up."""
        stops = self._parts.stops
        if not stops:
            return False
        wall = self._parts.clock.now()
        held = stops.holds_flow(queue.campaign, standing.workspace, wall) or stops.holds_domain(
            queue.domain, wall
        )
        return held is not None

    def _stops_changed(self) -> None:
        """What is stopped loses its place, what is so no longer gets one, and all goes where it is sent now.

        What the sites have at hand comes back: they do not know whose it is.
        """
        for path in self._paths.values():
            if path.ref is not None:
                path.ref.try_tell(Recall())
        self._review = iter(self._queues.all())

    def _review_some(self) -> None:
        if self._review is None:
            return
        page = list(islice(self._review, REVIEWED_PER_PASS))
        for queue in page:
            if len(queue):
                self._place(queue)
        if len(page) < REVIEWED_PER_PASS:
            self._review = None

    # --- routes ----------------------------------------------------------------------------------------

    def _route_anew(self, path: Path) -> None:
        """What waits for a path goes where it should by now, which may be there."""
        if path.route is None:
            return
        assigned: dict[str, None] = {}
        for queue in path.empty():
            workspace = self._allowances.standing(queue.campaign).workspace
            destination = self._destinations.of(queue, workspace)
            if self._routes.paths.get(destination) == path.key and destination not in assigned:
                assigned[destination] = None
                self._routes.paths[destination] = self._assign(destination, path.route).key
            self._place(queue)

    def _routed(self, destination: str, route: Route) -> None:
        self._lookups.done(destination)
        path = self._assign(destination, route)
        self._routes.put(destination, path.key, route.ttl_seconds, trio.current_time())
        for queue in self._destinations.queues(destination):
            self._push(path, queue)

    def _assign(self, destination: str, route: Route) -> Path:
        """The path of a destination whose route is this."""
        domain = domain_of(destination)
        provider = self._parts.provider_name(route, domain)
        source = self._parts.source_for(self._destinations.way(destination), domain, provider)
        own = domain if domain in self._parts.ruled_domains else ""
        key = path_key(source, route.site, own or route.lane)
        path = self._paths.get(key)
        if path is None:
            path = self._paths[key] = Path(key, None, route, source, own)
        elif path.route != route:
            path.route, path.source, path.domain = route, source, own
            if path.ref is not None:
                path.ref.try_tell(NewRoute(route))
        path.provider = provider
        return path

    def _unroutable(self, message: Unroutable) -> None:
        destination, now = message.domain, trio.current_time()
        if message.retry_at is not None and self._routes.paths.get(destination) in self._paths:
            self._lookups.done(destination)  # what was known of it goes on: DNS may come back
            self._routes.keep(destination, now)
            return
        self._routes.forget(destination)
        path = Path(message.path, message.ref)
        path.credit = message.places
        self._paths[message.path] = path
        for queue in self._destinations.queues(destination):
            self._push(path, queue)
        if message.retry_at is not None:
            self._lookups.postpone(destination, message.retry_at)
        self._dirty[message.path] = None

    def _waits(self, destination: str) -> bool:
        return next(self._destinations.queues(destination), None) is not None

    def _start_look_up(self, destination: str) -> bool:
        try:
            self._parts.domains.start_child(
                destination,
                domain_actor.domain(self._parts, destination, self._peer),
                on_end=self._domain_ended,
            )
        except (NotRunning, TooManyChildren, ChildExists):
            return False  # the tick tries again
        return True

    def _refresh(self, now: float) -> None:
        """Routes that are good no longer: looked up again where mail waits, else forgotten."""
        wanted = 0
        while wanted < REFRESHES_PER_LOOK and (destination := self._routes.lapsed(now)) is not None:
            waiting = next(self._destinations.queues(destination), None)
            if waiting is None:
                self._routes.forget(destination)
                self._destinations.forget(destination)
            else:
                self._lookups.want(destination, REFRESH_RANK, waiting.first)
                self._routes.keep(destination, now)
                wanted += 1

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
                    if path.idle:
                        del self._paths[name]
                        self._dirty.pop(name, None)
                continue
            self._lookups.ended()
            path = self._paths.pop(domain_actor.path_key(name), None)
            self._dirty.pop(domain_actor.path_key(name), None)
            if path is not None:
                self._give_back(path)
            if self._lookups.is_postponed(name):
                continue
            if name in self._lookups or self._routes.paths.get(name) not in self._paths:
                self._lookups.done(name)  # it ended without a route, or with one that is gone
                self._place_all(name)

    def _give_back(self, path: Path) -> None:
        path.close()
        path.offered = 0
        self._take_back(path, list(path.released))

    def _tick(self) -> None:
        now = trio.current_time()
        self._dirty.update(self._allowances.take_due(now))
        for destination in self._lookups.due(now):
            self._place_all(destination)
        self._refresh(now)
        self._lookups.start(self._waits, self._start_look_up)

    # --- releasing -------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Release to every path that has work and room; start the sites that have work."""
        for key in list(self._dirty):
            path = self._paths.get(key)
            if path is None or not path.waiting:
                self._dirty.pop(key, None)
                continue
            if path.ref is None and not self._start_site(path):
                continue  # stays dirty: the tick tries again
            if not path.open:
                del self._dirty[key]
                continue
            if self._release(path):
                self._dirty.pop(key, None)

    def _start_site(self, path: Path) -> bool:
        if path.route is None or path.source is None:
            return False
        try:
            path.ref = self._parts.sites.start_child(
                path.key,
                site_actor.site(self._parts, path.route, path.source, self._peer, path.domain),
                mailbox_capacity=site_actor.MAILBOX_CAPACITY,
                shutdown_seconds=site_actor.SHUTDOWN_SECONDS,
                on_end=self._site_ended,
            )
        except (NotRunning, TooManyChildren, ChildExists):
            return False
        path.close()
        path.offered = 0
        return True

    def _release(self, path: Path) -> bool:
        """Offer ids up to the path's credit. False when the active set has no room: try again later."""
        ids = array("Q")
        waiting, take = path.waiting, self._queues.take_until
        full, allowance = False, self._allowances.of(path)
        before = len(path.released)  # an id that was queued twice counts once
        if waiting.urgent:
            room = self._active_max - self._active
            full = room <= 0
            limit = min(path.credit + path.extra, room)
            waiting.take_urgent(limit, take, ids, path.mark, allowance)
        urgent = len(ids)
        if waiting.ordinary and path.credit > urgent:
            room = self._bulk_max - self._active - (len(path.released) - before)
            full = full or room <= 0
            limit = min(path.credit - urgent, room)
            waiting.take(limit, take, ids, path.mark, allowance)
        self._active += len(path.released) - before
        if ids:
            path.credit -= len(ids)
            path.offered += len(ids)
            assert path.ref is not None
            self._parts.timelines.offered(ids)
            if not path.ref.try_tell(Offer(ids, not waiting, urgent)):
                path.offered -= len(ids)
                self._take_back(path, ids)
        return not full

    def _take_back(self, path: Path, ids: Iterable[int]) -> None:
        """To the front again, as far as the queues can: oldest first where nothing waits, else last."""
        groups: dict[tuple[int, str], list[int]] = {}
        for spool_id in sorted({spool_id for spool_id in ids if spool_id in path.released}):
            groups.setdefault(path.released.pop(spool_id), []).append(spool_id)
        for (campaign, domain), group in groups.items():
            self._active -= len(group)
            waits = any(queue.campaign == campaign for queue in self._queues.of_domain(domain))
            for spool_id in reversed(group) if waits else group:
                self._add(campaign, domain, spool_id)
