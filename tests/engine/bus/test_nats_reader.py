"""Reading goes on where it was, whatever ends the consumer, and takes no more than it was asked for."""

from collections.abc import Callable

import pytest
import trio

from bench.peers.nats import NatsServer
from engine.bus import nats_reader
from engine.bus.nats_jetstream import JetStream, StreamInfo, StreamSpec
from engine.bus.nats_reader import PULL_OCTETS, Reader, read_all
from tests.fakes.nats_house import NatsHouse

pytestmark = pytest.mark.slow

SPEC = StreamSpec("s-test", "emass.s.test.*")
SUBJECT = "emass.s.test.a"
PATIENCE_SECONDS = 20.0


class Reading:
    """A reader that begins behind what it was given."""

    def __init__(
        self,
        jetstream: JetStream,
        pull_messages: int = 256,
        quiet: Callable[[], None] | None = None,
    ) -> None:
        self.found: list[int] = []
        self.placed = 0
        self.reader = Reader(jetstream, SPEC, self._place, pull_messages=pull_messages, quiet=quiet)

    async def _place(self, _: StreamInfo) -> int:
        self.placed += 1
        return self.found[-1] if self.found else 0

    async def take(self, count: int, limit: int = 10) -> list[int]:
        with trio.fail_after(PATIENCE_SECONDS):
            while len(self.found) < count:
                self.found += [item.seq for item in await self.reader.next(limit)]
        return self.found


async def test_a_consumer_that_is_gone_is_made_again(
    nats_members: NatsHouse, nats_server: NatsServer
) -> None:
    jetstream = JetStream((await nats_members.open("node-1")).link)
    for _ in range(5):
        await jetstream.publish(SPEC, SUBJECT, b"x")
    reading = Reading(jetstream, pull_messages=2)
    assert await reading.take(3, limit=1) == [1, 2, 3]
    jetstream.drop_consumer(SPEC, reading.reader._consumer)
    assert await reading.take(5) == [1, 2, 3, 4, 5]
    await jetstream.publish(SPEC, SUBJECT, b"x")
    assert await reading.take(6) == [1, 2, 3, 4, 5, 6]
    assert reading.placed > 1
    nats_server.kill()
    await trio.to_thread.run_sync(nats_server.start)
    await jetstream.publish(SPEC, SUBJECT, b"x")
    assert await reading.take(7) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_slow_reader_holds_at_most_one_pull(nats_members: NatsHouse) -> None:
    jetstream = JetStream((await nats_members.open("node-1")).link)
    size, count = 512 * 1024, 60
    for _ in range(count):
        await jetstream.publish(SPEC, SUBJECT, bytes(size))
    reading = Reading(jetstream)
    await reading.take(1, limit=1)
    await trio.sleep(0.5)
    held = sum(len(item.data) for item in reading.reader._arrived)
    assert 0 < held <= PULL_OCTETS
    assert await reading.take(count, limit=4) == list(range(1, count + 1))
    assert reading.placed == 1


async def test_everything_is_read_of_the_subjects_that_were_asked_for(nats_members: NatsHouse) -> None:
    jetstream = JetStream((await nats_members.open("node-1")).link)
    assert await read_all(jetstream, SPEC) == []
    await jetstream.info(SPEC)
    assert await read_all(jetstream, SPEC) == []
    for number in range(600):
        await jetstream.publish(SPEC, f"emass.s.test.{'ab'[number % 2]}", b"%d" % number)
    found = await read_all(jetstream, SPEC)
    assert [item.data for item in found] == [b"%d" % number for number in range(600)]
    assert [item.seq for item in found] == list(range(1, 601))
    assert len(await read_all(jetstream, SPEC, "emass.s.test.b")) == 300


async def test_a_cancelled_wait_loses_nothing(nats_members: NatsHouse) -> None:
    jetstream = JetStream((await nats_members.open("node-1")).link)
    await jetstream.publish(SPEC, SUBJECT, b"x")
    reading = Reading(jetstream)
    for number in range(1, 20):
        await reading.take(number)
        with trio.move_on_after(0.002 * (number % 4)):
            await reading.reader.next(1)
        await jetstream.publish(SPEC, SUBJECT, b"x")
    assert await reading.take(20) == list(range(1, 21))


async def test_an_idle_reader_keeps_its_consumer(
    nats_members: NatsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_reader, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(nats_reader, "SILENCE_SECONDS", 0.6)
    jetstream = JetStream((await nats_members.open("node-1")).link)
    await jetstream.publish(SPEC, SUBJECT, b"x")
    quiet: list[float] = []
    reading = Reading(jetstream, quiet=lambda: quiet.append(trio.current_time()))
    await reading.take(1)
    consumer = reading.reader._consumer
    with trio.move_on_after(3 * nats_reader.SILENCE_SECONDS):
        await reading.reader.next(1)
    assert (reading.placed, reading.reader._consumer) == (1, consumer)
    assert quiet
    jetstream.drop_consumer(SPEC, consumer)  # real silence
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading.take, 2)
            while reading.placed == 1:
                await trio.sleep(0.02)
            await jetstream.publish(SPEC, SUBJECT, b"x")


async def test_a_message_that_looks_like_the_servers_word_on_a_pull_is_read_all_the_same(
    nats_members: NatsHouse,
) -> None:
    jetstream = JetStream((await nats_members.open("node-1")).link)
    for status in ("404", "100", "409"):
        await jetstream.publish(SPEC, SUBJECT, b"x", {"Status": status})
        await jetstream.publish(SPEC, SUBJECT, b"x")
    reading = Reading(jetstream)
    assert await reading.take(6) == [1, 2, 3, 4, 5, 6]
    assert reading.placed == 1
