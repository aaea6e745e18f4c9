"""What a campaign's events add up to, per domain: the report's source.

Fed with the batches of `events.<producer>` in order. A batch that was seen is dropped by its sequence
number, so that feeding everything again after a restart changes nothing. Domains of a chunk count as
accepted when its `chunk_accepted` has come and `expect` has named them, in either order. Pure.
"""

import re
from collections import Counter
from collections.abc import Iterable

from control.cli.report import DomainReport, Reason
from engine.model.category import Category
from engine.model.event import Adapted, AttemptEvent, ChunkAccepted, ChunkRefused, EventBatch
from engine.mta.spool.api import StateCounts

REASONS_KEPT_MAX = 40  # per domain; beyond that, replies differ in queue ids only and are lumped
SAMPLE_CHARS = 300

_FINAL = frozenset(
    {"delivered", "bounced", "expired", "suppressed", "cancelled", "render_failed", "quarantined"}
)
_HELD = "ambiguous, held"


class _Domain:
    __slots__ = ("counts", "reasons")

    def __init__(self) -> None:
        self.counts = StateCounts()
        self.reasons: dict[tuple[str, str, str], list[object]] = {}  # state, text, status -> count, sample


class Fold:
    """Sums over one campaign's events."""

    def __init__(self, campaign: int) -> None:
        self.campaign = campaign
        self.first_attempts = 0  # envelopes whose first attempt is over
        self.accepted = 0
        self.attempts = 0  # and of those the ones that were put off, not counting those that were too fast
        self.put_off = 0
        self.retries = 0  # likewise, without first attempts
        self.put_off_again = 0
        self.first_at = 0.0
        self.last_at = 0.0
        self._next: dict[tuple[str, str], int] = {}
        self._expected: dict[str, Counter[str]] = {}
        self._early: set[str] = set()
        self._domains: dict[str, _Domain] = {}
        self._deferred: set[int] = set()
        self._parked: dict[int, str] = {}  # held or quarantined: an operator may have them tried again

    @property
    def retrying(self) -> int:
        """Envelopes that were deferred and wait for another attempt."""
        return len(self._deferred)

    @property
    def seconds(self) -> float:
        return max(0.0, self.last_at - self.first_at)

    def expect(self, chunk: str, domains: Iterable[str]) -> None:
        """The domains of a chunk that is about to be submitted."""
        if chunk in self._early:  # a resumed run reads the events before it has cut the chunks again
            self._early.discard(chunk)
            self._accept(Counter(domains))
        else:
            self._expected[chunk] = Counter(domains)

    def add(self, batch: EventBatch) -> None:
        key = (batch.producer, batch.epoch)
        if batch.sequence < self._next.get(key, 0):
            return
        self._next[key] = batch.next_sequence
        self.first_at = self.first_at or batch.at
        self.last_at = max(self.last_at, batch.at)
        for event in batch.events:
            if event.campaign != self.campaign or isinstance(event, Adapted | ChunkRefused):
                continue
            if isinstance(event, ChunkAccepted):
                self.accepted += event.count
                if event.chunk in self._expected:
                    self._accept(self._expected.pop(event.chunk))
                else:
                    self._early.add(event.chunk)
            else:
                self._attempt(event)

    def reports(self) -> tuple[DomainReport, ...]:
        """One per domain; none before all accepted chunks are named: their sums would be wrong."""
        if self._early:
            return ()
        return tuple(
            DomainReport(
                name,
                domain.counts,
                tuple(
                    Reason(state, text, int(str(count)), str(sample), status)
                    for (state, text, status), (count, sample) in domain.reasons.items()
                ),
            )
            for name, domain in self._domains.items()
        )

    def _accept(self, domains: Counter[str]) -> None:
        for domain, count in domains.items():
            self._domain(domain).counts.accepted += count

    def _domain(self, name: str) -> _Domain:
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = _Domain()
        return domain

    def _attempt(self, event: AttemptEvent) -> None:
        state = _STATE[type(event).__name__]
        domain = self._domain(event.domain)
        again = event.attempt > 0
        later = state == "deferred" and event.category != Category.RATE_LIMITED.value
        self.attempts += 1
        self.put_off += later
        self.retries += again
        self.put_off_again += again and later
        if not again:
            self.first_attempts += 1
        parked = self._parked.pop(event.spool_id, None)
        if parked is not None:
            domain.counts.add(parked, -1)
        if state in _FINAL:
            domain.counts.add(state, 1)
            self._deferred.discard(event.spool_id)
            if state == "quarantined":
                self._parked[event.spool_id] = state
        elif state == "ambiguous":
            if event.reason.startswith(_HELD):
                domain.counts.add(state, 1)
                self._parked[event.spool_id] = state
                self._deferred.discard(event.spool_id)
            else:
                self._deferred.add(event.spool_id)
        else:
            self._deferred.add(event.spool_id)
        if state != "delivered":
            self._reason(domain, state, event)

    def _reason(self, domain: _Domain, state: str, event: AttemptEvent) -> None:
        text = event.rule or event.reason or event.reply or event.verb
        if event.category and _status(event.reply):
            text = event.category  # what an answer was about says more than the rule that saw it
        key = (state, text, _status(event.reply))
        known = domain.reasons.get(key)
        if known is not None:
            known[0] = int(str(known[0])) + 1
        elif len(domain.reasons) < REASONS_KEPT_MAX:
            domain.reasons[key] = [1, event.reply[:SAMPLE_CHARS]]


def _status(reply: str) -> str:
    """ "550 5.1.1" of a reply that begins so, "550" where there is no enhanced status (RFC 3463)."""
    found = _STATUS.match(reply)
    return found[0].rstrip() if found else ""


_STATUS = re.compile(r"[2-5]\d\d( [245]\.\d{1,3}\.\d{1,3}(?!\S))?(?!\S)")
_STATE = {
    "Delivered": "delivered",
    "Deferred": "deferred",
    "Bounced": "bounced",
    "Expired": "expired",
    "Suppressed": "suppressed",
    "Cancelled": "cancelled",
    "RenderFailed": "render_failed",
    "Ambiguous": "ambiguous",
    "Quarantined": "quarantined",
}
