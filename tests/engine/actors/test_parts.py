"""What the actors share: compiled contents, and what is known of paths, providers and campaigns."""

from typing import Any

import pytest
from trio.testing import MockClock

from engine.actors import parts as parts_module
from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.config.shaping import ProviderRule, ShapingRule
from engine.config.units import CountRange, Rate, RateRange
from engine.model.content import MessageClass
from engine.mta.compose.errors import ContentError
from engine.token_ring import FIRST_PLAN, ring_for, with_new_id, with_start
from tests.fakes.engine_house import DOMAIN, SOURCE, host_route, letter, memory_parts


async def test_a_content_is_compiled_once(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    await parts.spool.put_content(letter(), 0.0)
    assert parts.compiled(7) is parts.compiled(7)


async def test_a_campaign_without_content_is_an_error(autojump_clock: MockClock) -> None:
    with pytest.raises(ContentError, match="campaign 9 has no content"):
        memory_parts().compiled(9)


async def test_contents_in_memory_are_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "CONTENTS_COMPILED_MAX", 2)
    parts = memory_parts()
    for campaign in (1, 2, 3):
        await parts.spool.put_content(letter(campaign), 0.0)
    first = parts.compiled(1)
    parts.compiled(2)
    parts.compiled(3)
    assert parts.compiled(1) is not first


async def test_a_ring_decides_by_acceptance_which_key_signs(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    await parts.spool.put_content(letter(), 0.0)
    alone = parts.compiled(7)
    plan = with_start(with_new_id(FIRST_PLAN, 500.0, early=True), 1_000.0)
    parts.use_ring(ring_for(bytes(32), plan=plan))
    new, old = parts.compiled(7, 1_000.0), parts.compiled(7, 999.0)
    assert parts.tokens.current == 1
    assert len({id(each) for each in (alone, new, old)}) == 3
    assert parts.compiled(7) is parts.compiled(7, 2_000.0) is new
    assert parts.compiled(7, 0.0) is old


# --- paths and providers ---------------------------------------------------------------------------

BIG = (ProviderRule(name="big", mx=("big.test",)),)


def path(parts: Parts, site: str, *, domain: str = "", at: float = 0.0) -> PathMemory:
    key = f"out>{site}/{domain}" if domain else f"out>{site}"
    return parts.path(key, host_route("127.0.0.1", 25, site), SOURCE, domain, at)


async def test_what_is_known_of_a_path_is_made_once(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    memory = path(parts, "mx.test")
    assert path(parts, "mx.test") is memory
    assert path(parts, "mx2.test") is not memory
    assert memory.provider.name == "mx.test", "a site of nobody that is known is its own provider"


async def test_sites_of_one_provider_share_its_door_and_its_breaker(autojump_clock: MockClock) -> None:
    parts = memory_parts(provider=BIG)
    one, two = path(parts, "mx1.big.test"), path(parts, "mx2.big.test")
    assert one.provider is two.provider
    assert one.provider.name == "big"
    assert path(parts, "mx.small.test").provider.breaker is not one.provider.breaker


async def test_a_recipient_domain_with_rules_of_its_own_is_shaped_by_them(autojump_clock: MockClock) -> None:
    rule = ShapingRule(domain="vip.test", connections=CountRange(1, 1))
    parts = memory_parts(site=(rule,))
    assert parts.ruled_domains == {"vip.test"}
    assert path(parts, "mx.test", domain="vip.test").shaping.connections.ceiling == 1
    assert path(parts, "mx.test").shaping.connections.ceiling == 20


async def test_a_domain_of_its_own_and_its_neighbours_share_what_their_site_may_have(
    autojump_clock: MockClock,
) -> None:
    of_site = ShapingRule(mx="mx.test", connections=CountRange(3, 3), rate=RateRange.up_to(Rate(10, 1.0)))
    of_domain = ShapingRule(domain="vip.test", connections=CountRange(2, 2))
    parts = memory_parts(site=(of_site, of_domain))
    all_of_them, vip = path(parts, "mx.test"), path(parts, "mx.test", domain="vip.test")
    for _ in range(2):
        all_of_them.opened(0.0)
    assert vip.openings(0.0, 2) == 1
    vip.opened(0.0)
    assert all_of_them.openings(0.0, 1) == vip.openings(0.0, 1) == 0
    sent = sum(each.take(second / 10, 64) for second in range(101) for each in (all_of_them, vip))
    assert 95 <= sent <= 105, "10 a second for both together"
    assert path(parts, "mx9.test").site is not vip.site


async def test_what_was_kept_of_a_site_goes_with_its_last_path(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "PATHS_KEPT_MAX", 3)
    rule = ShapingRule(domain="vip.test", connections=CountRange(1, 1))
    parts = memory_parts(provider=BIG, site=(rule,))
    path(parts, "mx1.big.test")
    path(parts, "mx.test")
    path(parts, "mx.test", domain="vip.test")
    for number in range(5):
        path(parts, f"mx{number}.test", at=1.0)
        assert {site for site, _ in parts.doors} == {memory.place.site for memory in parts.memory.values()}
    assert set(parts.breakers) == {"big", "mx2.test", "mx3.test", "mx4.test"}
    assert {name for name, _ in parts.providers} == set(parts.breakers)


async def test_paths_that_are_remembered_are_bounded_and_one_that_rests_is_kept(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "PATHS_KEPT_MAX", 3)
    parts = memory_parts()
    path(parts, "mx0.test").suspend(60.0, "refused")
    for number in range(1, 5):
        path(parts, f"mx{number}.test", at=1.0)
    assert list(parts.memory) == ["out>mx0.test", "out>mx3.test", "out>mx4.test"]


# --- campaigns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "domain"),
    [
        ({}, f"bounce.{DOMAIN}"),
        ({"sending_domain": "shop.example"}, "shop.example"),
    ],
)
async def test_what_a_campaign_is_to_scheduling_and_reactions(
    facts: dict[str, Any], domain: str, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    content = letter(workspace="shop", message_class=MessageClass.DEFAULT, **facts)
    await parts.spool.put_content(content, 0.0)
    standing = parts.standing(7)
    assert (standing.message_class, standing.workspace) == (MessageClass.DEFAULT, "shop")
    assert standing.sending_domain == domain
    assert parts.standing(7) is standing


async def test_a_campaign_without_content_is_bulk_of_nobody_until_it_has_one(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    assert parts.standing(7).message_class is MessageClass.BULK
    await parts.spool.put_content(letter(workspace="shop"), 0.0)
    assert parts.standing(7).workspace == "shop"
