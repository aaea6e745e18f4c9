"""Signer processes are killed, or hang, while a signed campaign flows: each letter goes out once, signed.

A hang is a SIGSTOP: the process is there and says nothing. It is killed after 5 s; what it had is signed
by another one.
"""

import os
import signal
from pathlib import Path

import pytest

from bench.world.process import world_process
from bench.world.records import read_records
from tests.fakes.engine_house import CAMPAIGN, running_engine, signed, submit, until, until_finished, weak_key
from tests.fakes.kill_nine import calm_world, signers_of
from tests.fakes.reckoning import Reckoning

pytestmark = pytest.mark.slow

MESSAGES = 4_000
KILLS = 6


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_signers_that_die_or_hang_cost_time_and_no_letter(tmp_path: Path, how: signal.Signals) -> None:
    weak_key(tmp_path / "keys" / "test.pem")
    record = tmp_path / "record"
    async with world_process(calm_world(), record=record, keep_content=True) as world:
        people = [person.email for person in world.addresses(MESSAGES)]
        async with running_engine(tmp_path, world, signers=2) as engine:
            reckoning = Reckoning(engine)
            await submit(engine, signed(), people)
            struck: set[int] = set()
            for number in range(KILLS if how is signal.SIGKILL else 1):
                await until(lambda: engine.counts(CAMPAIGN).delivered > 200 + 200 * number)  # noqa: B023
                fresh = [pid for pid in signers_of(os.getpid()) if pid not in struck]
                for pid in fresh:  # all of them at once
                    os.kill(pid, how)
                    struck.add(pid)
            await until_finished(engine, MESSAGES)
            assert engine.tree.child_statistics("signers").crashes == 0
            now = signers_of(os.getpid())
            await reckoning.close()
    got = reckoning.check(world, people, record)
    assert set(got.values()) == {1}
    assert reckoning.counts.was_ambiguous == 0
    assert len(now) == 2
    assert not struck & set(now)
    for accepted in read_records(record):
        assert b"DKIM-Signature:" in accepted.content
