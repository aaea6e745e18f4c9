"""Somebody sets the system's clock by an hour, forward and back, while a campaign flows and retries wait.

The engine reads a wall clock that the test moves; monotonic time goes on, as it does on a machine. Nobody
is lost or written to twice, retries come in time, and the operator is told.
"""

import time
from pathlib import Path

import pytest
import structlog
import trio

from bench.world.manners import Manners, Starttls, busy
from bench.world.process import world_process
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from engine.app import open_engine
from engine.runtime.clock import SystemClock
from tests.fakes.engine_house import CAMPAIGN, engine_config, letter, submit, until, until_finished
from tests.fakes.reckoning import Reckoning

pytestmark = pytest.mark.slow

HOUR = 3_600.0
YEARS = 30 * 365 * 86_400.0
WORLD = WorldSpec(
    name="patient",
    providers=(
        ProviderSpec(
            "grey",
            (Site((Host("mx.grey.test"),), {"grey.test": 1.0}),),
            Manners(
                greylist_seconds=0.5,
                starttls=Starttls.OFFERED,
                rate_per_minute=15_000,
                troubles=(busy(0.1, 4.0),),
            ),
        ),
    ),
)


class WallClock:
    """The system's wall clock, and by how much somebody has set it."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def __call__(self) -> float:
        return time.time() + self.offset


async def test_an_hour_forward_and_an_hour_back_lose_nobody_and_send_nothing_twice(tmp_path: Path) -> None:
    wall, record = WallClock(), tmp_path / "record"
    with structlog.testing.capture_logs() as lines:
        async with world_process(WORLD, record=record) as world:
            people = [person.email for person in world.addresses(1_000)]
            config = engine_config(tmp_path, world)
            async with open_engine(config, clock=SystemClock(wall=wall)) as engine:
                reckoning = Reckoning(engine)
                await submit(engine, letter(), people)
                for step in (HOUR, -HOUR, -HOUR, HOUR):
                    await until(lambda: engine.counts(CAMPAIGN).deferred > 0)
                    await trio.sleep(1.2)
                    wall.offset += step
                    await until(lambda: abs(engine.parts.clock.now() - wall()) < 1.0)
                await until_finished(engine, len(people))
                steps = [noted.change.after for noted in engine.parts.changes if noted.change.knob == "clock"]
                await reckoning.close()
    got = reckoning.check(world, people, record)
    assert set(got.values()) == {1}
    assert reckoning.counts.was_ambiguous == 0
    assert steps == pytest.approx([HOUR, -HOUR, -HOUR, HOUR], abs=1.0)
    assert len([line for line in lines if line["event"] == "the system's clock was set"]) == 4


async def test_retries_keep_their_pace_when_a_clock_that_was_ahead_is_set_right(tmp_path: Path) -> None:
    wall, record = WallClock(HOUR), tmp_path / "record"
    async with world_process(WORLD, record=record) as world:
        people = [person.email for person in world.addresses(200)]
        async with open_engine(engine_config(tmp_path, world), clock=SystemClock(wall=wall)) as engine:
            reckoning = Reckoning(engine)
            await submit(engine, letter(), people)
            await until(lambda: engine.counts(CAMPAIGN).accepted == 200)
            await trio.sleep(0.3)
            wall.offset = 0.0
            await until_finished(engine, 200)
            await reckoning.close()
    got = reckoning.check(world, people, record)
    assert set(got.values()) == {1}


async def test_a_start_under_a_clock_of_long_ago_and_one_of_the_far_future_end_well(tmp_path: Path) -> None:
    """A board without a battery begins in the past, or anywhere; its spool was written in between."""
    record = tmp_path / "record"
    async with world_process(WORLD, record=record) as world:
        people = [person.email for person in world.addresses(600)]
        config = engine_config(tmp_path, world)
        for number, offset in enumerate((YEARS, -YEARS, 0.0)):
            async with open_engine(config, clock=SystemClock(wall=WallClock(offset))) as engine:
                if number == 0:
                    await submit(engine, letter(), people)
                    await until(lambda: engine.counts(CAMPAIGN).accepted == 600)
                    await trio.sleep(0.3)
                else:
                    await trio.sleep(0.6)
                if number == 2:
                    reckoning = Reckoning(engine)
                    await until_finished(engine, 600)
                    await reckoning.close()
    reckoning.check(world, people, record)
