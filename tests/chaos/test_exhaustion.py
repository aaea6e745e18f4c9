"""The machine runs out of ephemeral ports or file descriptors: mail goes slower, none is lost or refused.

Both are the fault of our own side, so no receiver is blamed and no attempt of an envelope is used up by
them. Ports run out in a network of the test's own (`fakes.apart`).
"""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from bench.world.manners import Manners
from bench.world.process import world_process
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from tests.fakes.apart import apart, few_ports
from tests.fakes.engine_house import CAMPAIGN, letter, running_engine, submit, until, until_finished
from tests.fakes.kill_nine import calm_world
from tests.fakes.reckoning import Reckoning

pytestmark = pytest.mark.slow

PORTS = (20_000, 20_019)
DESCRIPTORS_SPARE = 6
MESSAGES = 600


def one_each() -> WorldSpec:
    """A receiver that wants a connection for each three messages, which is what uses ports up."""
    site = Site((Host("mx.calm.test"),), {"calm.test": 1.0})
    manners = Manners(messages_per_connection=3, tarpit={"banner": 0.05})
    return WorldSpec(name="one-each", providers=(ProviderSpec("calm", (site,), manners),))


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """This process may open so many more than it has, and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    for descriptor in taken[:spare]:
        os.close(descriptor)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken[spare:]:
            os.close(descriptor)


@apart("net")
async def test_a_machine_out_of_ports_sends_more_slowly_and_loses_nobody(tmp_path: Path) -> None:
    few_ports(*PORTS)
    record = tmp_path / "record"
    async with world_process(one_each(), record=record) as world:
        people = [person.email for person in world.addresses(MESSAGES)]
        async with running_engine(tmp_path, world) as engine:
            reckoning = Reckoning(engine)
            await submit(engine, letter(), people)
            with trio.fail_after(150):
                while engine.counts(CAMPAIGN).finished < MESSAGES:
                    await trio.sleep(0.1)
            await reckoning.close()
    reckoning.check(world, people, record)
    assert reckoning.counts.was_ambiguous == 0


async def test_a_process_out_of_descriptors_sends_more_slowly_and_loses_nobody(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(calm_world(tarpit={"banner": 0.2}), record=record) as world:
        people = [person.email for person in world.addresses(MESSAGES)]
        async with running_engine(tmp_path, world) as engine:
            reckoning = Reckoning(engine)
            with few_descriptors(DESCRIPTORS_SPARE):
                await submit(engine, letter(), people)
                await until(lambda: engine.counts(CAMPAIGN).delivered > 50)
                await trio.sleep(2)
            await until_finished(engine, MESSAGES)
            await reckoning.close()
    reckoning.check(world, people, record)
    assert reckoning.counts.was_ambiguous == 0


async def test_no_descriptor_at_all_is_a_rest_and_not_a_crash(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(calm_world(), record=record) as world:
        people = [person.email for person in world.addresses(MESSAGES)]
        async with running_engine(tmp_path, world) as engine:
            reckoning = Reckoning(engine)
            with few_descriptors(0):
                await submit(engine, letter(), people)
                await trio.sleep(5)
                assert engine.counts(CAMPAIGN).finished == 0
            await until_finished(engine, MESSAGES)
            crashes = {child.name: child.crashes for child in engine.tree.statistics().children}
            await reckoning.close()
    reckoning.check(world, people, record)
    assert set(crashes.values()) == {0}, crashes
