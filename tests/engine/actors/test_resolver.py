"""MX questions for domains: many at a time, each answered once."""

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors.messages import Lookup
from engine.actors.parts import Parts
from engine.actors.resolver import resolver
from engine.actors.tls_results import utc_day
from engine.model.reply import FailureKind, TransportFailure
from engine.model.tls import PolicyKind, TlsDemand
from engine.model.tls_result import TlsResult
from engine.mta.net.mx import Route
from engine.mta.net.sts import Told
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


class FakePolicies:
    """`TlsPolicies` that demand something of every domain."""

    def __init__(self) -> None:
        self.runs = 0
        self.ahead: list[str] = []
        self.demanded: list[str] = []

    async def run(self, told: Told, *, task_status: trio.TaskStatus[None]) -> None:
        self.runs += 1
        told("bad.test", PolicyKind.STS, TlsResult.STS_INVALID, "no mode")
        task_status.started()
        await trio.sleep_forever()

    def wants(self, domain: str) -> bool:
        return domain not in self.ahead

    async def prefetch(self, domain: str) -> None:
        self.ahead.append(domain)

    async def demand(self, domain: str, route: Route) -> Route:
        self.demanded.append(domain)
        return replace(route, demand=TlsDemand("sts-1", PolicyKind.STS, True, {}))


async def test_a_route_from_dns_carries_a_demand(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    policies = FakePolicies()
    parts.tls_policies = policies  # type: ignore[assignment]
    with_dns(parts).serve("x.test")
    with_dns(parts).seconds = 1.0
    async with running_actor(resolver(parts)) as ref:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.ask, lambda answer: Lookup("x.test", answer))
            await trio.sleep(0.5)
            assert policies.ahead == ["x.test"], "asked side by side with the MX question"
        found = await ref.ask(lambda answer: Lookup("x.test", answer))
        assert isinstance(found, Route)
        assert found.lane == "sts-1"
        missing = await ref.ask(lambda answer: Lookup("nowhere.test", answer))
        assert isinstance(missing, TransportFailure)
    assert policies.demanded == ["x.test", "x.test"]
    assert policies.ahead == ["x.test", "nowhere.test"]
    assert policies.runs == 1
    (told,) = parts.tls_results.of(utc_day(parts.clock.now()), "bad.test").policies
    assert told.failed == 1, "trouble with a policy is in the reports"


async def test_a_static_route_has_no_demand(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    policies = FakePolicies()
    parts.tls_policies = policies  # type: ignore[assignment]
    route = host_route("127.0.0.1", 2525)
    parts.static_route = lambda: route
    async with running_actor(resolver(parts)) as ref:
        found = await ref.ask(lambda answer: Lookup("anywhere.test", answer))
        assert found == route
    assert policies.demanded == policies.ahead == []
