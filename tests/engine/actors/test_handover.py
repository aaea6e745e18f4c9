"""The remains of a dead taker reach the spooler, whatever state it is in."""

import pytest
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors.handover import judge_granted, settle_remains
from engine.actors.holder import Holder
from engine.actors.messages import Settle
from engine.config.tables import AmbiguousPolicy
from engine.model.disposition import DelayReason, Outcome
from engine.model.reply import FailureKind, TransportFailure, Verb
from tests.fakes.engine_house import RETRY, Desk, a_lease, memory_parts


def holding(*wire: int) -> Holder:
    holder = Holder("c#1")
    holder.grant(a_lease(5, 1, 2, 3))
    holder.wire.update(wire)
    return holder


async def test_remains_are_told_to_the_spooler(autojump_clock: MockClock) -> None:
    parts, desk = memory_parts(), Desk()
    settle_remains(parts, holding(2), desk.peer("spooler"), crashed=False)
    (message,) = desk.take("spooler", Settle)
    ((lease, batch),) = message.batches
    assert lease == 5
    assert {item.spool_id: item.outcome for item in batch} == {
        1: Outcome.RETURNED,
        2: Outcome.AMBIGUOUS,
        3: Outcome.RETURNED,
    }
    (ambiguous,) = [item for item in batch if item.outcome is Outcome.AMBIGUOUS]
    pause = ambiguous.due - parts.clock.now()
    assert RETRY.first * 0.8 <= pause <= RETRY.first * 1.2
    assert not parts.unsettled


async def test_a_full_mailbox_leaves_them_where_the_spooler_looks(
    autojump_clock: MockClock,
) -> None:
    parts, desk = memory_parts(), Desk(capacity=1)
    spooler = desk.peer("spooler")
    spooler.try_tell("something")
    settle_remains(parts, holding(), spooler, crashed=True)
    (message,) = parts.unsettled.values()
    assert parts.unsettled == {id(message): message}
    assert len(message.batches[0][1]) == 3


async def test_the_policy_hold_is_heeded(autojump_clock: MockClock) -> None:
    parts, desk = memory_parts(ambiguous=AmbiguousPolicy.HOLD), Desk()
    settle_remains(parts, holding(1), desk.peer("spooler"), crashed=False)
    (message,) = desk.take("spooler")
    assert message.batches[0][1][0].reason is DelayReason.AMBIGUOUS_HELD


async def test_nothing_held_is_nothing_told(autojump_clock: MockClock) -> None:
    parts, desk = memory_parts(), Desk()
    settle_remains(parts, Holder("c#1"), desk.peer("spooler"), crashed=True)
    assert not desk.take("spooler")


async def test_a_failure_is_the_end_of_everything_granted(autojump_clock: MockClock) -> None:
    parts, holder = memory_parts(), holding()
    holder.grant(a_lease(6, 4))
    gone = TransportFailure(FailureKind.NO_SUCH_DOMAIN, Verb.RESOLVE, "no such domain")
    told = judge_granted(parts, holder, gone, "mx.test")
    assert [(lease, [item.spool_id for item in batch]) for lease, batch in told] == [(5, [1, 2, 3]), (6, [4])]
    item = told[0][1][0]
    assert (item.outcome, item.verb, item.rule) == (Outcome.BOUNCED, Verb.RESOLVE, "domain-nxdomain")
    assert (item.reply, item.site, item.due) == ("no_such_domain at resolve: no such domain", "mx.test", 0.0)
    assert not holder.held


@pytest.mark.parametrize("kind", [FailureKind.SOURCE, FailureKind.LOCAL])
async def test_our_own_failure_costs_no_attempt(kind: FailureKind, autojump_clock: MockClock) -> None:
    parts, holder = memory_parts(), holding()
    told = judge_granted(parts, holder, TransportFailure(kind, Verb.CONNECT, "gone"))
    assert {item.outcome for item in told[0][1]} == {Outcome.RETURNED}


async def test_a_failure_for_now_defers_or_expires(autojump_clock: MockClock) -> None:
    parts, holder = memory_parts(), Holder("c#1")
    now = parts.clock.now()
    lease = a_lease(5, 1, 2)
    short = replace(lease.envelopes[1], expires_at=now + 0.1)
    holder.grant(replace(lease, envelopes=(lease.envelopes[0], short)))
    ((_, (waits, over)),) = judge_granted(
        parts, holder, TransportFailure(FailureKind.CONNECT_REFUSED, Verb.CONNECT)
    )
    assert waits.outcome is Outcome.DEFERRED
    assert waits.due > now
    assert over.outcome is Outcome.EXPIRED
