"""The engine explains itself: for a path or an address, what holds, between which bounds, and why mail waits.

Turns what the scheduler, the paths' memories and the shaping rules hold into plain values for an
operator. Decides nothing. Each thing that makes mail wait now is one sentence; where nothing does, that
is one, too. What strangers said (replies) is in these texts: who prints them escapes them. Touches
nothing, waits for nothing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict

from engine.actors.memory import PathMemory
from engine.actors.outlook import outlooks
from engine.actors.parts import Parts
from engine.actors.path import NO_ROUTE, Path, path_key
from engine.actors.resting import STOPPED_SECONDS, Resting
from engine.model.reply import TransportFailure
from engine.mta.net.mx import Route
from engine.mta.policy.breaker import BreakerState
from engine.mta.policy.egress import Way
from engine.mta.policy.forecast import Forecast, Span, forecast, total_told
from engine.mta.policy.holds import Hold
from engine.mta.policy.warmup import UNLIMITED
from engine.mta.queue.fair import BULK, DEFAULT, TRANSACTIONAL
from engine.storage import SpaceLevel

ROWS_MAX = 500  # paths in one answer: some 0.4 MB of the bus's 1 MB
HOLDS_SHOWN_MAX = 100
HOSTS_SHOWN_MAX = 24
CLASSES = {TRANSACTIONAL: "transactional", DEFAULT: "default", BULK: "bulk"}
# What one engine sends where nothing else holds it: signed mail on two to eight cores (performance.md).
ENGINE_PER_SECOND = Span(300.0, 1_500.0, 5_000.0)


def path_rows(parts: Parts, now: float) -> tuple[list[dict[str, Any]], int]:
    """Every path that is known, those that hold something up first, and how many more there are."""
    opened, held = open_connections(parts), parts.holds.all(now)
    keys = [key for key in dict.fromkeys([*parts.paths, *parts.memory]) if not key.startswith(NO_ROUTE)]
    keys.sort(key=lambda key: _weight(parts, key, now), reverse=True)
    rows = [path_row(parts, key, opened[key], held, now) for key in keys[:ROWS_MAX]]
    return rows, max(0, len(keys) - ROWS_MAX)


def _weight(parts: Parts, key: str, now: float) -> tuple[float, int]:
    memory = parts.memory.get(key)
    return 0.0 if memory is None else Resting(parts, memory).until(now)[0], sum(
        waiting(parts.paths.get(key)).values()
    )


def path_row(parts: Parts, key: str, opened: int, held: Sequence[Hold], now: float) -> dict[str, Any]:
    path, memory = parts.paths.get(key), parts.memory.get(key)
    row: dict[str, Any] = {
        "path": key,
        "provider": "" if path is None else path.provider,
        "waiting": waiting(path),
        "connections": opened,
        "connections_allowed": None,
        "rate_per_second": None,
        "resting_seconds": 0.0,
        "resting_why": "",
        "why": ["not begun yet"],
    }
    if memory is None:
        return row
    until, why = Resting(parts, memory).until(now)
    return row | {
        "provider": memory.provider.name,
        "connections_allowed": memory.governor.connections,
        "rate_per_second": memory.governor.rate_per_second,
        "resting_seconds": round(max(0.0, until - now), 3),
        "resting_why": why,
        "why": why_it_waits(parts, memory, path, opened, held, now),
        "suspended_seconds": max(0.0, memory.suspended_until - now),
        "failures": memory.failures,
        "served": memory.verdict.served,
        "pipelining": memory.verdict.inside.value,
        "across": memory.verdict.across.value,
        "chunking": memory.verdict.chunking.value,
    }


def waiting(path: Path | None) -> dict[str, int]:
    """How many wait for a path, by class; `released` ids are at its site already."""
    counts = dict.fromkeys((*CLASSES.values(), "released"), 0)
    if path is not None:
        for flow in path.waiting.flows():
            counts[CLASSES[flow.rank]] += sum(len(queue) for queue in flow.queues())
        counts["released"] = len(path.released)
    return counts


def open_connections(parts: Parts) -> Counter[str]:
    """Connections by path, those of earlier incarnations included."""
    return Counter(name.rpartition("#")[0] for name in parts.connections.names(""))


def hold_rows(parts: Parts, now: float, provider: str = "") -> list[dict[str, Any]]:
    """What is held, the hold that ends first in front; at one provider or anywhere."""
    held = [hold for hold in parts.holds.all(now) if provider in ("", hold.provider)]
    return [hold_facts(hold, now) for hold in held[:HOLDS_SHOWN_MAX]]


def hold_facts(hold: Hold, now: float) -> dict[str, Any]:
    return {
        "provider": hold.provider,
        "subject": hold.subject.value,
        "value": hold.value,
        "seconds": round(hold.until - now, 3),
        "reason": hold.reason,
    }


def forecast_facts(found: Forecast) -> dict[str, Any]:
    return asdict(found) | {"bound_by": found.bound_by.value}


def forecasts(parts: Parts, now: float) -> dict[str, Any]:
    """For all that waits in the queues, and for each provider (the longest first)."""
    found = forecast(outlooks(parts, now), ENGINE_PER_SECOND)
    whole, untold = total_told(found)
    return {
        "total": forecast_facts(whole),
        "untold_messages": untold,
        "providers": [forecast_facts(one) for one in found[:ROWS_MAX]],
    }


def way_of(parts: Parts, domain: str, campaign: int) -> Way:
    """The way of mail to a domain: an operator's reroute, or as the egress rules say."""
    workspace = parts.standing(campaign).workspace if campaign else ""
    wall = parts.clock.now()
    override = parts.stops.reroute(campaign, workspace, domain, wall) if parts.stops else None
    return parts.egress.way(campaign, workspace, domain, override)


