"""From protocol results to dispositions: what one connection tells the spooler, batched by lease.

Pure but for the clock and dice in `parts`. A deferred envelope gets its due time here; one that can
have no further attempt expires with the last answer it got. What an answer means is `policy.classify`'s
to say, and every verdict goes to `feedback`, which moves the path's window and rate.
"""

from engine.actors.feedback import Feedback
from engine.actors.parts import Parts
from engine.actors.terms import Terms
from engine.config.tables import AmbiguousPolicy
from engine.model.disposition import ASSUMED, DelayReason, Disposition, Outcome
from engine.model.envelope import Envelope
from engine.model.reply import FailureKind, TransportFailure
from engine.mta.policy.classify import Verdict, reply_text
from engine.mta.proto.smtp_options import Result, ResultKind


class Dispositions:
    """Dispositions of one connection that the spooler has not been told yet."""

    __slots__ = ("_by_lease", "_feedback", "_parts", "_site", "_source", "count", "mx_host", "terms", "tls")

    def __init__(self, parts: Parts, site: str, source: str, terms: Terms, feedback: Feedback) -> None:
        self.count = 0
        self.mx_host = ""
        self.tls = ""
        self._parts = parts
        self._site = site
        self._source = source
        self.terms = terms
        self._feedback = feedback
        self._by_lease: dict[int, list[Disposition]] = {}

    def add(self, lease_id: int, disposition: Disposition) -> None:
        self.count += 1
        batch = self._by_lease.get(lease_id)
        if batch is None:
            self._by_lease[lease_id] = [disposition]
        else:
            batch.append(disposition)

    def take(self) -> list[tuple[int, list[Disposition]]]:
        taken = list(self._by_lease.items())
        self._by_lease = {}
        self.count = 0
        return taken

    def add_result(
        self, lease_id: int, envelope: Envelope, result: Result, seconds: float, *, blame: bool
    ) -> bool:
        """Turn a result into a disposition. True when nothing of it was sent.

        `blame`: the first unsent envelope of a lost connection counts as an attempt, so that a peer
        that hangs up each time is not tried for ever; those behind it do not.
        """
        text = reply_text(result.reply or result.failure, envelope.recipient)
        unsent = result.kind is ResultKind.UNSENT
        outcome, due, rule, reason, category = Outcome.DELIVERED, 0.0, "", DelayReason.NONE, ""
        if result.kind is ResultKind.AMBIGUOUS:
            outcome, rule = Outcome.AMBIGUOUS, "ambiguous"
            policy = self._parts.config.engine.ambiguous
            when = self.terms.retry_at(envelope)
            if policy is AmbiguousPolicy.ASSUME_DELIVERED:
                outcome, rule = Outcome.DELIVERED, ASSUMED
            elif when is None or policy is AmbiguousPolicy.HOLD:
                reason = DelayReason.AMBIGUOUS_HELD
            else:
                reason, due = DelayReason.AMBIGUOUS_RETRY, when
        elif unsent and (not blame or _our_doing(result)):
            outcome, reason = Outcome.RETURNED, DelayReason.CONNECTION_LOST
        elif result.kind is not ResultKind.DELIVERED:
            verdict = self._judge(envelope, result)
            verdict = self._feedback.refused(verdict, text, envelope.campaign)
            outcome, rule, reason = verdict.outcome, verdict.rule, verdict.reason
            category = verdict.category.value
            if outcome is Outcome.DEFERRED:
                when = self.terms.retry_at(envelope, verdict)
                if when is None:
                    outcome = Outcome.EXPIRED
                else:
                    due = when
        self.add(
            lease_id,
            Disposition(
                envelope.spool_id,
                envelope.attempt,
                outcome,
                result.verb,
                text,
                reason,
                rule,
                due,
                self._site,
                self._source,
                self.mx_host,
                self.tls,
                seconds,
                False,  # crashed
                category,
            ),
        )
        return unsent

    def _judge(self, envelope: Envelope, result: Result) -> Verdict:
        judge = self._parts.judge
        if result.reply is not None:
            return judge.reply(result.verb, result.reply, mx_host=self.mx_host, domain=envelope.domain)
        return judge.failure(result.failure or TransportFailure(FailureKind.CLOSED, result.verb))


_OURS = frozenset({FailureKind.STOPPED, FailureKind.SOURCE, FailureKind.LOCAL})


def _our_doing(result: Result) -> bool:
    """Unsent because we stopped, or because the connection was at its end anyway: nobody refused it."""
    if result.failure is not None:
        return result.failure.kind in _OURS
    return result.reply is None
