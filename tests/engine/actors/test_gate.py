"""What bars a message: a suppression before an operator's stop, and neither without saying why."""

import pytest
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors.gate import Barred, Gate
from engine.actors.parts import Parts
from engine.actors.stops import Aim, Scope, StopKind, StopOrder
from engine.model.disposition import DelayReason, Outcome
from engine.model.envelope import Envelope
from engine.mta.policy.suppression import Reason
from engine.mta.policy.suppression_codec import domain_key, subscriber_key
from engine.mta.spool.suppressions_memory import MemorySuppressions
from tests.contract.suppressions import HASHER, NEWS, add
from tests.fakes.engine_house import CAMPAIGN, letter, memory_parts, transactional

ANN = Envelope(5, CAMPAIGN, 17, "Ann@x.test", "x.test", ("Ann",), 0.0, 4e9)
BOB = replace(ANN, spool_id=6, subscriber=18, recipient="bob@y.test", domain="y.test")
SUSPENDED = Barred(Outcome.RETURNED, "suspended by ann: wait", DelayReason.SUSPENDED)


async def a_gate() -> tuple[Parts, Gate]:
    parts = memory_parts()
    parts.suppressions = MemorySuppressions(HASHER)
    await parts.spool.put_content(letter(workspace="shop", list_id="news.example.org"), 0.0)
    return parts, Gate(parts, "out", "mx.x.test")


async def stop(parts: Parts, kind: StopKind, scope: Scope, value: str, **facts: object) -> StopOrder:
    return await parts.stops.give(replace(StopOrder(0, kind, Aim(scope, value), "wait", "ann", 0.0), **facts))


async def test_with_nothing_said_everything_goes(autojump_clock: MockClock) -> None:
    _, gate = await a_gate()
    assert (gate.judge(ANN), gate.version, repr(gate)) == (None, 0, "<Gate 0>")


@pytest.mark.parametrize(
    "key",
    [HASHER.key_of("ann@x.test"), domain_key("x.test"), subscriber_key("shop", 17)],
    ids=["address", "domain", "subscriber"],
)
async def test_who_is_suppressed_gets_nothing_and_is_not_named(key: bytes, autojump_clock: MockClock) -> None:
    parts, gate = await a_gate()
    await parts.suppressions.apply(add(key))
    assert gate.judge(ANN) == Barred(Outcome.SUPPRESSED, "manual (installation)")
    assert gate.judge(BOB) is None


async def test_the_number_of_a_single_message_is_no_subscriber(autojump_clock: MockClock) -> None:
    parts, gate = await a_gate()
    await parts.spool.put_content(letter(8, workspace="shop", single=True), 0.0)
    await parts.suppressions.apply(add(subscriber_key("shop", 17)))
    assert gate.judge(ANN) is not None
    assert gate.judge(replace(ANN, campaign=8)) is None
    await parts.suppressions.apply(add(HASHER.key_of("ann@x.test")))
    assert gate.judge(replace(ANN, campaign=8)) is not None


async def test_a_suppression_reaches_as_far_as_its_scope(autojump_clock: MockClock) -> None:
    parts, gate = await a_gate()
    await parts.spool.put_content(letter(8, workspace="shop", list_id="deals.example.org"), 0.0)
    await parts.suppressions.apply(add(HASHER.key_of("ann@x.test"), scope=NEWS))
    assert gate.judge(ANN) is not None
    assert gate.judge(replace(ANN, campaign=8)) is None


async def test_who_unsubscribed_gets_transactional_mail(autojump_clock: MockClock) -> None:
    parts, gate = await a_gate()
    await parts.spool.put_content(transactional(8), 0.0)
    await parts.suppressions.apply(add(HASHER.key_of("ann@x.test"), reason=Reason.UNSUBSCRIBED))
    assert gate.judge(ANN) == Barred(Outcome.SUPPRESSED, "unsubscribed (installation)")
    assert gate.judge(replace(ANN, campaign=8)) is None


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        (Scope.CAMPAIGN, str(CAMPAIGN)),
        (Scope.WORKSPACE, "shop"),
        (Scope.DOMAIN, "x.test"),
        (Scope.SOURCE, "out"),
        (Scope.SITE, "mx.x.test"),
        (Scope.ALL, ""),
    ],
)
async def test_what_is_suspended_goes_back_and_waits(
    scope: Scope, value: str, autojump_clock: MockClock
) -> None:
    parts, gate = await a_gate()
    await stop(parts, StopKind.SUSPEND, scope, value)
    assert gate.judge(ANN) == SUSPENDED


async def test_a_stop_that_is_over_or_of_others_bars_nothing(autojump_clock: MockClock) -> None:
    parts, gate = await a_gate()
    await stop(parts, StopKind.SUSPEND, Scope.DOMAIN, "x.test", until=parts.clock.now() - 1)
    await stop(parts, StopKind.SUSPEND, Scope.SITE, "mx.other.test")
    assert gate.judge(ANN) is None


async def test_a_cancel_ends_what_was_accepted_before_it(autojump_clock: MockClock) -> None:
    parts, gate = await a_gate()
    await stop(parts, StopKind.CANCEL, Scope.CAMPAIGN, str(CAMPAIGN), before_id=6)
    assert gate.judge(ANN) == Barred(Outcome.CANCELLED, "cancelled by ann: wait")
    assert gate.judge(BOB) is None


async def test_who_is_suppressed_is_so_though_the_mail_is_suspended(autojump_clock: MockClock) -> None:
    parts, gate = await a_gate()
    await stop(parts, StopKind.SUSPEND, Scope.ALL, "")
    await parts.suppressions.apply(add(HASHER.key_of("ann@x.test")))
    found = gate.judge(ANN)
    assert found is not None
    assert found.outcome is Outcome.SUPPRESSED
    assert gate.judge(BOB) == SUSPENDED


async def test_the_version_moves_with_whatever_may_change_an_answer(autojump_clock: MockClock) -> None:
    parts, gate = await a_gate()
    versions = [gate.version]
    await parts.suppressions.apply(add(HASHER.key_of("ann@x.test")))
    versions.append(gate.version)
    order = await stop(parts, StopKind.SUSPEND, Scope.ALL, "")
    versions.append(gate.version)
    await parts.stops.end(order)
    versions.append(gate.version)
    assert versions == sorted(set(versions)), "it never comes back to what it was"
