"""What became of an envelope, as values that cross from connections to the spooler.

A `Disposition` ends one lease of one envelope. Its `outcome` either ends the envelope's life
(delivered, bounced, ...), or sends it back to the schedule: `deferred` after a counted attempt,
`returned` when nothing of it reached the wire (no attempt is counted), `ambiguous` when its final
dot may have been accepted and we cannot know.
"""

from enum import Enum

from msgspec import Struct

from engine.model.reply import Verb


class Outcome(Enum):
    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    RENDER_FAILED = "render_failed"
    AMBIGUOUS = "ambiguous"
    QUARANTINED = "quarantined"
    RETURNED = "returned"

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = frozenset(
    {
        Outcome.DELIVERED,
        Outcome.BOUNCED,
        Outcome.EXPIRED,
        Outcome.SUPPRESSED,
        Outcome.CANCELLED,
        Outcome.RENDER_FAILED,
    }
)


class DelayReason(Enum):
    """Why an envelope waits when we, not the peer, declined; shown to operators."""

    NONE = ""
    RETRY = "waits for its next attempt"
    GREYLISTED = "greylisted, waits for its next attempt"
    RATE_LIMITED = "the receiver's rate limit"
    REPUTATION = "the receiver blocks this route for now"
    NOT_BELIEVED = "the receiver refuses so much that its word on addresses is not taken"
    SUSPENDED = "suspended by an operator"
    SITE_SUSPENDED = "the site is suspended"
    SOURCE_GONE = "its source's address or proxy cannot be used"
    OUT_OF_ROOM = "this machine has no port or descriptor left for now"
    SITE_LIMIT = "the site's connections are all in use"
    RATE_LIMIT = "the site's rate is used up"
    RESOLVING = "waits for DNS"
    DNS_TROUBLE = "DNS did not answer"
    SIGNING = "waits for a signature"
    CONNECTION_LOST = "its connection was lost before it was sent"
    ACTOR_RESTARTED = "the actor that held it was restarted"
    STOPPING = "the engine is stopping"
    AMBIGUOUS_RETRY = "ambiguous, waits for a retry with the same Message-ID"
    AMBIGUOUS_HELD = "ambiguous, held"
    QUARANTINED = "parked after killing its actor twice"
    DISK = "the disk is nearly full"
    MEMORY = "waits for memory: it is large, and others are on their way"


ASSUMED = "assumed"  # the rule of what an operator, or the policy, took for delivered or failed


class Disposition(Struct, frozen=True, array_like=True, gc=False):
    """The end of one lease of one envelope. `due` (wall seconds) is set for deferred and ambiguous."""

    spool_id: int
    attempt: int
    outcome: Outcome
    verb: Verb = Verb.IDLE
    reply: str = ""  # raw reply or failure text, bounded, recipient replaced by <rcpt>
    reason: DelayReason = DelayReason.NONE
    rule: str = ""
    due: float = 0.0
    site: str = ""
    source: str = ""
    mx_host: str = ""
    tls: str = ""
    seconds: float = 0.0  # from hand-over to reply
    crashed: bool = False  # the actor that held it died while working on it
    category: str = ""  # of a reply that was not 2xx, in the words of `model.category`


def assumed(spool_id: int, attempt: int, why: str, *, delivered: bool = True) -> Disposition:
    """The end of an ambiguous envelope that somebody decided to take for delivered, or for failed."""
    outcome = Outcome.DELIVERED if delivered else Outcome.BOUNCED
    return Disposition(spool_id, attempt, outcome, Verb.CONTENT, why, rule=ASSUMED)
