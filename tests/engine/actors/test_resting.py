"""Why a path rests: an operator's word before its source's state before its own rest."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.parts import Parts
from engine.actors.resting import STOPPED_SECONDS, Resting
from engine.actors.source_states import SUSPEND_SECONDS_FIRST
from engine.actors.stops import Aim, Scope, StopKind, StopOrder
from engine.config.shaping import WarmUpPlan
from engine.model.reply import FailureKind, TransportFailure, Verb
from tests.fakes.engine_house import SOURCE, host_route, memory_parts

KEY = "out>mx.test"
GONE = TransportFailure(FailureKind.SOURCE, Verb.CONNECT, "cannot assign address")


def a_path(**engine: Any) -> tuple[Parts, Resting]:
    parts = memory_parts(**engine)
    memory = parts.path(KEY, host_route("127.0.0.1", 25, "mx.test"), SOURCE, "", trio.current_time())
    return parts, Resting(parts, memory)


async def suspend(parts: Parts, scope: Scope, value: str) -> StopOrder:
    return await parts.stops.give(StopOrder(0, StopKind.SUSPEND, Aim(scope, value), "wait", "ann", 0.0))


async def test_a_path_that_nothing_is_said_of_may_send(autojump_clock: MockClock) -> None:
    _, resting = a_path()
    now = trio.current_time()
    assert (resting.until(now), resting.stopped, repr(resting)) == ((0.0, ""), "", "<Resting out>mx.test>")
    assert not resting.hangs_up(now)
    assert not resting.elsewhere(now)


@pytest.mark.parametrize(("scope", "value"), [(Scope.SOURCE, "out"), (Scope.SITE, "mx.test")])
async def test_an_operator_s_stop_holds_until_it_is_lifted_and_hangs_up(
    scope: Scope, value: str, autojump_clock: MockClock
) -> None:
    parts, resting = a_path()
    order = await suspend(parts, scope, value)
    now = trio.current_time()
    assert resting.until(now) == (now + STOPPED_SECONDS, "suspended by ann: wait")
    assert resting.hangs_up(now)
    assert not resting.elsewhere(now), "who stops a source does not say that others shall send for it"
    await parts.stops.end(order)
    assert resting.until(now) == (0.0, "")


@pytest.mark.parametrize(
    ("scope", "value"), [(Scope.SOURCE, "in"), (Scope.SITE, "mx.other.test"), (Scope.ALL, "")]
)
async def test_a_stop_of_something_else_does_not_rest_the_path(
    scope: Scope, value: str, autojump_clock: MockClock
) -> None:
    parts, resting = a_path()
    await suspend(parts, scope, value)
    assert resting.until(trio.current_time()) == (0.0, "")


async def test_a_source_that_is_gone_rests_the_path_hangs_up_and_sends_its_mail_elsewhere(
    autojump_clock: MockClock,
) -> None:
    parts, resting = a_path()
    now = trio.current_time()
    parts.source_states.failed("out", GONE, now)
    assert resting.until(now) == (
        now + SUSPEND_SECONDS_FIRST,
        "source out is suspended: cannot assign address",
    )
    assert resting.hangs_up(now)
    assert resting.elsewhere(now)


async def test_a_path_s_own_rest_hangs_up_and_keeps_its_mail(autojump_clock: MockClock) -> None:
    parts, resting = a_path()
    now = trio.current_time()
    parts.memory[KEY].suspend(now + 60, "no connection succeeded")
    assert resting.until(now) == (now + 60, "no connection succeeded")
    assert resting.hangs_up(now)
    assert not resting.elsewhere(now)
    assert resting.until(now + 61) == (0.0, "")


async def test_of_two_rests_the_longer_one_is_told(autojump_clock: MockClock) -> None:
    parts, resting = a_path()
    now = trio.current_time()
    parts.memory[KEY].suspend(now + 5, "no connection succeeded")
    parts.source_states.failed("out", GONE, now)
    assert resting.until(now)[0] == now + SUSPEND_SECONDS_FIRST
    parts.memory[KEY].suspend(now + 500, "no connection succeeded")
    assert resting.until(now) == (now + 500, "no connection succeeded")


@pytest.mark.parametrize("overflow", [True, False])
async def test_a_quota_that_is_used_up_lets_open_connections_go_on(
    overflow: bool, autojump_clock: MockClock
) -> None:
    plan = WarmUpPlan(source="out", per_day=(20,), overflow=overflow)
    parts, resting = a_path(warmup=(plan,))
    account = parts.warm_up("mx.test", SOURCE)
    assert account is not None
    while not account.exhausted:
        await account.reserve()
        account.take(20)
    now = trio.current_time()
    until, why = resting.until(now)
    assert until > now
    assert why.startswith("warm-up: ")
    assert not resting.hangs_up(now), "what is leased is counted, and goes"
    assert resting.elsewhere(now) == overflow
