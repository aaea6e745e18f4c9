"""Numbers of egress paths: what waits, what is open, what is allowed, and who rests; and of circuit breakers.

A big engine knows ten thousands of paths, and a monitor should keep some hundreds: those with most work are
told one by one, what the others hold as one path called "other". Walked in pages, with room for the
loop's other work between them. Touches nothing.
"""

from collections import Counter
from collections.abc import Sequence
from heapq import nlargest

import trio

from engine.actors.explaining import CLASSES, open_connections, waiting
from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.actors.path import NO_ROUTE
from engine.actors.resting import Resting
from engine.mta.policy.breaker import BreakerState
from engine.observe.metrics import Family, Labels, counter, gauge

PATHS_SHOWN = 200  # by work; ten numbers each
PATHS_PER_PASS = 50  # 5 us each, and as much for each ten campaigns that wait
BREAKERS_SHOWN = 100  # of those that are not closed
OTHER = "other"
CONNECTIONS = "connections"


async def path_families(parts: Parts, now: float) -> list[Family]:
    """Every path that is known, the busiest by name."""
    opened = open_connections(parts)
    busy: list[tuple[int, int, float, str]] = []  # envelopes, connections, seconds of rest, path
    totals: Counter[str] = Counter()
    resting = known = nowhere = 0
    for number, key in enumerate(dict.fromkeys([*parts.paths, *parts.memory]), 1):
        if number % PATHS_PER_PASS == 0:
            await trio.lowlevel.checkpoint()
        path, memory = parts.paths.get(key), parts.memory.get(key)
        counts = waiting(path) if path is not None and (path.waiting or path.released) else {}
        envelopes = sum(counts.values())
        if key.startswith(NO_ROUTE):
            nowhere += envelopes
            continue
        known += 1
        rest_seconds = 0.0 if memory is None else _rest_seconds(parts, memory, now)
        resting += rest_seconds > 0
        if envelopes or opened[key] or rest_seconds:
            busy.append((envelopes, opened[key], rest_seconds, key))
            for name, count in counts.items():
                totals[name] += count
    shown = [key for *_, key in nlargest(PATHS_SHOWN, busy)]
    totals[CONNECTIONS] = sum(opened.values())
    families = _Named(parts, now, opened).families(shown, totals, others=len(busy) > len(shown))
    await trio.lowlevel.checkpoint()
    return [
        gauge("emass_paths", "Paths that are known, idle ones included.", known),
        gauge("emass_paths_resting", "Those that nothing goes over now.", resting),
        gauge("emass_routeless_envelopes", "Wait for the route of their domain, or for its bounce.", nowhere),
        *families,
        *await _breakers(parts, now),
    ]


def _rest_seconds(parts: Parts, memory: PathMemory, now: float) -> float:
    return max(0.0, Resting(parts, memory).until(now)[0] - now)


class _Named:
    """The numbers of the paths that are told one by one, and of the others together."""

    def __init__(self, parts: Parts, now: float, opened: Counter[str]) -> None:
        self._parts = parts
        self._now = now
        self._opened = opened
        self._waiting: dict[Labels, float] = {}
        self._ready: dict[Labels, float] = {}
        self._connections: dict[Labels, float] = {}
        self._window: dict[Labels, float] = {}
        self._rate: dict[Labels, float] = {}
        self._rest: dict[Labels, float] = {}
        self._failures: dict[Labels, float] = {}
        self._delivered: dict[Labels, float] = {}

    def __repr__(self) -> str:
        return f"<_Named of {len(self._ready)} paths>"

    def families(self, shown: Sequence[str], totals: Counter[str], *, others: bool) -> list[Family]:
        """`totals` is of all paths: what is not of those that are shown is the others'."""
        left = Counter(totals)
        for key in shown:
            left.subtract(self._tell(key))
        if others:
            self._count((OTHER, ""), left)
        of = ("path", "provider")
        return [
            gauge("emass_path_waiting_envelopes", "Wait for room, by class.", self._waiting, *of, "class"),
            gauge("emass_path_ready_envelopes", "Released, and not leased yet.", self._ready, *of),
            gauge("emass_path_connections", "Open connections, dials included.", self._connections, *of),
            gauge("emass_path_connections_allowed", "The window: how many may be.", self._window, *of),
            gauge("emass_path_rate_per_second", "Messages that may go; absent = any.", self._rate, *of),
            gauge("emass_path_rest_seconds", "For how long nothing goes.", self._rest, *of),
            gauge("emass_path_failures", "Connections in a row that failed.", self._failures, *of),
            counter("emass_path_delivered_total", "Messages that were taken there.", self._delivered, *of),
        ]

    def _tell(self, key: str) -> Counter[str]:
        path, memory = self._parts.paths.get(key), self._parts.memory.get(key)
        provider = memory.provider.name if memory is not None else "" if path is None else path.provider
        labels = (key, provider)
        counts = Counter(waiting(path))
        counts[CONNECTIONS] = self._opened[key]
        self._count(labels, counts)
        if memory is not None:
            self._window[labels] = float(memory.governor.connections)
            if (per_second := memory.governor.rate_per_second) is not None:
                self._rate[labels] = per_second
            self._rest[labels] = _rest_seconds(self._parts, memory, self._now)
            self._failures[labels] = float(memory.failures)
            self._delivered[labels] = float(memory.verdict.served)
        return counts

    def _count(self, labels: Labels, counts: Counter[str]) -> None:
        """What moved between two looks may leave less than nothing for the others."""
        for name in CLASSES.values():
            self._waiting[*labels, name] = float(max(0, counts[name]))
        self._ready[labels] = float(max(0, counts["released"]))
        self._connections[labels] = float(max(0, counts[CONNECTIONS]))


async def _breakers(parts: Parts, now: float) -> list[Family]:
    states = Counter({state.value: 0 for state in BreakerState})
    broken: dict[Labels, float] = {}
    for number, (name, breaker) in enumerate(list(parts.breakers.items()), 1):
        state = breaker.state(now)
        states[state.value] += 1
        if state is not BreakerState.CLOSED and len(broken) < BREAKERS_SHOWN:
            broken[name, state.value] = 1.0
        if number % PATHS_PER_PASS == 0:
            await trio.lowlevel.checkpoint()
    return [
        gauge(
            "emass_breakers",
            "Circuit breakers of providers, by state.",
            {(state,): float(count) for state, count in states.items()},
            "state",
        ),
        gauge(
            "emass_provider_breaker_open",
            "1 = this provider's word suppresses no address.",
            broken,
            "provider",
            "state",
        ),
    ]
