"""Folders are taken away under the engine, or keys lie open: it stops or does not start, and says why."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.world.process import world_process
from engine.app import EngineError, open_engine
from engine.runtime.supervisor import SupervisorGaveUp
from tests.fakes.engine_house import (
    CAMPAIGN,
    engine_config,
    letter,
    running_engine,
    submit,
    until,
    until_finished,
)
from tests.fakes.kill_nine import calm_world
from tests.fakes.reckoning import Reckoning

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("store", ["bus", "spool"])
async def test_a_store_that_is_moved_away_stops_the_engine_and_put_back_it_goes_on(
    tmp_path: Path, store: str
) -> None:
    record = tmp_path / "record"
    place, aside = tmp_path / "data" / store, tmp_path / "aside"
    async with world_process(calm_world(tarpit={"content": 0.02}), record=record) as world:
        people = [person.email for person in world.addresses(3_000)]
        with pytest.RaisesGroup(SupervisorGaveUp, flatten_subgroups=True) as stopped:
            async with running_engine(tmp_path, world) as engine:
                await submit(engine, letter(), people)
                await until(lambda: engine.counts(CAMPAIGN).delivered > 200)
                place.rename(aside)
                await until(engine.stopped.is_set)
        assert "were removed or replaced while in use" in last_cause(stopped.value)
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
        async with running_engine(tmp_path, world) as engine:
            reckoning = Reckoning(engine)
            await until_finished(engine, len(people))
            await reckoning.close()
    reckoning.check(world, people, record)


def last_cause(error: BaseException) -> str:
    """The text of what is at the bottom of an exception."""
    while isinstance(error, BaseExceptionGroup) or error.__cause__ is not None:
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        assert error is not None
    return str(error)


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("keys/master.key", 0o644, r"master\.key: others may read this key \(mode 644\); chmod 600"),
        ("keys/master.key", 0o640, r"master\.key: others may read this key \(mode 640\); chmod 600"),
        ("data/rows.keys", 0o604, r"rows\.keys: others may read this key \(mode 604\); chmod 600"),
    ],
)
async def test_a_key_that_others_may_read_is_refused_at_the_start(
    tmp_path: Path, name: str, mode: int, reason: str
) -> None:
    async with running_engine(tmp_path) as engine:
        await submit(engine, letter(), ["ann@x.test"])
        await until(lambda: engine.counts(CAMPAIGN).accepted == 1)
    (tmp_path / name).chmod(mode)
    with pytest.raises(EngineError, match=reason):
        async with open_engine(engine_config(tmp_path)):
            pass


async def test_another_master_key_is_refused_at_the_start(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as engine:
        await submit(engine, letter(), ["ann@x.test"])
        await until(lambda: engine.counts(CAMPAIGN).accepted == 1)
    (tmp_path / "keys/master.key").write_text("ab" * 32)
    with pytest.raises(EngineError, match=r"rows\.keys"):
        async with open_engine(engine_config(tmp_path)):
            pass


async def test_a_second_engine_over_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as engine:
        with pytest.raises(EngineError, match=r"another (process|bus of this process) is writing here"):
            async with open_engine(replace(engine_config(tmp_path))):
                pass
        assert not engine.stopped.is_set()
