"""Which destination a queue has, what waits for one, and how long a route is good."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.actors import routing
from engine.actors.parts import Parts
from engine.actors.routing import STALE_SECONDS, Destinations, Routes, domain_of
from engine.actors.stops import Aim, Scope, StopKind, StopOrder
from engine.config.egress import RouteRule
from engine.model.egress import Relay, Source
from engine.mta.policy.egress import Egress, Way
from engine.mta.queue.scheduled import ScheduledQueue
from tests.fakes.engine_house import CAMPAIGN, letter, memory_parts

ONE, TWO = Source("one", "one.test"), Source("two", "two.test")
SMART = Relay("smart", "smart.test", 587)


async def an_office(*routes: RouteRule) -> tuple[Parts, Destinations]:
    parts = memory_parts(sources=(ONE, TWO))
    parts.egress = Egress((ONE, TWO), {"warm": {"two": 1}}, (SMART,), routes)
    await parts.spool.put_content(letter(workspace="shop"), 0.0)
    return parts, Destinations(parts)


def queued(parts: Parts, domain: str, spool_id: int = 1, campaign: int = CAMPAIGN) -> ScheduledQueue:
    queue = parts.queues.add(campaign, domain, spool_id)
    assert queue is not None
    return queue


def names(destinations: Destinations, destination: str) -> list[str]:
    return [queue.domain for queue in destinations.queues(destination)]


async def reroute(parts: Parts, target: str, scope: Scope = Scope.DOMAIN, value: str = "a.test") -> StopOrder:
    order = StopOrder(0, StopKind.REROUTE, Aim(scope, value), "move", "ann", 0.0, target=target)
    return await parts.stops.give(order)


# --- destinations -------------------------------------------------------------------------------------


async def test_without_rules_a_domain_is_its_own_destination(autojump_clock: MockClock) -> None:
    parts, destinations = await an_office()
    queue = queued(parts, "a.test")
    assert destinations.of(queue, "shop") == "a.test"
    assert destinations.way("a.test") == Way()
    assert list(destinations.queues("a.test")) == [queue]


async def test_a_pool_makes_a_destination_of_each_domain_and_a_relay_one_of_all(
    autojump_clock: MockClock,
) -> None:
    parts, destinations = await an_office(
        RouteRule(domain=".a.test", pool="warm"), RouteRule(domain=".b.test", relay="smart")
    )
    queues = [queued(parts, name) for name in ("x.a.test", "y.a.test", "x.b.test", "y.b.test", "c.test")]
    found = [destinations.of(queue, "shop") for queue in queues]
    assert found == ["x.a.test|warm", "y.a.test|warm", "@smart", "@smart", "c.test"]
    assert [domain_of(name) for name in found[1:4]] == ["y.a.test", "@smart", "@smart"]
    assert (destinations.way("x.a.test|warm"), destinations.way("@smart")) == (
        Way("warm"),
        Way("smart", "smart"),
    )
    assert names(destinations, "@smart") == ["x.b.test", "y.b.test"]
    assert names(destinations, "x.a.test|warm") == ["x.a.test"]
    assert repr(destinations) == "<Destinations: 3 beside plain domains>"


async def test_two_campaigns_of_one_domain_may_have_destinations_apart(autojump_clock: MockClock) -> None:
    parts, destinations = await an_office(RouteRule(campaign=8, pool="warm"))
    plain, routed = queued(parts, "a.test"), queued(parts, "a.test", 2, 8)
    assert [destinations.of(queue, "shop") for queue in (plain, routed)] == ["a.test", "a.test|warm"]
    assert list(destinations.queues("a.test")) == [plain]
    assert list(destinations.queues("a.test|warm")) == [routed]


async def test_an_operator_s_reroute_comes_first_and_goes_when_it_ends(autojump_clock: MockClock) -> None:
    parts, destinations = await an_office()
    queue = queued(parts, "a.test")
    order = await reroute(parts, "smart")
    assert destinations.of(queue, "shop") == "@smart"
    assert list(destinations.queues("a.test")) == []
    assert list(destinations.queues("@smart")) == [queue]
    await parts.stops.end(order)
    assert list(destinations.queues("@smart")) == []
    assert list(destinations.queues("a.test")) == [queue]


async def test_a_reroute_to_what_is_no_more_leaves_mail_where_it_was(autojump_clock: MockClock) -> None:
    parts, destinations = await an_office()
    await reroute(parts, "gone")
    assert destinations.of(queued(parts, "a.test"), "shop") == "a.test"


async def test_what_was_sent_is_no_longer_among_what_waits(autojump_clock: MockClock) -> None:
    parts, destinations = await an_office(RouteRule(relay="smart"))
    queue = queued(parts, "a.test")
    assert destinations.of(queue, "shop") == "@smart"
    parts.queues.take_until(queue, 9, 99)
    assert names(destinations, "@smart") == []


async def test_a_relay_that_serves_many_domains_remembers_none_that_is_done(
    autojump_clock: MockClock,
) -> None:
    parts, destinations = await an_office(RouteRule(relay="smart"))
    for number in range(1_000):
        queue = queued(parts, f"d{number}.test", number + 1)
        destinations.of(queue, "shop")
        parts.queues.take_until(queue, 1, 2_000)
    del queue
    gc.collect()
    assert len(destinations._queues["@smart"]) == 0


async def test_a_destination_that_is_forgotten_is_like_new(autojump_clock: MockClock) -> None:
    parts, destinations = await an_office(RouteRule(relay="smart"))
    queue = queued(parts, "a.test")
    destinations.of(queue, "shop")
    destinations.forget("@smart")
    assert repr(destinations) == "<Destinations: 0 beside plain domains>"
    assert destinations.way("@smart") == Way()
    assert destinations.of(queue, "shop") == "@smart"
    assert list(destinations.queues("@smart")) == [queue]


# --- routes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ttl_seconds", "good_seconds"), [(0.0, 60.0), (60.0, 60.0), (3_600.0, 3_600.0), (1e9, 86_400.0)]
)
def test_a_route_is_good_for_its_ttl_from_a_minute_to_a_day(ttl_seconds: float, good_seconds: float) -> None:
    routes = Routes({})
    routes.put("a.test", "out>mx.test", ttl_seconds, 100.0)
    assert routes.lapsed(100.0 + good_seconds - 0.1) is None
    assert routes.lapsed(100.0 + good_seconds) == "a.test"
    assert routes.lapsed(1e12) is None, "it is said once"
    assert routes.paths == {"a.test": "out>mx.test"}, "and goes on until there is an answer"


def test_a_route_that_is_kept_lapses_again_a_while_later() -> None:
    routes = Routes({})
    routes.put("a.test", "out>mx.test", 60.0, 0.0)
    assert routes.lapsed(60.0) == "a.test"
    routes.keep("a.test", 60.0)
    assert routes.lapsed(60.0 + STALE_SECONDS - 1) is None
    assert routes.lapsed(60.0 + STALE_SECONDS) == "a.test"


def test_an_answer_makes_an_older_end_void() -> None:
    routes = Routes({})
    routes.put("a.test", "out>one", 60.0, 0.0)
    routes.put("a.test", "out>two", 3_600.0, 30.0)
    assert routes.lapsed(3_629.0) is None
    assert routes.lapsed(3_630.0) == "a.test"
    assert routes.paths == {"a.test": "out>two"}


def test_one_that_is_forgotten_does_not_lapse() -> None:
    routes = Routes({})
    routes.put("a.test", "out>one", 60.0, 0.0)
    routes.forget("a.test")
    routes.forget("b.test")
    assert routes.lapsed(1e9) is None
    assert routes.paths == {}


def test_the_oldest_route_makes_room_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "ROUTES_KEPT_MAX", 2)
    routes = Routes({})
    for name in ("a.test", "b.test", "c.test"):
        routes.put(name, "out>one", 60.0, 0.0)
    routes.put("c.test", "out>two", 60.0, 0.0)
    assert routes.paths == {"b.test": "out>one", "c.test": "out>two"}
    assert repr(routes) == "<Routes: 2>"


def test_what_a_former_scheduler_knew_is_not_taken_over() -> None:
    paths = {"a.test": "out>one"}
    Routes(paths)
    assert paths == {}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "keep", "forget", "look"]), st.sampled_from("abc"), st.floats(0, 5_000)
    ),
    max_size=40,
)


@given(STEPS)
def test_every_route_lapses_once_at_its_latest_end(steps: list[tuple[str, str, float]]) -> None:
    routes, ends, now = Routes({}), dict[str, float](), 0.0
    for action, name, seconds in steps:
        now += seconds / 10
        if action == "put":
            routes.put(name, "out>one", seconds, now)
            ends[name] = now + max(60.0, seconds)
        elif action == "keep" and name in routes.paths:
            routes.keep(name, now)
            ends[name] = now + STALE_SECONDS
        elif action == "forget":
            routes.forget(name)
            ends.pop(name, None)
        else:
            lapsed = set(iter(lambda at=now: routes.lapsed(at), None))  # type: ignore[misc]
            assert lapsed == {name for name, end in ends.items() if end <= now}
            ends = {name: end for name, end in ends.items() if end > now}
