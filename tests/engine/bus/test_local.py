"""The local bus keeps the contract, across processes and kills too."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.bus.api import Bus, BusFull, NoAnswer
from engine.bus.local import LocalBus
from engine.bus.local_members import hold, release
from engine.bus.local_streams import read_tail
from engine.storage import StorageError
from tests.contract.bus import BusContract
from tests.contract.bus_house import PATIENCE_SECONDS, SMALL_STREAM_OCTETS, Members, payloads, take, until

pytestmark = pytest.mark.slow  # real sockets and processes on the real clock: seconds

CHILD = Path(__file__).with_name("bus_child.py")
QUICK: dict[str, Any] = {
    "group_seconds": 0.0,
    "poll_seconds": 0.005,
    "trim_seconds": 0.02,
    "map_octets": 64 * 1024**2,
}


class LocalHouse(Members[LocalBus]):
    def __init__(self, root: Path, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.root = root

    async def open(self, member: str, *, small_streams: bool = False, **options: Any) -> LocalBus:
        if small_streams:
            options["stream_octets_max"] = SMALL_STREAM_OCTETS
        return await self.start(LocalBus(self.root, member, **{**QUICK, **options}))

    async def close(self, bus: Bus) -> None:
        assert isinstance(bus, LocalBus)
        await super().close(bus)
        bus.close_files()


@asynccontextmanager
async def local_house(root: Path) -> AsyncIterator[LocalHouse]:
    async with trio.open_nursery() as nursery:
        house = LocalHouse(root, nursery)
        try:
            yield house
        finally:
            with trio.CancelScope(shield=True):
                await house.close_all()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[LocalHouse]:
    async with local_house(tmp_path / "bus") as house:
        yield house


class TestLocalBus(BusContract):
    pass


@asynccontextmanager
async def child(root: Path | str, *arguments: str) -> AsyncIterator[trio.Process]:
    """Another process on the bus; killed at the end. See bus_child.py for what it does."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            lambda task_status: trio.run_process(
                [sys.executable, str(CHILD), str(root), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                check=False,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
                task_status=task_status,
            )
        )
        yield process
        process.kill()


