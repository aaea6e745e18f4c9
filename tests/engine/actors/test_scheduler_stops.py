"""Mail that an operator stops, lets go on or sends another way while it waits; sites are scripted."""

import pytest
import structlog
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors import scheduler as scheduler_module
from engine.actors.messages import GiveBack, Recall, Routed, StopsChanged
from engine.actors.path import path_key
from engine.actors.stops import Aim, Scope, StopKind, StopOrder
from engine.config.egress import RouteRule
from engine.model.egress import Relay, Source
from engine.mta.policy.egress import Egress
from tests.fakes.engine_house import host_route, letter, transactional
from tests.fakes.scripted_paths import PathHouse, path_house

SHOP, PRESS = 11, 12  # campaigns of workspaces of the same names
SMART = Relay("smart", "smart.test", 587)
ONE, TWO = Source("one", "one.test"), Source("two", "two.test")
Patch = pytest.MonkeyPatch


async def order(house: PathHouse, kind: StopKind, scope: str, value: str = "", target: str = "") -> StopOrder:
    """Give an order, and tell of it."""
    plain = StopOrder(0, kind, Aim(Scope(scope), value), "wait", "ann", 0.0)
    given = await house.parts.stops.give(replace(plain, target=target))
    await house.tell(StopsChanged())
    return given


async def suspend(house: PathHouse, scope: str, value: str = "") -> StopOrder:
    return await order(house, StopKind.SUSPEND, scope, value)


async def end(house: PathHouse, given: StopOrder) -> None:
    await house.parts.stops.end(given)
    await house.tell(StopsChanged())


async def two_campaigns(house: PathHouse) -> str:
    """Shop's ids are 1 and 2, press's 3 and 4; one of each is for a.test, all go to one site."""
    await house.write(letter(SHOP, workspace="shop"), letter(PRESS, workspace="press"))
    await house.queue((1, SHOP, "a.test"), (2, SHOP, "b.test"), (3, PRESS, "a.test"), (4, PRESS, "b.test"))
    path = await house.route("a.test")
    await house.route("b.test")
    return path


def look_ups(house: PathHouse) -> list[str]:
    return [name for name in house.started if ">" not in name]


