"""A day's quota is written before it is used: a restart never hands it out twice."""

import msgspec
import pytest
import structlog
import trio
from trio.testing import MockClock

from engine.actors.warming import BLOCK_MIN, DAY_SECONDS, TABLE, WarmUpAccount
from engine.bus.api import BusFull
from engine.config.shaping import WarmUpPlan
from engine.mta.policy.warmup import UNLIMITED, WarmUpState
from tests.fakes.memory_bus import MemoryBus

PLAN = WarmUpPlan(source="new", per_day=(100, 1_000))


class Days:
    def __init__(self) -> None:
        self.today = 20_000

    def __call__(self) -> float:
        return self.today * DAY_SECONDS + 3_600.0


def account(bus: MemoryBus, days: Days, plan: WarmUpPlan = PLAN) -> WarmUpAccount:
    return WarmUpAccount(bus, plan, "new", "google", days)


async def spend(warm_up: WarmUpAccount, wanted: int) -> int:
    """What is given to one who asks until nothing more comes."""
    given = 0
    while given < wanted:
        await warm_up.reserve()
        count = warm_up.take(min(16, wanted - given))
        if not count:
            break
        given += count
    return given


async def test_nothing_is_given_before_it_is_written(autojump_clock: MockClock) -> None:
    bus = MemoryBus("node")
    warm_up = account(bus, Days())
    assert warm_up.take(5) == 0
    await warm_up.reserve()
    assert warm_up.take(50) == BLOCK_MIN
    assert bus.get(TABLE, "new/google") is not None


async def test_what_cannot_be_written_as_used_is_not_used(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = MemoryBus("node")
    warm_up = account(bus, Days())

    async def full(table: str, key: str, value: bytes) -> None:
        raise BusFull("the disk is full")

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as lines:
        patch.setattr(bus, "put", full)
        await warm_up.reserve()
    assert warm_up.take(5) == 0
    assert [line["why"] for line in lines] == ["the disk is full"]
    await warm_up.reserve()
    assert warm_up.take(5) == 5


async def test_a_day_gives_its_quota_and_no_more(autojump_clock: MockClock) -> None:
    warm_up = account(MemoryBus("node"), Days())
    assert await spend(warm_up, 1_000) == 100
    assert warm_up.exhausted
    assert warm_up.describe() == "the quota of sending day 1 is used"


async def test_a_restart_in_the_middle_of_a_day_costs_a_block_at_most(autojump_clock: MockClock) -> None:
    bus, days = MemoryBus("node"), Days()
    first = await spend(account(bus, days), 43)
    assert first == 43
    second = await spend(account(bus, days), 1_000)
    assert 100 - BLOCK_MIN <= first + second <= 100
    assert await spend(account(bus, days), 1_000) == 0


async def test_the_next_sending_day_has_the_next_quota(autojump_clock: MockClock) -> None:
    bus, days = MemoryBus("node"), Days()
    warm_up = account(bus, days)
    await spend(warm_up, 1_000)
    days.today += 1
    assert not warm_up.exhausted
    assert await spend(warm_up, 5_000) == 1_000
    assert warm_up.ahead() == (0,)
    days.today += 1
    assert warm_up.room == UNLIMITED
    assert warm_up.take(5_000) == 5_000


async def test_what_was_given_back_may_go_again(autojump_clock: MockClock) -> None:
    warm_up = account(MemoryBus("node"), Days())
    await spend(warm_up, 100)
    warm_up.give_back(7)
    assert await spend(warm_up, 50) == 7


async def test_a_clock_that_goes_back_brings_no_quota(autojump_clock: MockClock) -> None:
    bus, days = MemoryBus("node"), Days()
    await spend(account(bus, days), 100)
    days.today -= 3
    assert await spend(account(bus, days), 100) == 0


async def test_a_value_that_does_not_decode_sends_nothing_today(autojump_clock: MockClock) -> None:
    bus, days = MemoryBus("node"), Days()
    await bus.put(TABLE, "new/google", b"{broken")
    warm_up = account(bus, days)
    assert warm_up.exhausted
    days.today += 1
    assert await spend(warm_up, 5_000) == 1_000, "it counts as a day that was used"


async def test_what_is_written_is_the_state_with_the_block_as_used(autojump_clock: MockClock) -> None:
    bus, days = MemoryBus("node"), Days()
    warm_up = account(bus, days)
    await warm_up.reserve()
    data = bus.get(TABLE, "new/google")
    assert data is not None
    assert msgspec.json.decode(data, type=WarmUpState) == WarmUpState(0, days.today, BLOCK_MIN)
    await trio.lowlevel.checkpoint()


async def test_a_used_up_quota_is_news_once_a_day(autojump_clock: MockClock) -> None:
    days = Days()
    warm_up = account(MemoryBus("node"), days)
    assert warm_up.news() == ""
    await spend(warm_up, 100)
    assert [warm_up.news(), warm_up.news()] == ["warm-up: the quota of sending day 1 is used", ""]
    assert warm_up.seconds_left == DAY_SECONDS - 3_600
    days.today += 1
    await spend(warm_up, 1_000)
    assert warm_up.news() == "warm-up: the quota of sending day 2 is used"