class Lines:
    """What a child prints, line by line."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        self._stdout = process.stdout
        self._text = b""

    async def take(self, count: int) -> list[str]:
        """The next lines; fewer when the child ends."""
        with trio.fail_after(PATIENCE_SECONDS):
            while self._text.count(b"\n") < count:
                more = await self._stdout.receive_some(65536)
                if not more:
                    break
                self._text += more
        *found, self._text = self._text.split(b"\n", count)
        return [line.decode() for line in found]


async def test_a_reader_in_another_process_sees_what_is_published(house: LocalHouse) -> None:
    bus = await house.open("node-1")
    await bus.publish("events.node-1", [b"before"])
    async with child(house.root, "read", "control", "events.node-1", "reports") as process:
        lines = Lines(process)
        assert await lines.take(1) == ["node-1 1 before"]
        await bus.publish("events.node-1", [b"after", b"and more"])
        assert await lines.take(2) == ["node-1 2 after", "node-1 3 and more"]
        await until(lambda: bus.backlog("events.node-1", "reports") == 0)


async def test_a_killed_publisher_leaves_a_readable_stream(house: LocalHouse) -> None:
    bus = await house.open("control")
    async with child(house.root, "publish", "node-1", "events.node-1") as process:
        lines = Lines(process)
        await lines.take(5)
        process.send_signal(signal.SIGKILL)
        told = await lines.take(1_000_000)
    durable = int(told[-1]) if told else 5
    subscription = bus.subscribe("events.node-1", "reports")
    found = await take(subscription, durable)
    assert [delivery.sequence for delivery in found] == list(range(1, durable + 1))
    assert payloads(found) == [b"%d" % number for number in range(1, durable + 1)]
    again = await house.open("node-1")
    assert await again.publish("events.node-1", [b"alive"]) > durable


async def test_a_commit_counts_as_seen_only_once_it_can_be_read(tmp_path: Path) -> None:
    """Else a reader looks too early, finds nothing, and is not woken again. One entry is one commit here."""
    async with child(tmp_path, "publish", "node-1", "events.node-1") as process:
        await Lines(process).take(1)
        writer = hold(tmp_path / "node-1")
        differences: set[int] = set()
        last = 0
        while last < 100:
            seen = writer.last_visible()
            with writer.read() as transaction:
                read, (last, _) = transaction.id(), read_tail(writer, transaction, "events.node-1")
            assert seen <= read
            differences.add(read - last)
            if len(differences) > 1 or process.returncode is not None:
                break
        release(writer)
    assert len(differences) == 1
    assert last >= 100


async def test_the_claims_of_two_processes_never_meet(house: LocalHouse) -> None:
    """Both go through the keys in the same order, at a pace that lets now one, now the other win."""
    bus = await house.open("node-1")
    mine: list[str] = []
    async with child(house.root, "claim", "node-2", "60") as process:
        lines = Lines(process)
        assert await lines.take(1) == ["ready"]
        for number in range(60):
            if await bus.create("claims", f"c{number}", b"node-1") is None:
                mine.append(f"c{number}")
            await trio.sleep(random.uniform(0, 0.01))
        theirs = []
        while (line := await lines.take(1)) != ["done"]:
            assert line, "the child ended early"
            theirs += line
    assert sorted(mine + theirs) == sorted(f"c{number}" for number in range(60))
    assert mine
    assert theirs


async def test_a_question_crosses_processes(house: LocalHouse) -> None:
    bus = await house.open("cli-1", temporary=True)
    async with child(house.root, "serve", "node-1", "engine.node-1"):
        assert await bus.ask("engine.node-1", b"show", PATIENCE_SECONDS) == b"re: show"


async def test_a_second_process_cannot_be_the_same_member(house: LocalHouse) -> None:
    await house.open("node-1")
    with pytest.raises(StorageError, match="writing here"):
        LocalBus(house.root, "node-1", **QUICK)
    async with child(house.root, "publish", "node-1", "events.node-1") as process:
        assert await process.wait() == 3


async def test_run_may_start_again_after_it_was_cancelled(tmp_path: Path) -> None:
    bus = LocalBus(tmp_path, "node-1", **QUICK)
    for number in range(3):
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            assert await bus.publish("events.node-1", [b"x"]) == number + 1
            nursery.cancel_scope.cancel()
    bus.close_files()


async def test_what_was_submitted_before_the_close_becomes_durable(house: LocalHouse) -> None:
    bus = await house.open("node-1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bus.publish, "events.node-1", [b"last words"])
        await trio.sleep(0)
        await trio.testing.wait_all_tasks_blocked()
        await house.close(bus)
    bus = await house.open("node-1")
    assert payloads(await take(bus.subscribe("events.node-1", "reports"), 1)) == [b"last words"]


async def test_a_refused_batch_is_refused_whole(house: LocalHouse) -> None:
    bus = await house.open("node-1", small_streams=True)
    with pytest.raises(BusFull):
        await bus.publish("events.node-1", [b"a" * 9_000] * 3)
    assert await bus.publish("events.node-1", [b"b"]) == 1


async def test_a_full_map_refuses_and_the_bus_goes_on(house: LocalHouse) -> None:
    bus = await house.open("node-1", map_octets=1024**2)
    with pytest.raises(BusFull, match="no room"):
        await bus.publish("chunks.node-1", [bytes(800_000)] * 2)
    assert await bus.publish("chunks.node-1", [b"small"]) == 1


async def test_a_temporary_member_leaves_no_folder(house: LocalHouse) -> None:
    bus = await house.open("cli-1", temporary=True)
    with pytest.raises(NoAnswer):
        await bus.ask("engine.node-1", b"show", 0.01)
    await house.close(bus)
    assert not (house.root / "cli-1").exists()


async def test_a_temporary_member_stays_while_somebody_waits_for_what_it_published(house: LocalHouse) -> None:
    node = await house.open("node-1")
    bus = await house.open("cli-1", temporary=True)
    await bus.publish("commands.node-1", [b"stop"])
    await house.close(bus)
    dead = LocalBus(house.root, "cli-2", temporary=True, **QUICK)
    dead._store.members.close()  # as if killed: its folder stays
    await house.open("node-2")  # sweeps when it starts, in this order
    await until(lambda: not (house.root / "cli-2").exists())
    subscription = node.subscribe("commands.node-1", "node")
    [delivery] = await take(subscription, 1)
    assert delivery.writer == "cli-1"
    await subscription.acknowledge(delivery)
    await house.close(node)
    await house.open("node-1")  # sweeps when it starts
    await until(lambda: not (house.root / "cli-1").exists())


async def test_a_temporary_member_whose_process_died_is_swept(house: LocalHouse) -> None:
    async with child(house.root, "ask", "cli-1", "engine.node-1") as process:
        await Lines(process).take(1)
        process.kill()
        await process.wait()
    assert (house.root / "cli-1").exists()
    await house.open("node-1")
    await until(lambda: not (house.root / "cli-1").exists())


async def test_a_member_can_be_removed_unless_it_runs(house: LocalHouse) -> None:
    node, other = await house.open("node-1"), await house.open("node-2")
    await node.put("status", "node-1", b"here")
    assert other.get("status", "node-1") == b"here"
    assert not LocalBus.remove_member(house.root, "node-1")
    await house.close(node)
    assert other.get("status", "node-1") == b"here"
    assert LocalBus.remove_member(house.root, "node-1")
    await until(lambda: other.get("status", "node-1") is None)
    assert LocalBus.remove_member(house.root, "node-1")
