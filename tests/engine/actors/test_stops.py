"""What operators have said holds as long as it stands, after a restart, too; and keeps what it should."""

import msgspec
import pytest
from trio.testing import MockClock

from engine.actors import stops as stops_module
from engine.actors.stops import (
    TABLE,
    Aim,
    Scope,
    Stop,
    StopKind,
    StopOrder,
    Stops,
    TooManyStops,
)
from tests.fakes.memory_bus import MemoryBus

NOW = 1_000.0
SUSPENDED = Stop(False, "suspended by ann: a reason")
CANCELLED = Stop(True, "cancelled by ann: a reason")


def an_order(kind: StopKind, scope: str, value: str = "", **facts: object) -> StopOrder:
    plain = StopOrder(0, kind, Aim(Scope(scope), value), "a reason", "ann", NOW)
    return msgspec.structs.replace(plain, **facts)


def judged(stops: Stops, spool_id: int = 5, wall: float = NOW) -> Stop | None:
    return stops.judge(7, "shop", "x.test", "out", "mx.x.test", spool_id, wall)


SCOPES = [
    ("campaign", "7"),
    ("domain", "x.test"),
    ("workspace", "shop"),
    ("site", "mx.x.test"),
    ("source", "out"),
    ("all", ""),
]


async def test_nothing_stands_at_first(autojump_clock: MockClock) -> None:
    stops = Stops(MemoryBus("node"))
    assert not stops
    assert (stops.version, stops.all(), repr(stops)) == (0, [], "<Stops: none>")
    assert judged(stops) is None
    assert stops.reroute(7, "shop", "x.test", NOW) is None


@pytest.mark.parametrize(("scope", "value"), SCOPES)
async def test_a_suspension_lets_its_mail_wait_and_no_other(
    scope: str, value: str, autojump_clock: MockClock
) -> None:
    stops = Stops(MemoryBus("node"))
    order = await stops.give(an_order(StopKind.SUSPEND, scope, value))
    assert (bool(stops), stops.version) == (True, 1)
    assert judged(stops) == SUSPENDED
    other = stops.judge(8, "club", "y.test", "in", "mx.y.test", 5, NOW)
    assert other == (SUSPENDED if scope == "all" else None)
    held = [
        scope if found else ""
        for found in (
            stops.holds_flow(7, "shop", NOW),
            stops.holds_domain("x.test", NOW),
            stops.holds_path("out", "mx.x.test", NOW),
        )
    ]
    where = {"domain": 1, "site": 2, "source": 2}.get(scope, 0)
    assert held == [scope if place == where else "" for place in range(3)]
    assert await stops.end(order)
    assert (bool(stops), stops.version, judged(stops)) == (False, 2, None)
    assert not await stops.end(order)


@pytest.mark.parametrize(("scope", "value"), SCOPES)
async def test_a_cancel_ends_what_was_there_before_it(
    scope: str, value: str, autojump_clock: MockClock
) -> None:
    stops = Stops(MemoryBus("node"))
    await stops.give(an_order(StopKind.CANCEL, scope, value, before_id=5))
    assert judged(stops, 4) == CANCELLED
    assert judged(stops, 5) is None
    assert stops.holds_flow(7, "shop", NOW) is None, "what came later goes"
    assert stops.holds_path("out", "mx.x.test", NOW) is None


async def test_a_cancelled_campaign_is_held_and_over_a_suspension(autojump_clock: MockClock) -> None:
    stops = Stops(MemoryBus("node"))
    await stops.give(an_order(StopKind.SUSPEND, "all"))
    await stops.give(an_order(StopKind.CANCEL, "campaign", "7"))
    assert judged(stops, 10**9) == CANCELLED
    assert stops.holds_flow(7, "shop", NOW) == CANCELLED
    assert stops.holds_flow(8, "shop", NOW) == SUSPENDED


