"""What an engine's events tell of a run through a world: outcomes, finish times, what was adapted.

Fed with the batches of `events.<node>`; knows domains, sites and providers by name. A site belongs to the
provider whose mail went over it, so changes to a path are told by provider only at the end. Pure.
"""

from collections import Counter
from collections.abc import Mapping

from engine.model.event import Adapted, AttemptEvent, EventBatch

FINAL = frozenset(
    {"delivered", "bounced", "expired", "suppressed", "cancelled", "render_failed", "quarantined"}
)
RESTING = frozenset({"rest", "hold"})  # knobs whose value is seconds of waiting
TOLD_MAX = 1_000  # changes in a report; a run of minutes has a few hundred

Steps = list[tuple[float, float | None]]


class Watch:
    """Sums over one run. `provider_of` maps recipient domains to providers; `began` is wall seconds."""

    def __init__(self, provider_of: Mapping[str, str], began: float) -> None:
        self.outcomes: Counter[str] = Counter()
        self.finished = 0
        self.finish_seconds: dict[str, float] = {}  # by provider: when its last envelope was final
        self.adaptions: list[tuple[float, Adapted]] = []
        self._provider_of = provider_of
        self._provider_of_site: dict[str, str] = {}
        self.began = began

    def __repr__(self) -> str:
        return f"<Watch {self.finished} finished, {len(self.adaptions)} adaptions>"

    def add(self, batch: EventBatch) -> None:
        seconds = batch.at - self.began
        for event in batch.events:
            if isinstance(event, Adapted):
                self.adaptions.append((seconds, event))
            elif isinstance(event, AttemptEvent):
                self._add(event, seconds)

    def _add(self, event: AttemptEvent, seconds: float) -> None:
        kind = str(event.__struct_config__.tag)
        self.outcomes[kind] += 1
        provider = self._provider_of.get(event.domain, "")
        if event.site and provider:
            self._provider_of_site[event.site] = provider
        if kind in FINAL:
            self.finished += 1
            self.finish_seconds[provider] = max(seconds, self.finish_seconds.get(provider, 0.0))

    def steps(self, knob: str) -> dict[str, Steps]:
        """By provider: (second, value from then on) of "connections" or "rate", summed over its paths.

        None = no limit, as soon as one of its paths has none.
        """
        paths: dict[str, dict[str, float | None]] = {}  # provider -> path -> value now
        steps: dict[str, Steps] = {}
        for seconds, event in self.adaptions:
            provider = self._provider_of_site.get(event.path.rpartition(">")[2])
            if event.knob != knob or provider is None:
                continue
            values = paths.setdefault(provider, {})
            line = steps.setdefault(provider, [])
            if not line:
                line.append((0.0, event.before))
            values[event.path] = event.after
            line.append((seconds, _sum(list(values.values()))))
        return steps

    def rests(self) -> dict[str, list[tuple[float, float]]]:
        """By provider: (second, seconds that it rests from then on), of paths and of parts of the mail."""
        found: dict[str, list[tuple[float, float]]] = {}
        for seconds, event in self.adaptions:
            provider = self._provider_of_site.get(event.path.rpartition(">")[2])
            if provider is not None and event.knob in RESTING and event.after is not None:
                found.setdefault(provider, []).append((seconds, event.after))
        return found

    def told(self) -> list[dict[str, object]]:
        """The first changes, for reports."""
        return [
            {
                "seconds": round(seconds, 2),
                "provider": self._provider_of_site.get(event.path.rpartition(">")[2], ""),
                "path": event.path,
                "knob": event.knob,
                "before": event.before,
                "after": event.after,
                "reason": event.reason,
                "rule": event.rule,
            }
            for seconds, event in self.adaptions[:TOLD_MAX]
        ]


def _sum(values: list[float | None]) -> float | None:
    return None if None in values else sum(value for value in values if value is not None)
