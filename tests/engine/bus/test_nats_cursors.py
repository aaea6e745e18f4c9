"""Cursors move, stay small, and are found with nothing but the right to read single messages."""

import pytest

from engine.bus.nats_cursors import KEPT_DAYS, Cursor, Cursors
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
