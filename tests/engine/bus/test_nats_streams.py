"""Cursors over all writers: what is dropped, what comes again, and what a forgetful bus does."""

import shutil

import pytest
import trio

from bench.peers.nats import NatsServer
from engine.bus import nats_streams
from engine.bus.nats import NatsBus
from engine.bus.nats_cursors import CURSORS_SPEC
from engine.bus.nats_jetstream import StreamInfo
from tests.contract.bus_house import nothing_more, payloads, take, until_pending
from tests.fakes.nats_house import NatsHouse

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 20.0


async def kept(bus: NatsBus, stream: str) -> int:
    return (await bus._jetstream.info(bus._streams.spec(stream))).state.messages


async def until_kept(bus: NatsBus, stream: str, messages: int) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while await kept(bus, stream) != messages:
            await trio.sleep(0.02)


async def test_nothing_unacknowledged_is_dropped_from_a_work_queue(nats_members: NatsHouse) -> None:
    one, two = await nats_members.open("one"), await nats_members.open("two")
    reader = await nats_members.open("a", housekeeping_seconds=0.05)
    subscription = reader.subscribe("chunks.a", "intake")
    for number in range(3):
        await one.publish("chunks.a", [b"one %d" % number])
        await two.publish("chunks.a", [b"two %d" % number])
    found = await take(subscription, 6)
    for delivery in found:
        if delivery.writer == "two":
            await subscription.acknowledge(delivery)
    await trio.sleep(0.2)
    assert await kept(reader, "chunks.a") == 6
    again = reader.subscribe("chunks.a", "intake")
    assert payloads(await take(again, 3)) == [b"one 0", b"one 1", b"one 2"]
    await again.acknowledge(found[0])
    await until_kept(reader, "chunks.a", 4)
    await again.acknowledge(found[4])
    await nothing_more(again)
    await until_kept(reader, "chunks.a", 0)


async def test_own_facts_are_dropped_behind_the_slowest_consumer(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("a", housekeeping_seconds=0.05, trim_seconds=0.1)
    reports, hooks = (bus.subscribe("events.a", name) for name in ("reports", "webhooks"))
    await bus.publish("suppressions", [b"x"])
    await (all_of := bus.subscribe("suppressions", "all")).acknowledge((await take(all_of, 1))[0])
    for number in range(5):
        await bus.publish("events.a", [b"%d" % number])
    behind = await take(hooks, 5)  # from its first look on it is known as a consumer
    await reports.acknowledge((await take(reports, 5))[-1])
    await trio.sleep(0.3)
    assert await kept(bus, "events.a") == 5
    await hooks.acknowledge(behind[2])
    await until_kept(bus, "events.a", 2)
    assert await bus.pending("events.a", "webhooks") == 2
    assert await kept(bus, "suppressions") == 1


async def test_a_reader_that_never_acknowledges_reads_on(
    nats_members: NatsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_streams, "OPEN_FRAMES_MAX", 10)
    bus = await nats_members.open("a")
    subscription = bus.subscribe("events.a", "judge")
    for number in range(1, 61):
        await bus.publish("events.a", [b"%d" % number])
    found = await take(subscription, 60)
    assert [delivery.sequence for delivery in found] == list(range(1, 61))
    assert len(subscription._open) <= 10
    await subscription.acknowledge(found[4])
    again = await take(bus.subscribe("events.a", "judge"), 55)
    assert [delivery.sequence for delivery in again] == list(range(6, 61))


async def test_acknowledgements_of_many_tasks_share_their_writes(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("a")
    subscription = bus.subscribe("chunks.a", "intake")
    await bus.publish("chunks.a", [b"x"] * 100)
    found = await take(subscription, 100)
    before = (await bus._jetstream.info(CURSORS_SPEC)).state.last_seq
    async with trio.open_nursery() as nursery:
        for delivery in found:
            nursery.start_soon(subscription.acknowledge, delivery)
    assert await bus.pending("chunks.a", "intake") == 0
    assert (await bus._jetstream.info(CURSORS_SPEC)).state.last_seq - before < 10


async def test_a_bus_restored_from_before_is_read_again_and_nothing_new_is_missed(
    nats_members: NatsHouse, nats_server: NatsServer
) -> None:
    bus, reader = await nats_members.open("a"), await nats_members.open("control")
    subscription = reader.subscribe("events.a", "reports")
    await bus.publish("events.a", [b"1"])
    await bus.publish("events.a", [b"2"])
    await subscription.acknowledge((await take(subscription, 2))[0])
    nats_server.stop()
    shutil.copytree(nats_server.folder / "store", nats_server.folder / "snapshot")
    await trio.to_thread.run_sync(nats_server.start)
    for number in (3, 4, 5):
        await bus.publish("events.a", [b"%d" % number])
    [*_, last] = await take(subscription, 3)
    await subscription.acknowledge(last)
    nats_server.kill()
    nats_server.wipe()
    shutil.move(nats_server.folder / "snapshot", nats_server.folder / "store")
    await trio.to_thread.run_sync(nats_server.start)
    for number in (6, 7, 8, 9):  # more than were forgotten: the stream is as long as it was
        assert await bus.publish("events.a", [b"%d" % number]) == number
    found = await take(subscription, 5)
    assert payloads(found) == [b"2", b"6", b"7", b"8", b"9"]
    await subscription.acknowledge(last)
    await subscription.acknowledge(found[-1])
    await until_pending(bus, "events.a", "reports", 0)


async def test_a_name_that_subscribes_again_takes_over(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("a")
    await bus.publish("chunks.a", [b"1"])
    former = bus.subscribe("chunks.a", "intake")
    await take(former, 1)
    again = bus.subscribe("chunks.a", "intake")
    [delivery] = await take(again, 1)
    await again.acknowledge(delivery)
    await bus.publish("chunks.a", [b"2"])
    assert payloads(await take(again, 1)) == [b"2"]
    assert "chunks.a" in repr(again)


async def test_a_stream_restored_with_what_is_no_frame_is_read_again(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("a")
    subscription = bus.subscribe("events.a", "reports")
    await bus.publish("events.a", [b"1"])
    await take(subscription, 1)
    spec = bus._streams.spec("events.a")
    await bus._jetstream._call(f"STREAM.DELETE.{spec.name}", None, StreamInfo)
    await bus._jetstream.publish(spec, "emass.s.events=2Ea.a", b"junk")
    subscription.close()
    assert await bus.publish("events.a", [b"2"]) == 2
    assert payloads(await take(subscription, 1)) == [b"2"]


async def test_housekeeping_goes_on_over_rows_that_cannot_be_read(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("a", housekeeping_seconds=0.05, trim_seconds=0.1)
    reports = bus.subscribe("events.a", "reports")
    for number in range(5):
        await bus.publish("events.a", [b"%d" % number])
    hooks = "emass.t.cursors.hooks.events=2Ea.="
    await bus._jetstream.publish(CURSORS_SPEC, hooks, b"junk")
    await reports.acknowledge((await take(reports, 5))[-1])
    await trio.sleep(0.3)
    assert await kept(bus, "events.a") == 5  # whose row it was may not have read them
    await bus._jetstream.purge(CURSORS_SPEC, 0, hooks)
    await until_kept(bus, "events.a", 0)
