"""How much of whose mail a path may get: the campaign's own rate, holds at the provider, and no more."""

from array import array

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors.allowances import FLOW_SECONDS, Allowances
from engine.actors.parts import Parts
from engine.actors.path import Path
from engine.config.shaping import ShapingRule, ShareRule
from engine.config.units import Duration, Rate, RateRange
from engine.model.content import MessageClass
from engine.mta.policy.holds import Hold, Subject
from engine.mta.policy.shaping import shaping_rules
from engine.mta.queue.fair import BULK, DEFAULT, TRANSACTIONAL
from engine.mta.queue.scheduled import ScheduledQueues
from tests.fakes.engine_house import CAMPAIGN, DOMAIN, letter, memory_parts

SLOW = ShapingRule(campaign=CAMPAIGN, rate=RateRange.up_to(Rate(10, 1.0)))
KEY = "out>mx.test"


class House:
    """One path on which `count` ids of one campaign wait."""

    def __init__(self, parts: Parts, count: int = 100) -> None:
        self.parts = parts
        self.allowances = Allowances(parts)
        self.path = Path(KEY)
        self.path.provider = "mx.test"
        self.queues = ScheduledQueues()
        for spool_id in range(1, count + 1):
            queue = self.queues.add(CAMPAIGN, "a.test", spool_id)
            if queue is not None:
                self.path.waiting.push(queue, BULK, "shop")

    def release(self, limit: int = 1_000) -> int:
        """As the scheduler does it."""
        allowance = self.allowances.of(self.path)
        take = self.queues.take_until
        return self.path.waiting.take(limit, take, array("Q"), self.path.mark, allowance)


async def a_house(*rules: ShapingRule, count: int = 100) -> House:
    parts = memory_parts(site=rules)
    await parts.spool.put_content(letter(workspace="shop"), 0.0)
    return House(parts, count)


async def test_with_neither_holds_nor_rates_nothing_is_asked(autojump_clock: MockClock) -> None:
    house = await a_house()
    assert house.allowances.of(house.path) is None
    assert house.release() == 100
    assert not house.allowances.hurried
    assert repr(house.allowances) == "<Allowances of 0 campaigns, 0 paths wait>"


async def test_a_rate_releases_its_burst_and_the_path_waits_for_more(autojump_clock: MockClock) -> None:
    house = await a_house(SLOW)
    released = house.release()
    assert 0 < released < 10
    assert list(house.allowances.waiting) == [KEY]
    assert house.allowances.hurried
    await trio.sleep(1)
    assert 0 < house.release() <= 10


async def test_a_path_whose_mail_is_all_released_does_not_wait(autojump_clock: MockClock) -> None:
    house = await a_house(SLOW, count=1)
    assert house.release() == 1
    assert not house.allowances.waiting


async def test_a_rate_is_not_spent_on_what_is_not_there(autojump_clock: MockClock) -> None:
    house = await a_house(replace(SLOW, rate=RateRange.up_to(Rate(100, 1.0)), burst=Duration(1)), count=3)
    assert house.release() == 1, "a rate begins without its burst"
    await trio.sleep(5)
    assert house.release() == 2
    for spool_id in range(200, 400):
        queue = house.queues.add(CAMPAIGN, "a.test", spool_id)
        if queue is not None:
            house.path.waiting.push(queue, BULK, "shop")
    assert house.release() == 98, "a second's burst, less the two"


async def test_a_hold_lets_mail_wait_without_hurry_until_it_ends(autojump_clock: MockClock) -> None:
    house = await a_house()
    house.parts.holds.put(
        Hold("mx.test", Subject.DOMAIN, f"bounce.{DOMAIN}", trio.current_time() + 60, "complaints")
    )
    assert house.release() == 0
    assert list(house.allowances.waiting) == [KEY]
    assert not house.allowances.hurried
    await trio.sleep(61)
    assert house.release() == 100


async def test_a_hold_elsewhere_holds_nothing_here(autojump_clock: MockClock) -> None:
    house = await a_house()
    house.parts.holds.put(Hold("mx.other", Subject.WORKSPACE, "shop", trio.current_time() + 60, "spam"))
    assert house.release() == 100


async def test_paths_that_wait_are_due_about_each_tenth_of_a_second(autojump_clock: MockClock) -> None:
    house = await a_house(SLOW)
    house.release()
    now = trio.current_time()
    assert list(house.allowances.take_due(now)) == [KEY]
    house.release()
    assert house.allowances.take_due(now + FLOW_SECONDS / 2) == {}
    assert list(house.allowances.take_due(now + FLOW_SECONDS)) == [KEY]
    assert house.allowances.take_due(now + 9) == {}, "it is said once"


@pytest.mark.parametrize(
    ("message_class", "rank"),
    [(MessageClass.TRANSACTIONAL, TRANSACTIONAL), (MessageClass.DEFAULT, DEFAULT), (MessageClass.BULK, BULK)],
)
async def test_a_campaign_stands_as_its_content_and_the_rules_say(
    message_class: MessageClass, rank: int, autojump_clock: MockClock
) -> None:
    parts = memory_parts(share=(ShareRule(workspace="shop", weight=3.0), ShareRule(campaign=7, weight=2.0)))
    await parts.spool.put_content(letter(workspace="shop", message_class=message_class), 0.0)
    standing = Allowances(parts).standing(CAMPAIGN)
    assert (standing.rank, standing.workspace) == (rank, "shop")
    assert standing.sending_domain == f"bounce.{DOMAIN}"
    assert (standing.workspace_weight, standing.campaign_weight) == (3.0, 2.0)


async def test_other_rules_are_followed_once_and_weigh_anew(autojump_clock: MockClock) -> None:
    house = await a_house()
    allowances, parts = house.allowances, house.parts
    assert allowances.standing(CAMPAIGN).workspace_weight == 1.0
    assert not allowances.follow_rules()
    engine = replace(parts.config.engine, share=(ShareRule(workspace="shop", weight=3.0),))
    parts.set_shaping(shaping_rules(replace(parts.config, engine=engine)), trio.current_time(), "weights")
    assert allowances.follow_rules()
    assert not allowances.follow_rules()
    assert allowances.standing(CAMPAIGN).workspace_weight == 3.0
