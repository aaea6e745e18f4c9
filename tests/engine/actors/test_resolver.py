"""MX questions for domains: many at a time, each answered once."""

import pytest
import trio
from trio.testing import MockClock

from engine.actors.messages import Lookup
from engine.actors.parts import Parts
from engine.actors.resolver import resolver
from engine.model.reply import FailureKind, TransportFailure
from engine.mta.net.mx import Route
from engine.runtime.answer import ActorDied
from tests.fakes.engine_house import FakeResolver, host_route, memory_parts
from tests.fakes.trees import running_actor


def with_dns(parts: Parts) -> FakeResolver:
    assert isinstance(parts.resolver, FakeResolver)
    return parts.resolver


async def test_routes_and_failures_are_answers(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    with_dns(parts).serve("x.test")
    async with running_actor(resolver(parts)) as ref:
        found = await ref.ask(lambda answer: Lookup("x.test", answer))
        assert isinstance(found, Route)
        assert found.site == "mx.x.test"
        missing = await ref.ask(lambda answer: Lookup("nowhere.test", answer))
        assert isinstance(missing, TransportFailure)
        assert missing.kind is FailureKind.NO_SUCH_DOMAIN


async def test_questions_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    with_dns(parts).seconds = 3.0
    async with running_actor(resolver(parts)) as ref:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ref.ask, lambda answer, n=number: Lookup(f"d{n}.test", answer))
        assert trio.current_time() - began == pytest.approx(3.0)


async def test_a_static_route_answers_for_every_domain_without_dns(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    route = host_route("127.0.0.1", 2525)
    parts.static_route = lambda: route
    async with running_actor(resolver(parts)) as ref:
        assert await ref.ask(lambda answer: Lookup("anywhere.test", answer)) == route
    assert not with_dns(parts).asked


async def test_a_stop_and_a_crash_fail_what_is_under_way(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    with_dns(parts).hold = trio.Event()
    died: list[str] = []

    async def ask(ref: object) -> None:
        try:
            await ref.ask(lambda answer: Lookup("x.test", answer))  # type: ignore[attr-defined]
        except ActorDied as error:
            died.append(error.name)

    async with trio.open_nursery() as nursery:
        async with running_actor(resolver(parts)) as ref:
            nursery.start_soon(ask, ref)
            await trio.sleep(1)
            assert with_dns(parts).asked == ["x.test"]
        assert trio.current_time() < 5, "a stop does not wait for DNS"
    assert died == ["actor"]
