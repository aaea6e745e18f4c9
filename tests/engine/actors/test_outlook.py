"""What a forecast is told: waiting, measured speed, bounds, pauses; paths behind one door together."""

import pytest
import trio
from trio.testing import MockClock

from engine.actors.outlook import UNROUTED, measure, outlooks, retry_seconds
from engine.actors.parts import Parts
from engine.actors.path import Path
from engine.config.shaping import ProviderRule, ShapingRule
from engine.config.units import RateRange
from engine.mta.policy.shaping import RetryCurve
from engine.mta.queue.fair import BULK
from tests.fakes.engine_house import SOURCE, host_route, memory_parts


def busy_path(parts: Parts, site: str, waiting: int) -> Path:
    key = f"out>{site}"
    path = parts.paths[key] = Path(key, None, host_route("192.0.2.1", 25, site), SOURCE)
    for spool_id in range(waiting):
        queue = parts.queues.add(7, f"{site}.domain", spool_id)
        if queue is not None:
            path.waiting.push(queue, BULK, "")
    return path


def told(parts: Parts, site: str, *, seconds: float, per_second: int) -> None:
    """The path is answered `per_second` messages a second, each 0.2 s on the wire."""
    memory = parts.path(f"out>{site}", host_route("192.0.2.1", 25, site), SOURCE, "", 0.0)
    for half in range(1, int(2 * seconds) + 1):
        memory.governor.delivered(half / 2, per_second // 2, 0.2 * (per_second // 2))
        memory.governor.tick(half / 2, busy=True, open_connections=2)


async def test_a_path_is_told_with_what_waits_and_how_fast_it_went(autojump_clock: MockClock) -> None:
    parts = memory_parts(site=(ShapingRule(rate=RateRange.parse("4/s..40/s")),))
    busy_path(parts, "mx.x.test", 500).released.update({9_001: (7, "x.test")})
    told(parts, "mx.x.test", seconds=20, per_second=40)
    (found,) = outlooks(parts, 20.0)
    assert (found.provider, found.waiting) == ("mx.x.test", 501)
    assert found.per_second == pytest.approx(40, rel=0.06)
    assert found.message_seconds == pytest.approx(0.2)
    assert (found.rate_floor, found.rate_ceiling) == (4.0, 40.0)
    assert (found.paused_seconds, found.quotas) == (0.0, ())
    assert found.retry_seconds[0] == parts.memory["out>mx.x.test"].shaping.retry.first


async def test_the_speed_of_a_path_that_still_grows_is_its_least(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    busy_path(parts, "mx.x.test", 500)
    told(parts, "mx.x.test", seconds=2, per_second=10)
    (found,) = outlooks(parts, 2.0)
    assert (found.per_second, found.connections) == (0.0, 20)
    assert found.rate_floor == pytest.approx(10, rel=0.4)


async def test_old_speed_is_none(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    told(parts, "mx.x.test", seconds=20, per_second=40)
    assert measure([parts.memory["out>mx.x.test"]], 500.0).count == 0


async def test_where_no_connection_succeeds_there_is_no_end_to_the_pause(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    busy_path(parts, "mx.x.test", 5)
    told(parts, "mx.x.test", seconds=2, per_second=10)
    memory = parts.memory["out>mx.x.test"]
    memory.suspend(60.0, "a pause")
    assert outlooks(parts, 2.0)[0].paused_seconds == 58.0
    memory.failures = memory.shaping.failures_max
    assert outlooks(parts, 2.0)[0].paused_seconds == float("inf")


async def test_paths_that_share_a_door_are_looked_at_together(autojump_clock: MockClock) -> None:
    rule = ShapingRule(provider="door", provider_connections=2, provider_rate=RateRange.parse("100/s"))
    parts = memory_parts(site=(rule,), provider=(ProviderRule(name="door", mx=("door.test",)),))
    for site in ("a.door.test", "b.door.test"):
        busy_path(parts, site, 50)
        told(parts, site, seconds=10, per_second=20)
    found = outlooks(parts, 10.0)
    assert [(one.provider, one.waiting, one.connections) for one in found] == [("door", 100, 2)]
    assert found[0].per_second == pytest.approx(40, rel=0.1)
    assert found[0].rate_ceiling == 100.0


async def test_what_has_no_route_or_no_memory_yet_is_not_forgotten(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    busy_path(parts, "mx.x.test", 5).provider = "lamp"
    parts.queues.add(7, "looked-up.test", 999)
    parts.paths["!gone.test"] = Path("!gone.test")
    found = outlooks(parts, trio.current_time())
    assert [(one.provider, one.waiting) for one in found] == [("lamp", 5), (UNROUTED, 1)]


def test_retries_come_later_and_later() -> None:
    assert retry_seconds(RetryCurve(10.0, 2.0, 30.0, 0.2))[:4] == (10.0, 30.0, 60.0, 90.0)
