"""Which envelopes are released to whom, and when; sites and domains are scripted."""

import pytest
import structlog
import trio
from trio.testing import MockClock

from engine.actors.messages import Credit, NewRoute, Routed
from engine.model.disposition import Disposition, Outcome
from tests.fakes.engine_house import host_route, letter, numbered, transactional
from tests.fakes.scripted_paths import path_house
from tests.fakes.trees import until_quiet

Patch = pytest.MonkeyPatch


# --- releasing ------------------------------------------------------------------------------------------


async def test_ids_of_a_campaign_go_out_in_acceptance_order_over_its_domains(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"), (2, 7, "b.test"), (3, 7, "b.test"), (4, 7, "a.test"))
        await house.queue((5, 7, "a.test"), (6, 7, "b.test"))
        path = await house.route("a.test")
        await house.route("b.test")
        assert await house.credit(path, 4) == [1, 2, 3, 4]
        assert await house.credit(path, 4) == [5, 6]


async def test_a_site_gets_no_more_than_its_credit(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, 7, "a.test") for number in range(1, 101)])
        path = await house.route("a.test")
        assert not house.offers(path), "nobody asked yet"
        assert await house.credit(path, 10) == list(range(1, 11))
        await trio.sleep(5)
        assert not house.offers(path)
        assert await house.credit(path, 0) == []
        assert await house.credit(path, 3) == [11, 12, 13]


async def test_a_credit_that_crossed_an_offer_is_counted_against_it(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, 7, "a.test") for number in range(1, 101)])
        path = await house.route("a.test")
        for _ in range(3):  # the site has seen nothing yet, and says each time that it has 10 places
            house.ref.try_tell(Credit(path, 10, 0))
        await until_quiet()
        assert len(house.offers(path)) == 10


async def test_the_active_set_is_bounded_and_transactional_mail_has_its_share(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, active_set_max=20) as house:
        bulk = await house.accept(*numbered(50, "a.test"))
        path = await house.route("a.test")
        taken = await house.credit(path, 1_000)
        assert taken == bulk[:18]
        urgent = await house.accept(*numbered(5, "a.test"), content=transactional(8))
        await trio.sleep(1)
        assert house.offers(path) == urgent[:2], "a tenth is kept for it"
        await house.leased(path, taken[:10])
        assert house.offers(path) == urgent[2:] + bulk[18:23], "and it goes first"


async def test_transactional_mail_overtakes_bulk(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with path_house(monkeypatch) as house:
        bulk = await house.accept(*numbered(10, "a.test"))
        path = await house.route("a.test")
        urgent = await house.accept(*numbered(2, "a.test"), content=transactional(8))
        assert await house.credit(path, 5) == urgent + bulk[:3]


async def test_a_full_active_set_is_served_when_another_path_gives_room(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, active_set_max=10) as house:
        await house.queue(*[(number, 7, "a.test") for number in range(1, 21)])
        await house.queue((30, 7, "b.test"))
        first, second = await house.route("a.test", "mx.a"), await house.route("b.test", "mx.b")
        taken = await house.credit(first, 100)
        assert len(taken) == 9
        assert await house.credit(second, 100) == []
        await house.leased(first, taken)
        await trio.sleep(1)
        assert house.offers(second) or house.offers(first)


# --- look-ups and routes ------------------------------------------------------------------------------------


async def test_each_domain_is_looked_up_once_while_its_route_is_known(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"), (2, 8, "a.test"))
        assert house.started == ["a.test"]
        path = await house.route("a.test", ttl_seconds=60)
        assert await house.credit(path, 9) == [1, 2]
        await house.queue((3, 7, "a.test"))
        assert house.offers(path) == [3]
        assert house.started == ["a.test", path]
        await trio.sleep(61)
        await house.queue((4, 7, "a.test"))
        assert house.started == ["a.test", path, "a.test"]
        await house.route("a.test")
        assert await house.credit(path, 9) == [4]


async def test_look_ups_in_flight_are_bounded_and_the_oldest_mail_is_first(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, lookups_max=2) as house:
        await house.queue((9, 7, "late.test"), (5, 7, "b.test"), (1, 7, "a.test"), (7, 7, "c.test"))
        assert set(house.domains) == {"a.test", "b.test"}
        await house.route("a.test")
        assert set(house.domains) == {"b.test", "c.test"}
        await house.route("b.test")
        assert set(house.domains) == {"c.test", "late.test"}


async def test_a_site_hears_of_new_hosts(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"))
        path = await house.route("a.test")
        moved = host_route("127.0.0.2", 25, "mx.test")
        await house.tell(Routed("a.test", moved))
        assert house.sites[path].mailbox.get_nowait() == NewRoute(moved)


async def test_a_domain_that_takes_no_mail_gets_its_ids_from_the_domain_actor(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, 7, "gone.test") for number in range(1, 31)])
        await house.unroutable("gone.test", places=20, retry_after=None)
        assert house.offers("gone.test") == list(range(1, 21))
        await house.leased("!gone.test", list(range(1, 21)))
        await house.leave("gone.test")
        assert house.started == ["gone.test"] * 2, "what is left is looked up again"
        await house.unroutable("gone.test", places=20, retry_after=None)
        assert house.offers("gone.test") == list(range(21, 31))


async def test_ids_that_a_dead_domain_actor_had_come_back(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, 7, "gone.test") for number in range(1, 4)])
        await house.unroutable("gone.test", places=20, retry_after=None)
        assert house.offers("gone.test") == [1, 2, 3]
        with structlog.testing.capture_logs():
            house.parts.domains.kill("gone.test")
            await until_quiet()
        path = await house.route("gone.test")
        assert await house.credit(path, 9) == [1, 2, 3]


