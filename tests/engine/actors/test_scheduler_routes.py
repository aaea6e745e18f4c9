"""How long a route is good and where mail goes then; lanes, pools and relays; sites are scripted."""

import pytest
import structlog
import trio
from trio.testing import MockClock

from engine.actors import scheduler as scheduler_module
from engine.actors.messages import GiveBack, Routed
from engine.actors.path import path_key
from engine.actors.routing import STALE_SECONDS, Destinations
from engine.config.egress import RouteRule
from engine.model.egress import Relay, Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.model.tls import HostDemand, HostTls, PolicyKind, TlsDemand
from engine.mta.net.mx import Route
from engine.mta.policy.egress import DEFAULT_WAY, Egress, Way
from tests.fakes.engine_house import host_route, letter
from tests.fakes.scripted_paths import PathHouse, path_house

Patch = pytest.MonkeyPatch
ONE, TWO, THREE = Source("one", "one.test"), Source("two", "two.test"), Source("three", "three.test")
SMART = Relay("smart", "smart.test", 587)
STS = TlsDemand("sts-1f2e3d4c", PolicyKind.STS, True, {"mx.test": HostDemand(HostTls.VERIFIED, ("mx.test",))})


async def answer(
    house: PathHouse, destination: str, site: str = "mx.test", *, demand: TlsDemand | None = None
) -> None:
    """The look-up of any destination ends well; its route is good for a minute."""
    hosts = host_route("127.0.0.1", 25, site).hosts
    house.ref.try_tell(Routed(destination, Route(site, hosts, 60.0, demand=demand)))
    await house.leave(destination)


def look_ups(house: PathHouse) -> list[str]:
    """What was looked up, in order."""
    return [name for name in house.started if ">" not in name]


def use(house: PathHouse, *routes: RouteRule, **pools: dict[str, int]) -> None:
    house.parts.egress = Egress(house.parts.sources, pools, (SMART,), routes)


# --- a route that lapses ------------------------------------------------------------------------------------


async def test_a_lapsed_route_goes_on_while_it_is_looked_up_again(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"), (2, 7, "a.test"), (3, 7, "a.test"))
        path = await house.route("a.test", ttl_seconds=60)
        assert await house.credit(path, 1) == [1]
        await trio.sleep(61)
        assert look_ups(house) == ["a.test"] * 2
        assert await house.credit(path, 1) == [2]
        await house.route("a.test", ttl_seconds=60)
        assert await house.credit(path, 1) == [3]
        await trio.sleep(59)
        assert look_ups(house) == ["a.test"] * 2, "the new route counts from its own answer"


async def test_a_lapsed_route_that_nothing_waits_for_is_forgotten(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"))
        path = await house.route("a.test", ttl_seconds=60)
        assert await house.credit(path, 9) == [1]
        assert house.parts.routes == {"a.test": path}
        await trio.sleep(61)
        assert house.parts.routes == {}
        assert look_ups(house) == ["a.test"]
        await house.queue((2, 7, "a.test"))
        assert look_ups(house) == ["a.test"] * 2
        assert not house.offers(path)


async def test_mail_that_waits_moves_with_its_domain_and_the_old_site_keeps_what_it_has(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, 7, "a.test") for number in range(1, 7)])
        old = await house.route("a.test", "mx.old", ttl_seconds=60)
        assert await house.credit(old, 3) == [1, 2, 3]
        await trio.sleep(61)
        new = await house.route("a.test", "mx.new")
        assert await house.credit(old, 9) == [], "nothing waits there any more"
        assert await house.credit(new, 9) == [4, 5, 6]
        await house.leased(old, [1])
        await house.give_back(old, [2, 3])
        assert house.offers(new) == [2, 3]
        await house.leave(old)
        assert house.started.count(old) == 1, "an old site that is done does not come back"
        assert old not in house.parts.paths


async def test_an_old_site_that_ends_before_it_asks_again_does_not_come_back_for_what_has_moved(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"), (2, 7, "a.test"))
        old = await house.route("a.test", "mx.old", ttl_seconds=60)
        await trio.sleep(61)
        new = await house.route("a.test", "mx.new")
        await house.leave(old)
        await trio.sleep(1)
        assert house.started.count(old) == 1
        assert old not in house.parts.paths
        assert await house.credit(new, 9) == [1, 2]


async def test_a_neighbour_of_the_same_site_stays_where_it_is(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"), (2, 7, "b.test"))
        old = await house.route("b.test", "mx.old")
        await house.route("a.test", "mx.old", ttl_seconds=60)
        await trio.sleep(61)
        new = await house.route("a.test", "mx.new")
        assert await house.credit(old, 9) == [2]
        assert await house.credit(new, 9) == [1]


async def test_trouble_with_dns_keeps_the_route_and_asks_again_later(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, 7, "a.test") for number in range(1, 5)])
        path = await house.route("a.test", ttl_seconds=60)
        await trio.sleep(61)
        await house.unroutable("a.test", places=100, retry_after=5)
        assert not house.offers("a.test"), "nothing is deferred for it"
        assert await house.credit(path, 2) == [1, 2]
        await house.leave("a.test")
        await trio.sleep(STALE_SECONDS - 3)
        assert look_ups(house) == ["a.test"] * 2
        await trio.sleep(4)
        assert look_ups(house) == ["a.test"] * 3
        await house.route("a.test")
        assert await house.credit(path, 9) == [3, 4]


