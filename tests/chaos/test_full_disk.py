"""The disk of spool and bus fills up at any moment and gets room again, turns read-only; the map is full.

A small file system in namespaces of its own (`fakes.apart`), a whole engine over it, and somebody who
writes files beside it until nothing fits any more, again and again, faster than any watermark can see.
Nothing that was accepted is lost, the counts add up, and nobody gets two letters unless it was admitted.
"""

import os
import random
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from bench.world.process import world_process
from engine.app import Engine, EngineError, open_engine
from engine.bus.api import BusFull
from engine.config.tables import Config
from engine.config.units import Size
from engine.model.submission import SubmitChunk, SubmitContent
from engine.runtime.supervisor import SupervisorGaveUp
from engine.storage import SpaceLevel
from tests.fakes.apart import apart, small_disk
from tests.fakes.engine_house import (
    CAMPAIGN,
    chunks,
    engine_config,
    letter,
    running_engine,
    submit,
    until,
    until_finished,
)
from tests.fakes.kill_nine import calm_world, unquiet_world
from tests.fakes.reckoning import Reckoning

DISK_OCTETS = 96 * 1024 * 1024
FULL_SECONDS = (0.3, 2.5)
ROOMY_SECONDS = (0.1, 0.8)
ROW_OCTETS = 400
MB = 1024 * 1024

pytestmark = [pytest.mark.slow, pytest.mark.long]


def fill(folder: Path, number: int) -> Path:
    """Write until nothing fits any more."""
    file = folder / f"filler-{number}"
    size = MB
    with file.open("wb", buffering=0) as sink:
        while size >= 512:
            with suppress(OSError):
                if sink.write(bytes(size)) == size:
                    continue
            size //= 2
    return file


async def fill_again_and_again(folder: Path, rounds: int, dice: random.Random) -> None:
    for number in range(rounds):
        await trio.sleep(dice.uniform(*ROOMY_SECONDS))
        file = await trio.to_thread.run_sync(fill, folder, number)
        await trio.sleep(dice.uniform(*FULL_SECONDS))
        file.unlink()


async def _fill_while_sending(folder: Path, *, messages: int, rounds: int, seed: int) -> None:
    disk, record = small_disk(folder, DISK_OCTETS), folder / "record"
    async with world_process(unquiet_world(seed), record=record) as world:
        people = [person.email for person in world.addresses(messages, seed)]
        async with running_engine(disk, world) as engine:
            reckoning = Reckoning(engine)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fill_again_and_again, disk, rounds, random.Random(seed))
                await _submit_patiently(engine, people)
            await until_finished(engine, messages)
            commits = engine.parts.committer
            assert commits is not None
            assert not commits.full
            await reckoning.close()
    got = reckoning.check(world, people, record)
    doubled = sum(times > 1 for times in got.values())
    print(f"\n{rounds} times full, {messages} messages, {doubled} doubled, {reckoning.counts}")


async def _submit_patiently(engine: Engine, people: Sequence[str]) -> None:
    """As a feeder does: what the bus has no room for is offered again."""
    for each in [SubmitContent(letter()), *(SubmitChunk(chunk) for chunk in chunks(people))]:
        while True:
            try:
                await engine.submit([each])
                break
            except BusFull:
                await trio.sleep(0.1)


@apart("mount")
async def test_a_disk_that_fills_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "1"))
    await _fill_while_sending(tmp_path, messages=3_000, rounds=5, seed=seed)


@pytest.mark.long
@apart("mount")
async def test_a_disk_that_fills_thirty_times_loses_nothing(tmp_path: Path) -> None:
    await _fill_while_sending(tmp_path, messages=20_000, rounds=30, seed=2)


@apart("mount")
async def test_a_disk_that_turns_read_only_stops_the_engine_and_the_next_start_goes_on(
    tmp_path: Path,
) -> None:
    disk, record = small_disk(tmp_path, DISK_OCTETS), tmp_path / "record"
    async with world_process(calm_world(rate_per_minute=30_000), record=record) as world:
        people = [person.email for person in world.addresses(1_000)]
        with pytest.RaisesGroup(SupervisorGaveUp, flatten_subgroups=True) as stopped:
            async with running_engine(disk, world) as engine:
                await submit(engine, letter(), people)
                await until(lambda: engine.counts(CAMPAIGN).delivered > 100)
                # What ext4 does by itself after an error of the device.
                subprocess.run(["mount", "-o", "remount,abort", str(disk)], check=False, capture_output=True)
                await until(engine.stopped.is_set)
        assert "restarts in 60 s are too many" in str(stopped.value.exceptions)
        subprocess.run(["umount", str(disk)], check=True)
        subprocess.run(["mount", "-o", "loop", str(tmp_path / "disk.img"), str(disk)], check=True)
        async with running_engine(disk, world) as engine:
            reckoning = Reckoning(engine)
            await until_finished(engine, len(people))
            await reckoning.close()
    reckoning.check(world, people, record)


@apart("mount")
async def test_a_start_on_a_read_only_disk_is_refused_with_the_folder(tmp_path: Path) -> None:
    disk = small_disk(tmp_path, DISK_OCTETS)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(EngineError, match=r"disk/.*Read-only file system"):
        async with open_engine(engine_config(disk)):
            pass


def limited(config: Config, **sizes: int) -> Config:
    """The configuration with other sizes of map and watermarks."""
    return replace(config, limits=replace(config.limits, **{key: Size(size) for key, size in sizes.items()}))


async def submit_wide(engine: Engine, people: Sequence[str]) -> None:
    """A job whose envelopes take 0.6 KB each."""
    await engine.submit([SubmitContent(letter())])
    for chunk in chunks(people):
        entries = tuple(replace(entry, row=(f"Reader {'x' * ROW_OCTETS}",)) for entry in chunk.entries)
        await engine.submit([SubmitChunk(replace(chunk, entries=entries))])


async def test_a_map_without_room_holds_up_intake_and_nothing_else(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(calm_world(), record=record) as world:
        people = [person.email for person in world.addresses(10_000)]
        config = limited(
            engine_config(tmp_path, world), spool_map=10 * MB, disk_refuse=7 * MB, disk_stop=4 * MB, ballast=0
        )
        async with open_engine(config) as engine:
            reckoning, levels = Reckoning(engine), set()
            space = engine.parts.space
            assert space is not None
            await submit_wide(engine, people)
            with trio.fail_after(60):
                while engine.counts(CAMPAIGN).finished < len(people):
                    levels.add(space.level)
                    await trio.sleep(0.02)
            await reckoning.close()
    reckoning.check(world, people, record)
    assert levels == {SpaceLevel.OPEN, SpaceLevel.REFUSE_INTAKE}
    assert reckoning.counts.was_ambiguous == 0
