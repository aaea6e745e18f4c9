"""The bus over NATS keeps the contract, also while its server is away, killed, frozen or new."""

import random
import signal
from pathlib import Path

import pytest
import trio

from bench.peers import missing
from bench.peers.nats import NatsServer, cluster
from engine.bus.api import Delivery, NoAnswer, PositionLost
from engine.bus.nats import NatsBus
from tests.contract.bus import BusContract
from tests.contract.bus_house import changes, payloads, take
from tests.engine.bus.test_local import Lines, child
from tests.fakes.nats_house import NatsHouse, nats_house

pytestmark = [
    pytest.mark.slow,  # real servers on the real clock
    pytest.mark.skipif(missing("nats") is not None, reason=missing("nats") or ""),
]

TROUBLE_SECONDS = 60.0  # servers elect leaders and come back meanwhile, on a busy machine


@pytest.fixture
def house(nats_members: NatsHouse) -> NatsHouse:
    return nats_members


@pytest.fixture
def server(nats_server: NatsServer) -> NatsServer:
    return nats_server


class TestNatsBus(BusContract):
    pass


async def test_calls_wait_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    async with nats_house([server.address]) as house:
        bus = await house.open("node-1")
        assert not bus.online
        with pytest.raises(NoAnswer):
            await bus.ask("engine.node-1", b"show", 0.05)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bus.publish, "events.node-1", [b"a", b"b"])
            nursery.start_soon(bus.put, "status", "node-1", b"here")
            await trio.sleep(0.1)
            with server, trio.fail_after(TROUBLE_SECONDS):
                found = await take(bus.subscribe("events.node-1", "reports"), 2)
                assert payloads(found) == [b"a", b"b"]
                assert bus.online
                while nursery.child_tasks:
                    await trio.sleep(0.01)
                assert await bus.read("status", "node-1") == b"here"
                await house.close_all()


