"""Envelopes by class and state: they add up, and campaigns beyond the largest are told as one."""

from trio.testing import MockClock

from engine.actors.measuring_mail import CAMPAIGNS_SHOWN, OTHER, mail_families
from engine.actors.parts import Parts
from engine.model.disposition import Disposition, Outcome
from engine.observe.metrics import Family
from tests.fakes.engine_house import accepted, letter, memory_parts, numbered, transactional


async def measured(parts: Parts) -> dict[str, Family]:
    return {family.name: family for family in await mail_families(parts)}


async def settle(parts: Parts, *ends: tuple[int, Outcome]) -> None:
    dispositions = [Disposition(spool_id, 0, outcome) for spool_id, outcome in ends]
    await parts.spool.settle([(0, dispositions)], parts.clock.now())


async def test_envelopes_are_counted_by_class_and_state(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    bulk = await accepted(parts, numbered(5))
    await accepted(parts, numbered(2), transactional(8))
    await settle(
        parts, (bulk[0], Outcome.DELIVERED), (bulk[1], Outcome.DELIVERED), (bulk[2], Outcome.BOUNCED)
    )
    found = await measured(parts)
    assert found["emass_envelopes_accepted_total"].samples == {
        ("transactional",): 2.0,
        ("default",): 0.0,
        ("bulk",): 5.0,
    }
    finished = found["emass_envelopes_finished_total"].samples
    assert (finished["bulk", "delivered"], finished["bulk", "bounced"]) == (2.0, 1.0)
    unfinished = found["emass_envelopes_unfinished"].samples
    assert (unfinished["bulk", "deferred"], unfinished["transactional", "deferred"]) == (2.0, 2.0)
    assert sum(finished.values()) + sum(unfinished.values()) == 7.0


async def test_a_campaign_is_told_while_it_has_something_to_do(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    (one,) = await accepted(parts, numbered(1))
    assert (await measured(parts))["emass_campaign_envelopes"].samples["7", "deferred"] == 1.0
    await settle(parts, (one, Outcome.DELIVERED))
    found = await measured(parts)
    assert found["emass_campaign_envelopes"].samples == {}
    assert found["emass_envelopes_finished_total"].samples["bulk", "delivered"] == 1.0


async def test_campaigns_beyond_the_largest_are_told_as_one(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    for campaign in range(1, CAMPAIGNS_SHOWN + 4):
        await accepted(parts, numbered(2 if campaign <= 3 else 3), letter(campaign))
    samples = (await measured(parts))["emass_campaign_envelopes"].samples
    assert len({campaign for campaign, _ in samples}) == CAMPAIGNS_SHOWN + 1
    assert samples[OTHER, "deferred"] == 6.0
    assert ("1", "deferred") not in samples
