"""kill -9 of `emass send` and of its signers, again and again, in the middle of a campaign.

A real process, real LMDB with fsync, real sockets, a world of receivers in a process of its own whose
record says what arrived. Most sessions are in TLS and a fifth of the mail is greylisted, so that each death
meets encrypted sessions and envelopes that wait. Whenever the command dies it is started again with
--resume. In the end nobody is without their letter, whoever got two is among the ambiguous, and the report
adds up. The short round belongs to the suite, the one of 30 kills to `make test-long`; CHAOS_KILLS and
CHAOS_SEED make that one longer, or another one.
"""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import trio

from bench.world.process import WorldProcess, world_process
from tests.fakes.kill_nine import Outcome, Sending, SendJob, unquiet_world, until_gone, until_grown

KILL_SECONDS = (0.3, 1.5)  # after the first message of the round
ROUND_OCTETS = 450_000  # about 1,500 messages: on a fast machine a round ends with these, not with the time
SENDING_OCTETS = 2_000  # some messages' lines in the record
MESSAGES_PER_KILL = 1_800
FINISH_SECONDS, FINISH_SECONDS_PER_KILL = 120.0, 10.0  # what is left when the killing is over
STATES = (
    "delivered", "bounced", "deferred", "expired", "suppressed", "cancelled", "ambiguous", "quarantined",
    "render_failed",
)  # fmt: skip


@pytest.mark.slow
async def test_three_kills_lose_nobody_and_double_only_the_ambiguous(tmp_path: Path) -> None:
    await _kill_again_and_again(tmp_path, kills=3, signer_kills=1, messages=7_000, seed=1)


@pytest.mark.long
async def test_thirty_kills_lose_nobody_and_double_only_the_ambiguous(tmp_path: Path) -> None:
    kills, seed = int(os.environ.get("CHAOS_KILLS", "30")), int(os.environ.get("CHAOS_SEED", "2"))
    await _kill_again_and_again(
        tmp_path, kills=kills, signer_kills=kills // 5, messages=MESSAGES_PER_KILL * kills, seed=seed
    )


async def _kill_again_and_again(
    folder: Path, *, kills: int, signer_kills: int, messages: int, seed: int
) -> None:
    dice = random.Random(seed)
    record = folder / "record"
    started = time.monotonic()
    recoveries = []
    async with world_process(unquiet_world(seed), record=record) as world:
        job = SendJob(folder, world, world.addresses(messages, seed))
        signer_rounds = set(dice.sample(range(kills), signer_kills))
        for number in range(kills):
            begun = time.monotonic()
            with job.start("--until", "finished", resume=number > 0) as sending:
                grown = await until_grown(record, SENDING_OCTETS, sending)
                recoveries.append(time.monotonic() - begun)
                assert grown, f"ended before kill {number + 1}: {sending.said()}"
                if number in signer_rounds:
                    await _kill_a_signer(sending, record, dice)
                with trio.move_on_after(dice.uniform(*KILL_SECONDS)):
                    await until_grown(record, ROUND_OCTETS, sending)
                signers = sending.signers()
                assert sending.running, f"ended before kill {number + 1}: {sending.said()}"
                sending.kill()
            assert await until_gone(signers) == [], "signers outlive their engine"
        with job.start("--until", "finished", "--json", resume=True) as last:
            assert await last.wait(FINISH_SECONDS + FINISH_SECONDS_PER_KILL * kills) == 0, last.said()
        outcome = await job.read_outcome(record)
        totals = (await world.statistics())["totals"]
    report = last.report()
    recoveries.sort()
    print(
        f"\n{kills} kills and {signer_kills} of signers, {messages} messages, "
        f"{totals['tls_started']} sessions in TLS, {len(outcome.doubles)} doubles, "
        f"{report['was_ambiguous']} were ambiguous, "
        f"{time.monotonic() - started:.0f} s; from start to first message "
        f"{recoveries[len(recoveries) // 2]:.2f} s (median), {recoveries[-1]:.2f} s (most)\n{report}"
    )
    assert totals["tls_started"] > kills, "sessions in TLS were in flight"
    _check(world, job, outcome, report)


async def _kill_a_signer(sending: Sending, record: Path, dice: random.Random) -> None:
    """The engine lives on, sends on, and starts another."""
    await trio.sleep(dice.uniform(*KILL_SECONDS) / 2)
    signers = sending.signers()
    assert len(signers) == 2
    victim = dice.choice(signers)
    os.kill(victim, signal.SIGKILL)
    assert await until_gone([victim]) == []
    assert await until_grown(record, 10 * SENDING_OCTETS, sending), sending.said()
    with trio.fail_after(5):
        while len(sending.signers()) < 2:
            await trio.sleep(0.02)


def _check(world: WorldProcess, job: SendJob, outcome: Outcome, report: dict[str, int]) -> None:
    predicted = {one.email: world.spec.predict(one.email).final for one in job.people}
    expected = Counter(predicted.values())
    assert report["accepted"] == len(job.people)
    assert sum(report[state] for state in STATES) == report["accepted"]
    assert report["quarantined"] == 0
    lost = [who for who, end in predicted.items() if end == "delivered" and not outcome.received[who]]
    assert lost == []
    assert [who for who in outcome.received if predicted.get(who) != "delivered"] == []
    assert outcome.doubles <= outcome.ambiguous
    assert report["was_ambiguous"] == len(outcome.ambiguous)
    assert report["delivered"] == expected["delivered"]
    assert report["bounced"] == expected["bounced"]
    assert all(len(ids) == 1 for ids in outcome.message_ids.values()), "a retry keeps its Message-ID"
