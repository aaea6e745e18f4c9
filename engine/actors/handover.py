"""Envelopes given back by those who cannot deliver them: the settles of failure.

`judge_granted` is for a failure that holds for everything at hand (no route, no connection).
`settle_remains` is the last act for a taker of leases that is gone: what its holder still holds
reaches the spooler, always. It is called by observers, which cannot wait: when the spooler's mailbox
has no room, the dispositions go to `parts.unsettled`, where the spooler finds them at its next wake-up
or its next start.
"""

from typing import Any

from engine.actors.holder import Holder
from engine.actors.messages import Settle
from engine.actors.parts import Parts
from engine.actors.terms import Terms
from engine.model.disposition import DelayReason, Disposition, Outcome
from engine.model.reply import TransportFailure
from engine.mta.policy.retry import retry_at
from engine.runtime.ref import Ref


def settle_remains(
    parts: Parts,
    holder: Holder,
    spooler: Ref[Any],
    *,
    crashed: bool,
    reason: DelayReason = DelayReason.ACTOR_RESTARTED,
) -> None:
    """Close `holder` and give everything it still holds back to the spooler."""
    now = parts.clock.now()
    due = retry_at(parts.config.engine.retry, 0, now, float("inf"), parts.dice.random())
    assert due is not None, "nothing expires at infinity"
    batches = holder.remains(
        crashed=crashed,
        ambiguous_due=due,
        reason=reason,
        policy=parts.config.engine.ambiguous,
    )
    if batches:
        message = Settle(batches)
        if not spooler.try_tell(message):
            parts.unsettled[id(message)] = message


def judge_granted(parts: Parts, holder: Holder, failure: TransportFailure, site: str = "") -> Any:
    """Settle everything granted to `holder` by a failure that holds for all of it."""
    verdict = parts.judge.failure(failure)
    terms = Terms(parts, parts.memory.get(holder.name))
    missed = parts.tls_results.missed.get(holder.name)  # the session that this mail would have gone by
    by_lease: dict[int, list[Disposition]] = {}
    while holder.granted:
        lease_id, envelope = holder.granted.popleft()
        holder.drop(envelope.spool_id)
        if missed is not None:
            missed.counted(envelope.domain)
        outcome, due = verdict.outcome, 0.0
        if outcome is Outcome.DEFERRED:
            when = terms.retry_at(envelope, verdict)
            if when is None:
                outcome = Outcome.EXPIRED
            else:
                due = when
        by_lease.setdefault(lease_id, []).append(
            Disposition(
                envelope.spool_id,
                envelope.attempt,
                outcome,
                failure.verb,
                str(failure),
                verdict.reason,
                verdict.rule,
                due,
                site,
                category=verdict.category.value,
            )
        )
    return list(by_lease.items())