async def test_a_postponed_domain_rests_until_its_time(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, 7, "lame.test") for number in range(1, 31)])
        await house.unroutable("lame.test", places=10, retry_after=60)
        assert len(house.offers("lame.test")) == 10
        await house.leased("!lame.test", list(range(1, 11)))
        await house.leave("lame.test")
        await house.queue((31, 7, "lame.test"))
        await trio.sleep(58)
        assert house.started == ["lame.test"]
        await trio.sleep(3)
        assert house.started == ["lame.test"] * 2
        path = await house.route("lame.test")
        assert await house.credit(path, 100) == list(range(11, 32))


# --- ends and crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
async def test_a_site_that_ends_gives_its_ids_back_and_another_starts(
    crash: bool, monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, 7, "a.test") for number in range(1, 6)])
        path = await house.route("a.test")
        assert await house.credit(path, 4) == [1, 2, 3, 4]
        await house.leased(path, [2])
        with structlog.testing.capture_logs():
            if crash:
                house.parts.sites.kill(path)
                await until_quiet()
            else:
                await house.leave(path)
        assert house.started == ["a.test", path, path]
        assert sorted(await house.credit(path, 9)) == [1, 3, 4, 5]


async def test_an_idle_site_is_forgotten_until_there_is_work(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"))
        path = await house.route("a.test")
        await house.credit(path, 9)
        await house.leased(path, [1])
        await house.leave(path)
        assert not house.sites
        await trio.sleep(10)
        await house.queue((2, 7, "a.test"))
        await house.route("a.test")
        assert await house.credit(path, 9) == [2]


async def test_after_its_crash_everything_queued_is_there_again(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        ids = await house.accept(*numbered(5, "a.test"))
        await house.crash()
        path = await house.route("a.test")
        assert await house.credit(path, 9) == ids


async def test_after_its_crash_due_envelopes_that_it_had_are_there_again(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        spool, now = house.parts.spool, house.parts.clock.now()
        (waiting,) = await house.accept("a@a.test")
        ((lease,),) = await spool.lease([[waiting]], now)
        deferred = Disposition(waiting, 0, Outcome.DEFERRED, due=now + 5)
        await spool.settle([(lease.id, [deferred])], now)
        await trio.sleep(10)
        (entry,) = spool.take_due(house.parts.clock.now(), 10)
        assert entry.spool_id == waiting
        await house.crash()
        path = await house.route("a.test")
        assert await house.credit(path, 9) == [waiting]


async def test_a_site_from_before_its_crash_is_adopted_and_may_end_later(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        ids = await house.accept(*numbered(6, "a.test"))
        path = await house.route("a.test")
        assert await house.credit(path, 3) == ids[:3]
        await house.crash()
        await house.route("a.test")
        assert await house.credit(path, 2) == ids[:2], "what is leased twice is left out by the spool"
        assert house.started.count(path) == 1
        await house.leave(path)
        assert house.started.count(path) == 2, "the new scheduler hears of the old site's end"
        assert sorted(await house.credit(path, 9)) == ids


@pytest.mark.parametrize("routed_first", [False, True])
async def test_credit_and_route_of_an_old_site_may_come_in_either_order(
    routed_first: bool, monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        ids = await house.accept(*numbered(3, "a.test"))
        path = await house.route("a.test")
        await house.crash()
        if routed_first:
            await house.route("a.test")
        await house.tell(Credit(path, 9, 0))
        if not routed_first:
            await house.route("a.test")
            await house.tell(Credit(path, 9, 0))
        assert house.offers(path) == ids
        assert house.started.count(path) == 1


async def test_a_campaign_is_bulk_unless_its_content_says_otherwise(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.parts.spool.put_content(letter(5), 0.0)
        await house.parts.spool.put_content(transactional(6), 0.0)
        await house.queue((1, 4, "a.test"), (2, 5, "a.test"), (3, 6, "a.test"))
        path = await house.route("a.test")
        assert await house.credit(path, 9) == [3, 1, 2]
