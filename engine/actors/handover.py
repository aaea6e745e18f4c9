"""The last act for a taker of leases that is gone: its holder's remains reach the spooler, always.

Called by observers, which cannot wait: when the spooler's mailbox is full or between two lives, the
dispositions go to `parts.unsettled`, which the spooler applies at its next start, and are told again
by nobody else.
"""

from typing import Any

from engine.actors.holder import Holder
from engine.actors.messages import Settle
from engine.actors.parts import Parts
from engine.config.tables import AmbiguousPolicy
from engine.model.disposition import DelayReason
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
        held=parts.config.engine.ambiguous is AmbiguousPolicy.HOLD,
    )
    if batches:
        message = Settle(batches)
        if not spooler.try_tell(message):
            parts.unsettled.append(message)