async def test_an_order_holds_after_a_restart_until_its_time_is_over(autojump_clock: MockClock) -> None:
    bus = MemoryBus("node")
    await Stops(bus).give(an_order(StopKind.SUSPEND, "campaign", "7", until=NOW + 60))
    stops = Stops(bus)
    assert judged(stops, wall=NOW + 59.9) == SUSPENDED
    assert stops.over(NOW + 59.9) == []
    assert judged(stops, wall=NOW + 60) is None, "whoever takes it off"
    assert stops.over(NOW + 60) == stops.all()
    (order,) = stops.all()
    await stops.end(order)
    assert Stops(bus).all() == []


async def test_the_same_said_again_replaces_what_was_said(autojump_clock: MockClock) -> None:
    stops = Stops(MemoryBus("node"))
    first = await stops.give(an_order(StopKind.SUSPEND, "campaign", "7"))
    second = await stops.give(an_order(StopKind.SUSPEND, "campaign", "7", at=NOW + 1, until=NOW + 9))
    third = await stops.give(an_order(StopKind.CANCEL, "campaign", "7"))
    assert [order.number for order in (first, second, third)] == [1, 1, 2]
    assert stops.all() == [second, third]
    assert not await stops.end(first), "that one stands no longer"
    assert await stops.change(first, found=3) is None
    assert stops.of(StopKind.SUSPEND) == [second]


async def test_how_far_it_has_come_is_kept_and_felt_by_no_message(autojump_clock: MockClock) -> None:
    bus = MemoryBus("node")
    stops = Stops(bus)
    order = await stops.give(an_order(StopKind.CANCEL, "campaign", "7"))
    version = stops.version
    changed = await stops.change(order, found=3, swept=True)
    assert (stops.version, changed) == (version, Stops(bus).all()[0])
    assert changed is not None
    assert (changed.found, changed.swept) == (3, True)


async def test_a_retry_stops_nothing(autojump_clock: MockClock) -> None:
    stops = Stops(MemoryBus("node"))
    await stops.give(an_order(StopKind.RETRY, "all", states=("deferred",)))
    assert (bool(stops), stops.version, judged(stops)) == (False, 0, None)


async def test_the_narrowest_reroute_counts(autojump_clock: MockClock) -> None:
    stops = Stops(MemoryBus("node"))
    for scope, value, target in [
        ("all", "", "rest"),
        ("workspace", "shop", "shops"),
        ("domain", "x.test", "x"),
        ("campaign", "7", "seven"),
    ]:
        assert stops.reroute(7, "shop", "x.test", NOW) != target
        await stops.give(an_order(StopKind.REROUTE, scope, value, target=target))
        assert stops.reroute(7, "shop", "x.test", NOW) == target
    assert stops.reroute(8, "club", "y.test", NOW) == "rest"
    assert judged(stops) is None


async def test_a_row_that_does_not_decode_is_left_and_its_number_not_used(
    autojump_clock: MockClock,
) -> None:
    bus = MemoryBus("node")
    await bus.put(TABLE, "4", b"{}")
    bad = an_order(StopKind.CANCEL, "campaign", "7")
    await bus.put(TABLE, "5", msgspec.json.encode(bad).replace(b'"7"', b'"seven"'))
    stops = Stops(bus)
    assert stops.all() == []
    assert (await stops.give(an_order(StopKind.SUSPEND, "all"))).number == 6
    assert set(bus.items(TABLE)) == {"4", "5", "6"}


async def test_there_is_an_end_to_orders(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops_module, "STOPS_MAX", 1)
    stops = Stops(MemoryBus("node"))
    await stops.give(an_order(StopKind.SUSPEND, "all"))
    with pytest.raises(TooManyStops, match="end some first"):
        await stops.give(an_order(StopKind.CANCEL, "all"))
    await stops.give(an_order(StopKind.SUSPEND, "all", until=NOW + 3))


def test_an_aim_says_what_it_is() -> None:
    assert str(Aim(Scope.CAMPAIGN, "7")) == "campaign 7"
    assert str(Aim(Scope.ALL)) == "all mail"
    assert (Aim(Scope.CAMPAIGN, "7").campaign, Aim(Scope.DOMAIN, "x.test").campaign) == (7, 0)
