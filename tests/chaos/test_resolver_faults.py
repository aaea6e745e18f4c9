"""The resolver goes silent, fails, or lies while a campaign flows: mail waits, nobody's address is burnt.

The answers of a world's name server pass through a resolver whose mood changes (`fakes.moody_dns`). TTLs
are a second, so that the engine asks again and again.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from bench.world.manners import Manners
from bench.world.process import WorldProcess, world_process
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from engine.app import Engine, open_engine
from engine.config.units import Duration
from engine.model.submission import SubmitChunk
from engine.mta.policy.dns_doubt import ASKED_MIN
from tests.fakes.engine_house import CAMPAIGN, chunks, engine_config, letter, submit, until, until_finished
from tests.fakes.moody_dns import At, Mood, MoodyDns, moody_dns
from tests.fakes.reckoning import Reckoning

pytestmark = [pytest.mark.slow, pytest.mark.long]

DOMAINS = [f"shop{number}.test" for number in range(30)]
BELIEVED = ASKED_MIN - 1  # domains whose end is believed before there is anything to compare with
CACHE_SECONDS = 6.0  # nothing is kept shorter than 5 s, whatever its TTL
WORLD = WorldSpec(
    name="thirty",
    providers=(ProviderSpec("one", (Site((Host("mx.one.test"),), dict.fromkeys(DOMAINS, 1.0)),), Manners()),),
)


@asynccontextmanager
async def moody_engine(folder: Path) -> AsyncIterator[tuple[Engine, MoodyDns, WorldProcess]]:
    record = folder / "record"
    async with world_process(WORLD, record=record) as world, moody_dns(world.resolver) as resolver:
        config = engine_config(folder, At(world.smtp_port, resolver.resolver))
        quick = replace(config.resolver, timeout=Duration(0.3), attempts=2)
        async with open_engine(replace(config, resolver=quick)) as engine:
            yield engine, resolver, world


def people(per_domain: int, start: int = 0) -> list[str]:
    return [f"reader{start + number}@{domain}" for number in range(per_domain) for domain in DOMAINS]


def allow_private(engine: Engine, allowed: bool) -> None:
    resolver = engine.parts.resolver
    resolver.config = replace(resolver.config, allow_private=allowed)


@pytest.mark.parametrize("mood", [Mood.SILENT, Mood.SERVFAIL])
async def test_a_resolver_that_does_not_answer_defers_and_mail_flows_when_it_does(
    tmp_path: Path, mood: Mood
) -> None:
    async with moody_engine(tmp_path) as (engine, resolver, world):
        reckoning = Reckoning(engine)
        resolver.mood = mood
        await submit(engine, letter(), people(10))
        listing = engine.parts.spool.listing
        await until(lambda: any(item.state == "deferred" for item in listing(0, 1_000)))
        assert engine.counts(CAMPAIGN).finished == 0
        resolver.mood = Mood.HONEST
        await until_finished(engine, 300)
        await reckoning.close()
    reckoning.check(world, people(10), tmp_path / "record")


@pytest.mark.parametrize("mood", [Mood.DENIES, Mood.LOOPBACK, Mood.SERVFAIL])
async def test_answers_that_turn_bad_in_the_middle_bounce_nobody(tmp_path: Path, mood: Mood) -> None:
    first, second = people(5), people(5, start=5)
    async with moody_engine(tmp_path) as (engine, resolver, world):
        reckoning = Reckoning(engine)
        await submit(engine, letter(), first)
        await until_finished(engine, len(first))
        resolver.mood = mood
        if mood is Mood.LOOPBACK:  # which is no route for who sends to the world
            allow_private(engine, False)
        await trio.sleep(CACHE_SECONDS)
        engine.tree.kill("scheduler")  # what is in memory of routes goes; what is doubted stays
        for chunk in chunks(second, name="second"):
            await engine.submit([SubmitChunk(chunk)])
        asked = resolver.asked[mood]
        await until(lambda: resolver.asked[mood] >= asked + len(DOMAINS))
        await trio.sleep(2)
        counts = engine.counts(CAMPAIGN)
        assert (counts.bounced, counts.delivered, counts.deferred) == (0, len(first), len(second))
        resolver.mood = Mood.HONEST
        allow_private(engine, True)
        await until_finished(engine, len(first) + len(second))
        await reckoning.close()
    assert reckoning.counts.delivered == len(first) + len(second)
    reckoning.check(world, first + second, tmp_path / "record")


async def test_a_resolver_that_denies_everything_from_the_start_burns_no_list(tmp_path: Path) -> None:
    """Until ten answers are there it is believed, as it must be; then it is doubted."""
    async with moody_engine(tmp_path) as (engine, resolver, _):
        resolver.mood = Mood.DENIES
        await submit(engine, letter(), people(10))
        await until(lambda: resolver.asked[Mood.DENIES] >= len(DOMAINS))
        await trio.sleep(2)
        assert engine.counts(CAMPAIGN).bounced <= BELIEVED * 10
        resolver.mood = Mood.HONEST
        counts = await until_finished(engine, 300)
    assert counts.delivered >= 300 - BELIEVED * 10
