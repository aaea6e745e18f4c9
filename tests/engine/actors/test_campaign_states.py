"""What the tables of all broadcasters say is done here within a second."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.actors.campaign_states import (
    AUTHOR,
    STALE_AUTHOR,
    STALE_SECONDS,
    CampaignState,
    campaign_states,
    decode_state,
)
from engine.actors.messages import StopsChanged
from engine.actors.parts import Parts
from engine.actors.stops import Aim, Scope, StopKind, StopOrder
from engine.model.content import MessageClass
from tests.fakes.engine_house import CAMPAIGN, Desk, accepted, letter, memory_parts, numbered
from tests.fakes.memory_bus import MemoryBus

AIM = Aim(Scope.CAMPAIGN, str(CAMPAIGN))


@asynccontextmanager
async def following(parts: Parts, desk: Desk | None = None) -> AsyncIterator[None]:
    context = (desk or Desk()).context("campaign_states")
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: campaign_states(parts)(context, task_status))
        await trio.sleep(0.1)
        try:
            yield
        finally:
            context.stop.set()


async def say(parts: Parts, state: str) -> None:
    row = msgspec.json.encode(CampaignState(state, "ann", "a typo"))
    await parts.cluster.put("campaigns", str(CAMPAIGN), row)
    await trio.sleep(0.9)  # "within a second"


def judged(parts: Parts) -> str:
    stop = parts.stops.judge(CAMPAIGN, "w", "x.test", "s", "mx", 1, parts.clock.now())
    if stop is None:
        return "goes"
    return "over" if stop.cancels else "waits"


async def test_a_paused_campaign_waits_and_goes_on_when_it_runs(autojump_clock: MockClock) -> None:
    parts, desk = memory_parts(), Desk()
    async with following(parts, desk):
        await say(parts, "pause")
        assert judged(parts) == "waits"
        assert parts.stops.all()[0].text == "suspended by table campaigns: pause by ann: a typo"
        assert desk.take("scheduler", StopsChanged)
        await say(parts, "run")
        assert judged(parts) == "goes"
        assert desk.take("scheduler", StopsChanged)


async def test_a_cancelled_campaign_is_over_once_it_is_here(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with following(parts):
        await say(parts, "cancel")
        assert judged(parts) == "goes"  # nothing of it is here, and there may be many old ones
        await accepted(parts, numbered(2))
        await trio.sleep(0.9)
        assert judged(parts) == "over"


async def test_a_row_that_is_gone_ends_what_it_said(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with following(parts):
        await say(parts, "pause")
        await parts.cluster.delete("campaigns", str(CAMPAIGN))
        await trio.sleep(0.9)
        assert judged(parts) == "goes"


@pytest.mark.parametrize("value", [b"{", b'{"state": 7}', b"[]"])
def test_what_does_not_decode_is_a_pause(value: bytes) -> None:
    assert decode_state(value).state == "pause"


async def test_an_unknown_state_is_a_pause(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with following(parts):
        await say(parts, "levitate")
        assert judged(parts) == "waits"


async def test_the_table_rules_over_an_operator_who_resumes_but_not_over_one_who_suspends(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    async with following(parts):
        await say(parts, "pause")
        await parts.stops.end(parts.stops.all()[0])
        await trio.sleep(0.9)
        assert judged(parts) == "waits"
        await say(parts, "run")
        await parts.stops.give(StopOrder(0, StopKind.SUSPEND, AIM, "mine", "operator", 0.0))
        await trio.sleep(0.9)
        assert judged(parts) == "waits"


async def test_what_stood_when_the_engine_went_down_stands_while_the_bus_is_silent(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    async with following(parts):
        await say(parts, "pause")
    assert judged(parts) == "waits"
    assert [order.author for order in parts.stops.all()] == [AUTHOR]


async def test_a_retired_engine_sends_nothing_and_takes_nothing(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with following(parts):
        await parts.cluster.put("retired", "node", b"another epoch")
        await trio.sleep(0.9)
        assert judged(parts) == "goes"
        await parts.cluster.put("retired", "node", parts.spool.epoch.encode())
        await trio.sleep(0.9)
        assert judged(parts) == "waits"
        assert "retired" in parts.membership.closed
        await parts.cluster.delete("retired", "node")
        await trio.sleep(0.9)
        assert judged(parts) == "goes"
        assert not parts.membership.closed


async def test_bulk_waits_while_suppressions_may_be_stale_and_single_mail_does_not(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    cluster = MemoryBus("node")
    parts.cluster = cluster
    await parts.bus.put("seen", "heard", repr(parts.clock.now()).encode())
    await accepted(parts, numbered(1))
    await accepted(parts, numbered(1), letter(8, message_class=MessageClass.TRANSACTIONAL))
    async with following(parts):
        cluster.online = False
        await trio.sleep(STALE_SECONDS - 10)
        assert not parts.stops.all()
        await trio.sleep(20)
        assert [(each.author, each.aim) for each in parts.stops.all()] == [(STALE_AUTHOR, AIM)]
        cluster.online = True
        await trio.sleep(1)
        assert not parts.stops.all()


async def test_an_engine_that_was_off_for_long_holds_bulk_until_it_hears_the_bus(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    cluster = MemoryBus("node")
    cluster.online = False
    parts.cluster = cluster
    await parts.bus.put("seen", "heard", repr(parts.clock.now() - STALE_SECONDS - 1).encode())
    await accepted(parts, numbered(1))
    async with following(parts):
        await trio.sleep(0.9)
        assert judged(parts) == "waits"


class SilentBus(MemoryBus):
    """Away: nothing is read of it."""

    async def read_all(self, table: str) -> dict[str, bytes]:
        await trio.sleep_forever()
        raise AssertionError


async def test_what_stood_stands_over_a_restart_while_the_bus_is_away(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with following(parts):
        await say(parts, "pause")
        await parts.cluster.put("retired", "node", parts.spool.epoch.encode())
        await trio.sleep(0.9)
    stood = parts.stops.all()
    assert len(stood) == 2
    silent = SilentBus("node")
    silent.online = False
    parts.cluster = silent
    await parts.bus.put("seen", "heard", repr(parts.clock.now()).encode())
    async with following(parts):
        await trio.sleep(100)
        assert parts.stops.all() == stood


async def test_what_was_taken_back_meanwhile_ends_once_the_tables_are_read(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with following(parts):
        await say(parts, "pause")
    await parts.cluster.put("campaigns", str(CAMPAIGN), msgspec.json.encode(CampaignState("run")))
    async with following(parts):
        await trio.sleep(0.9)
        assert judged(parts) == "goes"


def test_a_state_with_broken_text_is_a_pause() -> None:
    assert decode_state(b'{"state": "\xff"}').state == "pause"
    assert decode_state(b'{"state": ' + b"[" * 200_000).state == "pause"