async def test_closing_does_not_wait_for_a_server_that_is_away(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    async with nats_house([server.address]) as house:
        bus = await house.open("node-1")

        async def publish() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await bus.publish("events.node-1", [b"a"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await trio.sleep(0.05)
            with trio.fail_after(2):
                await house.close(bus)


async def test_what_was_sent_before_the_close_is_answered(house: NatsHouse) -> None:
    bus = await house.open("node-1")
    await bus.publish("events.node-1", [b"first"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bus.publish, "events.node-1", [b"last words"])
        await trio.sleep(0)
        await trio.testing.wait_all_tasks_blocked()
        await house.close(bus)
    bus = await house.open("node-1")
    assert payloads(await take(bus.subscribe("events.node-1", "reports"), 2)) == [b"first", b"last words"]


class Traffic:
    """Entries, claims and what became of them, while something happens to the servers."""

    def __init__(self, house: NatsHouse, members: list[NatsBus], reader: NatsBus) -> None:
        self.house = house
        self.members = members
        self.reader = reader
        self.published: dict[str, int] = {bus.member: 0 for bus in members}
        self.winners: dict[str, list[str]] = {}
        self.heard: dict[str, list[Delivery]] = {bus.member: [] for bus in members}
        self.shown: dict[str, bytes | None] = {}
        self.over = False

    async def run(self, seconds_of_trouble: trio.Event) -> None:
        with trio.fail_after(TROUBLE_SECONDS):
            async with trio.open_nursery() as reading:
                reading.start_soon(self._read)
                reading.start_soon(self._watch)
                async with trio.open_nursery() as writing:
                    for bus in self.members:
                        writing.start_soon(self._publish, bus)
                        writing.start_soon(self._claim, bus)
                    await seconds_of_trouble.wait()
                    self.over = True
                while any(len(self.heard[each]) < count for each, count in self.published.items()):
                    await trio.sleep(0.02)
                await self.reader.put("campaigns", "last", b"last")
                while self.shown.get("last") is None:
                    await trio.sleep(0.02)
                reading.cancel_scope.cancel()

    async def flow(self) -> None:
        """Until every member has published more, and been heard."""
        wanted = {member: count + 20 for member, count in self.published.items()}
        while any(len(self.heard[each]) < count for each, count in wanted.items()):
            await trio.sleep(0.05)

    async def _publish(self, bus: NatsBus) -> None:
        number = 0
        while not self.over:
            batch = [b"%d" % each for each in range(number + 1, number + 4)]
            number = await bus.publish("events.all", batch)
            assert number == int(batch[-1])
            self.published[bus.member] = number
            await bus.put("campaigns", bus.member, b"%d" % number)
            await trio.sleep(0.001)

    async def _claim(self, bus: NatsBus) -> None:
        number = 0
        while not self.over:
            number += 1
            there = await bus.create("claims", f"c{number}", bus.member.encode())
            if there is None:
                self.winners.setdefault(f"c{number}", []).append(bus.member)
            await trio.sleep(0.001)

    async def _read(self) -> None:
        subscription = self.reader.subscribe("events.all", "reports")
        while True:
            for delivery in await subscription.receive(100):
                self.heard[delivery.writer].append(delivery)
            await subscription.acknowledge(delivery)

    async def _watch(self) -> None:
        async for key, value in self.reader.watch("campaigns"):
            self.shown[key] = value

    async def check(self) -> None:
        """Nothing acknowledged is lost, nothing came twice, no gap, no claim has two owners."""
        for member, deliveries in self.heard.items():
            assert [each.sequence for each in deliveries] == list(range(1, self.published[member] + 1))
            assert payloads(deliveries) == [b"%d" % each.sequence for each in deliveries]
            assert self.shown[member] == b"%d" % self.published[member]
        claims = await self.reader.read_all("claims")
        assert {key: [owner.decode()] for key, owner in claims.items()} == self.winners
        assert len(claims) > 10


async def test_a_killed_server_loses_nothing_and_doubles_nothing(
    server: NatsServer, house: NatsHouse
) -> None:
    members = [await house.open("node-1"), await house.open("node-2")]
    traffic = Traffic(house, members, await house.open("control"))
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.run, over)
        for _ in range(4):
            await traffic.flow()
            await trio.sleep(random.uniform(0, 0.1))
            await trio.to_thread.run_sync(server.kill)
            await trio.to_thread.run_sync(server.start)
        await traffic.flow()
        over.set()
    await traffic.check()


async def test_a_cluster_of_three_goes_on_without_one(tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as servers:
        async with nats_house([each.address for each in servers], replicas=3) as house:
            members = [await house.open("node-1"), await house.open("node-2")]
            traffic = Traffic(house, members, await house.open("control"))
            over = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(traffic.run, over)
                await traffic.flow()
                for server in servers[:2]:
                    await trio.to_thread.run_sync(server.kill)
                    await traffic.flow()
                    await trio.to_thread.run_sync(server.start)
                    await trio.to_thread.run_sync(server.wait_healthy)
                await traffic.flow()
                over.set()
            await traffic.check()


async def test_a_frozen_server_is_waited_for(server: NatsServer, house: NatsHouse) -> None:
    bus = await house.open("node-1")
    subscription = bus.subscribe("events.node-1", "reports")
    await bus.publish("events.node-1", [b"1"])
    server.freeze()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bus.publish, "events.node-1", [b"2"])
        with pytest.raises(NoAnswer):
            await bus.ask("engine.node-1", b"show", 0.2)
        server.thaw()
        assert payloads(await take(subscription, 2)) == [b"1", b"2"]


async def test_a_bus_that_lost_its_store_begins_again_and_says_so(
    server: NatsServer, house: NatsHouse
) -> None:
    bus = await house.open("node-1")
    before = await bus.bus_id()
    assert await bus.bus_id() == before
    subscription = bus.subscribe("events.node-1", "reports")
    assert await bus.publish("events.node-1", [b"a", b"b"]) == 2
    [*_, last] = await take(subscription, 2)
    await bus.put("campaigns", "7", b"run")
    watch = bus.watch("campaigns")
    assert await changes(watch, 1) == [("7", b"run")]
    server.kill()
    server.wipe()
    await trio.to_thread.run_sync(server.start)
    assert await bus.publish("events.node-1", [b"c"]) == 3
    assert await take(subscription, 1) == [Delivery("events.node-1", "node-1", 3, b"c")]
    await subscription.acknowledge(last)
    assert await bus.pending("events.node-1", "reports") == 1
    assert await bus.bus_id() != before
    await bus.put("campaigns", "8", b"run")
    with pytest.raises(PositionLost):
        await changes(watch, 1)


async def test_the_claims_of_three_processes_never_meet(server: NatsServer, house: NatsHouse) -> None:
    bus = await house.open("node-1")
    root = f"nats:{server.port}"
    got: list[str] = []

    async def listen(lines: Lines) -> None:
        while (line := await lines.take(1)) != ["done"]:
            assert line, "the child ended early"
            got.extend(line)

    async with child(root, "claim", "node-2", "60") as second, child(root, "claim", "node-3", "60") as third:
        others = [Lines(second), Lines(third)]
        for lines in others:
            assert await lines.take(1) == ["ready"]
        async with trio.open_nursery() as nursery:
            for lines in others:
                nursery.start_soon(listen, lines)
            for number in range(60):
                if await bus.create("claims", f"c{number}", b"node-1") is None:
                    got.append(f"c{number}")
                await trio.sleep(random.uniform(0, 0.01))
    assert sorted(got) == sorted(f"c{number}" for number in range(60))


async def test_a_killed_publisher_leaves_a_sound_stream(server: NatsServer, house: NatsHouse) -> None:
    bus = await house.open("control")
    async with child(f"nats:{server.port}", "publish", "node-1", "events.node-1") as process:
        lines = Lines(process)
        told = await lines.take(30)
        process.send_signal(signal.SIGKILL)
        told += await lines.take(1_000_000)
    durable = int(told[-1])
    found = await take(bus.subscribe("events.node-1", "reports"), durable)
    assert [delivery.sequence for delivery in found] == list(range(1, durable + 1))
    again = await house.open("node-1")
    assert await again.publish("events.node-1", [b"alive"]) > durable
