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

import heapq
from array import array
from collections.abc import Callable, Iterable
from typing import Any

import structlog
import trio
from msgspec import Struct

from engine.actors import domain as domain_actor
from engine.actors import site as site_actor
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
    Routed,
    Unroutable,
)
from engine.actors.parts import Parts
from engine.actors.path import Path, count_waiting, path_key
from engine.model.content import MessageClass
from engine.mta.net.mx import Route
from engine.mta.policy.flow_limits import FlowLimits
from engine.mta.queue.fair import BULK, DEFAULT, TRANSACTIONAL, Flow
from engine.mta.queue.scheduled import ScheduledQueue, ScheduledQueues
from engine.runtime.dynamic import ChildExists, NotRunning, TooManyChildren
from engine.runtime.ref import Ref
from engine.runtime.spec import Context, Start
from engine.runtime.ticking import batch_within

MESSAGES_PER_PASS = 256
TICK_SECONDS = 0.5
FLOW_SECONDS = 0.1  # how often a flow that is at its own rate is looked at
SCAN_PAGE = 20_000  # envelopes per read transaction at start: 30 ms of the loop
TRANSACTIONAL_SHARE = 0.1  # of the active set, kept for transactional classes
RANKS = {
    MessageClass.TRANSACTIONAL: TRANSACTIONAL,
    MessageClass.DEFAULT: DEFAULT,
    MessageClass.BULK: BULK,
}
ROUTES_KEPT_MAX = 200_000  # idle domains' routes; about 300 octets each

log = structlog.get_logger("scheduler")


