"""Rows of many members: claims, deletions and what a watch that stood still may trust."""

import pytest
import trio

from bench.peers.nats import NatsServer
from engine.bus import nats_reader
from engine.bus.api import PositionLost
from engine.bus.nats import NatsBus
from engine.bus.nats_frames import Row, pack_row
from engine.bus.nats_jetstream import MESSAGE_ID
from engine.runtime.clock import SystemClock
from tests.contract.bus_house import changes
from tests.fakes.nats_house import NatsHouse

pytestmark = pytest.mark.slow

DAY = 86_400.0


class Hands:
    """A clock that the test moves on."""

    def __init__(self) -> None:
        self.ahead = 0.0
        base = SystemClock()
        self.clock = SystemClock(wall=lambda: base.now() + self.ahead, monotonic=base.monotonic)

    def move(self, seconds: float) -> None:
        self.ahead += seconds
        self.clock.check_step()


async def rows(bus: NatsBus, table: str) -> int:
    return (await bus._jetstream.info(bus._tables.spec(table))).state.messages


async def test_deletions_are_forgotten_after_the_retention_by_who_deleted(nats_members: NatsHouse) -> None:
    hands = Hands()
    bus, other = await nats_members.open("a", clock=hands.clock), await nats_members.open("b")
    for key in ("kept", "gone", "back"):
        await bus.put("campaigns", key, b"run")
    await other.put("campaigns", "other", b"run")
    await other.delete("campaigns", "other")
    for key in ("gone", "back"):
        await bus.delete("campaigns", key)
    await bus.put("campaigns", "back", b"run")
    await bus._tables.forget_deletions()
    assert await rows(bus, "campaigns") == 4
    hands.move(8 * DAY)
    await bus._tables.forget_deletions()
    assert await rows(bus, "campaigns") == 3
    assert await bus.read_all("campaigns") == {"kept": b"run", "back": b"run"}
    assert await bus.create("campaigns", "gone", b"new") is None
    assert await other.create("campaigns", "other", b"new") is None


async def test_a_watch_that_stood_still_for_too_long_begins_anew(nats_members: NatsHouse) -> None:
    hands = Hands()
    bus = await nats_members.open("a", clock=hands.clock)
    assert bus.watch("campaigns").position == b""
    await bus.put("campaigns", "7", b"run")
    watch = bus.watch("campaigns")
    assert await changes(watch, 1) == [("7", b"run")]
    hands.move(6 * DAY)
    await bus.put("campaigns", "8", b"run")
    later = bus.watch("campaigns", watch.position)
    assert await changes(later, 1) == [("8", b"run")]
    hands.move(6 * DAY)
    await bus.put("campaigns", "9", b"run")
    assert await changes(bus.watch("campaigns", later.position), 1) == [("9", b"run")]
    assert await changes(watch, 1) == [("8", b"run")]
    position = watch.position
    hands.move(8 * DAY)
    with pytest.raises(PositionLost, match="not watched"):
        await changes(bus.watch("campaigns", position), 1)
    assert len(await changes(bus.watch("campaigns"), 3)) == 3


async def test_a_watch_goes_on_over_a_restart_and_shows_each_change_once(
    nats_members: NatsHouse, nats_server: NatsServer
) -> None:
    owner, watcher = await nats_members.open("control"), await nats_members.open("a")
    watch = watcher.watch("campaigns")
    for number in range(3):
        await owner.put("campaigns", f"{number}", b"run")
        assert await changes(watch, 1) == [(f"{number}", b"run")]
        nats_server.kill()
        await trio.to_thread.run_sync(nats_server.start)
    await owner.delete("campaigns", "1")
    assert await changes(watch, 1) == [("1", None)]
    assert await changes(watcher.watch("campaigns"), 3) == [("0", b"run"), ("2", b"run"), ("1", None)]


async def test_a_creation_whose_answer_was_lost_is_known_as_ours(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("a")
    jetstream = bus._jetstream
    publish = jetstream.publish
    times = 0

    async def twice(*arguments: object) -> int:
        nonlocal times
        times += 1
        await publish(*arguments)  # type: ignore[arg-type]  # as if its answer was lost
        return await publish(*arguments)  # type: ignore[arg-type]

    jetstream.publish = twice  # type: ignore[method-assign,assignment]
    assert await bus.create("claims", "c1", b"a 1") is None
    assert await bus.create("claims", "c1", b"a 2") == b"a 1"
    await bus.delete("claims", "c1")
    assert times == 3
    assert await bus.read("claims", "c1") is None


async def test_a_put_that_arrives_twice_does_not_come_back_behind_a_later_one(
    nats_members: NatsHouse,
) -> None:
    bus = await nats_members.open("a")
    await bus.put("campaigns", "7", b"run")
    spec = bus._tables.spec("campaigns")
    former = Row(b"12345678", "a", b"run")
    for value in (former, Row(b"87654321", "a", b"pause"), former):
        headers = {MESSAGE_ID: value.id.hex()}
        await bus._jetstream.publish(spec, "emass.t.campaigns.7", pack_row(value), headers)
    assert await bus.read("campaigns", "7") == b"pause"


async def test_a_watch_of_a_table_that_stands_still_does_not_lose_its_place(
    nats_members: NatsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_reader, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(nats_reader, "SILENCE_SECONDS", 0.5)
    hands = Hands()
    bus = await nats_members.open("a", clock=hands.clock)
    await bus.put("campaigns", "7", b"run")
    watch = bus.watch("campaigns")
    assert await changes(watch, 1) == [("7", b"run")]
    for _ in range(2):
        hands.move(5 * DAY)
        with trio.move_on_after(2.5 * nats_reader.SILENCE_SECONDS):
            await changes(watch, 1)
    await bus.put("campaigns", "8", b"run")
    assert await changes(bus.watch("campaigns", watch.position), 1) == [("8", b"run")]
