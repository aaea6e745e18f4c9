"""What an operator names is what the engine knows, or is refused with what is near."""

import pytest
from trio.testing import MockClock

from engine.actors.aiming import count_left, doubts, find_aim, matcher, place_of
from engine.actors.operating import Refused
from engine.actors.parts import Parts
from engine.actors.path import Path
from engine.actors.stops import Aim, Scope, StopKind, StopOrder
from engine.model.egress import Source
from engine.mta.policy.egress import Egress
from tests.fakes.engine_house import accepted, letter, memory_parts

SITE = "mx1.x.test+mx2.x.test"
SOURCES = (Source("out", "mail.letter.example"), Source("in", "mail.letter.example"))


async def house() -> Parts:
    parts = memory_parts()
    await accepted(parts, ["a@x.test", "b@y.test"], letter(7, workspace="shop"))
    await accepted(parts, ["a@x.test"], letter(8, workspace="club"))
    for key in (f"out>{SITE}", "out>mx.y.test/lane", "!nowhere.test"):
        parts.paths[key] = Path(key)
    parts.routes.update({"x.test": f"out>{SITE}", "y.test": "out>mx.y.test/lane"})
    return parts


@pytest.mark.parametrize(
    ("scope", "said", "value"),
    [
        ("all", "", ""),
        ("campaign", "7", "7"),
        ("campaign", "07", "7"),
        ("domain", "X.Test", "x.test"),
        ("domain", "@x.test", "x.test"),
        ("workspace", "club", "club"),
        ("source", "out", "out"),
        ("site", SITE, SITE),
        ("site", "mx2.x.test", SITE),
        ("site", "x.test", SITE),
        ("site", "mx.y.test", "mx.y.test"),
    ],
)
async def test_a_name_is_found(scope: str, said: str, value: str, autojump_clock: MockClock) -> None:
    assert await find_aim(await house(), scope, said) == Aim(Scope(scope), value)


@pytest.mark.parametrize(
    ("scope", "said", "error"),
    [
        ("planet", "x", "mail is named by campaign, domain"),
        ("campaign", "9", r"no campaign is called '9'; known are: 7, 8"),
        ("campaign", "spring", "a campaign is named by its number"),
        ("domain", "a b", "'a b'"),
        ("workspace", "shopp", r"no workspace is called 'shopp'; did you mean shop\?"),
        ("source", "outt", r"did you mean out\?"),
        ("site", "mx.z.test", r"did you mean mx\.y\.test"),
        ("site", "!nowhere.test", "no site is called"),
        ("site", "test", "has 2 sites, name one"),
        ("site", "\x00" * 5_000, "no site is called"),
    ],
)
async def test_what_is_unknown_is_refused_with_what_is_near(
    scope: str, said: str, error: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(Refused, match=error) as refused:
        await find_aim(await house(), scope, said)
    assert len(str(refused.value)) < 1_500


async def test_a_domain_without_mail_is_taken_and_doubted(autojump_clock: MockClock) -> None:
    parts = await house()
    assert doubts(parts, Aim(Scope.DOMAIN, "x.test")) == []
    assert doubts(parts, Aim(Scope.ALL)) == []
    assert doubts(parts, Aim(Scope.DOMAIN, "other.example")) == [
        "no mail is on its way to other.example at the moment"
    ]
    parts.queues.add(7, "example.net", 1)
    (doubt,) = doubts(parts, Aim(Scope.DOMAIN, "exmaple.net"))
    assert doubt.endswith("did you mean example.net?")


@pytest.mark.parametrize(
    ("scope", "value", "places"),
    [
        ("all", "", [0, 1, 2]),
        ("campaign", "7", [0, 1]),
        ("domain", "x.test", [0, 2]),
        ("workspace", "club", [2]),
        ("source", "out", [0, 1, 2]),
        ("source", "in", []),
        ("site", SITE, [0, 2]),
        ("site", "mx.y.test", [1]),
    ],
)
async def test_an_envelope_is_aimed_at_by_what_it_is_and_where_it_goes(
    scope: str, value: str, places: list[int], autojump_clock: MockClock
) -> None:
    parts = await house()
    matches = matcher(parts, Aim(Scope(scope), value))
    assert [place for place, item in enumerate(parts.spool.listing(0, 9)) if matches(item)] == places


async def test_mail_that_goes_another_way_is_of_the_site_where_it_goes(autojump_clock: MockClock) -> None:
    parts = await house()
    parts.egress = Egress(SOURCES, {"special": {"in": 1}})
    parts.routes["x.test|special"] = "in>mx.special.test"
    aim = Aim(Scope.CAMPAIGN, "8")
    await parts.stops.give(StopOrder(0, StopKind.REROUTE, aim, "x", "ann", 0.0, target="special"))
    assert place_of(parts, 7, "x.test") == ("out", SITE)
    assert place_of(parts, 8, "x.test") == ("in", "mx.special.test")
    assert place_of(parts, 8, "unrouted.test") == ("", "")


async def test_a_drain_waits_for_what_may_go(autojump_clock: MockClock) -> None:
    parts = await house()
    for spool_id, campaign, domain in [(1, 7, "x.test"), (2, 7, "y.test"), (3, 8, "x.test")]:
        parts.queues.add(campaign, domain, spool_id)
    assert await count_left(parts) == 3
    parts.paths[f"out>{SITE}"].released[9] = (7, "x.test")
    await parts.stops.give(
        StopOrder(0, StopKind.SUSPEND, Aim(Scope.CAMPAIGN, "7"), "x", "ann", parts.clock.now())
    )
    assert await count_left(parts) == 2
    await parts.stops.give(
        StopOrder(0, StopKind.SUSPEND, Aim(Scope.DOMAIN, "x.test"), "x", "ann", parts.clock.now())
    )
    assert await count_left(parts) == 1