def explain(
    parts: Parts, domain: str, route: Route | TransportFailure, campaign: int, now: float
) -> dict[str, Any]:
    """All that holds for mail to `domain` (of `campaign`; 0 = of any)."""
    if isinstance(route, TransportFailure):
        trouble = route.detail or route.kind.value
        return {"domain": domain, "trouble": trouble, "why": [f"there is no route: {trouble}"]}
    hosts = [host.name for host in route.hosts]
    provider = parts.provider_name(route, domain)
    standing = parts.standing(campaign) if campaign else None
    workspace = "" if standing is None else standing.workspace
    way = way_of(parts, domain, campaign)
    source = parts.source_for(way, domain, provider)
    lane = domain if domain in parts.ruled_domains else ""
    key = path_key(source, route.site, lane or route.lane)
    memory, path = parts.memory.get(key), parts.paths.get(key)
    opened = open_connections(parts)[key]
    if memory is None:
        why = ["nothing has gone this way yet: it starts within the bounds of its shaping"]
    else:
        held = () if campaign else parts.holds.all(now)  # of a campaign, only its own counts
        why = why_it_waits(parts, memory, path, opened, held, now)
    if standing is not None:
        hold = parts.holds.of(provider, workspace, campaign, standing.sending_domain, now)
        why = ([f"it is held for {_duration(hold.until - now)}: {hold}"] if hold else []) + why
        own = parts.shaping.flow(workspace, campaign, provider)
        if own.rate is not None:
            why.append(f"its campaign or workspace has a rate of its own: {own.rate} ({own.rate_key})")
    wall = parts.clock.now()
    if parts.stops:
        stops = (parts.stops.holds_domain(domain, wall), parts.stops.holds_flow(campaign, workspace, wall))
        why = [stop.reason for stop in stops if stop is not None] + why
    rows = parts.shaping.explain(source.name, route.site, hosts, lane or domain, workspace, campaign)
    found = {one.provider: one for one in forecast(outlooks(parts, now), ENGINE_PER_SECOND)}
    return {
        "domain": domain,
        "site": route.site,
        "hosts": hosts[:HOSTS_SHOWN_MAX],
        "provider": provider,
        "source": source.name,
        "path": key,
        "known": memory is not None,
        "values": [asdict(row) for row in rows],
        "connections": opened,
        "waiting": waiting(path),
        "holds": hold_rows(parts, now, provider),
        "pins": [
            {"knob": pin.knob.value, "value": pin.value, "reason": pin.reason, "author": pin.author}
            for pin in parts.controls.of(key)
        ],
        "state": None if memory is None else _state(parts, memory, now),
        "provider_state": None if memory is None else _provider_state(parts, memory, now),
        "why": why,
        "forecast": forecast_facts(found[provider]) if provider in found else None,
    }


