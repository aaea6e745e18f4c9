"""One egress path as the scheduler sees it: what waits for it, what it holds, how much room it has.

A path is a site over a source; a recipient domain with rules of its own has one for itself, and a domain
without a route is one that bounces or waits. Bookkeeping only: the scheduler decides.
"""

from typing import Any

from engine.model.egress import Source
from engine.mta.net.mx import Route
from engine.mta.queue.fair import FairQueue, Flow
from engine.mta.queue.scheduled import ScheduledQueue
from engine.runtime.ref import Ref

URGENT_PLACES = 256  # of a site, beyond its credit, for transactional mail: some four leases
NO_ROUTE = "!"  # begins the name of a path to nowhere


def path_key(source: Source, site: str, domain: str = "") -> str:
    """The name of an egress path; a recipient domain with rules of its own has one for itself."""
    return f"{source.name}>{site}/{domain}" if domain else f"{source.name}>{site}"


class Path:
    """`credit` is how many ids it may get; below 0, transactional mail has some of the extra places."""

    __slots__ = (
        "credit",
        "domain",
        "extra",
        "key",
        "offered",
        "provider",
        "ref",
        "released",
        "route",
        "source",
        "waiting",
    )

    def __init__(
        self,
        key: str,
        ref: Ref[Any] | None = None,
        route: Route | None = None,
        source: Source | None = None,
        domain: str = "",
    ) -> None:
        self.key = key
        self.domain = domain  # "" = the path of all domains of its site
        self.ref = ref
        self.route = route
        self.source = source
        self.provider = ""
        self.extra = 0 if key.startswith(NO_ROUTE) else URGENT_PLACES
        self.credit = -self.extra
        self.offered = 0
        self.waiting = FairQueue()
        self.released: dict[int, tuple[int, str]] = {}  # id -> campaign, domain

    def __repr__(self) -> str:
        return f"<Path {self.key}: {len(self.released)} released, room for {self.credit}, {self.waiting!r}>"

    @property
    def open(self) -> bool:
        """Whether it can take anything that waits for it."""
        return self.credit > 0 or (self.waiting.urgent and self.credit > -self.extra)

    @property
    def idle(self) -> bool:
        """Whether nothing waits here, though what went elsewhere may still stand in line."""
        return not any(True for flow in self.waiting.flows() for _ in flow.queues())

    def close(self) -> None:
        """Nothing more before it tells of new room."""
        self.credit = -self.extra

    def empty(self) -> list[ScheduledQueue]:
        """Nothing waits here any more; what did, without a place now."""
        waiting, self.waiting = self.waiting, FairQueue()
        found = [queue for flow in waiting.flows() for queue in flow.queues()]
        for queue in found:
            queue.place = None
        return found

    def mark(self, spool_id: int, domain: str, campaign: int) -> None:
        """An id is released."""
        self.released[spool_id] = (campaign, domain)


def count_waiting(flow: Flow, most: int) -> int:
    """How many ids wait in a flow, counted up to `most`."""
    count = 0
    for queue in flow.queues():
        count += len(queue)
        if count >= most:
            return most
    return count