# --- suspend and resume -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "value", "stopped"),
    [
        ("campaign", str(SHOP), {1, 2}),
        ("workspace", "press", {3, 4}),
        ("domain", "a.test", {1, 3}),
        ("all", "", {1, 2, 3, 4}),
    ],
)
async def test_what_is_suspended_waits_and_goes_on_when_it_may(
    scope: str, value: str, stopped: set[int], monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        path = await two_campaigns(house)
        given = await suspend(house, scope, value)
        assert set(await house.credit(path, 9)) == {1, 2, 3, 4} - stopped
        await trio.sleep(60)
        assert not house.offers(path)
        await end(house, given)
        assert set(house.offers(path)) == stopped


async def test_a_stop_holds_from_the_pass_in_which_it_is_told(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        path = await two_campaigns(house)
        began = trio.current_time()
        await suspend(house, "campaign", str(SHOP))
        parked = {queue.campaign for queue in house.parts.queues.all() if queue.place is None}
        assert parked == {SHOP}
        assert trio.current_time() == began
        assert sorted(await house.credit(path, 9)) == [3, 4]


async def test_transactional_mail_is_stopped_like_any_other(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.write(transactional(SHOP))
        await house.queue((1, SHOP, "a.test"))
        path = await house.route("a.test")
        given = await suspend(house, "campaign", str(SHOP))
        assert await house.credit(path, 9) == []
        await end(house, given)
        assert house.offers(path) == [1]


async def test_mail_that_comes_while_it_is_stopped_is_not_even_looked_up(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        given = await suspend(house, "domain", "a.test")
        await house.queue((1, SHOP, "a.test"), (2, SHOP, "b.test"))
        assert look_ups(house) == ["b.test"]
        await end(house, given)
        assert look_ups(house) == ["b.test", "a.test"]
        assert await house.credit(await house.route("a.test"), 9) == [1]


async def test_a_route_that_is_found_while_its_mail_is_stopped_is_kept_for_later(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, SHOP, "a.test"))
        given = await suspend(house, "domain", "a.test")
        path = await house.route("a.test")
        assert path not in house.sites, "nothing is to be sent there"
        await end(house, given)
        assert await house.credit(path, 9) == [1]
        assert look_ups(house) == ["a.test"]


async def test_sites_are_told_to_give_back_what_they_have_at_hand(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        path = await two_campaigns(house)
        assert sorted(await house.credit(path, 9)) == [1, 2, 3, 4]
        await house.leased(path, [4])
        given = await suspend(house, "campaign", str(SHOP))
        assert house.sites[path].mailbox.get_nowait() == Recall()
        await house.give_back(path, [1, 2, 3])
        assert await house.credit(path, 9) == [3]
        await end(house, given)
        assert house.sites[path].mailbox.get_nowait() == Recall()
        assert await house.credit(path, 9) == [1, 2]


async def test_a_queue_of_which_a_part_is_at_a_site_stops_as_a_whole(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, SHOP, "a.test") for number in range(1, 11)])
        path = await house.route("a.test")
        assert await house.credit(path, 4) == [1, 2, 3, 4]
        given = await suspend(house, "campaign", str(SHOP))
        await house.give_back(path, [2, 3, 4])
        assert await house.credit(path, 9) == []
        await end(house, given)
        assert sorted(house.offers(path)) == list(range(2, 11))


async def test_stops_that_come_and_go_leave_nothing_behind(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, SHOP, "a.test") for number in range(1, 101)])
        path = await house.route("a.test")
        for _ in range(5):
            await end(house, await suspend(house, "campaign", str(SHOP)))
        (flow,) = house.parts.paths[path].waiting.flows()
        assert len(list(flow.queues())) == 1
        assert await house.credit(path, 100) == list(range(1, 101))


async def test_a_site_whose_mail_is_all_stopped_may_end_and_comes_back_with_it(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, SHOP, "a.test"))
        path = await house.route("a.test")
        given = await suspend(house, "all")
        await house.leave(path)
        await trio.sleep(1)
        assert house.started.count(path) == 1
        await end(house, given)
        await house.route("a.test")
        assert await house.credit(path, 9) == [1]


