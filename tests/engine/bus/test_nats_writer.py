"""What is published is kept once and in order, or refused whole; the count outlives the tail."""

from typing import Any

import pytest
import trio

from bench.peers.nats import NatsServer
from engine.bus.api import PAYLOAD_OCTETS_MAX, BusFull
from engine.bus.nats import NatsBus
from engine.bus.nats_frames import FRAME_OCTETS
from tests.contract.bus_house import payloads, take
from tests.fakes.nats_house import NatsHouse

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 20.0


async def test_a_large_publish_is_several_messages_and_still_in_order(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1")
    batch = [b"%05d" % number * 20_000 for number in range(100)]
    assert sum(map(len, batch)) > 10 * FRAME_OCTETS
    assert await bus.publish("events.node-1", batch) == 100
    assert payloads(await take(bus.subscribe("events.node-1", "reports"), 100)) == batch


async def test_a_batch_is_one_message(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1")
    assert await bus.publish("events.node-1", [b"event"] * 1_000) == 1_000
    spec = bus._streams.spec("events.node-1")
    assert (await bus._jetstream.info(spec)).state.messages == 1


async def test_a_large_publish_without_room_is_refused_whole(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1", stream_octets_max=3 * 1024**2)
    with pytest.raises(BusFull, match="no room"):
        await bus.publish("chunks.a", [bytes(PAYLOAD_OCTETS_MAX)] * 4)
    assert await bus.publish("chunks.a", [bytes(PAYLOAD_OCTETS_MAX)] * 2) == 2
    with pytest.raises(BusFull):
        await bus.publish("chunks.a", [bytes(PAYLOAD_OCTETS_MAX)])
    assert await bus.publish("chunks.a", [b"small"]) == 3


async def test_a_publish_that_has_begun_waits_for_room(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1", stream_octets_max=3 * 1024**2)
    reader = await nats_members.open("a")
    subscription = reader.subscribe("chunks.a", "intake")
    writer = bus._streams.writer("chunks.a")
    batch = [bytes([number]) * PAYLOAD_OCTETS_MAX for number in range(4)]
    await writer.tail()

    async def publish() -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            await writer._append(batch, FRAME_OCTETS)

    async def no_check(_: object) -> None:
        await trio.lowlevel.checkpoint()

    writer._check_room = no_check  # type: ignore[assignment]  # as if the room was taken meanwhile
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        for expected in batch:
            [delivery] = await take(subscription, 1)
            assert delivery.payload == expected
            await subscription.acknowledge(delivery)


async def test_a_payload_over_the_servers_limit_names_the_setting(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1")
    await bus.link.wait_online()
    bus.link.max_payload = 100_000
    with pytest.raises(ValueError, match="max_payload"):
        await bus.publish("events.node-1", [bytes(100_000)])
    batch = [bytes(30_000)] * 20
    assert await bus.publish("events.node-1", batch) == 20


async def test_the_count_goes_on_when_the_tail_was_dropped(nats_members: NatsHouse) -> None:
    writer, reader = await nats_members.open("control"), await nats_members.open("a")
    subscription = reader.subscribe("chunks.a", "intake")
    assert await writer.publish("chunks.a", [b"1", b"2"]) == 2
    found = await take(subscription, 2)
    await subscription.acknowledge(found[-1])
    await subscription.drop()
    assert (await reader._jetstream.info(reader._streams.spec("chunks.a"))).state.messages == 0
    assert await writer.publish("chunks.a", [b"3"]) == 3
    [delivery] = await take(subscription, 1)
    await subscription.acknowledge(delivery)
    await subscription.drop()
    await nats_members.close(writer)
    writer = await nats_members.open("control")
    assert await writer.pending("chunks.a", "intake") == 0
    assert await writer.publish("chunks.a", [b"4"]) == 4
    assert payloads(await take(subscription, 1)) == [b"4"]


async def test_the_count_goes_on_when_an_empty_stream_was_killed_with_its_server(
    nats_members: NatsHouse, nats_server: NatsServer
) -> None:
    bus = await nats_members.open("a")
    subscription = bus.subscribe("chunks.a", "intake")
    for number in range(1, 4):
        assert await bus.publish("chunks.a", [b"%d" % number]) == number
        [delivery] = await take(subscription, 1)
        await subscription.acknowledge(delivery)
        await subscription.drop()
        nats_server.kill()
        await trio.to_thread.run_sync(nats_server.start)
    other = await nats_members.open("a.2")
    assert await other.publish("chunks.a", [b"other"]) == 1
    assert await take(subscription, 1)


async def test_a_cancelled_publish_leaves_the_stream_sound(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1")
    known: dict[int, bytes] = {}
    for number in range(40):
        payload = b"%d" % number
        with trio.move_on_after(0.0004 * (number % 5)):
            known[await bus.publish("events.node-1", [payload])] = payload
    last = await bus.publish("events.node-1", [b"last"])
    found = await take(bus.subscribe("events.node-1", "reports"), last)
    assert [delivery.sequence for delivery in found] == list(range(1, last + 1))
    assert len({delivery.payload for delivery in found}) == last
    assert all(found[sequence - 1].payload == payload for sequence, payload in known.items())


async def test_two_processes_of_one_name_do_not_overwrite_each_other(nats_members: NatsHouse) -> None:
    buses = [await nats_members.open("node-1"), await nats_members.open("node-1")]

    async def publish(bus: NatsBus, name: str) -> None:
        for number in range(20):
            await bus.publish("events.node-1", [f"{name}{number}".encode()])

    async with trio.open_nursery() as nursery:
        for bus, name in zip(buses, "xy", strict=True):
            nursery.start_soon(publish, bus, name)
    found = await take(buses[0].subscribe("events.node-1", "reports"), 40)
    assert [delivery.sequence for delivery in found] == list(range(1, 41))
    assert len({delivery.payload for delivery in found}) == 40


async def junk(bus: NatsBus, stream: str, times: int = 1) -> None:
    """Answers of the server under this member's own subject, as any request may have them sent there."""
    writer = bus._streams.writer(stream)
    before = (await bus._jetstream.info(writer.spec)).state.messages
    for _ in range(times):
        bus.link.send("$JS.API.INFO", b"", writer.subject)
    with trio.fail_after(PATIENCE_SECONDS):
        while (await bus._jetstream.info(writer.spec)).state.messages < before + times:
            await trio.sleep(0.01)


async def test_the_count_goes_on_behind_what_is_no_frame(nats_members: NatsHouse) -> None:
    bus, other = await nats_members.open("node-1"), await nats_members.open("node-2")
    assert await bus.publish("events.all", [b"1", b"2"]) == 2
    for number in range(1, 8):
        assert await other.publish("events.all", [b"other"]) == number
    await junk(bus, "events.all", 2)
    assert await bus.publish("events.all", [b"3"]) == 3  # the one who was there is told to look
    await junk(bus, "events.all")
    await nats_members.close(bus)
    bus = await nats_members.open("node-1")
    assert await bus.pending("events.all", "reports") == 3
    assert await bus.publish("events.all", [b"4"]) == 4
    found = await take(bus.subscribe("events.all", "reports"), 11)
    assert payloads([each for each in found if each.writer == "node-1"]) == [b"1", b"2", b"3", b"4"]


async def test_the_count_goes_on_when_only_what_is_no_frame_is_left(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("a")
    subscription = bus.subscribe("chunks.a", "intake")
    assert await bus.publish("chunks.a", [b"1", b"2"]) == 2
    await subscription.acknowledge((await take(subscription, 2))[-1])
    await subscription.drop()
    await junk(bus, "chunks.a")
    await nats_members.close(bus)
    bus = await nats_members.open("a")
    assert await bus.pending("chunks.a", "intake") == 0
    assert await bus.publish("chunks.a", [b"3"]) == 3
    assert payloads(await take(bus.subscribe("chunks.a", "intake"), 1)) == [b"3"]


async def test_a_frame_whose_answer_was_lost_is_found_before_what_is_none(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1")
    assert await bus.publish("events.node-1", [b"1"]) == 1
    publish = bus._jetstream.publish

    async def twice(*arguments: Any) -> int:
        bus._jetstream.publish = publish  # type: ignore[method-assign]
        await publish(*arguments)  # as if its answer was lost
        await junk(bus, "events.node-1")
        return await publish(*arguments)

    bus._jetstream.publish = twice  # type: ignore[method-assign,assignment]
    assert await bus.publish("events.node-1", [b"2"]) == 2
    assert await bus.publish("events.node-1", [b"3"]) == 3
    assert payloads(await take(bus.subscribe("events.node-1", "reports"), 3)) == [b"1", b"2", b"3"]
