"""One egress path: tables for its decisions, then the actor with scripted connections on a jumping clock."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors import connection as connection_actor
from engine.actors import site as site_module
from engine.actors.messages import (
    ConnectionEnded,
    ConnectionReady,
    NewRoute,
    Settle,
    Want,
)
from engine.actors.site import Site, connections_wanted, suspension_seconds
from engine.config.units import Duration, Rate
from engine.model.disposition import Outcome
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from tests.fakes.engine_house import a_lease, host_route
from tests.fakes.scripted_connections import PATH, open_house, start_site
from tests.fakes.trees import until_quiet

REFUSED = TransportFailure(FailureKind.CONNECT_REFUSED, Verb.CONNECT, "refused")
BUSY = Reply(421, None, ("too many connections",))
Patch = pytest.MonkeyPatch


@pytest.mark.parametrize(
    ("ready", "leased", "open_now", "limit", "wanted"),
    [
        (0, 0, 0, 20, 0),
        (1, 0, 0, 20, 1),
        (10, 0, 0, 20, 1),
        (11, 0, 0, 20, 2),
        (1_000, 0, 0, 20, 2),  # carefully at first
        (1_000, 0, 2, 20, 4),
        (1_000, 0, 8, 20, 16),
        (1_000, 0, 16, 20, 20),
        (1_000, 0, 16, 3, 3),
        (0, 50, 5, 20, 5),  # what is leased keeps its connections
        (15, 25, 2, 20, 4),
        (1, 0, 9, 20, 1),
    ],
)
def test_how_many_connections_the_work_is_worth(
    ready: int, leased: int, open_now: int, limit: int, wanted: int
) -> None:
    assert connections_wanted(ready, leased, open_now, limit) == wanted


@pytest.mark.parametrize(
    ("failures", "first", "seconds"),
    [(1, 5.0, 5.0), (2, 5.0, 10.0), (4, 5.0, 40.0), (8, 5.0, 600.0), (10_000, 5.0, 600.0), (1, 900.0, 600.0)],
)
def test_how_long_a_path_rests(failures: int, first: float, seconds: float) -> None:
    assert suspension_seconds(failures, first) == seconds


# --- connections and leases -----------------------------------------------------------------------------


async def test_a_new_site_says_how_much_room_it_has(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with open_house(monkeypatch) as house:
        assert house.credits() == [site_module.READY_MAX]


async def test_a_slow_rate_means_little_room(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with open_house(monkeypatch, rate=Rate(60, 60.0)) as house:
        assert house.credits() == [2]


async def test_connections_grow_with_the_work_up_to_the_limit(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=5) as house:
        await house.offer(300)
        counts = []
        for _ in range(6):
            counts.append(len(house.names))
            await house.ready(*house.names)
        assert counts == [2, 4, 5, 5, 5, 5]


async def test_leases_are_shares_of_what_is_ready_in_order(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=2) as house:
        await house.offer(20)
        one, two = house.names
        await house.ready(one, want=64)
        (order,) = house.orders()
        assert (order.path, order.holder) == (PATH, house.holders[one])
        assert list(order.ids) == list(range(1, 11)), "the other connection gets its half"
        await house.ready(two, want=3)
        (order,) = house.orders()
        assert list(order.ids) == [11, 12, 13]


async def test_a_lease_has_at_most_64_envelopes(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(500)
        await house.ready(*house.names, want=500)
        (order,) = house.orders()
        assert len(order.ids) == 64


async def test_a_connection_that_is_not_ready_gets_nothing(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch) as house:
        await house.offer(5)
        await house.tell(Want(house.names[0], 5), Want("unknown#7", 5), ConnectionReady("unknown#7"))
        assert not house.orders()


async def test_a_want_waits_for_the_next_offer(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(2)
        await house.ready(*house.names, want=8)
        assert [list(order.ids) for order in house.orders()] == [[1, 2]]
        await house.tell(Want(house.names[0], 8))
        assert not house.orders()
        await house.offer(3, first=3)
        assert [list(order.ids) for order in house.orders()] == [[3, 4, 5]]


async def test_an_order_that_finds_no_room_is_tried_again(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    slowly: dict[str, Any] = {"rate": Rate(36_000, 3600.0), "burst": Duration(1)}
    async with open_house(monkeypatch, spooler_capacity=1, connections=2, **slowly) as house:
        house.desk.mailbox("spooler").put_nowait("somebody else's")
        await house.offer(4)
        await trio.sleep(2)
        await house.ready(*house.names, want=4)
        house.desk.take("spooler")
        await trio.sleep(1)
        ids = [spool_id for order in house.orders() for spool_id in order.ids]
        assert ids == [1, 2, 3, 4]


async def test_room_is_told_when_half_of_it_is_there_and_each_tick(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        house.credits()
        await house.offer(1_000)
        await house.ready(*house.names)
        await trio.sleep(2)
        assert not house.credits(), "it is full"
        await house.tell(Want(house.names[0], 64))
        await trio.sleep(1)
        assert house.credits()[0] == 64


# --- rates ----------------------------------------------------------------------------------------------


async def test_the_rate_holds_whatever_is_wanted(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with open_house(monkeypatch, connections=3, rate=Rate(10, 1.0)) as house:
        began, count, first = trio.current_time(), 0, 1
        for _ in range(200):
            await house.offer(5, first=first)
            first += 5
            await house.ready(*house.names, want=64)
            await trio.sleep(0.05)
            count += sum(len(order.ids) for order in house.orders())
            seconds = trio.current_time() - began
            assert count <= 10 * seconds + 10 + 1
        assert count >= 10 * seconds * 0.9, "and is used"


async def test_a_throttled_site_wakes_for_the_next_token(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1, rate=Rate(60, 60.0)) as house:
        await house.offer(5)
        await house.ready(*house.names, want=5)
        assert len(house.orders()[0].ids) == 1
        await house.tell(Want(house.names[0], 5))
        assert not house.orders()
        await trio.sleep(1.01)
        assert len(house.orders()[0].ids) == 1


# --- its own life -----------------------------------------------------------------------------------------


async def test_an_idle_site_ends_and_leaves_a_record(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(1)
        await house.ready(*house.names, want=1)
        await house.lease(house.orders()[0], 1)
        await trio.sleep(10)
        assert PATH in house.parts.sites
        await house.end(house.names[0], reached=True, served=1)
        await trio.sleep(site_module.LINGER_SECONDS + 1)
        assert PATH not in house.parts.sites
        assert PATH in house.parts.memory


async def test_a_site_that_starts_again_goes_on_with_its_record(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(1)
        await house.end(house.names[0], REFUSED)
        until = house.parts.memory[PATH].suspended_until
        house.parts.sites.kill(PATH)
        await until_quiet()
        house.credits()
        house.ref = await start_site(house)
        await house.offer(1, first=2)
        assert not house.names
        assert not house.credits()
        await trio.sleep(until - trio.current_time() + 0.6)
        assert house.names


async def test_connections_of_a_crashed_site_count_against_the_limit(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=2) as house:
        house.deaf = True
        await house.offer(100)
        old = house.names
        assert len(old) == 2
        house.parts.sites.kill(PATH)
        await until_quiet()
        house.ref = await start_site(house)
        await house.offer(100, first=101)
        await trio.sleep(1)
        assert house.names == old, "their last replies are awaited, and nobody is opened beside them"
        await house.end(old[0], reached=True, served=1)
        await trio.sleep(1)
        assert len(house.names) == 2
        assert old[1] in house.names


async def test_idle_connections_of_a_crashed_site_make_room_at_once(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=2) as house:
        await house.offer(100)
        old = house.names
        house.parts.sites.kill(PATH)
        await until_quiet()
        house.ref = await start_site(house)
        assert not house.names
        await house.offer(100, first=101)
        assert len(house.names) == 2
        assert not set(house.names) & set(old)


async def test_a_stop_waits_for_its_connections(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with open_house(monkeypatch) as house:
        await house.offer(100)
        assert house.names
        await house.parts.sites.stop_child(PATH)
        assert not house.names
        assert not house.orders()


async def test_leases_that_it_was_about_to_defer_come_back_when_it_crashes(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(3)
        await house.end(house.names[0], REFUSED)
        (order,) = house.orders()
        house.parts.sites.kill(PATH)
        assert order.holder.grant(a_lease(1, *order.ids))
        await until_quiet()
        (told,) = house.desk.take("spooler", Settle)
        assert {item.outcome for _, batch in told.batches for item in batch} == {Outcome.RETURNED}
        assert not order.holder.grant(a_lease(2, 9))


async def test_new_hosts_are_used_by_the_next_connection(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    owners: list[Site] = []
    async with open_house(monkeypatch, connections=1, connect_timeout=Duration(5)) as house:
        connect = house.connect

        def noting(owner: Site, *rest: Any) -> Any:
            owners.append(owner)
            return connect(owner, *rest)

        monkeypatch.setattr(connection_actor, "connection", noting)
        moved = host_route("127.0.0.2", 25, "mx.test")
        await house.tell(NewRoute(moved))
        await house.offer(1)
        assert owners[0].route == moved
        assert owners[0].memory.shaping.connect_timeout_seconds == 5
        shown = repr(owners[0])
        assert shown == "<Site mx.test via out: 0/1 connections, 0 + 1 ready>"
        await house.end(house.names[0], REFUSED)
        assert "rests 0.4 s: no connection succeeded" in repr(owners[0])


async def test_the_end_of_a_connection_may_be_told_twice_or_never(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(5)
        (name,) = house.names
        await house.end(name, reached=True, served=1)
        await house.tell(ConnectionEnded(name, True, 1, None, False))
        assert len(house.names) == 1
