"""Ctrl-C and `--until`: a campaign that stops before its end, and the run that goes on with it.

A polite stop leaves nothing in doubt: nobody gets two letters and nothing was ever ambiguous. A firm one
(Ctrl-C twice, or a receiver that never answers) may leave some ambiguous, and says so. Real processes,
sockets and clock; the world is a process of its own.
"""

from pathlib import Path

import pytest
import trio

from bench.world.manners import busy
from bench.world.process import WorldProcess, world_process
from tests.fakes.kill_nine import SendJob, calm_world, record_octets, until_gone, until_grown

pytestmark = pytest.mark.slow

BEGUN_OCTETS = 60_000  # some 200 messages have arrived
STOP_SECONDS = 10.0
FIRM_SECONDS = 5.0
FINISH_SECONDS = 60.0


def resume_line(job: SendJob) -> str:
    return f"go on with: emass send --data {job.data} --resume"


async def test_ctrl_c_stops_cleanly_and_the_next_run_finishes_with_nobody_in_doubt(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(calm_world(chunking=True), record=record) as world:
        job = SendJob(tmp_path, world, world.addresses(6_000))
        with job.start("--until", "finished", resume=False) as sending:
            assert await until_grown(record, BEGUN_OCTETS, sending), sending.said()
            signers = sending.signers()
            sending.interrupt()
            assert await sending.wait(STOP_SECONDS) == 0, sending.said()
            assert await until_gone(signers) == []
            assert "emass: stopping; open transactions finish first" in sending.said()
            assert resume_line(job) in sending.said()
            assert "Traceback" not in sending.said()
        stopped_at = record_octets(record)
        with job.start("--until", "finished", "--json", resume=True) as sending:
            assert await sending.wait(FINISH_SECONDS) == 0, sending.said()
            report = sending.report()
        outcome = await job.read_outcome(record)
    assert record_octets(record) > stopped_at, "there was something left to send"
    assert outcome.received == {person.email: 1 for person in job.people}
    assert outcome.ambiguous == frozenset()
    assert (report["accepted"], report["delivered"], report["was_ambiguous"]) == (6_000, 6_000, 0)


async def test_a_second_ctrl_c_does_not_wait_for_a_silent_receiver(tmp_path: Path) -> None:
    record = tmp_path / "record"
    silent = calm_world(tarpit={"content": 60.0})
    async with world_process(silent, record=record) as world:
        job = SendJob(tmp_path, world, world.addresses(50))
        with job.start("--until", "finished", "--json", resume=False) as sending:
            await _until_connected(world)
            sending.interrupt()
            await trio.sleep(1.0)
            assert sending.running, "open transactions are waited for"
            asked = trio.current_time()
            sending.interrupt()
            code = await sending.wait(STOP_SECONDS)
            assert trio.current_time() - asked < FIRM_SECONDS
            assert "Traceback" not in sending.said()
            assert resume_line(job) in sending.said()
            assert code == 0, sending.said()
            report = sending.report()
        outcome = await job.read_outcome(record)
    assert report["accepted"] == report["deferred"] == 50
    assert report["was_ambiguous"] == len(outcome.ambiguous) > 0, "unanswered final dots are settled so"


async def test_until_first_pass_ends_when_everybody_was_tried_once(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(calm_world(troubles=(busy(0.2, 30.0),)), record=record) as world:
        people = world.addresses(2_000)
        waiting = [one for one in people if not world.spec.predict(one.email).at_once]
        job = SendJob(tmp_path, world, people)
        with job.start("--until", "first-pass", "--json", resume=False) as sending:
            assert await sending.wait(FINISH_SECONDS) == 0, sending.said()
            report = sending.report()
            assert resume_line(job) in sending.said()
    assert (report["accepted"], report["delivered"]) == (2_000, 2_000 - len(waiting))
    assert report["deferred"] == len(waiting) > 0


async def test_until_a_duration_ends_then_and_what_waits_can_go_on(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(calm_world(rate_per_minute=6_000), record=record) as world:
        job = SendJob(tmp_path, world, world.addresses(1_000))
        begun = trio.current_time()
        with job.start("--until", "2s", "--json", resume=False) as sending:
            assert await sending.wait(FINISH_SECONDS) == 0, sending.said()
            seconds = trio.current_time() - begun
            first = sending.report()
            assert resume_line(job) in sending.said()
        with job.start("--until", "finished", "--json", resume=True) as sending:
            assert await sending.wait(FINISH_SECONDS) == 0, sending.said()
            last = sending.report()
        outcome = await job.read_outcome(record)
    assert 2.0 <= seconds < 2.0 + STOP_SECONDS
    assert first["accepted"] == 1_000
    assert 0 < first["delivered"] < 1_000
    assert (last["delivered"], last["deferred"], last["was_ambiguous"]) == (1_000, 0, 0)
    assert outcome.received == {person.email: 1 for person in job.people}


async def _until_connected(world: WorldProcess) -> None:
    with trio.fail_after(STOP_SECONDS):
        while not (await world.statistics())["totals"]["connections"]:
            await trio.sleep(0.05)
    await trio.sleep(1.0)  # for contents to go out
