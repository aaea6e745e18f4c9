"""A site in trouble: suspended paths, refused connections, crashes, a full disk; connections are scripted."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors import site as site_module
from engine.actors.messages import (
    Settle,
)
from engine.model.disposition import Outcome
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.policy.governor_window import CAP_PROBE_SECONDS, MEASURE_SECONDS_MAX
from engine.storage import SpaceLevel
from tests.fakes.engine_house import RETRY
from tests.fakes.scripted_connections import PATH, open_house
from tests.fakes.trees import until_quiet

REFUSED = TransportFailure(FailureKind.CONNECT_REFUSED, Verb.CONNECT, "refused")
BUSY = Reply(421, None, ("too many connections",))
Patch = pytest.MonkeyPatch


async def test_a_path_whose_connection_fails_is_suspended_and_what_is_ready_is_deferred(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(100)
        house.credits()
        await house.end(house.names[0], REFUSED)
        assert not house.names, "nobody connects to a suspended path"
        memory = house.parts.memory[PATH]
        assert memory.suspended_until == pytest.approx(trio.current_time() + RETRY.first)
        orders = house.orders()
        assert [len(order.ids) for order in orders] == [64, 36]
        for number, order in enumerate(orders, 1):
            await house.lease(order, number)
        settled = [item for told in house.desk.take("spooler", Settle) for _, b in told.batches for item in b]
        assert len(settled) == 100
        assert {item.outcome for item in settled} == {Outcome.DEFERRED}
        assert {item.reply for item in settled} == {"connect_refused at connect: refused"}
        assert {item.site for item in settled} == {"mx.test"}
        await trio.sleep(RETRY.first * 0.9)
        assert not house.credits(), "a suspended site has no places"
        await trio.sleep(1)
        assert house.credits()


async def test_rests_grow_until_a_connection_is_ready_again(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        rests = []
        for number in range(3):
            await house.offer(1, first=number + 1)
            await house.end(house.names[0], REFUSED)
            rests.append(house.parts.memory[PATH].suspended_until - trio.current_time())
            await trio.sleep(rests[-1] + 0.6)
        assert rests == [pytest.approx(RETRY.first * factor) for factor in (1, 2, 4)]
        await house.offer(1, first=9)
        await house.ready(house.names[0])
        assert house.parts.memory[PATH].failures == 0


async def test_an_extra_connection_that_is_refused_lowers_the_window_for_minutes(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=9) as house:
        await house.offer(500)
        one, two = house.names
        await house.ready(one)
        await house.end(two, BUSY)
        memory = house.parts.memory[PATH]
        assert memory.rest(trio.current_time()) == (0.0, ""), "the other one goes on"
        assert memory.governor.connections == 1
        await trio.sleep(CAP_PROBE_SECONDS - 1)
        assert house.names == [one]
        await trio.sleep(MEASURE_SECONDS_MAX + 2)
        assert len(house.names) == 2, "one more is tried"


@pytest.mark.parametrize(
    ("trouble", "reached", "served"),
    [
        (None, True, 0),  # it had nothing to do
        (None, False, 0),  # a stop came between
        (BUSY, True, 5),  # the peer had enough of it, not of us
        (REFUSED, True, 1),
    ],
)
async def test_an_end_that_is_no_failure_suspends_nothing(
    trouble: Any, reached: bool, served: int, monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(5)
        (first,) = house.names
        await house.end(first, trouble, reached=reached, served=served)
        assert house.parts.memory[PATH].suspended_until == 0
        assert house.names
        assert house.names != [first]


async def test_a_peer_that_says_ready_and_hangs_up_each_time_is_suspended(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(5)
        await house.ready(house.names[0])
        await house.end(house.names[0], TransportFailure(FailureKind.CLOSED, Verb.MAIL), reached=True)
        assert house.parts.memory[PATH].suspended_until > trio.current_time()


async def test_a_crash_while_connecting_does_not_spin(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(5)
        began = house.parts.connections.started_count
        for _ in range(5):
            house.parts.connections.kill(house.names[0])
            await until_quiet()
            assert not house.names
            await trio.sleep(site_module.CRASH_PAUSE_SECONDS + 0.6)
        assert house.parts.connections.started_count - began == 5
        assert not house.desk.take("spooler"), "what is ready is not to blame"


async def test_nothing_is_leased_while_the_disk_is_full(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    class Full:
        level = SpaceLevel.STOP_LEASING

    async with open_house(monkeypatch, connections=1) as house:
        house.parts.space = Full()  # type: ignore[assignment]
        await house.offer(5)
        await trio.sleep(1)
        await house.ready(*house.names, want=5)
        assert not house.orders()
        house.parts.space = None
        await trio.sleep(1)
        await house.ready(*house.names, want=5)
        assert house.orders()
