"""What waits for one egress path, and whose turn it is: weighted fair shares inside a site.

A *flow* is one campaign's queues (one for each recipient domain) on this path; inside a flow ids go out
in acceptance order, because settling in that order is cheap. Flows stand in a tree: class, workspace,
campaign. Transactional mail is taken first, whatever waits. Below it every branch that waits gets its
weight's part of what is released: each has a *pass*, the amount it was served divided by its weight, and
the branch with the lowest pass is next (stride scheduling, Waldspurger and Weihl 1995). A branch that
comes back from being empty starts at the lowest pass of its siblings: nobody saves up turns.

Pure. A held flow (a campaign or a domain that its receivers complain of) is passed over without losing
its place for later.
"""

import heapq
from array import array
from collections.abc import Callable, Iterator

from engine.mta.queue.scheduled import ScheduledQueue

TRANSACTIONAL, DEFAULT, BULK = range(3)  # ranks of classes
CLASS_WEIGHTS = {DEFAULT: 8.0, BULK: 1.0}  # ordinary mail overtakes campaigns, and does not starve them
QUANTUM = 32  # ids taken at a turn while others wait: half of the largest lease

NOTHING_BELOW = 2**64 - 1

Take = Callable[[ScheduledQueue, int, int], "array[int]"]


class Flow:
    """One campaign's queues on one path: a heap by first id.

    A queue that has gone to another place (its `place` says so) is left in the heap and passed over; one that
    has come back since stands where its `ticket` says, not where it stood before.
    """

    __slots__ = ("_heap", "_place", "_ticket", "campaign", "rank", "served", "workspace")

    def __init__(self, rank: int, workspace: str, campaign: int, place: object) -> None:
        self._place = place
        self.rank = rank
        self.workspace = workspace
        self.campaign = campaign
        self.served = 0
        self._heap: list[tuple[int, int, ScheduledQueue]] = []
        self._ticket = 0

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __repr__(self) -> str:
        return f"<Flow {self.workspace}/{self.campaign}: {len(self._heap)} domains, {self.served} served>"

    def push(self, queue: ScheduledQueue) -> None:
        queue.place = self._place
        queue.ticket = self._ticket = self._ticket + 1
        heapq.heappush(self._heap, (queue.first, self._ticket, queue))

    def queues(self) -> Iterator[ScheduledQueue]:
        place = self._place
        return (queue for _, ticket, queue in self._heap if queue.place is place and queue.ticket == ticket)

    def take(self, limit: int, take: Take, out: "array[int]", mark: Callable[[int, str, int], None]) -> int:
        """Append up to `limit` ids to `out`, in acceptance order; `mark` hears of (id, domain, campaign)."""
        heap, left, campaign = self._heap, limit, self.campaign
        while left > 0 and heap:
            _, ticket, queue = heap[0]
            if queue.place is not self._place or queue.ticket != ticket or not len(queue):
                heapq.heappop(heap)  # gone elsewhere, or taken from there
                continue
            below = heap[1][0] if len(heap) > 1 else NOTHING_BELOW
            if len(heap) > 2 and heap[2][0] < below:
                below = heap[2][0]
            taken = take(queue, left, below)
            out.extend(taken)
            left -= len(taken)
            for spool_id in taken:
                mark(spool_id, queue.domain, campaign)
            if len(queue):
                queue.ticket = self._ticket = self._ticket + 1
                heapq.heapreplace(heap, (queue.first, self._ticket, queue))
            else:
                heapq.heappop(heap)
        self.served += limit - left
        return limit - left


class _Branch:
    """One node of the tree: its children by key, and its own pass among its siblings."""

    __slots__ = ("children", "flow", "passed", "weight")

    def __init__(self, weight: float, passed: float, flow: Flow | None = None) -> None:
        self.weight = weight
        self.passed = passed
        self.flow = flow
        self.children: dict[object, _Branch] = {}

    def child(self, key: object, weight: float, flow: Flow | None = None) -> "_Branch":
        found = self.children.get(key)
        if found is None:
            present = min((sibling.passed for sibling in self.children.values()), default=0.0)
            found = self.children[key] = _Branch(weight, present, flow)
        return found


