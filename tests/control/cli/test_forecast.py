"""Forecasts: the list is counted in a limited time, limits are used, guesses called so."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from control.cli import forecast as module
from control.cli.csv_source import CsvSource, inspect_csv
from control.cli.fold import Fold
from control.cli.forecast import (
    PUT_OFF,
    RELAY,
    SMALLER,
    Bounds,
    Counted,
    Running,
    announce,
    count_domains,
    describe,
    find_routes,
    first_outlooks,
    predict,
)
from engine.actors.parts import Parts
from engine.app import Engine
from engine.config.shaping import ProviderRule, ShapingRule, WarmUpPlan
from engine.config.tables import Config, EngineTable
from engine.config.units import RateRange
from engine.model.event import Deferred, Delivered, EventBatch
from engine.mta.net.mx import Route
from engine.mta.policy.forecast import Bound, Forecast
from tests.fakes.engine_house import FakeResolver, host_route, memory_parts

LAMP = ProviderRule(name="lamp", mx=("lamp.test",))


def a_list(folder: Path, addresses: list[str]) -> CsvSource:
    (folder / "people.csv").write_text("email\n" + "\n".join(addresses) + "\n")
    return inspect_csv(folder / "people.csv")


def an_engine(parts: Parts) -> Engine:
    return Engine(parts, None)  # type: ignore[arg-type]


def test_a_short_list_is_counted_whole_without_its_flaws(tmp_path: Path) -> None:
    counted = count_domains(a_list(tmp_path, ["a@x.test", "b@x.test", "no address", "c@y.test", "a@x.test"]))
    assert (counted.domains, counted.people, counted.share) == ({"x.test": 2, "y.test": 1}, 3, 1.0)


def test_of_a_long_list_a_part_is_counted_and_scaled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = a_list(tmp_path, [f"reader{n:05d}@x.test" for n in range(20_000)])
    ticks = iter(range(0, 10_000, 10))
    counted = count_domains(source, lambda: float(next(ticks)))
    assert counted.share < 1
    assert counted.domains["x.test"] == pytest.approx(20_000, rel=0.5)


def test_a_list_that_cannot_be_used_is_the_run_s_business(tmp_path: Path) -> None:
    assert count_domains(a_list(tmp_path, ["none", "nobody"])).people == 0


async def test_the_largest_domains_are_looked_up_and_nobody_waits_for_slow_dns(
    autojump_clock: MockClock,
) -> None:
    resolver = FakeResolver()
    resolver.serve(*(f"d{n}.test" for n in range(40)))
    counted = Counted({f"d{n}.test": n for n in range(40)} | {"gone.test": 99}, 999, 1.0)
    found = await find_routes(counted, resolver)  # type: ignore[arg-type]
    assert len(found) == module.DOMAINS_LOOKED_UP
    assert found["gone.test"] is None
    assert "d39.test" in found
    resolver.seconds = 60.0
    assert await find_routes(counted, resolver) == {}  # type: ignore[arg-type]
    assert trio.current_time() == module.LOOK_UP_SECONDS


async def test_limits_and_plans_of_the_shaping_bound_the_first_forecast(autojump_clock: MockClock) -> None:
    rule = ShapingRule(provider="lamp", rate=RateRange.parse("5/s..20/s"))
    plan = WarmUpPlan(provider="lamp", source="out", per_day=(50, 100))
    parts = memory_parts(provider=(LAMP,), site=(rule,), warmup=(plan,))
    routes: dict[str, Route | None] = {
        "a.test": host_route("127.0.0.1", 25, "mx1.lamp.test"),
        "b.test": host_route("127.0.0.1", 25, "mx2.lamp.test"),
        "c.test": host_route("192.0.2.1", 25, "mx.c.test"),
        "gone.test": None,
    }
    domains = {"a.test": 600, "b.test": 200, "c.test": 100, "gone.test": 50}
    found = first_outlooks(Counted(domains, 1_000, 1.0), routes, Bounds.of_engine(an_engine(parts)), 0.5)
    by_name = {one.provider: one for one in found}
    assert {name: one.waiting for name, one in by_name.items()} == {"lamp": 400, "mx.c.test": 50, SMALLER: 25}
    lamp = by_name["lamp"]
    assert (lamp.rate_floor, lamp.rate_ceiling, lamp.quotas) == (5.0, 20.0, (50, 100))
    assert by_name["mx.c.test"].rate_floor == module.GUESS_PER_SECOND
    told = announce(predict(found), found)
    assert told.startswith("Forecast: 475 messages in all: about ")
    assert "warm-up at lamp; the limits of 1 of the large receivers are not known yet" in told


async def test_a_relay_of_our_own_is_one_path(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    parts.static_route = lambda: host_route("127.0.0.1", 25)
    found = first_outlooks(Counted({"a.test": 10}, 10, 1.0), {}, Bounds.of_engine(an_engine(parts)))
    assert [(one.provider, one.waiting) for one in found] == [(RELAY, 10)]
    assert "not known yet" not in announce(predict(found), found)


def test_without_an_engine_the_configuration_bounds_it() -> None:
    rule = ShapingRule(provider="lamp", rate=RateRange.parse("5/s..20/s"))
    plan = WarmUpPlan(provider="lamp", source="default", per_day=(50, 100))
    bounds = Bounds.of_config(
        Config(engine=EngineTable(provider=(LAMP,), site=(rule,), warmup=(plan,))), relay=False
    )
    routes: dict[str, Route | None] = {"a.test": host_route("127.0.0.1", 25, "mx1.lamp.test")}
    (found,) = first_outlooks(Counted({"a.test": 600}, 600, 1.0), routes, bounds)
    assert (found.provider, found.rate_floor, found.quotas) == ("lamp", 5.0, (50, 100))
    assert 0 < found.day_seconds_left <= 86_400
    relayed = Bounds.of_config(Config(), relay=True)
    assert [one.provider for one in first_outlooks(Counted({}, 5, 1.0), {}, relayed)] == [RELAY]


def test_nothing_left_is_told_as_nothing() -> None:
    assert predict([]).messages == 0


# --- while it runs --------------------------------------------------------------------------------------


def an_event(kind: Any, spool_id: int, attempt: int) -> Any:
    return kind(7, 1, spool_id, "x.test", attempt, "DATA", "", "", "", "mx", "out", "mx", "", 0.1)


async def test_what_is_left_goes_the_way_of_what_waits_and_what_was_put_off_waits_for_its_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = memory_parts()
    fold = Fold(7)
    events = [an_event(Deferred, n, 0) for n in range(10)] + [
        an_event(Delivered, 100 + n, 0) for n in range(90)
    ]
    fold.add(EventBatch("node", "e", 1, 0.0, "node", tuple(events)))
    running = Running(an_engine(parts), fold)
    assert (fold.attempts, fold.put_off, fold.retries) == (100, 10, 0)
    found = running._outlooks(500)
    assert [(one.provider, one.waiting, one.deferred_share) for one in found] == [
        (SMALLER, 490, 0.1),
        (PUT_OFF, 10, 0.1),
    ]
    for _ in range(5):
        parts.queues.add(7, "looked-up.test", 1)
    assert [one.waiting for one in running._outlooks(500)] == [490, 10]


async def test_it_is_renewed_every_second_only(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(an_engine(memory_parts()), Fold(7))
    first = running.look(500, 10.0)
    assert first.startswith("done in about ")
    assert running.look(100_000, 10.5) == first
    assert running.look(100_000, 11.1) != first


def test_in_words() -> None:
    known = Forecast("", 10, 480.0, 720.0, 1_200.0, Bound.RATE, "")
    assert describe(known, "mx1.lamp.test+mx2.lamp.test") == (
        "done in about 12 min (8 min to 20 min), held up by lamp.test: rate"
    )
    endless = Forecast("", 10, 480.0, 720.0, None, Bound.ENGINE, "")
    assert (
        describe(endless, "lamp") == "done in about 12 min (8 min to ?), held up by what this engine can do"
    )
    assert describe(known, PUT_OFF).endswith("held up by retries")
    untold = Forecast("", 10, 0.0, None, None, Bound.UNKNOWN, "")
    assert describe(untold, "lamp") == "when it is done cannot be told (lamp: unknown)"
