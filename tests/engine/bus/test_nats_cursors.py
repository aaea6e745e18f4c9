"""Cursors move, stay small, and are found with nothing but the right to read single messages."""

import msgspec
import pytest

from engine.bus.nats_cursors import CURSORS_SPEC, KEPT_DAYS, Cursor, Cursors
from engine.bus.nats_frames import Row, pack_row
from engine.bus.nats_jetstream import JetStream
from tests.fakes.nats_house import NatsHouse


def test_a_moved_cursor_keeps_the_other_writers() -> None:
    cursor = Cursor().moved("node-1", 5, 3, 100).moved("node-2", 2, 7, 101)
    assert (cursor.sequence("node-1"), cursor.sequence("node-2"), cursor.low) == (5, 2, 7)
    assert cursor.sequence("node-3") == 0


def test_a_writer_not_heard_for_long_leaves_the_row() -> None:
    cursor = Cursor().moved("operator-x", 5, 3, 100).moved("node-1", 1, 4, 100 + KEPT_DAYS)
    assert set(cursor.writers) == {"operator-x", "node-1"}
    assert set(cursor.moved("node-1", 2, 5, 101 + KEPT_DAYS).writers) == {"node-1"}


@pytest.mark.slow
async def test_every_consumer_of_a_stream_is_found_and_no_other(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1")
    cursors = Cursors(JetStream(bus.link), "node-1")
    assert await cursors.of_all("events.a") == {}
    assert await cursors.newest("events.a") is None
    await cursors.register("events.a", "reports")
    await cursors.register("events.a", "web.hooks")
    await cursors.register("events", "other")
    moved = Cursor().moved("node-1", 5, 3, 100)
    await cursors.write("events.a", "reports", moved)
    await cursors.register("events.a", "reports")
    assert await cursors.of_all("events.a") == {"reports": moved, "web.hooks": Cursor()}
    assert await cursors.newest("events.a") == moved
    assert await cursors.read("events.a", "reports") == moved
    assert await cursors.read("events.a", "nobody") == Cursor()


def row(value: bytes) -> bytes:
    return pack_row(Row(b"12345678", "a", value))


JUNK = {
    "an answer of the server": b'{"type":"io.nats.jetstream.api.v1.account_info_response"}',
    "no cursor": row(msgspec.msgpack.encode(["low", {}])),
    "no text": row(b"\x92\x00\x81\xa1\xff\x92\x01\x01"),
    "too deep": row(b"\x92\x00" + b"\x91" * 100_000),
    "below nothing": row(msgspec.msgpack.encode([-5, {}])),
    "beyond all counts": row(msgspec.msgpack.encode([0, {"a": [2**64 - 1, 1]}])),
}


@pytest.mark.slow
@pytest.mark.parametrize("octets", JUNK.values(), ids=JUNK)
async def test_a_row_that_cannot_be_read_is_a_consumer_at_the_beginning(
    nats_members: NatsHouse, octets: bytes
) -> None:
    bus = await nats_members.open("node-1")
    jetstream = JetStream(bus.link)
    cursors = Cursors(jetstream, "node-1")
    moved = Cursor().moved("node-1", 5, 3, 100)
    await cursors.write("events.a", "reports", moved)
    await jetstream.publish(CURSORS_SPEC, "emass.t.cursors.hooks.events=2Ea.=", octets)
    await jetstream.publish(CURSORS_SPEC, "emass.t.cursors.no=token.events=2Ea.=", octets)
    assert await cursors.read("events.a", "hooks") == Cursor()
    assert await cursors.of_all("events.a") == {"reports": moved, "hooks": Cursor()}
    assert await cursors.newest("events.a") == moved
    await cursors.write("events.a", "hooks", moved)
    assert await cursors.read("events.a", "hooks") == moved
