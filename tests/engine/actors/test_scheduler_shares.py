"""Whose mail goes first and whose has to wait: classes, shares, rates, holds, rests; sites are scripted."""

from collections import Counter
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors.path import URGENT_PLACES
from engine.config.shaping import ShapingRule, ShareRule
from engine.config.units import CountRange, Duration, Rate, RateRange
from engine.mta.policy.holds import Hold, Subject
from engine.mta.policy.shaping import shaping_rules
from tests.fakes.engine_house import DOMAIN, letter, transactional
from tests.fakes.scripted_paths import PathHouse, path_house
from tests.fakes.trees import until_quiet

SHOP, PRESS, ALERTS = 11, 12, 13  # campaigns
Patch = pytest.MonkeyPatch


async def campaigns(house: PathHouse, count: int = 2_000, press: str = "press") -> None:
    """So many envelopes of each of two campaigns wait: shop's have ids from 1, press's from 100,001."""
    shop = letter(SHOP, workspace="shop", return_path_domain="shop.example")
    await house.write(shop, letter(PRESS, workspace=press))
    await house.queue(*[(number, SHOP, "a.test") for number in range(1, count + 1)])
    await house.queue(*[(100_000 + number, PRESS, "a.test") for number in range(1, count + 1)])


def whose(ids: list[int]) -> Counter[int]:
    return Counter(PRESS if spool_id > 100_000 else SHOP for spool_id in ids)


# --- transactional mail ---------------------------------------------------------------------------------


