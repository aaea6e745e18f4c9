"""Whether a message may go at all: asked for each when it is composed, and again before its octets go.

Joins what is known of suppressions and of operators' stops. The second question costs one comparison:
only when `version` has moved since the first is the answer looked up again. So a suppression that is
acknowledged, or a stop, holds for whatever has not been handed to the protocol yet. Decides nothing
itself; the words go into the event and name no address.
"""

from msgspec import Struct

from engine.actors.parts import Parts
from engine.model.disposition import DelayReason, Outcome
from engine.model.envelope import Envelope


class Barred(Struct, frozen=True):
    """Why a message does not go, and what becomes of it."""

    outcome: Outcome
    text: str
    reason: DelayReason = DelayReason.NONE


class Gate:
    """Of one connection: `source` and `site` are where it stands."""

    __slots__ = ("_parts", "_site", "_source")

    def __init__(self, parts: Parts, source: str, site: str) -> None:
        self._parts = parts
        self._source = source
        self._site = site

    def __repr__(self) -> str:
        return f"<Gate {self.version}>"

    @property
    def version(self) -> int:
        """Moves whenever an answer may have changed."""
        return self._parts.suppressions.version + self._parts.stops.version

    def judge(self, envelope: Envelope) -> Barred | None:
        """What bars this message from going now, if anything does."""
        parts = self._parts
        standing = parts.standing(envelope.campaign)
        entry = parts.suppressions.blocked(
            envelope.recipient,
            envelope.domain,
            0 if standing.single else envelope.subscriber,
            standing.workspace,
            standing.list_id,
            standing.message_class,
        )
        if entry is not None:
            return Barred(Outcome.SUPPRESSED, str(entry))
        if not parts.stops:
            return None
        stop = parts.stops.judge(
            envelope.campaign,
            standing.workspace,
            envelope.domain,
            self._source,
            self._site,
            envelope.spool_id,
            parts.clock.now(),
        )
        if stop is None:
            return None
        if stop.cancels:
            return Barred(Outcome.CANCELLED, stop.reason)
        return Barred(Outcome.RETURNED, stop.reason, DelayReason.SUSPENDED)
