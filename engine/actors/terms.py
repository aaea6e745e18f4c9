"""How often and how long an envelope is tried: the retry curve and the expiry that hold for it.

The path's shaping says both, a workspace's or campaign's rule bends them, and an envelope's own expiry is
never exceeded. Asked for each deferral; answers are kept per campaign. Pure but for the clock and dice in
`parts`.
"""

from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.model.envelope import Envelope
from engine.mta.policy.classify import Verdict
from engine.mta.policy.retry import Curve, retry_at


class Terms:
    """The terms of one path; of a domain without a route (`memory` None) the node's own."""

    __slots__ = ("_by_campaign", "_memory", "_parts")

    def __init__(self, parts: Parts, memory: PathMemory | None) -> None:
        self._parts = parts
        self._memory = memory
        self._by_campaign: dict[int, tuple[Curve, float | None]] = {}

    def expires_at(self, envelope: Envelope) -> float:
        """Wall seconds after which it is given up."""
        seconds = self._of(envelope.campaign)[1]
        if seconds is None:
            return envelope.expires_at
        return min(envelope.expires_at, envelope.accepted_at + seconds)

    def retry_at(self, envelope: Envelope, verdict: Verdict | None = None) -> float | None:
        """Wall seconds of the next attempt, or None: expired."""
        return retry_at(
            self._of(envelope.campaign)[0],
            envelope.attempt,
            self._parts.clock.now(),
            self.expires_at(envelope),
            self._parts.dice.random(),
            blameless=verdict is not None and verdict.blameless,
            after_seconds=None if verdict is None else verdict.retry_after_seconds,
        )

    def _of(self, campaign: int) -> tuple[Curve, float | None]:
        found = self._by_campaign.get(campaign)
        if found is None:
            found = self._by_campaign[campaign] = self._find(campaign)
        return found

    def _find(self, campaign: int) -> tuple[Curve, float | None]:
        if self._memory is None:
            return self._parts.config.engine.retry, None
        shaping = self._memory.shaping
        workspace = self._parts.standing(campaign).workspace
        flow = self._parts.shaping.flow(workspace, campaign, self._memory.provider.name)
        expire = flow.expire_after_seconds
        return flow.bend(shaping.retry), shaping.expire_after_seconds if expire is None else expire
