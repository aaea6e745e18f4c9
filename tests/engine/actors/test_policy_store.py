"""Policies on the bus: what was put is there for the next one, and a full disk stops nothing."""

import pytest

from engine.actors.policy_store import TABLE, BusPolicyStore
from engine.bus.api import BusFull
from tests.fakes.memory_bus import MemoryBus


async def test_rows_are_there_for_the_next_one() -> None:
    bus = MemoryBus("node")
    store = BusPolicyStore(bus)
    assert store.items() == {}
    await store.put("a.example", b"1")
    await store.put("b.example", b"2")
    await store.delete("a.example")
    assert BusPolicyStore(bus).items() == {"b.example": b"2"}
    assert bus.items(TABLE) == {"b.example": b"2"}
    assert repr(store) == "<BusPolicyStore: table mta_sts>"


async def test_a_full_disk_keeps_nothing_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = MemoryBus("node")
    store = BusPolicyStore(bus)
    await store.put("a.example", b"1")

    async def full(*args: object) -> None:
        raise BusFull("the disk is full")

    monkeypatch.setattr(bus, "put", full)
    monkeypatch.setattr(bus, "delete", full)
    await store.put("b.example", b"2")
    await store.delete("a.example")
    assert store.items() == {"a.example": b"1"}
