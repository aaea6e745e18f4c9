"""The shortest time in which a fleet can be through with a list, knowing nothing of the simulation.

Each resource gets its work divided by its capacity, and the slowest one counts: the engines' speed, the
coordinator and its bus, for each provider what its limits let all addresses do together, for each large
recipient domain what the one address that a broadcaster uses for it may do, a limit that holds for the
sending domain over all addresses, the days of a warm-up plan, the shortest wait of who is put off. Where
broadcasters are lost, their part of the capacity is missing for that time. Starting up, finding limits,
refusals and the way of a chunk cost nothing here, so that nothing can be quicker.
"""

import math
from collections.abc import Callable, Sequence

from msgspec import Struct

from bench.simulation.model import Broadcaster, Scenario
from bench.simulation.path import DAY_SECONDS
from bench.simulation.providers import Provider
from engine.model.envelope import CHUNK_ENTRIES_MAX

ENGINES, COORDINATOR, BUS, RETRIES = "engines", "coordinator", "bus", "retries"

Capacity = Callable[[Sequence[Broadcaster]], float]


class Bound(Struct, frozen=True):
    """`by`: what holds it up; `seconds_by`: what each resource alone would take."""

    seconds: float
    by: str
    seconds_by: dict[str, float]


def optimum(scenario: Scenario, messages: int | None = None) -> Bound:
    """The bound for `messages` of the scenario's list (None: all of it)."""
    count = scenario.messages if messages is None else messages
    coordinator = scenario.coordinator
    chunks = math.ceil(count / CHUNK_ENTRIES_MAX)
    attempts = sum(_attempts(each, count) for each in scenario.providers)
    per_chunk = min(coordinator.publishes_per_second, coordinator.claims_per_second)
    found = {
        ENGINES: _seconds(scenario, attempts, lambda live: sum(each.per_second for each in live)),
        COORDINATOR: count / coordinator.people_per_second,
        BUS: chunks / per_chunk,
        RETRIES: max((_wait_seconds(each, count) for each in scenario.providers), default=0.0),
    }
    for provider in scenario.providers:
        for name, seconds in _of_provider(scenario, provider, count):
            found[name] = max(found.get(name, 0.0), seconds)
    by = max(found, key=lambda name: found[name])
    return Bound(found[by], by, found)


def report_seconds(scenario: Scenario, messages: int) -> float:
    """How long one core takes at least to cut the list and to fold all events."""
    attempts = sum(_attempts(each, messages) for each in scenario.providers)
    coordinator = scenario.coordinator
    return messages / coordinator.people_per_second + attempts / coordinator.events_per_second


def _attempts(provider: Provider, messages: int) -> float:
    first = max(0.0, messages * provider.share - 1)  # a list is cut in whole people
    return first * (1 + provider.greylisted_share + (1 - provider.greylisted_share) * provider.busy_share) - 2


def _wait_seconds(provider: Provider, messages: int) -> float:
    share = provider.greylisted_share + provider.busy_share
    curve = provider.shaping.retry
    return curve.first * (1 - curve.jitter) if messages * provider.share * share > 2 else 0.0


def _of_provider(scenario: Scenario, provider: Provider, messages: int) -> list[tuple[str, float]]:
    attempts = _attempts(provider, messages)
    if not provider.sites or attempts <= 0:
        return []
    each = provider.source_per_second
    burst = 0.0
    if not math.isinf(provider.per_second):
        burst = (
            provider.per_second * max(provider.burst_seconds, provider.window_seconds) * provider.sites + 2
        )
    addresses = sum(one.sources for one in scenario.broadcasters)
    found = [
        (
            provider.name,
            _seconds(
                scenario,
                attempts - burst * addresses,
                lambda live: each * sum(one.sources for one in live),
            ),
        )
    ]
    for domain, part in provider.domains:
        less = burst * len(scenario.broadcasters)
        seconds = _seconds(scenario, attempts * part - less, lambda live: each * len(live))
        found.append((f"{provider.name} ({domain})", seconds))
    if not math.isinf(provider.shared_per_second):
        shared = provider.shared_per_second
        seconds = (attempts - shared * provider.burst_seconds) / shared
        found.append((f"{provider.name}, shared", max(0.0, seconds)))
    if scenario.warm_up:
        found.append((f"{provider.name}, warm-up", _warm_up_seconds(scenario.warm_up, addresses, attempts)))
    return found


def _warm_up_seconds(per_day: Sequence[int], addresses: int, attempts: float) -> float:
    """The beginning of the day on which the last goes, if every day's quota is used."""
    left = attempts
    for day, quota in enumerate(per_day):
        left -= quota * addresses
        if left <= 0:
            return float(day * DAY_SECONDS)
    return float(len(per_day) * DAY_SECONDS)


def _seconds(scenario: Scenario, work: float, capacity: Capacity) -> float:
    """When `work` is done by those who live, at their capacity together."""
    everybody, loss = scenario.broadcasters, scenario.loss
    if loss is None:
        return max(0.0, work) / capacity(everybody)
    left, began = max(0.0, work), 0.0
    rest = everybody[loss.count :]
    phases = [(loss.at_seconds, everybody)]
    if loss.returns_after_seconds is not None:
        phases.append((loss.at_seconds + loss.returns_after_seconds, rest))
        rest = everybody
    for ends, live in phases:
        done = capacity(live) * (ends - began)
        if done >= left:
            return began + left / capacity(live)
        left, began = left - done, ends
    return began + (left / capacity(rest) if rest else math.inf)
