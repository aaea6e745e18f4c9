"""From what the protocol says to what the spooler is told: a table, and batches by lease."""

import pytest
from trio.testing import MockClock

from engine.actors.transcript import Dispositions
from engine.config.tables import AmbiguousPolicy
from engine.model.disposition import DelayReason, Disposition, Outcome
from engine.model.envelope import Envelope
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.proto.smtp_options import Result, ResultKind
from tests.fakes.engine_house import RETRY, memory_parts

OK = Reply(250, (2, 0, 0), ("queued",))
NO_USER = Reply(550, (5, 1, 1), ("no ann.smith@x.test here",))
BUSY = Reply(450, (4, 2, 1), ("busy",))
GREY = Reply(451, None, ("greylisted",))
BYE = Reply(421, (4, 3, 2), ("bye",))
LOST = TransportFailure(FailureKind.CLOSED, Verb.CONTENT, "reset")
STOPPED = TransportFailure(FailureKind.STOPPED, Verb.MAIL)
FAR = 4e9


def an_envelope(attempt: int = 0, expires_at: float = FAR) -> Envelope:
    return Envelope(11, 7, 1, "ann.smith@x.test", "x.test", (), 0.0, expires_at, attempt)


def a_result(kind: ResultKind, verb: Verb, answer: Reply | TransportFailure | None) -> Result:
    reply = answer if isinstance(answer, Reply) else None
    failure = answer if isinstance(answer, TransportFailure) else None
    return Result(11, kind, verb, reply, failure)


K = ResultKind


@pytest.mark.parametrize(
    ("result", "blame", "outcome", "reason", "rule"),
    [
        (a_result(K.DELIVERED, Verb.CONTENT, OK), True, Outcome.DELIVERED, DelayReason.NONE, ""),
        (
            a_result(K.REFUSED, Verb.RCPT, NO_USER),
            True,
            Outcome.BOUNCED,
            DelayReason.NONE,
            "permanent-rcpt",
        ),
        (a_result(K.REFUSED, Verb.RCPT, BUSY), True, Outcome.DEFERRED, DelayReason.RETRY, "transient"),
        (
            a_result(K.REFUSED, Verb.RCPT, GREY),
            True,
            Outcome.DEFERRED,
            DelayReason.GREYLISTED,
            "greylisted",
        ),
        (
            a_result(K.AMBIGUOUS, Verb.CONTENT, LOST),
            True,
            Outcome.AMBIGUOUS,
            DelayReason.AMBIGUOUS_RETRY,
            "ambiguous",
        ),
        # Unsent: the first of a lost connection is an attempt, those behind it go back unharmed.
        (a_result(K.UNSENT, Verb.MAIL, BYE), True, Outcome.DEFERRED, DelayReason.RETRY, "421-closing"),
        (
            a_result(K.UNSENT, Verb.MAIL, LOST),
            True,
            Outcome.DEFERRED,
            DelayReason.RETRY,
            "transport-closed",
        ),
        (a_result(K.UNSENT, Verb.MAIL, BYE), False, Outcome.RETURNED, DelayReason.CONNECTION_LOST, ""),
        # Our own doing is nobody's fault.
        (a_result(K.UNSENT, Verb.MAIL, STOPPED), True, Outcome.RETURNED, DelayReason.CONNECTION_LOST, ""),
        (a_result(K.UNSENT, Verb.MAIL, None), True, Outcome.RETURNED, DelayReason.CONNECTION_LOST, ""),
    ],
)
async def test_what_a_result_becomes(
    result: Result,
    blame: bool,
    outcome: Outcome,
    reason: DelayReason,
    rule: str,
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    done = Dispositions(parts, "mx.test", "out")
    done.mx_host, done.tls = "mx1.test", "TLSv1.3"
    unsent = done.add_result(3, an_envelope(), result, 0.25, blame=blame)
    assert unsent == (result.kind is ResultKind.UNSENT)
    ((lease, (told,)),) = done.take()
    assert lease == 3
    assert (told.outcome, told.reason, told.rule) == (outcome, reason, rule)
    assert (told.spool_id, told.attempt, told.seconds) == (11, 0, 0.25)
    assert (told.site, told.source, told.mx_host, told.tls) == ("mx.test", "out", "mx1.test", "TLSv1.3")
    waits = outcome in (Outcome.DEFERRED, Outcome.AMBIGUOUS)
    assert (told.due > parts.clock.now()) == waits
    assert "ann.smith" not in told.reply


async def test_greylisting_is_tried_again_soon_whatever_the_attempt(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    done = Dispositions(parts, "mx.test", "out")
    done.add_result(3, an_envelope(attempt=9), a_result(K.REFUSED, Verb.RCPT, GREY), 0.0, blame=True)
    ((_, (told,)),) = done.take()
    assert told.due - parts.clock.now() <= RETRY.first * (1 + RETRY.jitter)


async def test_what_has_no_time_for_another_attempt_expires_with_the_answer_it_got(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    done = Dispositions(parts, "mx.test", "out")
    short = an_envelope(expires_at=parts.clock.now() + 0.1)
    done.add_result(3, short, a_result(K.REFUSED, Verb.RCPT, BUSY), 0.0, blame=True)
    done.add_result(3, short, a_result(K.AMBIGUOUS, Verb.CONTENT, LOST), 0.0, blame=True)
    ((_, (expired, held)),) = done.take()
    assert (expired.outcome, expired.reply, expired.due) == (Outcome.EXPIRED, "450 4.2.1 busy", 0.0)
    # Whether it arrived is not known, so nobody may say that it expired.
    assert (held.outcome, held.reason, held.due) == (Outcome.AMBIGUOUS, DelayReason.AMBIGUOUS_HELD, 0.0)


async def test_the_policy_hold_keeps_ambiguous_ones(autojump_clock: MockClock) -> None:
    done = Dispositions(memory_parts(ambiguous=AmbiguousPolicy.HOLD), "mx.test", "out")
    done.add_result(3, an_envelope(), a_result(K.AMBIGUOUS, Verb.CONTENT, LOST), 0.0, blame=True)
    ((_, (told,)),) = done.take()
    assert told.reason is DelayReason.AMBIGUOUS_HELD


async def test_what_is_told_is_batched_by_lease(autojump_clock: MockClock) -> None:
    done = Dispositions(memory_parts(), "mx.test", "out")
    for lease, spool_id in ((1, 10), (2, 20), (1, 11)):
        done.add(lease, Disposition(spool_id, 0, Outcome.DELIVERED))
    assert done.count == 3
    told = done.take()
    assert [(lease, [item.spool_id for item in batch]) for lease, batch in told] == [(1, [10, 11]), (2, [20])]
    assert (done.count, done.take()) == (0, [])