async def test_a_domain_that_takes_no_mail_any_more_loses_its_route(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, 7, "a.test") for number in range(1, 5)])
        path = await house.route("a.test", ttl_seconds=60)
        assert await house.credit(path, 1) == [1]
        await trio.sleep(61)
        await house.unroutable("a.test", places=100, retry_after=None)
        assert house.offers("a.test") == [2, 3, 4]
        assert house.parts.routes == {}
        assert await house.credit(path, 9) == []
        await house.leased("!a.test", [2, 3, 4])
        await house.give_back(path, [1])
        await house.leave("a.test")
        assert look_ups(house) == ["a.test"] * 3, "what comes back late is looked up by itself"
        await house.unroutable("a.test", places=100, retry_after=None)
        assert house.offers("a.test") == [1]


async def test_new_destinations_are_looked_up_before_those_whose_route_goes_on(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, lookups_max=1) as house:
        await house.queue((1, 7, "old.test"))
        await house.route("old.test", ttl_seconds=60)
        await house.queue((2, 7, "b.test"))
        await trio.sleep(61)
        await house.queue((3, 7, "c.test"))
        await house.route("b.test")
        assert look_ups(house) == ["old.test", "b.test", "c.test"]
        await house.route("c.test")
        assert look_ups(house)[3:] == ["old.test"]


