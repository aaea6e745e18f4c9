"""The rates of workspaces and campaigns, over all paths: how much of whose mail may be released now.

A rule of `[[engine.site]]` with `workspace` or `campaign` gives its mail a rate, over everything or at
one provider; of several that match, the narrowest holds. Mail under the same rule is counted together.
Pure; without such rules nothing is asked.
"""

from engine.mta.policy.shaping import ShapingRules
from engine.mta.policy.throttle import Throttle


class FlowLimits:
    """A throttle for each rule that gives a rate."""

    __slots__ = ("_throttles", "any", "rules")

    def __init__(self, rules: ShapingRules) -> None:
        self._throttles: dict[str, Throttle] = {}
        self.follow(rules)

    def __repr__(self) -> str:
        return f"<FlowLimits: {self._throttles}>"

    def follow(self, rules: ShapingRules) -> None:
        """Other rules hold from now on; what was counted under one that stays is not forgotten."""
        self.any = any(rule.is_flow for layer in rules.layers for rule in layer.rules)
        self.rules = rules

    def take(self, now: float, provider: str, workspace: str, campaign: int, wanted: int) -> int:
        """How many of `wanted` messages may be released to `provider`; they are counted."""
        if not self.any:
            return wanted
        shaping = self.rules.flow(workspace, campaign, provider)
        if shaping.rate is None:
            return wanted
        throttle = self._throttles.get(shaping.rate_key)
        if throttle is None:
            throttle = self._throttles[shaping.rate_key] = Throttle(shaping.rate, now, shaping.burst_seconds)
        else:  # its rule may say something else by now
            throttle.set_rate(shaping.rate.per_second, now, shaping.burst_seconds)
        return throttle.take(now, wanted)
