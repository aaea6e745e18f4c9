"""What each campaign's mail is to the scheduler, and how much of it a path may get now.

Class, workspace and weights come from its content and the rules; its own rate and the holds at a provider
limit what is released to a path. Paths with a flow that has to wait for time are kept in `waiting`, to be
looked at again. Answers are kept per campaign until other rules hold.
"""

from collections.abc import Callable

import trio
from msgspec import Struct

from engine.actors.parts import Parts
from engine.actors.path import Path, count_waiting
from engine.model.content import MessageClass
from engine.mta.policy.flow_limits import FlowLimits
from engine.mta.queue.fair import BULK, DEFAULT, TRANSACTIONAL, Flow

FLOW_SECONDS = 0.1  # how often a flow that is at its own rate is looked at
RANKS = {
    MessageClass.TRANSACTIONAL: TRANSACTIONAL,
    MessageClass.DEFAULT: DEFAULT,
    MessageClass.BULK: BULK,
}


class FlowStanding(Struct, frozen=True):
    """What a campaign's mail is to the scheduler."""

    rank: int
    workspace: str
    sending_domain: str
    workspace_weight: float
    campaign_weight: float


class Allowances:
    """Of one scheduler."""

    __slots__ = ("_limits", "_look_again_at", "_parts", "_standings", "waiting")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._limits = FlowLimits(parts.shaping)
        self._standings: dict[int, FlowStanding] = {}
        self.waiting: dict[str, None] = {}  # paths with a flow that is held, or at its rate
        self._look_again_at = 0.0

    def __repr__(self) -> str:
        return f"<Allowances of {len(self._standings)} campaigns, {len(self.waiting)} paths wait>"

    @property
    def hurried(self) -> bool:
        """Whether a path waits for a rate of its flows: look again soon."""
        return bool(self.waiting) and self._limits.any

    def follow_rules(self) -> bool:
        """Keep to the rules that hold by now. True when they are others."""
        if self._parts.shaping is self._limits.rules:
            return False
        self._limits.follow(self._parts.shaping)
        self._standings.clear()
        return True

    def standing(self, campaign: int) -> FlowStanding:
        found = self._standings.get(campaign)
        if found is None:
            known = self._parts.standing(campaign)
            weights = self._parts.shaping.flow(known.workspace, campaign, "")
            found = self._standings[campaign] = FlowStanding(
                RANKS[known.message_class],
                known.workspace,
                known.sending_domain,
                weights.weight_workspace,
                weights.weight_campaign,
            )
        return found

    def take_due(self, now: float) -> dict[str, None]:
        """Paths to look at again, about each FLOW_SECONDS."""
        if not self.waiting or now < self._look_again_at:
            return {}
        self._look_again_at = now + FLOW_SECONDS
        due, self.waiting = self.waiting, {}
        return due

    def of(self, path: Path) -> Callable[[Flow, int], int] | None:
        """What each flow may release to this path now; None when nothing limits any."""
        holds, limits = self._parts.holds, self._limits
        if not holds and not limits.any:
            return None
        now = trio.current_time()

        def allowed(flow: Flow, wanted: int) -> int:
            standing = self.standing(flow.campaign)
            held = holds.of(path.provider, flow.workspace, flow.campaign, standing.sending_domain, now)
            there = max(1, count_waiting(flow, wanted)) if limits.any else wanted  # no more than it can use
            count = 0 if held else limits.take(now, path.provider, flow.workspace, flow.campaign, there)
            if count < there:
                self.waiting[path.key] = None
            return count

        return allowed