def scheduler(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        await Scheduler(parts, context).live(task_status)

    return start


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
        self._queues = parts.queues = ScheduledQueues()
        self._paths = parts.paths
        self._paths.clear()
        self._routes: dict[str, _KnownRoute] = {}
        self._lookups: list[tuple[int, int, str]] = []  # rank, first id, domain: waits for a look-up
        self._looking: set[str] = set()  # waits for or is in a look-up
        self._looking_up = 0
        self._postponed: list[tuple[float, str]] = []
        self._postponed_names: set[str] = set()
        self._ended = parts.ended  # kind, name: filled by observers, those of our last incarnation too
        self._ended.clear()
        self._dirty: dict[str, None] = {}
        self._standings: dict[int, _Standing] = {}
        self._limits = FlowLimits(parts.shaping)
        self._waiting_for_time: dict[str, None] = {}  # paths with a flow that is held, or at its rate
        self._look_again_at = 0.0
        self._active = 0
        self._active_max = parts.config.engine.active_set_max
        self._bulk_max = int(self._active_max * (1 - TRANSACTIONAL_SHARE))

    def __repr__(self) -> str:
        return f"<Scheduler {self._queues!r}, {self._active} released to {len(self._paths)} paths>"

    async def live(self, task_status: trio.TaskStatus[None]) -> None:
        await self._rebuild()
        task_status.started()
        while (batch := await batch_within(self._mailbox, MESSAGES_PER_PASS, self._patience)) is not None:
            if self._parts.shaping is not self._limits.rules:
                self._follow_rules()
            for message in batch:
                self._take(message)
            self._reap()
            self._tick()
            self._serve()

    @property
    def _patience(self) -> float:
        return FLOW_SECONDS if self._waiting_for_time and self._limits.any else TICK_SECONDS

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
            rank = self._standing(queue.campaign).rank
            heapq.heappush(self._lookups, (rank, queue.first, queue.domain))

    def _push(self, path: Path, queue: ScheduledQueue) -> None:
        standing = self._standing(queue.campaign)
        path.waiting.push(
            queue, standing.rank, standing.workspace, standing.workspace_weight, standing.campaign_weight
        )
        self._dirty[path.key] = None

    def _standing(self, campaign: int) -> "_Standing":
        found = self._standings.get(campaign)
        if found is None:
            known = self._parts.standing(campaign)
            weights = self._parts.shaping.flow(known.workspace, campaign, "")
            found = self._standings[campaign] = _Standing(
                RANKS[known.message_class],
                known.workspace,
                known.sending_domain,
                weights.weight_workspace,
                weights.weight_campaign,
            )
        return found

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
        if message.elsewhere and path.route is not None and len(self._parts.sources) > 1:
            for domain in path.empty():
                self._routed(domain, path.route)

    def _follow_rules(self) -> None:
        """Other rules hold: what waits is weighed anew, and goes to the path that it has by them."""
        self._limits.follow(self._parts.shaping)
        self._standings.clear()
        for path in list(self._paths.values()):
            if path.route is not None:
                for domain in path.empty():
                    self._routed(domain, path.route)

    # --- routes ----------------------------------------------------------------------------------------

    def _routed(self, domain: str, route: Route) -> None:
        self._looking.discard(domain)
        provider = self._parts.provider_name(route, domain)
        source = self._parts.source_for(domain, provider)
        lane = domain if domain in self._parts.ruled_domains else ""
        key = path_key(source, route.site, lane)
        if len(self._routes) >= ROUTES_KEPT_MAX:
            self._routes.pop(next(iter(self._routes)))
        self._routes[domain] = _KnownRoute(key, trio.current_time() + route.ttl_seconds)
        path = self._paths.get(key)
        if path is None:
            path = self._paths[key] = Path(key, None, route, source, lane)
        elif path.route != route:
            path.route, path.source, path.domain = route, source, lane
            if path.ref is not None:
                path.ref.try_tell(NewRoute(route))
        path.provider = provider
        for queue in self._queues.of_domain(domain):
            self._push(path, queue)

    def _unroutable(self, message: Unroutable) -> None:
        path = Path(message.path, message.ref)
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
            _, _, domain = self._lookups[0]
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
                    if not path.waiting:
                        del self._paths[name]
                        self._dirty.pop(name, None)
                continue
            self._looking_up -= 1
            path = self._paths.pop(domain_actor.path_key(name), None)
            self._dirty.pop(domain_actor.path_key(name), None)
            if path is not None:
                self._give_back(path)
            if name not in self._postponed_names:
                known = self._routes.get(name)
                if name in self._looking or known is None or known.path not in self._paths:
                    self._looking.discard(name)  # it ended without a route, or with one that is gone
                    for queue in self._queues.of_domain(name):
                        self._place(queue)

    def _give_back(self, path: Path) -> None:
        path.close()
        path.offered = 0
        self._take_back(path, list(path.released))

    def _tick(self) -> None:
        now = trio.current_time()
        if self._waiting_for_time and now >= self._look_again_at:
            self._look_again_at = now + FLOW_SECONDS
            self._dirty.update(self._waiting_for_time)
            self._waiting_for_time.clear()
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
        full, allowance = False, self._allowance(path)
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
            if not path.ref.try_tell(Offer(ids, not waiting, urgent)):
                path.offered -= len(ids)
                self._take_back(path, ids)
        return not full

    def _allowance(self, path: Path) -> Callable[[Flow, int], int] | None:
        """What each flow may release to this path now; None when nothing limits any."""
        holds, limits = self._parts.holds, self._limits
        if not holds and not limits.any:
            return None
        now = trio.current_time()

        def allowed(flow: Flow, wanted: int) -> int:
            standing = self._standing(flow.campaign)
            held = holds.of(path.provider, flow.workspace, flow.campaign, standing.sending_domain, now)
            there = max(1, count_waiting(flow, wanted)) if limits.any else wanted  # no more than it can use
            count = 0 if held else limits.take(now, path.provider, flow.workspace, flow.campaign, there)
            if count < there:
                self._waiting_for_time[path.key] = None
            return count

        return allowed

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


class _Standing(Struct, frozen=True):
    """What a campaign's mail is to the scheduler."""

    rank: int
    workspace: str
    sending_domain: str
    workspace_weight: float
    campaign_weight: float
