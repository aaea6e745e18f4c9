"""Which egress sources rest because their address or proxy is gone, and what is odd about the others.

A source that fails is suspended for 30 s, twice as long each time up to 10 min, and is used again only
when a probe (`engine.actors.source_keeper`) has found its address or proxy there. A connection that
became ready over it forgets the failures; while it is in flight others may still fail, and count once.
Bookkeeping; each change is noted as an event (knob "source"). Lives in `parts`, so no crash loses it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from engine.model.egress import Source
from engine.model.event import Adapted
from engine.model.reply import TransportFailure

SUSPEND_SECONDS_FIRST = 30.0
SUSPEND_SECONDS_MAX = 600.0
PROBE_SECONDS = 10.0  # how long a probe may take: until then a source that is due still rests


class _State(Struct):
    failures: int = 0
    until: float = 0.0  # when it may be probed
    suspended: bool = False
    why: str = ""


class SourceStates:
    """What is known of each source."""

    def __init__(self, sources: Iterable[Source], note: Callable[[Adapted], None]) -> None:
        self._sources = {source.name: source for source in sources}
        self._note = note
        self._states: dict[str, _State] = {}  # of those that failed since they last worked
        self._findings: dict[str, tuple[str, ...]] = {}

    def __repr__(self) -> str:
        resting = sorted(name for name, state in self._states.items() if state.suspended)
        return f"<SourceStates of {len(self._sources)}, suspended: {', '.join(resting) or 'none'}>"

    def rest(self, name: str, now: float) -> tuple[float, str]:
        """Until when a source rests at least, and why; (0.0, "") when it may be used."""
        state = self._states.get(name)
        if state is None or not state.suspended:
            return 0.0, ""
        return max(state.until, now + 1.0), state.why  # due: it rests until its probe is back

    def usable(self, name: str) -> bool:
        state = self._states.get(name)
        return state is None or not state.suspended

    def failed(self, name: str, failure: TransportFailure, now: float) -> None:
        """Its address or proxy could not be used."""
        state = self._states.setdefault(name, _State())
        if state.suspended and now < state.until:
            return  # others were on their way when the first one failed
        state.failures += 1
        seconds = min(SUSPEND_SECONDS_MAX, SUSPEND_SECONDS_FIRST * 2.0 ** min(state.failures - 1, 16))
        state.suspended, state.until = True, now + seconds
        state.why = f"source {name} is suspended: {failure.detail or failure.kind.value}"
        self._note(Adapted(name, "", "source", None, seconds, state.why))

    def works(self, name: str) -> None:
        """A connection over it became ready: what was is forgotten."""
        if self._states and (state := self._states.pop(name, None)) is not None and state.suspended:
            self._lifted(name)

    def found(self, name: str) -> None:
        """A probe found its address or proxy: it may be used; whether it works is not known yet."""
        state = self._states.get(name)
        if state is not None and state.suspended:
            state.suspended = False
            self._lifted(name)

    def due(self, now: float) -> list[Source]:
        """Suspended sources that are to be probed."""
        states = self._states.items()
        names = [name for name, state in states if state.suspended and state.until <= now]
        return [self._sources[name] for name in names if name in self._sources]

    def remark(self, findings: Mapping[str, tuple[str, ...]]) -> None:
        """What the look at our own names in DNS found, by source; nothing = all is well."""
        self._findings.update(findings)

    def rows(self, now: float) -> list[dict[str, Any]]:
        """Every source, for an operator."""
        rows = []
        for source in self._sources.values():
            until, why = self.rest(source.name, now)
            rows.append(
                {
                    "source": source.name,
                    "address": source.address or "",
                    "ehlo_name": source.ehlo_name,
                    "proxy": "" if source.proxy is None else str(source.proxy),
                    "weight": source.weight,
                    "suspended_seconds": round(max(0.0, until - now), 3),
                    "suspended_why": why,
                    "findings": list(self._findings.get(source.name, ())),
                }
            )
        return rows

    def _lifted(self, name: str) -> None:
        self._note(Adapted(name, "", "source", None, None, f"source {name} is there again"))
