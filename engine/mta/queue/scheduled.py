"""Scheduled queues: what is queued for each (campaign, domain), as packed arrays of spool ids.

An id costs 8 octets, so that a million envelopes fit in a few megabytes. Ids go out in acceptance
order, because settling in that order touches neighbouring pages (1.1 KB written per message, against
6-8 KB at random). An id that comes back (its lease was returned, a retry is due) takes its place by
number again when that is at the front, and the end otherwise.
"""

from array import array
from collections.abc import Iterator

COMPACT_AT = 1_024  # consumed slots before the array is cut; small enough to keep memory flat


class ScheduledQueue:
    """One (campaign, domain): ids waiting, in acceptance order.

    `place` is the one line that may take from it (a `FairQueue`); None = it waits for a place. `ticket` is
    that line's: where in it the queue stands.
    """

    __slots__ = ("__weakref__", "_head", "_ids", "campaign", "domain", "place", "ticket")

    def __init__(self, campaign: int, domain: str) -> None:
        self.campaign = campaign
        self.domain = domain
        self.place: object | None = None
        self.ticket = 0
        self._ids = array("Q")
        self._head = 0

    def __len__(self) -> int:
        return len(self._ids) - self._head

    def __repr__(self) -> str:
        return f"<ScheduledQueue {self.campaign} {self.domain}: {len(self)} waiting>"

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids[self._head :])

    @property
    def first(self) -> int:
        """The next id. The queue is not empty."""
        return self._ids[self._head]

    def add(self, spool_id: int) -> None:
        head = self._head
        if head and spool_id < self._ids[head]:  # the consumed slot before the front is free
            self._head = head - 1
            self._ids[head - 1] = spool_id
        else:
            self._ids.append(spool_id)

    def take(self, limit: int, below: int = 2**64 - 1) -> "array[int]":
        """Up to `limit` ids from the front, as long as they are <= `below`; the very first in any case."""
        head = self._head
        end = min(len(self._ids), head + limit)
        stop = min(head + 1, end)
        while stop < end and self._ids[stop] <= below:
            stop += 1
        taken = self._ids[head:stop]
        self._head = stop
        if self._head == len(self._ids):
            self._ids = array("Q")
            self._head = 0
        elif self._head >= COMPACT_AT:
            del self._ids[: self._head]
            self._head = 0
        return taken

    def moved(self) -> "ScheduledQueue":
        """A queue with all our ids; we are empty then."""
        other = ScheduledQueue(self.campaign, self.domain)
        other._ids, other._head = self._ids, self._head
        self._ids, self._head = array("Q"), 0
        return other


class ScheduledQueues:
    """All queues of an engine. A queue exists while it holds something."""

    def __init__(self) -> None:
        self._queues: dict[str, dict[int, ScheduledQueue]] = {}
        self.waiting = 0

    def __repr__(self) -> str:
        return f"<ScheduledQueues: {self.waiting} waiting for {len(self._queues)} domains>"

    def __len__(self) -> int:
        return self.waiting

    def add(self, campaign: int, domain: str, spool_id: int) -> ScheduledQueue | None:
        """Queue an id. Returns the queue if this made it non-empty, else None."""
        self.waiting += 1
        by_campaign = self._queues.get(domain)
        if by_campaign is None:
            by_campaign = self._queues[domain] = {}
        queue = by_campaign.get(campaign)
        if queue is not None:
            queue.add(spool_id)
            return None
        queue = by_campaign[campaign] = ScheduledQueue(campaign, domain)
        queue.add(spool_id)
        return queue

    def take_until(self, queue: ScheduledQueue, limit: int, below: int) -> "array[int]":
        """Take ids (see `ScheduledQueue.take`) from one of our queues; an empty queue is forgotten."""
        taken = queue.take(limit, below)
        self.waiting -= len(taken)
        if not len(queue):
            by_campaign = self._queues[queue.domain]
            del by_campaign[queue.campaign]
            if not by_campaign:
                del self._queues[queue.domain]
        return taken

    def of_domain(self, domain: str) -> list[ScheduledQueue]:
        return list(self._queues.get(domain, {}).values())

    def domains(self) -> Iterator[str]:
        return iter(self._queues)

    def all(self) -> list[ScheduledQueue]:
        """Every queue that holds something."""
        return [queue for queues in self._queues.values() for queue in queues.values()]

    def remove_campaign(self, campaign: int) -> list[ScheduledQueue]:
        """Take a whole campaign out (cancelled); returns its queues with their ids.

        Whoever still holds one of the queues that were here finds it empty.
        """
        removed = []
        for domain in list(self._queues):
            queue = self._queues[domain].pop(campaign, None)
            if queue is not None:
                self.waiting -= len(queue)
                removed.append(queue.moved())
                if not self._queues[domain]:
                    del self._queues[domain]
        return removed