class FairQueue:
    """All that waits for one path."""

    __slots__ = ("_flows", "_root", "_urgent")

    def __init__(self) -> None:
        self._flows: dict[int, Flow] = {}  # by campaign
        self._urgent: dict[int, Flow] = {}
        self._root = _Branch(1.0, 0.0)

    def __bool__(self) -> bool:
        return bool(self._flows or self._urgent)

    def __repr__(self) -> str:
        return f"<FairQueue: {[*self._urgent.values(), *self._flows.values()]}>"

    @property
    def urgent(self) -> bool:
        """Whether transactional mail waits."""
        return bool(self._urgent)

    @property
    def ordinary(self) -> bool:
        """Whether anything else waits."""
        return bool(self._flows)

    def flows(self) -> list[Flow]:
        return [*self._urgent.values(), *self._flows.values()]

    def push(
        self,
        queue: ScheduledQueue,
        rank: int,
        workspace: str,
        workspace_weight: float = 1.0,
        campaign_weight: float = 1.0,
    ) -> None:
        """A queue has become non-empty (or has come to this path)."""
        flows = self._urgent if rank == TRANSACTIONAL else self._flows
        flow = flows.get(queue.campaign)
        if flow is None:
            flow = flows[queue.campaign] = Flow(rank, workspace, queue.campaign, self)
            if rank != TRANSACTIONAL:
                of_class = self._root.child(rank, CLASS_WEIGHTS[rank])
                of_workspace = of_class.child(workspace, workspace_weight)
                of_workspace.child(queue.campaign, campaign_weight, flow)
        flow.push(queue)

    def take_urgent(
        self,
        limit: int,
        take: Take,
        out: "array[int]",
        mark: Callable[[int, str, int], None],
        allowance: Callable[[Flow, int], int] | None = None,
    ) -> int:
        """Up to `limit` ids of transactional mail, campaigns in turn of their arrival."""
        left = limit
        for campaign in list(self._urgent):
            flow = self._urgent[campaign]
            allowed = left if allowance is None else allowance(flow, left)
            left -= flow.take(allowed, take, out, mark)
            if not flow:
                del self._urgent[campaign]
            if left <= 0:
                break
        return limit - left

    def take(
        self,
        limit: int,
        take: Take,
        out: "array[int]",
        mark: Callable[[int, str, int], None],
        allowance: Callable[[Flow, int], int] | None = None,
    ) -> int:
        """Up to `limit` ids of everything else, by shares. Returns how many.

        `allowance` says how many of so many a flow may release now (its own rate, a hold); 0 passes it
        over in this call.
        """
        left = limit
        passed_over: set[int] = set()
        while left > 0 and self._flows:
            line = self._next(self._root, passed_over)
            if line is None:
                break
            flow = line[-1].flow
            assert flow is not None, "a line ends in a flow"
            alone = len(self._flows) - len(passed_over) == 1
            wanted = left if alone else min(left, QUANTUM)
            allowed = wanted if allowance is None else allowance(flow, wanted)
            count = flow.take(allowed, take, out, mark) if allowed else 0
            left -= count
            for branch in line:
                branch.passed += count / branch.weight
            if not flow:
                self._forget(line)
            elif count < wanted:
                passed_over.add(flow.campaign)
        return limit - left

    def _next(self, branch: _Branch, passed_over: set[int]) -> "list[_Branch] | None":
        """The line from below `branch` to the flow whose turn it is."""
        for child in sorted(branch.children.values(), key=_passed):
            if child.flow is not None:
                if child.flow.campaign not in passed_over:
                    return [child]
            elif (line := self._next(child, passed_over)) is not None:
                return [child, *line]
        return None

    def _forget(self, line: list[_Branch]) -> None:
        """A flow is empty: take it and the branches that only led to it out of the tree.

        What a branch has had beyond its siblings is forgotten with it; it comes back at their pass.
        """
        flow = line[-1].flow
        assert flow is not None
        del self._flows[flow.campaign]
        of_class, of_workspace = line[0], line[1]
        del of_workspace.children[flow.campaign]
        if not of_workspace.children:
            del of_class.children[flow.workspace]
        if not of_class.children:
            del self._root.children[flow.rank]


def _passed(branch: _Branch) -> float:
    return branch.passed
