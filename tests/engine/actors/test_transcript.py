"""From what the protocol says to what the spooler is told: a table, and batches by lease."""

import pytest
from trio.testing import MockClock

from engine.actors.feedback import Feedback
from engine.actors.parts import Parts
from engine.actors.terms import Terms
from engine.actors.transcript import Dispositions
from engine.config.shaping import ShapingRule
from engine.config.tables import AmbiguousPolicy
from engine.config.units import Duration
from engine.model.disposition import DelayReason, Disposition, Outcome
from engine.model.envelope import Envelope
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.proto.smtp_options import Result, ResultKind
from tests.fakes.engine_house import RETRY, SOURCE, host_route, memory_parts

OK = Reply(250, (2, 0, 0), ("queued",))
NO_USER = Reply(550, (5, 1, 1), ("no ann.smith@x.test here",))
BUSY = Reply(450, (4, 2, 1), ("busy",))
GREY = Reply(451, None, ("greylisted",))
SLOWER = Reply(451, (4, 7, 1), ("rate limit exceeded",))
BYE = Reply(421, (4, 3, 2), ("bye",))
LOST = TransportFailure(FailureKind.CLOSED, Verb.CONTENT, "reset")
NO_BUFFERS = TransportFailure(FailureKind.LOCAL, Verb.MAIL)
STOPPED = TransportFailure(FailureKind.STOPPED, Verb.MAIL)
FAR = 4e9


def an_envelope(attempt: int = 0, expires_at: float = FAR) -> Envelope:
    return Envelope(11, 7, 1, "ann.smith@x.test", "x.test", (), 0.0, expires_at, attempt)


def transcript(parts: Parts) -> Dispositions:
    memory = parts.path("out>mx.test", host_route("127.0.0.1", 25, "mx.test"), SOURCE, "", 0.0)
    return Dispositions(parts, "mx.test", "out", Terms(parts, memory), Feedback(parts, memory))


def a_result(kind: ResultKind, verb: Verb, answer: Reply | TransportFailure | None) -> Result:
    reply = answer if isinstance(answer, Reply) else None
    failure = answer if isinstance(answer, TransportFailure) else None
    return Result(11, kind, verb, reply, failure)


K, B, R = ResultKind, Outcome, DelayReason