async def test_many_routes_that_lapse_together_are_looked_up_bit_by_bit(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(scheduler_module, "REFRESHES_PER_LOOK", 2)
    async with path_house(monkeypatch) as house:
        names = [f"d{number}.test" for number in range(5)]
        await house.queue(*[(number + 1, 7, name) for number, name in enumerate(names)])
        for name in names:
            await house.route(name, ttl_seconds=60)
        await trio.sleep(62)
        assert sorted(look_ups(house)[5:]) == names


async def test_a_site_that_ended_while_its_route_is_good_is_looked_up_for_new_mail(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"))
        path = await house.route("a.test")
        assert await house.credit(path, 9) == [1]
        await house.leased(path, [1])
        await house.leave(path)
        await house.queue((2, 7, "a.test"))
        await house.route("a.test")
        assert await house.credit(path, 9) == [2]


# --- lanes ----------------------------------------------------------------------------------------------


async def test_domains_of_one_site_with_different_demands_have_paths_apart_and_equal_ones_share(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(
            *[(number, 7, name) for number, name in enumerate(("a.test", "b.test", "c.test"), 1)]
        )
        await answer(house, "a.test", demand=STS)
        await answer(house, "b.test", demand=STS)
        await answer(house, "c.test")
        source = house.parts.sources[0]
        strict, plain = path_key(source, "mx.test", STS.lane), path_key(source, "mx.test")
        assert set(house.sites) == {strict, plain}
        assert await house.credit(strict, 9) == [1, 2]
        assert await house.credit(plain, 9) == [3]


async def test_a_domain_whose_demand_changes_goes_over_to_the_other_lane(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"), (2, 7, "a.test"))
        plain = await house.route("a.test", ttl_seconds=60)
        assert await house.credit(plain, 1) == [1]
        await trio.sleep(61)
        await answer(house, "a.test", demand=STS)
        strict = path_key(house.parts.sources[0], "mx.test", STS.lane)
        assert await house.credit(plain, 9) == []
        assert await house.credit(strict, 9) == [2]


# --- pools and relays -------------------------------------------------------------------------------------


async def test_mail_of_a_pool_is_looked_up_by_itself_and_leaves_by_the_pool_s_sources(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, sources=(ONE, TWO)) as house:
        use(
            house,
            RouteRule(campaign=8, pool="warm"),
            RouteRule(pool="cold"),
            warm={"two": 1},
            cold={"one": 1},
        )
        await house.queue((1, 7, "a.test"), (2, 8, "a.test"))
        assert set(house.domains) == {"a.test|cold", "a.test|warm"}
        await answer(house, "a.test|cold")
        await answer(house, "a.test|warm")
        assert await house.credit(path_key(ONE, "mx.test"), 9) == [1]
        assert await house.credit(path_key(TWO, "mx.test"), 9) == [2]


async def test_mail_of_a_relay_is_looked_up_once_for_all_its_domains(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, sources=(ONE,)) as house:
        use(house, RouteRule(domain=".de.test", relay="smart"))
        await house.queue((1, 7, "a.de.test"), (2, 8, "b.de.test"), (3, 7, "c.test"))
        assert set(house.domains) == {"@smart", "c.test"}
        await answer(house, "@smart", SMART.site)
        path = path_key(ONE, SMART.site)
        assert await house.credit(path, 9) == [1, 2]
        await house.queue((4, 7, "new.de.test"))
        assert house.offers(path) == [4]
        assert look_ups(house).count("@smart") == 1


async def test_a_relay_that_cannot_be_looked_up_lets_its_mail_wait(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, sources=(ONE,)) as house:
        use(house, RouteRule(relay="smart"))
        await house.queue((1, 7, "a.test"), (2, 7, "b.test"), (3, 7, "c.test"))
        await house.unroutable("@smart", places=1, retry_after=60)
        assert house.offers("@smart") == [1]
        await house.leased("!@smart", [1])
        await house.leave("@smart")
        await trio.sleep(58)
        assert look_ups(house) == ["@smart"]
        await trio.sleep(3)
        await answer(house, "@smart", SMART.site)
        assert await house.credit(path_key(ONE, SMART.site), 9) == [2, 3]


@pytest.mark.parametrize("retry_after", [None, 5.0])
async def test_nothing_is_remembered_of_a_destination_without_a_route_when_its_mail_is_gone(
    retry_after: float | None, monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    kept: list[int] = []
    async with path_house(monkeypatch, sources=(ONE,)) as house:
        use(house, RouteRule(pool="warm"), warm={"one": 1})
        forget = Destinations.forget

        def forgetting(self: Destinations, destination: str) -> None:
            forget(self, destination)
            kept.append(len(self._ways))

        monkeypatch.setattr(Destinations, "forget", forgetting)
        await house.queue((1, 7, "typo.test"))
        await house.unroutable("typo.test|warm", places=9, retry_after=retry_after)
        assert house.offers("typo.test|warm") == [1]
        await house.leased("!typo.test|warm", [1])
        await house.leave("typo.test|warm")
        await trio.sleep(10)
        assert kept == [0]


# --- sources ----------------------------------------------------------------------------------------------


def domain_of(source: Source, egress: Egress, way: Way = DEFAULT_WAY) -> str:
    """A recipient domain whose mail leaves by `source` as long as that may."""
    names = (f"d{number}.test" for number in range(200))
    return next(name for name in names if egress.source_for(way, name, lambda each: True) is source)


async def test_a_source_that_is_suspended_hands_its_domains_to_another_of_its_pool(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, sources=(ONE, TWO, THREE)) as house:
        use(house, RouteRule(pool="warm"), warm={"one": 1, "two": 1})
        domain = domain_of(ONE, house.parts.egress, Way("warm"))
        await house.queue(*[(number, 7, domain) for number in range(1, 7)])
        await answer(house, f"{domain}|warm")
        gone, other = path_key(ONE, "mx.test"), path_key(TWO, "mx.test")
        assert await house.credit(gone, 2) == [1, 2]
        failure = TransportFailure(FailureKind.SOURCE, Verb.CONNECT, "cannot assign address")
        house.parts.source_states.failed("one", failure, trio.current_time())
        await house.tell(GiveBack(gone, [1, 2], elsewhere=True))
        assert sorted(await house.credit(other, 9)) == [1, 2, 3, 4, 5, 6]
        assert path_key(THREE, "mx.test") not in house.sites, "it is not in the pool"
        assert look_ups(house) == [f"{domain}|warm"], "where it goes is known already"
        await house.queue((7, 7, domain))
        assert house.offers(other) == [7]


async def test_a_domain_goes_back_to_its_source_when_that_works_again_and_its_route_lapses(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, sources=(ONE, TWO)) as house:
        domain = domain_of(ONE, house.parts.egress)
        failure = TransportFailure(FailureKind.SOURCE, Verb.CONNECT, "cannot assign address")
        house.parts.source_states.failed("one", failure, trio.current_time())
        await house.queue((1, 7, domain), (2, 7, domain))
        await answer(house, domain)
        second, first = path_key(TWO, "mx.test"), path_key(ONE, "mx.test")
        assert await house.credit(second, 1) == [1]
        house.parts.source_states.works("one")
        await trio.sleep(61)
        await answer(house, domain)
        assert await house.credit(first, 9) == [2]
        assert await house.credit(second, 9) == []


async def test_after_a_crash_mail_finds_its_pool_again(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with path_house(monkeypatch, sources=(ONE, TWO)) as house:
        use(house, RouteRule(workspace="shop", pool="warm"), warm={"two": 1})
        ids = await house.accept("a@a.test", "b@a.test", content=letter(workspace="shop"))
        await answer(house, "a.test|warm")
        path = path_key(TWO, "mx.test")
        assert await house.credit(path, 1) == ids[:1]
        with structlog.testing.capture_logs():
            await house.crash()
        await answer(house, "a.test|warm")
        assert await house.credit(path, 9) == ids