async def test_transactional_mail_has_places_beyond_the_credit_and_overtakes(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await campaigns(house)
        await house.write(transactional(ALERTS))
        path = await house.route("a.test")
        assert len(await house.credit(path, 4)) == 4
        await house.queue(*[(900_000 + number, ALERTS, "a.test") for number in range(300)])
        urgent = house.offers(path)
        assert urgent == list(range(900_000, 900_000 + URGENT_PLACES)), "though it had no room left"
        assert house.urgent == URGENT_PLACES
        offered = await house.credit(path, 50)
        assert offered[:44] == list(range(900_000 + URGENT_PLACES, 900_300))
        assert house.urgent == 44
        assert len(offered) == 50, "and what it left goes to the others"


async def test_credit_below_zero_is_what_transactional_mail_has_of_its_places(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await campaigns(house)
        await house.write(transactional(ALERTS))
        path = await house.route("a.test")
        await house.queue(*[(900_000 + number, ALERTS, "a.test") for number in range(600)])
        assert len(await house.credit(path, -200)) == URGENT_PLACES - 200
        assert len(await house.credit(path, 10 - URGENT_PLACES)) == 10
        assert await house.credit(path, -URGENT_PLACES) == []
        assert await house.credit(path, -URGENT_PLACES - 50) == [], "its rate was lowered meanwhile"


# --- shares -------------------------------------------------------------------------------------------------


async def test_workspaces_share_a_busy_site_by_their_weights(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    share = (ShareRule(workspace="shop", weight=3.0),)
    async with path_house(monkeypatch, share=share) as house:
        await campaigns(house)
        path = await house.route("a.test")
        taken: Counter[int] = Counter()
        for _ in range(20):
            ids = await house.credit(path, 40)
            taken += whose(ids)
            await house.leased(path, ids)
        assert taken[SHOP] + taken[PRESS] == 800
        assert taken[SHOP] == pytest.approx(600, abs=40)


async def test_a_campaign_has_its_weight_within_its_workspace(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    share = (ShareRule(campaign=PRESS, weight=4.0),)
    async with path_house(monkeypatch, share=share) as house:
        await campaigns(house, press="shop")
        path = await house.route("a.test")
        assert whose(await house.credit(path, 500))[PRESS] == pytest.approx(400, abs=40)


async def test_a_share_that_nobody_uses_is_there_for_the_others(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.write(letter(SHOP, workspace="shop"), letter(PRESS, workspace="press"))
        await house.queue(*[(number, SHOP, "a.test") for number in range(1, 11)])
        await house.queue(*[(100_000 + number, PRESS, "a.test") for number in range(1, 501)])
        path = await house.route("a.test")
        assert whose(await house.credit(path, 100)) == {SHOP: 10, PRESS: 90}


# --- holds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "value"),
    [(Subject.CAMPAIGN, str(SHOP)), (Subject.WORKSPACE, "shop"), (Subject.DOMAIN, "shop.example")],
)
async def test_what_is_held_at_a_provider_waits_there_alone_and_goes_on_when_the_hold_ends(
    subject: Subject, value: str, monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await campaigns(house, 50)
        await house.queue((70, SHOP, "b.test"))
        path = await house.route("a.test")
        elsewhere = await house.route("b.test", "mx.elsewhere")
        until = trio.current_time() + 60
        house.parts.holds.put(Hold("mx.test", subject, value, until, "complaints"))
        assert whose(await house.credit(path, 200)) == {PRESS: 50}
        assert await house.credit(elsewhere, 9) == [70]
        await trio.sleep(59)
        assert not house.offers(path)
        await trio.sleep(2)
        assert whose(house.offers(path)) == {SHOP: 50}


async def test_a_hold_outlasts_a_crash_of_the_scheduler(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        ids = await house.accept("a@a.test")
        path = await house.route("a.test")
        await house.credit(path, 0)
        now = trio.current_time()
        house.parts.holds.put(Hold("mx.test", Subject.DOMAIN, f"bounce.{DOMAIN}", now + 60, "complaints"))
        await house.crash()
        await house.credit(path, 9)  # it may say so before its domain has a route again
        await house.route("a.test")
        assert await house.credit(path, 9) == []
        await trio.sleep(61)
        assert house.offers(path) == ids


# --- a rate of its own ---------------------------------------------------------------------------------


def a_rate(count: int, **match: Any) -> tuple[ShapingRule, ...]:
    return (ShapingRule(rate=RateRange.up_to(Rate(count, 1.0)), **match),)


async def test_a_workspace_keeps_its_rate_over_all_paths_and_uses_it(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, site=a_rate(20, workspace="shop")) as house:
        await campaigns(house)
        await house.queue(*[(5_000 + number, SHOP, "b.test") for number in range(500)])
        paths = [await house.route("a.test"), await house.route("b.test", "mx.elsewhere")]
        began = trio.current_time()
        taken: Counter[int] = Counter()
        for path in paths:
            taken += whose(await house.credit(path, 5_000))
        assert taken[PRESS] == 2_000, "it holds up nobody else"
        for _ in range(100):
            await trio.sleep(0.1)
            for path in paths:
                taken += whose(house.offers(path))
            assert taken[SHOP] <= 20 * (trio.current_time() - began) + 0.25 * 20 + 1
        assert taken[SHOP] >= 0.9 * 20 * 10


async def test_mail_that_comes_singly_uses_one_message_of_its_rate_at_a_time(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    rules = a_rate(10, campaign=SHOP, burst=Duration(1))
    async with path_house(monkeypatch, site=rules) as house:
        await house.queue((1, SHOP, "a.test"))
        path = await house.route("a.test")
        assert await house.credit(path, 1_000) == [1]
        await trio.sleep(5)  # a burst of ten is there
        for number in range(2, 12):
            await house.queue((number, SHOP, "a.test"))
            assert house.offers(path) == [number]
        await house.queue((12, SHOP, "a.test"))
        assert house.offers(path) == []
        await trio.sleep(0.25)
        assert house.offers(path) == [12]


# --- rests ------------------------------------------------------------------------------------------------


async def test_what_a_path_gives_back_waits_until_it_has_credit_again(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.write(transactional(ALERTS))
        await house.queue(*[(number, SHOP, "a.test") for number in range(1, 11)])
        path = await house.route("a.test")
        assert await house.credit(path, 5) == [1, 2, 3, 4, 5]
        await house.leased(path, [1])
        await house.give_back(path, [2, 3, 4, 5])
        await house.queue((20, ALERTS, "a.test"))
        await trio.sleep(10)
        assert not house.offers(path), "not even transactional mail"
        assert await house.credit(path, 5) == [20, 2, 3, 4, 5]


async def test_what_was_leased_meanwhile_does_not_come_back(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue(*[(number, SHOP, "a.test") for number in range(1, 4)])
        path = await house.route("a.test")
        assert await house.credit(path, 9) == [1, 2, 3]
        await house.leased(path, [1, 2, 3])
        await house.give_back(path, [1, 2])
        await house.give_back("out>unknown", [3])
        assert await house.credit(path, 9) == []


async def test_a_path_that_rests_makes_room_in_the_active_set(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, active_set_max=10) as house:
        await house.queue(*[(number, SHOP, "a.test") for number in range(1, 21)])
        await house.queue(*[(number, SHOP, "b.test") for number in range(101, 121)])
        first, second = await house.route("a.test", "mx.a"), await house.route("b.test", "mx.b")
        taken = await house.credit(first, 100)
        assert len(taken) == 9
        assert await house.credit(second, 100) == []
        await house.give_back(first, taken)
        assert house.offers(second) == list(range(101, 110))


# --- paths ------------------------------------------------------------------------------------------------


async def test_a_recipient_domain_with_rules_of_its_own_has_a_path_of_its_own(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    rules = (ShapingRule(domain="vip.test", connections=CountRange(1, 1)),)
    async with path_house(monkeypatch, site=rules) as house:
        await house.queue((1, SHOP, "vip.test"), (2, SHOP, "a.test"))
        own = await house.route("vip.test", lane="vip.test")
        shared = await house.route("a.test")
        assert (own, shared) == ("out>mx.test/vip.test", "out>mx.test")
        assert set(house.sites) == {own, shared}
        assert await house.credit(own, 9) == [1]
        assert await house.credit(shared, 9) == [2]
        await house.leave(own)
        await house.queue((3, SHOP, "vip.test"))
        await until_quiet()
        assert await house.credit(own, 9) == [1, 3]


# --- other rules while mail waits ---------------------------------------------------------------------


async def shares(house: PathHouse, path: str) -> float:
    """Shop's part of the next thousand."""
    taken: Counter[int] = Counter()
    for _ in range(10):
        taken += whose(await house.credit(path, 100))
    return taken[SHOP] / taken.total()


async def test_other_rules_weigh_and_lead_anew_what_waits(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await campaigns(house)
        path = await house.route("a.test")
        assert await shares(house, path) == pytest.approx(0.5, abs=0.05)
        parts = house.parts
        engine = replace(parts.config.engine, share=(ShareRule(workspace="shop", weight=3.0),))
        parts.config = replace(parts.config, engine=engine)
        parts.set_shaping(shaping_rules(parts.config), trio.current_time(), "other weights")
        await trio.sleep(1)
        assert await shares(house, path) == pytest.approx(0.75, abs=0.05)
        rules = [ShapingRule(domain="a.test", connections=CountRange(1, 1))]
        parts.set_shaping(shaping_rules(parts.config, rules), trio.current_time(), "a domain's own")
        await trio.sleep(1)
        assert await house.credit(path, 100) == [], "its domain has a path of its own now"
        assert len(await house.credit(f"{path}/a.test", 100)) == 100
        parts.set_shaping(shaping_rules(parts.config), trio.current_time(), "as before")
        await trio.sleep(1)
        assert len(await house.credit(path, 100)) == 100
