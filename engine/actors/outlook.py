"""What is known of each egress path for a forecast: how much waits, how fast it went, what bounds it.

Reads what the scheduler and the paths' memories hold, and decides nothing (`policy.forecast` does the
sums). How fast a path went is taken from the signals of its governor. Paths that share their provider's
connections or rate take turns, so those are looked at together. Touches nothing, waits for nothing.
"""

from itertools import accumulate
from math import inf

from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.actors.path import NO_ROUTE, Path
from engine.mta.policy.forecast import DAY_SECONDS, PathOutlook
from engine.mta.policy.governor import Knob
from engine.mta.policy.governor_rate import Phase
from engine.mta.policy.shaping import RetryCurve

MEASURED_SECONDS = 60.0
RECENT_SECONDS = 10.0  # enough where it counts ENOUGH: a rate that grows is not held down by its past
ENOUGH = 50
GAP_SECONDS = 1.0  # ticks come twice a second; what lies further apart was a pause
RETRIES_AHEAD = 20
UNROUTED = "domains without a route yet"


class Measure:
    """How fast one or several paths went, lately."""

    __slots__ = ("count", "per_second", "wire_seconds")

    def __init__(self, per_second: float, count: int, wire_seconds: float) -> None:
        self.per_second = per_second
        self.count = count
        self.wire_seconds = wire_seconds  # of a message, on average

    def __repr__(self) -> str:
        return f"<Measure {self.per_second:.3g}/s over {self.count} messages>"


def outlooks(parts: Parts, now: float) -> list[PathOutlook]:
    """One for each path with work, those that share a door joined, and one for what has no route yet."""
    left = len(parts.queues)
    found: list[PathOutlook] = []
    doors: dict[tuple[str, str], list[tuple[int, PathMemory]]] = {}
    for path in list(parts.paths.values()):
        waiting = waiting_count(path)
        left -= waiting
        waiting += len(path.released)
        if not waiting or path.key.startswith(NO_ROUTE):
            continue
        memory = parts.memory.get(path.key)
        if memory is None:
            found.append(PathOutlook(path.provider or path.key, waiting))
        elif memory.shaping.provider_connections is None and memory.shaping.provider_rate is None:
            found.append(_outlook(parts, waiting, [memory], now))
        else:
            provider = memory.provider
            doors.setdefault((provider.name, provider.source), []).append((waiting, memory))
    for sharing in doors.values():
        waiting = sum(count for count, _ in sharing)
        found.append(_outlook(parts, waiting, [memory for _, memory in sharing], now))
    if left > 0:
        found.append(PathOutlook(UNROUTED, left))
    return found


def waiting_count(path: Path) -> int:
    """How many ids wait for a path with the scheduler."""
    return sum(len(queue) for flow in path.waiting.flows() for queue in flow.queues())


def measure(memories: list[PathMemory], now: float) -> Measure:
    """What these paths were answered lately, together."""
    recent = _sum(memories, now, RECENT_SECONDS)
    return recent if recent.count >= ENOUGH else _sum(memories, now, MEASURED_SECONDS)


def _sum(memories: list[PathMemory], now: float, span: float) -> Measure:
    count, wire, longest = 0, 0.0, 0.0
    for memory in memories:
        seconds, later = 0.0, None
        for signal in reversed(memory.governor.signals):
            if later is not None:  # what it says was answered since `signal`
                seconds += min(later.at - signal.at, GAP_SECONDS)
                count += later.delivered
                wire += later.seconds
            if signal.at < now - span:
                break
            later = signal
        longest = max(longest, seconds)
    if not count or longest < GAP_SECONDS:
        return Measure(0.0, 0, 0.0)
    return Measure(count / longest, count, wire / count)


def retry_seconds(curve: RetryCurve) -> tuple[float, ...]:
    """When the first, second, ... retry of a message is over, counted from its first attempt."""
    waits = (min(curve.first * curve.factor**index, curve.max) for index in range(RETRIES_AHEAD))
    return tuple(accumulate(waits))


def _paused(memory: PathMemory, now: float) -> float:
    """How long nothing goes; inf where no connection succeeds, since nobody knows when one will."""
    if memory.failures >= memory.shaping.failures_max:
        return inf
    return max(0.0, memory.rest(now)[0] - now)


def _outlook(parts: Parts, waiting: int, memories: list[PathMemory], now: float) -> PathOutlook:
    memory, provider = memories[0], memories[0].provider
    measured = measure(memories, now)
    shaping = memory.shaping
    bounds = [each for each in (shaping.rate, shaping.provider_rate) if each is not None]
    paused = min(_paused(each, now) for each in memories)
    connections = memory.governor.connections
    if provider.slots.limit is not None:
        connections = min(provider.slots.limit, sum(each.governor.connections for each in memories))
    per_second, floor = measured.per_second, min((each.floor.per_second for each in bounds), default=None)
    if len(memories) == 1:
        state = memory.governor.state()
        rate = memory.governor.rate_per_second
        ceiling = None if shaping.rate is None else shaping.rate.ceiling.per_second
        grows = state["rate_phase"] == Phase.STARTING.value and (ceiling is None or (rate or 0.0) < ceiling)
        if rate is not None and Knob.RATE.value in memory.governor.pinned:
            per_second = rate
        elif rate is not None and grows:  # what went is the least
            per_second, floor = 0.0, max(floor or 0.0, per_second, 1.0)
            connections = shaping.connections.ceiling
        elif rate is not None and per_second:  # half of the pauses of finding out are taken to be over
            per_second = max(per_second, (per_second + rate) / 2)
    wall = parts.clock.now()
    return PathOutlook(
        provider.name,
        waiting,
        per_second=per_second,
        measured_count=measured.count,
        rate_floor=floor,
        rate_ceiling=min((each.ceiling.per_second for each in bounds), default=None),
        connections=connections,
        message_seconds=measured.wire_seconds,
        quotas=() if provider.warmup is None else provider.warmup.ahead(),
        day_seconds_left=DAY_SECONDS - wall % DAY_SECONDS,
        retry_seconds=retry_seconds(shaping.retry),
        paused_seconds=paused,
    )
