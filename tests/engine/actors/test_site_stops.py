"""A site whose source or receiver an operator stops, or whose source is gone; connections are scripted."""

import pytest
import trio
from trio.testing import MockClock

from engine.actors.messages import GiveBack, Recall
from engine.actors.source_states import SUSPEND_SECONDS_FIRST
from engine.actors.stops import Aim, Scope, StopKind, StopOrder
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.policy.breaker import BreakerState
from tests.fakes.scripted_connections import PATH, House, open_house, start_site
from tests.fakes.trees import until_quiet

Patch = pytest.MonkeyPatch
STOPPED = [(Scope.SOURCE, "out"), (Scope.SITE, "mx.test")]
GONE = TransportFailure(FailureKind.SOURCE, Verb.CONNECT, "cannot assign address")
NO_PORTS = TransportFailure(FailureKind.LOCAL, Verb.CONNECT, "no port is left")


async def suspend(house: House, scope: Scope, value: str) -> StopOrder:
    order = StopOrder(0, StopKind.SUSPEND, Aim(scope, value), "wait", "ann", 0.0)
    return await house.parts.stops.give(order)


def returned(house: House) -> list[tuple[list[int], bool]]:
    """Ids, and whether another source may have them, of each GiveBack since the last look."""
    return [(list(told.ids), told.elsewhere) for told in house.desk.take("scheduler", GiveBack)]


# --- an operator's stop -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "value"), STOPPED)
async def test_a_site_that_is_stopped_gives_its_ids_back_hangs_up_and_asks_for_none(
    scope: Scope, value: str, monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=2) as house:
        await house.offer(50)
        await house.ready(*house.names, want=5)
        taken = house.leased()
        house.credits()
        given = await suspend(house, scope, value)
        await house.tell(Recall())
        (back,) = returned(house)
        assert back == ([each for each in range(1, 51) if each not in taken], False)
        assert not house.names
        await house.offer(3, first=100)
        await trio.sleep(60)
        assert returned(house) == [([100, 101, 102], False)], "what crossed the stop comes back, too"
        assert not house.credits()
        assert not house.orders()
        assert not house.names
        assert PATH in house.parts.sites, "it rests, and is not idle"
        await house.parts.stops.end(given)
        await trio.sleep(1)
        assert house.credits()
        await house.offer(5, first=200)
        assert house.names


async def test_a_site_that_is_stopped_before_it_starts_asks_for_nothing(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch) as house:
        await suspend(house, Scope.SITE, "mx.test")
        house.parts.sites.kill(PATH)
        await until_quiet()
        house.credits()
        await start_site(house)
        await trio.sleep(10)
        assert not house.credits()


async def test_a_stop_of_another_site_is_none_of_its_business(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await suspend(house, Scope.SITE, "mx.other.test")
        await house.offer(5)
        await house.ready(*house.names, want=5)
        assert house.leased() == [1, 2, 3, 4, 5]


# --- a recall -----------------------------------------------------------------------------------------


async def test_a_recall_takes_what_is_ready_and_leaves_connections_alone(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(10, urgent=2)
        (name,) = house.names
        await house.ready(name, want=3)
        assert house.leased() == [1, 2, 3]
        await house.tell(Recall())
        assert returned(house) == [([4, 5, 6, 7, 8, 9, 10], False)]
        assert house.names == [name]
        await trio.sleep(1)
        assert house.credits(), "and there is room for others"
        await house.offer(2, first=20)
        await house.ready(name, want=5)
        assert house.leased() == [20, 21]


async def test_a_recall_with_nothing_ready_says_nothing(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch) as house:
        await house.tell(Recall(), Recall())
        assert not returned(house)


# --- trouble of ours ----------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [GONE, NO_PORTS])
async def test_trouble_of_ours_blames_neither_receiver_nor_path_nor_mail(
    trouble: TransportFailure, monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, unknown=True, connections=8) as house:
        house.deaf = True  # those that are still dialling come to their own end
        await house.offer(50)
        memory = house.parts.memory[PATH]
        window = memory.governor.connections
        for name in house.names:
            await house.end(name, trouble)
        assert (memory.failures, memory.suspended_until) == (0, 0.0)
        assert memory.governor.connections == window
        assert memory.provider.breaker.state(trio.current_time()) is BreakerState.CLOSED
        assert not house.orders(), "nothing at hand had an attempt by it"


async def test_a_source_that_is_gone_rests_and_its_mail_may_leave_by_another(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=2) as house:
        await house.offer(50)
        now = trio.current_time()
        await house.end(house.names[0], GONE)
        until, why = house.parts.source_states.rest("out", now)
        assert until == now + SUSPEND_SECONDS_FIRST
        assert why == "source out is suspended: cannot assign address"
        assert returned(house) == [(list(range(1, 51)), True)]
        assert not house.names, "the others have the same source"
        await trio.sleep(20)
        assert not house.names
        assert not house.credits()
        house.parts.source_states.found("out")
        await trio.sleep(1)
        assert house.credits()


async def test_a_connection_that_becomes_ready_shows_that_its_source_works(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=2) as house:
        await house.offer(50)
        house.deaf = True
        house.parts.source_states.failed("out", GONE, trio.current_time())
        assert not house.parts.source_states.usable("out")
        await house.ready(house.names[0])
        assert house.parts.source_states.usable("out")


async def test_a_machine_without_ports_is_tried_again_a_little_later_each_time(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(5)
        pauses = []
        for _ in range(3):
            ended = trio.current_time()
            await house.end(house.names[0], NO_PORTS)
            assert not house.names
            while not house.names:
                await trio.sleep(0.1)
            pauses.append(trio.current_time() - ended)
        assert pauses == sorted(pauses)
        assert pauses[0] >= 1.0
        assert house.parts.source_states.usable("out")
        assert not returned(house), "what is ready waits here"