async def test_many_queues_are_reviewed_page_by_page_without_a_pause(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(scheduler_module, "REVIEWED_PER_PASS", 2)
    async with path_house(monkeypatch) as house:
        names = [f"d{number}.test" for number in range(7)]
        await house.queue(*[(number + 1, SHOP, name) for number, name in enumerate(names)])
        for name in names:
            path = await house.route(name)
        began = trio.current_time()
        given = await suspend(house, "workspace", "")
        assert not [queue for queue in house.parts.queues.all() if queue.place is not None]
        assert await house.credit(path, 9) == []
        await end(house, given)
        assert sorted(house.offers(path)) == list(range(1, 8))
        assert trio.current_time() == began


async def test_after_a_crash_what_is_stopped_is_still_stopped(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        stopped = await house.accept("a@a.test", content=letter(SHOP))
        free = await house.accept("b@b.test", content=letter(PRESS))
        given = await suspend(house, "domain", "a.test")
        with structlog.testing.capture_logs():
            await house.crash()
        path = await house.route("b.test")
        assert await house.credit(path, 9) == free
        await end(house, given)
        await house.route("a.test")
        assert await house.credit(path, 9) == stopped


async def test_a_stop_while_a_domain_bounces_lets_the_rest_of_its_mail_wait(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, SHOP, "gone.test"), (2, PRESS, "gone.test"))
        await house.unroutable("gone.test", places=0, retry_after=None)
        given = await suspend(house, "campaign", str(SHOP))
        assert house.domains["gone.test"].mailbox.get_nowait() == Recall()
        for expected in ([2], [1]):
            await house.leave("gone.test")
            await house.unroutable("gone.test", places=9, retry_after=None)
            assert house.offers("gone.test") == expected
            await house.leased("!gone.test", expected)
            await end(house, given)


# --- sources and sites ------------------------------------------------------------------------------------


async def test_a_site_that_is_stopped_gets_nothing_before_it_says_that_it_has_room(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, sources=(ONE, TWO)) as house:
        ids = await house.accept(*[f"a{number}@a.test" for number in range(4)])
        house.parts.egress = Egress((ONE,))
        await house.route("a.test")
        path = path_key(ONE, "mx.test")
        assert await house.credit(path, 2) == ids[:2]
        given = await suspend(house, "source", "one")
        assert house.sites[path].mailbox.get_nowait() == Recall()
        await house.tell(GiveBack(path, ids[:2]))
        await trio.sleep(60)
        assert not house.offers(path)
        assert path_key(TWO, "mx.test") not in house.sites, "another source is not asked to stand in"
        await end(house, given)
        assert await house.credit(path, 9) == ids


# --- reroute ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "value"), [("campaign", str(SHOP)), ("workspace", "shop")])
async def test_mail_that_is_rerouted_goes_over_the_relay_and_the_rest_as_before(
    scope: str, value: str, monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        source = house.parts.sources[0]
        house.parts.egress = Egress((source,), relays=(SMART,))
        path = await two_campaigns(house)
        await order(house, StopKind.REROUTE, scope, value, "smart")
        assert "@smart" in house.domains
        assert sorted(await house.credit(path, 9)) == [3, 4], "it waits for the relay, not here"
        house.ref.try_tell(Routed("@smart", host_route("127.0.0.1", 587, SMART.site)))
        await house.leave("@smart")
        assert sorted(await house.credit(path_key(source, SMART.site), 9)) == [1, 2]


async def test_mail_goes_its_own_way_again_when_a_reroute_ends(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, sources=(ONE, TWO)) as house:
        house.parts.egress = Egress(
            (ONE, TWO), {"cold": {"one": 1}, "warm": {"two": 1}}, routes=(RouteRule(pool="cold"),)
        )
        await house.queue((1, SHOP, "a.test"), (2, SHOP, "a.test"), (3, SHOP, "a.test"))
        await house.route("a.test|cold")
        cold, warm = path_key(ONE, "mx.test"), path_key(TWO, "mx.test")
        house.ref.try_tell(Routed("a.test|cold", host_route("127.0.0.1", 25, "mx.test")))
        assert await house.credit(cold, 1) == [1]
        given = await order(house, StopKind.REROUTE, "domain", "a.test", "warm")
        house.ref.try_tell(Routed("a.test|warm", host_route("127.0.0.1", 25, "mx.test")))
        await house.leave("a.test|warm")
        assert await house.credit(warm, 1) == [2]
        assert await house.credit(cold, 9) == []
        await house.give_back(cold, [1])  # recalled: it goes the new way, too
        assert await house.credit(warm, 1) == [1]
        await end(house, given)
        assert await house.credit(cold, 9) == [3]
        assert await house.credit(warm, 9) == []
        assert look_ups(house) == ["a.test|cold", "a.test|warm"], "both are known"


async def test_mail_that_is_rerouted_and_suspended_waits(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        source = house.parts.sources[0]
        house.parts.egress = Egress((source,), relays=(SMART,))
        path = await two_campaigns(house)
        await order(house, StopKind.REROUTE, "all", target="smart")
        given = await suspend(house, "campaign", str(SHOP))
        house.ref.try_tell(Routed("@smart", host_route("127.0.0.1", 587, SMART.site)))
        await house.leave("@smart")
        relay = path_key(source, SMART.site)
        assert await house.credit(path, 9) == []
        assert sorted(await house.credit(relay, 9)) == [3, 4]
        await end(house, given)
        assert sorted(house.offers(relay)) == [1, 2]
