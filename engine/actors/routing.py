"""Where each scheduled queue goes: destinations, and the paths that they are routed to.

A *destination* is what is looked up: a recipient domain; a domain over a pool of its own
(`example.org|pool`), since other sources make other paths; or a relay (`@name`), whatever the domain.
Which one a queue has is the egress rules' to say, and an operator's reroute before them.

A route is good for its TTL, from 60 s to a day; then the destination is looked up again if anything waits
for it, and forgotten if nothing does. Until there is an answer the old route goes on. Bookkeeping for the
scheduler, which decides; a crash costs look-ups.
"""

import heapq
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from engine.actors.parts import Parts
from engine.mta.policy.egress import Way
from engine.mta.queue.scheduled import ScheduledQueue

RELAY = "@"  # begins the name of a destination that is a relay: no domain has it
POOL = "|"  # before the name of a pool
ROUTES_KEPT_MAX = 200_000  # idle destinations' routes; about 300 octets each
TTL_SECONDS_MIN, TTL_SECONDS_MAX = 60.0, 86_400.0
STALE_SECONDS = 60.0  # a route whose look-up fails for now is kept, and looked up again so much later
REFRESHES_PER_LOOK = 25  # look-ups of routes that have lapsed: new destinations come first


class Destinations:
    """Which destination a queue has, and which queues have it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._ways: dict[str, Way] = {}  # of destinations that are no plain domain
        # Of those; weak, since a relay may serve a million queues between two looks at what waits for it.
        self._queues: dict[str, WeakKeyDictionary[ScheduledQueue, None]] = {}

    def __repr__(self) -> str:
        return f"<Destinations: {len(self._ways)} beside plain domains>"

    def of(self, queue: ScheduledQueue, workspace: str) -> str:
        """The destination of a queue now."""
        stops, egress, override = self._parts.stops, self._parts.egress, None
        if stops:
            override = stops.reroute(queue.campaign, workspace, queue.domain, self._parts.clock.now())
        elif egress.plain:
            return queue.domain
        way = egress.way(queue.campaign, workspace, queue.domain, override)
        if not way.name:
            return queue.domain
        name = f"{RELAY}{way.relay}" if way.relay else f"{queue.domain}{POOL}{way.name}"
        self._ways[name] = way
        known = self._queues.get(name)
        if known is None:
            known = self._queues[name] = WeakKeyDictionary()
        known[queue] = None
        return name

    def queues(self, destination: str) -> Iterator[ScheduledQueue]:
        """What waits for a destination; each is asked anew, since rules change."""
        known = self._queues.get(destination)
        found = self._parts.queues.of_domain(destination) if known is None else list(known)
        standing = self._parts.standing
        for queue in found:
            if len(queue) and self.of(queue, standing(queue.campaign).workspace) == destination:
                yield queue
            elif known is not None:
                known.pop(queue, None)

    def way(self, destination: str) -> Way:
        return self._ways.get(destination, Way())

    def forget(self, destination: str) -> None:
        """Nothing waits for it."""
        self._ways.pop(destination, None)
        self._queues.pop(destination, None)


def domain_of(destination: str) -> str:
    """The recipient domain of a destination; a relay is its own."""
    return destination.partition(POOL)[0]


class Routes:
    """The path of each destination that has one, while it is good. `paths` is for others to look at."""

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = paths
        self.paths.clear()
        self._expires: dict[str, float] = {}
        self._line: list[tuple[float, str]] = []

    def __repr__(self) -> str:
        return f"<Routes: {len(self.paths)}>"

    def put(self, destination: str, path: str, ttl_seconds: float, now: float) -> None:
        if destination not in self.paths and len(self.paths) >= ROUTES_KEPT_MAX:
            self.forget(next(iter(self.paths)))
        self.paths[destination] = path
        self._extend(destination, now + min(TTL_SECONDS_MAX, max(TTL_SECONDS_MIN, ttl_seconds)))

    def keep(self, destination: str, now: float) -> None:
        """Its look-up failed for now: what was known is good for a while longer."""
        self._extend(destination, now + STALE_SECONDS)

    def forget(self, destination: str) -> None:
        self.paths.pop(destination, None)
        self._expires.pop(destination, None)

    def lapsed(self, now: float) -> str | None:
        """The next destination whose route is good no longer, once; it stays known until it is forgotten."""
        line = self._line
        while line and line[0][0] <= now:
            expires, destination = heapq.heappop(line)
            if self._expires.get(destination) == expires:
                return destination
        return None

    def _extend(self, destination: str, expires: float) -> None:
        self._expires[destination] = expires
        heapq.heappush(self._line, (expires, destination))
