"""kill -9 of a broadcaster, a signer, the nats-server, a root process and the coordinator, in turn.

Three nodes (each an `emass up` over its own folder) on one nats-server send one signed campaign; whatever is
killed is started again, the nats-server over its store, the coordinator with --resume. In the end every
address was sent to, those twice that are listed as having been ambiguous, and the report equals the world's
own record address by address. CLUSTER_ROUNDS and CLUSTER_SEED make another run of it, or a longer one.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from bench.peers.nats import NatsServer
from bench.world.process import world_process
from tests.fakes.broadcasters import Fleet, ManyJob, check_report
from tests.fakes.kill_nine import Sending, record_octets, unquiet_world, until_gone

RUNS = 2  # of about four minutes each, where nothing else is going on
NAMES = ("a", "b", "c")
VICTIMS = ("broadcaster", "signer", "bus", "root", "coordinator")
MESSAGES_PER_ROUND = 2_500
ROUND_OCTETS = (
    200_000  # of the record: about 600 messages before the next kill, or as long as a round may take
)
ROUND_SECONDS = 8.0
AWAY_SECONDS = (0.2, 2.0)
FINISH_SECONDS, FINISH_SECONDS_PER_ROUND = 180.0, 15.0


class Cluster:
    """What may be killed, and how each comes back."""

    def __init__(self, fleet: Fleet, server: NatsServer, job: ManyJob, dice: random.Random) -> None:
        self.fleet = fleet
        self.server = server
        self.job = job
        self.dice = dice
        self.sending: Sending

    def coordinate(self) -> None:
        self.sending = self.job.start("--until", "finished", resume=self.job.runs > 0)

    async def wait(self, seconds: float) -> int:
        """The coordinator's exit code."""
        return await self.sending.wait(seconds)

    async def kill(self, victim: str) -> None:
        """One of that kind, and what brings it back."""
        name = self.dice.choice(NAMES)
        match victim:
            case "broadcaster":
                os.kill(await self.fleet.engine(name), signal.SIGKILL)  # its root starts another
            case "signer":
                await self._kill_a_signer(name)
            case "bus":
                self.server.kill()
                await trio.sleep(self.dice.uniform(*AWAY_SECONDS))
                self.server.start(wait=False)
            case "root":
                engine = await self.fleet.engine(name)
                self.fleet.kill(name)
                await trio.sleep(self.dice.uniform(*AWAY_SECONDS))
                with trio.fail_after(30):
                    while alive(engine):
                        await trio.sleep(0.05)
                self.fleet.start(name)
            case "coordinator":
                self.sending.kill()
                await trio.sleep(self.dice.uniform(*AWAY_SECONDS))
                self.coordinate()

    async def _kill_a_signer(self, name: str) -> None:
        with trio.move_on_after(20):  # its engine may be on its way up
            while not (signers := self.fleet.signers(name)):
                await trio.sleep(0.05)
            os.kill(signers[0], signal.SIGKILL)
            assert await until_gone(signers[:1]) == []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.long
@pytest.mark.parametrize("number", range(RUNS))
async def test_whatever_is_killed_every_address_is_accounted_for(
    tmp_path: Path, require_peer: Callable[[str], None], number: int
) -> None:
    require_peer("nats")
    rounds, seed = int(os.environ.get("CLUSTER_ROUNDS", "45")), int(os.environ.get("CLUSTER_SEED", "1"))
    await _kill_in_turn(tmp_path, rounds=rounds, seed=seed + number)


async def _kill_in_turn(folder: Path, *, rounds: int, seed: int) -> None:
    dice = random.Random(seed)
    record = folder / "record"
    began = time.monotonic()
    with NatsServer(folder / "nats") as server:
        async with world_process(unquiet_world(seed), record=record) as world:
            people = world.addresses(MESSAGES_PER_ROUND * rounds, seed)
            where = f"127.0.0.1:{server.port}"
            job = ManyJob(folder, people, bus=where, signed=True)
            with Fleet(folder, world, NAMES, server=where, rooted=True) as fleet:
                fleet.start(*NAMES)
                cluster = Cluster(fleet, server, job, dice)
                cluster.coordinate()
                try:
                    await _kill_each(cluster, record, rounds)
                    code = await cluster.wait(FINISH_SECONDS + FINISH_SECONDS_PER_ROUND * rounds)
                finally:
                    cluster.sending.kill()
                last = cluster.sending
                assert code == 0, last.said()
                report = last.report()
    received = check_report(world, job, report, record)
    doubles = sum(1 for times in received.values() if times > 1)
    print(
        f"\n{rounds} kills, {len(people)} messages, {doubles} doubles, {report['was_ambiguous']} ambiguous,"
        f" {time.monotonic() - began:.0f} s\n{report['broadcasters']}\n{report['warnings']}"
    )
    assert report["deferred"] == report["ambiguous"] == report["quarantined"] == 0
    expected = {one.email.lower() for one in people if world.spec.predict(one.email).final == "delivered"}
    assert set(received) == expected
    assert [warning for warning in report["warnings"] if "two messages" in warning] == []


async def _kill_each(cluster: Cluster, record: Path, rounds: int) -> None:
    """One after the other, with some mail between."""
    for number in range(rounds):
        before = record_octets(record)
        with trio.move_on_after(ROUND_SECONDS):
            while record_octets(record) - before < ROUND_OCTETS:
                await trio.sleep(0.05)
        assert cluster.sending.running, f"over before kill {number + 1}: {cluster.sending.said()}"
        await cluster.kill(VICTIMS[number % len(VICTIMS)])