def why_it_waits(
    parts: Parts, memory: PathMemory, path: Path | None, opened: int, held: Sequence[Hold], now: float
) -> list[str]:
    """One sentence for each thing that makes mail wait on this path now, the hardest first."""
    provider, governor = memory.provider, memory.governor
    count = 0 if path is None else sum(waiting(path).values())
    found: list[str] = []
    until, why = Resting(parts, memory).until(now)
    if until:
        stopped = until - now >= STOPPED_SECONDS
        found.append(
            f"nothing goes {'until it is resumed' if stopped else 'for ' + _duration(until - now)}: {why}"
        )
    if parts.space is not None and parts.space.level is SpaceLevel.STOP_LEASING:
        found.append("the disk is full: nothing is sent before there is room for what becomes of it")
    for hold in held[:HOLDS_SHOWN_MAX]:
        if hold.provider == provider.name:
            found.append(
                f"{hold.subject.value} {hold.value} is held for {_duration(hold.until - now)}: {hold.reason}"
            )
    if provider.warmup is not None and (room := provider.warmup.room) < UNLIMITED:
        word = "is used up" if not room else f"leaves {room:,}"
        found.append(f"today's warm-up quota for {provider.name} over {provider.source} {word}")
    if not count:
        return found or ["nothing waits here"]
    state = governor.state()
    rate = governor.rate_per_second
    if rate is not None:
        found.append(f"{count:,} wait at {_rate(rate)}, about {_duration(count / rate)}: {state['rate_why']}")
    shared = provider.throttle.per_second
    if shared is not None and (rate is None or shared < rate):
        found.append(f"all paths to {provider.name} share {_rate(shared)}")
    slots = provider.slots
    if slots.limit is not None and slots.taken >= slots.limit and opened < governor.connections:
        found.append(f"all {slots.limit} connections that {provider.name} allows are taken: {slots!r}")
    elif opened >= governor.connections:
        why = str(state["connections_why"])
        found.append(f"{opened} of {governor.connections} connections are open: {why}")
    if len(parts.connections) >= parts.config.engine.connections_max:
        found.append(f"the engine's {parts.config.engine.connections_max:,} connections are all in use")
    return found or [f"{count:,} wait for their turn: nothing holds them back"]


def _state(parts: Parts, memory: PathMemory, now: float) -> dict[str, Any]:
    """The governor's own words, with times as seconds from now."""
    state = dict(memory.governor.state())
    state["connections_next_seconds"] = _ahead(state.pop("connections_next_at"), now)
    state["paused_seconds"] = _ahead(state.pop("paused_until"), now)
    until, why = Resting(parts, memory).until(now)
    return state | {
        "resting_seconds": round(max(0.0, until - now), 3),
        "resting_why": why,
        "connections_in_a_row_that_failed": memory.failures,
        "next_message_seconds": round(memory.wait_seconds(now), 3),
    }


def _provider_state(parts: Parts, memory: PathMemory, now: float) -> dict[str, Any]:
    provider = memory.provider
    breaker = provider.breaker
    opened = breaker.state(now) is not BreakerState.CLOSED
    warmup = provider.warmup
    return {
        "breaker": breaker.state(now).value,
        "breaker_why": breaker.reason if opened else "",
        "connections_limit": provider.slots.limit,
        "connections_taken": provider.slots.taken,
        "rate_per_second": provider.throttle.per_second,
        "warm_up": None if warmup is None else repr(warmup).strip("<>"),
        "warm_up_room": None if warmup is None else min(warmup.room, UNLIMITED),
        "paths": sum(each.provider is provider for each in parts.memory.values()),
    }


def _ahead(at: object, now: float) -> float:
    assert isinstance(at, float | int)
    return round(max(0.0, at - now), 3)


def _rate(per_second: float) -> str:
    if per_second >= 100:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.3g}/s" if per_second >= 1 else f"{per_second * 60:.3g}/min"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60):,} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
