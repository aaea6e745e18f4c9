"""Paths: the busiest by name, what the others hold as one, and nothing lost between them."""

import trio
from trio.testing import MockClock

from engine.actors.measuring_paths import OTHER, PATHS_SHOWN, path_families
from engine.actors.parts import Parts
from engine.actors.path import NO_ROUTE, Path
from engine.config.shaping import ShapingRule
from engine.config.units import RateRange
from engine.mta.queue.fair import BULK, TRANSACTIONAL
from engine.observe.metrics import Family
from tests.fakes.engine_house import SOURCE, host_route, memory_parts


def busy_path(parts: Parts, site: str, waiting: int, rank: int = BULK) -> Path:
    key = site if site.startswith(NO_ROUTE) else f"out>{site}"
    path = parts.paths[key] = Path(key, None, host_route("192.0.2.1", 25, site), SOURCE)
    for spool_id in range(waiting):
        queue = parts.queues.add(7, f"{site}.domain", spool_id)
        if queue is not None:
            path.waiting.push(queue, rank, "")
    return path


def known_path(parts: Parts, site: str) -> None:
    parts.path(f"out>{site}", host_route("192.0.2.1", 25, site), SOURCE, "", trio.current_time())


async def measured(parts: Parts) -> dict[str, Family]:
    return {family.name: family for family in await path_families(parts, trio.current_time())}


async def test_a_path_is_told_with_what_it_has_and_may(autojump_clock: MockClock) -> None:
    parts = memory_parts(site=(ShapingRule(rate=RateRange.parse("4/s..40/s")),))
    known_path(parts, "mx.x.test")
    busy_path(parts, "mx.x.test", 5, TRANSACTIONAL).released.update({9: (7, "x.test"), 10: (7, "x.test")})
    memory = parts.memory["out>mx.x.test"]
    memory.failures = 2
    memory.suspend(trio.current_time() + 30, "a pause")
    found = await measured(parts)
    of = ("out>mx.x.test", "mx.x.test")
    assert found["emass_path_waiting_envelopes"].samples == {
        (*of, "transactional"): 5.0,
        (*of, "default"): 0.0,
        (*of, "bulk"): 0.0,
    }
    assert found["emass_path_ready_envelopes"].samples == {of: 2.0}
    assert found["emass_path_connections"].samples == {of: 0.0}
    assert found["emass_path_connections_allowed"].samples[of] == memory.governor.connections
    assert found["emass_path_rate_per_second"].samples[of] == memory.governor.rate_per_second
    assert found["emass_path_rest_seconds"].samples == {of: 30.0}
    assert found["emass_path_failures"].samples == {of: 2.0}
    assert (found["emass_paths"].samples, found["emass_paths_resting"].samples) == ({(): 1}, {(): 1})


async def test_a_path_that_idles_is_only_counted(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    known_path(parts, "mx.x.test")
    found = await measured(parts)
    assert found["emass_paths"].samples == {(): 1}
    assert found["emass_path_connections"].samples == {}


async def test_paths_beyond_the_busiest_are_told_as_one(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    for number in range(PATHS_SHOWN + 3):
        busy_path(parts, f"mx{number}.test", 2 if number < 3 else 4).released[number] = (7, "x.test")
    found = await measured(parts)
    waiting = found["emass_path_waiting_envelopes"].samples
    assert len({path for path, *_ in waiting}) == PATHS_SHOWN + 1
    assert waiting[OTHER, "", "bulk"] == 6.0
    assert sum(waiting.values()) == 4 * PATHS_SHOWN + 6
    assert found["emass_path_ready_envelopes"].samples[OTHER, ""] == 3.0
    assert (OTHER, "") not in found["emass_path_connections_allowed"].samples


async def test_what_has_no_route_is_no_path(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    busy_path(parts, f"{NO_ROUTE}nowhere.test", 3)
    found = await measured(parts)
    assert found["emass_routeless_envelopes"].samples == {(): 3}
    assert found["emass_paths"].samples == {(): 0}
    assert found["emass_path_waiting_envelopes"].samples == {}


async def test_a_breaker_is_named_while_it_is_open(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    for site in ("mx.a.test", "mx.b.test"):
        known_path(parts, site)
    for _ in range(30):
        parts.breakers["mx.b.test"].count(trio.current_time(), sender=True)
    found = await measured(parts)
    assert found["emass_breakers"].samples == {("closed",): 1.0, ("open",): 1.0, ("half open",): 0.0}
    assert found["emass_provider_breaker_open"].samples == {("mx.b.test", "open"): 1.0}
