"""What all sessions hand in goes out in groups, whole, and everybody hears of it once and in time."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from engine.bus.api import BusFull
from services.submission import publishing
from services.submission.publishing import NotDurable, Publisher
from tests.fakes.memory_bus import MemoryBus

STREAM = "chunks.node.single"


class House:
    def __init__(self, durable_seconds: float) -> None:
        self.bus = MemoryBus("node.submission-1")
        self.publisher = Publisher(self.bus, STREAM, durable_seconds)
        self.heard: dict[str, list[Exception | None]] = {}

    def hear(self, name: str) -> Callable[[Exception | None], None]:
        return self.heard.setdefault(name, []).append

    def hand_in(self, name: str, *entries: bytes) -> None:
        self.publisher.hand_in(entries or (name.encode(),), self.hear(name))


@asynccontextmanager
async def running(durable_seconds: float = 20.0) -> AsyncIterator[House]:
    house = House(durable_seconds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.publisher.run)
        yield house
        nursery.cancel_scope.cancel()


async def test_what_comes_meanwhile_shares_a_publish_and_keeps_its_order(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.bus.delay_seconds = 1.0
        house.hand_in("a")
        await trio.sleep(0.5)
        for name in "bcd":
            house.hand_in(name, name.encode(), name.upper().encode())
        await trio.sleep(0.4)
        assert house.heard["a"] == []
        await trio.sleep(0.2)
        assert house.heard["a"] == [None]
        assert house.heard["d"] == []
        await trio.sleep(1.0)
        assert house.bus.streams[STREAM] == [b"a", b"b", b"B", b"c", b"C", b"d", b"D"]
        assert [house.heard[name] for name in "abcd"] == [[None]] * 4
        assert house.publisher.groups == 2
        assert repr(house.publisher) == f"<Publisher {STREAM}: 0 wait, 4 in 2 groups>"


async def test_a_refused_publish_is_told_to_all_of_it_and_the_next_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        house.bus.refusals = 1
        house.hand_in("a")
        house.hand_in("b")
        await trio.sleep(1)
        house.hand_in("c")
        await trio.sleep(1)
        assert all(isinstance(house.heard[name][0], BusFull) for name in "ab")
        assert house.heard["c"] == [None]
        assert house.bus.streams[STREAM] == [b"c"]


async def test_nobody_waits_longer_than_allowed(autojump_clock: MockClock) -> None:
    async with running(5.0) as house:
        house.bus.delay_seconds = 30.0
        house.hand_in("under way")
        await trio.sleep(1)
        house.hand_in("waiting")
        await trio.sleep(5.5)
        assert isinstance(house.heard["under way"][0], NotDurable)
        assert isinstance(house.heard["waiting"][0], BusFull)
        house.bus.delay_seconds = 0.0
        await trio.sleep(30)
        house.hand_in("later")
        await trio.sleep(1)
        assert house.heard["later"] == [None]
        assert len(house.heard["under way"]) == 1, "it is told once"
        assert house.bus.streams[STREAM] == [b"under way", b"later"]


async def test_too_much_that_waits_is_refused_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "WAITING_OCTETS_MAX", 10)
    async with running() as house:
        house.bus.delay_seconds = 1.0
        house.hand_in("a", b"12345")
        house.hand_in("b", b"123456")
        assert isinstance(house.heard["b"][0], BusFull)
        await trio.sleep(2)
        house.hand_in("c", b"123456")
        await trio.sleep(2)
        assert house.heard["c"] == [None]


async def test_a_group_stays_below_what_one_publish_takes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "GROUP_OCTETS_MAX", 6)
    async with running() as house:
        for name in "abc":
            house.hand_in(name, b"1234")
        await trio.sleep(1)
        assert house.publisher.groups == 3
        with pytest.raises(AssertionError):
            house.hand_in("d", b"1234567")