@pytest.mark.parametrize(
    ("result", "blame", "outcome", "reason", "category"),
    [
        (a_result(K.DELIVERED, Verb.CONTENT, OK), True, B.DELIVERED, R.NONE, ""),
        (a_result(K.REFUSED, Verb.RCPT, NO_USER), True, B.BOUNCED, R.NONE, "bad-mailbox"),
        (a_result(K.REFUSED, Verb.RCPT, BUSY), True, B.DEFERRED, R.RETRY, "remote-system-error"),
        (a_result(K.REFUSED, Verb.RCPT, GREY), True, B.DEFERRED, R.GREYLISTED, "greylisted"),
        (a_result(K.REFUSED, Verb.RCPT, SLOWER), True, B.DEFERRED, R.RATE_LIMITED, "rate-limited"),
        (a_result(K.AMBIGUOUS, Verb.CONTENT, LOST), True, B.AMBIGUOUS, R.AMBIGUOUS_RETRY, ""),
        # Unsent: the first of a lost connection is an attempt, those behind it go back unharmed.
        (a_result(K.UNSENT, Verb.MAIL, BYE), True, B.DEFERRED, R.RETRY, "remote-system-error"),
        (a_result(K.UNSENT, Verb.MAIL, LOST), True, B.DEFERRED, R.RETRY, "no-answer"),
        (a_result(K.UNSENT, Verb.MAIL, BYE), False, B.RETURNED, R.CONNECTION_LOST, ""),
        # Our own doing is nobody's fault.
        (a_result(K.UNSENT, Verb.MAIL, STOPPED), True, B.RETURNED, R.CONNECTION_LOST, ""),
        (a_result(K.UNSENT, Verb.MAIL, None), True, B.RETURNED, R.CONNECTION_LOST, ""),
        (a_result(K.UNSENT, Verb.MAIL, NO_BUFFERS), True, B.RETURNED, R.CONNECTION_LOST, ""),
    ],
)
async def test_what_a_result_becomes(
    result: Result,
    blame: bool,
    outcome: Outcome,
    reason: DelayReason,
    category: str,
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    done = transcript(parts)
    done.mx_host, done.tls = "mx1.test", "TLSv1.3"
    unsent = done.add_result(3, an_envelope(), result, 0.25, blame=blame)
    assert unsent == (result.kind is ResultKind.UNSENT)
    ((lease, (told,)),) = done.take()
    assert lease == 3
    assert (told.outcome, told.reason, told.category) == (outcome, reason, category)
    judged = outcome not in (Outcome.DELIVERED, Outcome.RETURNED)
    assert bool(told.rule) == judged, "who decided it is told"
    assert (told.spool_id, told.attempt, told.seconds) == (11, 0, 0.25)
    assert (told.site, told.source, told.mx_host, told.tls) == ("mx.test", "out", "mx1.test", "TLSv1.3")
    waits = outcome in (Outcome.DEFERRED, Outcome.AMBIGUOUS)
    assert (told.due > parts.clock.now()) == waits
    assert "ann.smith" not in told.reply


@pytest.mark.parametrize(
    ("kind", "answer", "rule"),
    [(K.AMBIGUOUS, LOST, "ambiguous"), (K.UNSENT, LOST, "transport-closed")],
)
async def test_a_lost_connection_has_rules_of_its_own(
    kind: ResultKind, answer: TransportFailure, rule: str, autojump_clock: MockClock
) -> None:
    done = transcript(memory_parts())
    done.add_result(3, an_envelope(), a_result(kind, Verb.CONTENT, answer), 0.0, blame=True)
    ((_, (told,)),) = done.take()
    assert told.rule == rule


async def test_what_may_have_arrived_is_delivered_where_that_is_assumed(autojump_clock: MockClock) -> None:
    done = transcript(memory_parts(ambiguous=AmbiguousPolicy.ASSUME_DELIVERED))
    done.add_result(3, an_envelope(), a_result(K.AMBIGUOUS, Verb.CONTENT, LOST), 0.0, blame=True)
    ((_, (told,)),) = done.take()
    assert (told.outcome, told.rule, told.due) == (Outcome.DELIVERED, "assumed", 0.0)


async def test_greylisting_is_tried_again_soon_whatever_the_attempt(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    done = transcript(parts)
    done.add_result(3, an_envelope(attempt=9), a_result(K.REFUSED, Verb.RCPT, GREY), 0.0, blame=True)
    ((_, (told,)),) = done.take()
    assert told.due - parts.clock.now() <= RETRY.first * (1 + RETRY.jitter)


async def test_what_has_no_time_for_another_attempt_expires_with_the_answer_it_got(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    done = transcript(parts)
    short = an_envelope(expires_at=parts.clock.now() + 0.1)
    done.add_result(3, short, a_result(K.REFUSED, Verb.RCPT, BUSY), 0.0, blame=True)
    done.add_result(3, short, a_result(K.AMBIGUOUS, Verb.CONTENT, LOST), 0.0, blame=True)
    ((_, (expired, held)),) = done.take()
    assert (expired.outcome, expired.reply, expired.due) == (Outcome.EXPIRED, "450 4.2.1 busy", 0.0)
    # Whether it arrived is not known, so nobody may say that it expired.
    assert (held.outcome, held.reason, held.due) == (Outcome.AMBIGUOUS, DelayReason.AMBIGUOUS_HELD, 0.0)


async def test_the_policy_hold_keeps_ambiguous_ones(autojump_clock: MockClock) -> None:
    done = transcript(memory_parts(ambiguous=AmbiguousPolicy.HOLD))
    done.add_result(3, an_envelope(), a_result(K.AMBIGUOUS, Verb.CONTENT, LOST), 0.0, blame=True)
    ((_, (told,)),) = done.take()
    assert told.reason is DelayReason.AMBIGUOUS_HELD


async def test_what_is_told_is_batched_by_lease(autojump_clock: MockClock) -> None:
    done = transcript(memory_parts())
    for lease, spool_id in ((1, 10), (2, 20), (1, 11)):
        done.add(lease, Disposition(spool_id, 0, Outcome.DELIVERED))
    assert done.count == 3
    told = done.take()
    assert [(lease, [item.spool_id for item in batch]) for lease, batch in told] == [(1, [10, 11]), (2, [20])]
    assert (done.count, done.take()) == (0, [])


async def test_a_delay_that_the_answer_names_is_kept(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    done = transcript(parts)
    later = Reply(451, (4, 7, 1), ("rate limit exceeded, try again in 90 seconds",))
    for attempt in (0, 9):
        done.add_result(3, an_envelope(attempt), a_result(K.REFUSED, Verb.RCPT, later), 0.0, blame=True)
    ((_, told),) = done.take()
    for item in told:
        assert 90 <= item.due - parts.clock.now() <= 90 * (1 + RETRY.jitter), "never earlier, hardly later"


@pytest.mark.parametrize(("answer", "grows"), [(SLOWER, False), (GREY, False), (BUSY, True)])
async def test_only_what_is_about_the_envelope_makes_it_wait_longer_each_time(
    answer: Reply, grows: bool, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    done = transcript(parts)
    done.add_result(3, an_envelope(attempt=9), a_result(K.REFUSED, Verb.RCPT, answer), 0.0, blame=True)
    ((_, (told,)),) = done.take()
    assert (told.due - parts.clock.now() > RETRY.first * (1 + RETRY.jitter)) == grows


async def test_the_curve_is_the_path_s(autojump_clock: MockClock) -> None:
    rule = ShapingRule(site="mx.test", retry_first=Duration(50), retry_max=Duration(60))
    parts = memory_parts(site=(rule,))
    done = transcript(parts)
    done.add_result(3, an_envelope(), a_result(K.REFUSED, Verb.RCPT, BUSY), 0.0, blame=True)
    ((_, (told,)),) = done.take()
    assert told.due - parts.clock.now() == pytest.approx(50, rel=RETRY.jitter)


async def test_a_provider_that_is_not_believed_costs_no_address(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    done = transcript(parts)
    unsigned = Reply(550, (5, 7, 26), ("unauthenticated email is not accepted due to the DMARC policy",))
    for _ in range(21):
        done.add_result(3, an_envelope(), a_result(K.REFUSED, Verb.CONTENT, unsigned), 0.0, blame=True)
    done.take()
    done.add_result(3, an_envelope(), a_result(K.REFUSED, Verb.RCPT, NO_USER), 0.0, blame=True)
    ((_, (told,)),) = done.take()
    assert (told.outcome, told.reason, told.category) == (B.DEFERRED, R.NOT_BELIEVED, "bad-mailbox")
    assert told.due > parts.clock.now()


async def test_what_is_told_of_an_answer_does_not_tell_the_recipients_address(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    done = transcript(parts)
    said = Reply(451, (4, 7, 1), ("<ann.smith@x.test>: rate limit exceeded for ann.smith",))
    done.add_result(3, an_envelope(), a_result(K.REFUSED, Verb.RCPT, said), 0.1, blame=True)
    memory = parts.memory["out>mx.test"]
    told = [noted.change.reason for noted in parts.changes] + [s.text for s in memory.governor.signals]
    assert any("rate limit exceeded" in text for text in told)
    assert not any("ann" in text for text in told)
