"""Which source a domain's mail leaves by: always the same, until its warm-up quota is used up."""

import pytest
import trio
from trio.testing import MockClock

from engine.actors.messages import GiveBack
from engine.actors.path import path_key
from engine.config.shaping import WarmUpPlan
from engine.model.egress import Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.policy.egress import DEFAULT_WAY, Egress
from tests.fakes.scripted_paths import path_house

Patch = pytest.MonkeyPatch
NEW, OLD = Source("new", "new.test"), Source("old", "old.test")


def plan(*, overflow: bool = True) -> tuple[WarmUpPlan, ...]:
    return (WarmUpPlan(source="new", per_day=(20,), overflow=overflow),)


def domain_of(source: Source) -> str:
    """A recipient domain whose mail leaves by `source` as long as that may."""
    egress, names = Egress((NEW, OLD)), (f"d{number}.test" for number in range(100))
    return next(name for name in names if egress.source_for(DEFAULT_WAY, name, lambda each: True) is source)


async def test_a_domain_keeps_its_source(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with path_house(monkeypatch, sources=(NEW, OLD)) as house:
        for source in (NEW, OLD):
            domain = domain_of(source)
            await house.accept(f"a@{domain}")
            await house.route(domain, f"mx.{source.name}.test")
            assert path_key(source, f"mx.{source.name}.test") in house.sites


async def test_a_suspended_source_gives_way(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with path_house(monkeypatch, sources=(NEW, OLD)) as house:
        gone = TransportFailure(FailureKind.SOURCE, Verb.CONNECT, "gone")
        house.parts.source_states.failed("new", gone, trio.current_time())
        domain = domain_of(NEW)
        await house.accept(f"a@{domain}")
        await house.route(domain)
        assert path_key(OLD, "mx.test") in house.sites


async def test_what_is_over_the_quota_of_a_new_source_leaves_by_the_warm_one(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, sources=(NEW, OLD), warmup=plan()) as house:
        domain = domain_of(NEW)
        ids = await house.accept(*(f"a{number}@{domain}" for number in range(6)))
        await house.route(domain)
        cold, warm = path_key(NEW, "mx.test"), path_key(OLD, "mx.test")
        assert await house.credit(cold, 4) == ids[:4]
        account = house.parts.warm_up("mx.test", NEW)
        assert account is not None
        while not account.exhausted:
            await account.reserve()
            account.take(20)
        await house.tell(GiveBack(cold, ids[:4], elsewhere=True))
        assert await house.credit(warm, 10) == ids
        assert await house.credit(cold, 10) == [], "nothing waits there any more"


async def test_a_plan_without_overflow_lets_its_mail_wait(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, sources=(NEW, OLD), warmup=plan(overflow=False)) as house:
        account = house.parts.warm_up("mx.test", NEW)
        assert account is not None
        while not account.exhausted:
            await account.reserve()
            account.take(20)
        domain = domain_of(NEW)
        await house.accept(f"a@{domain}")
        await house.route(domain)
        assert path_key(NEW, "mx.test") in house.sites
