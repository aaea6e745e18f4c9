"""What is done when a receiver complains, to whom and for how long: thresholds as a table.

A reply that complains names something: our address, a sending domain, a campaign's text or its links, a
workspace. Only that is held back, and only at the provider that said so; everything else goes on. Some
complaints count at once, others when they repeat, those about a text only when they are a share of that
campaign's mail. Holding again what was held lasts twice as long, and is forgiven step by step in calm.

A rule of replies may name another action than its category has; then the action's row counts. Pure, one
object for each source and provider; the caller starts and ends the holds. Memory is bounded: the
subjects least lately complained of are forgotten first, which only makes a threshold start anew.
"""

from collections import deque
from enum import Enum
from typing import Any

from msgspec import Struct

from engine.model.category import TREATMENTS, Action, Category, Key
from engine.mta.policy.rolling import RollingCount

SUBJECTS_MAX = 1_000  # campaigns, domains and workspaces that one provider may complain of at a time
SHARE_SPAN_SECONDS = 3_600.0
CALM_SHARE = 4.0  # a step of doubling is forgiven after so many times the last hold without complaint
RETRY_AFTER_SECONDS_MAX = 86_400.0  # what classification takes from a text at most
TEXT_MAX = 120


class ReactionKind(Enum):
    REST_PATH = "rest-path"  # this source sends nothing to this provider for a while
    SLOW = "slow"  # the governor's business
    HOLD_DOMAIN = "hold-domain"  # this sending domain at this provider
    HOLD_CAMPAIGN = "hold-campaign"
    HOLD_WORKSPACE = "hold-workspace"
    RECONNECT = "reconnect"  # the session is full: a new one, and nobody is angry
    NONE = "none"


class Reaction(Struct, frozen=True):
    """Do `kind` for `seconds`; `subject` is the domain, campaign or workspace, "" for the path."""

    kind: ReactionKind
    seconds: float
    reason: str
    rule: str
    subject: str = ""


class Threshold(Struct, frozen=True):
    """`count` such replies in `within_seconds`, and `share` of the campaign's attempts, call for `kind`.

    It lasts `seconds`, or what the reply asks for if that is longer, and doubles up to `seconds_max`.
    """

    kind: ReactionKind
    seconds: float = 0.0
    seconds_max: float = 0.0
    count: int = 1
    within_seconds: float = 600.0
    share: float = 0.0


MINUTE, HOUR = 60.0, 3_600.0
_REST = Threshold(ReactionKind.REST_PATH, 15 * MINUTE, 2 * HOUR)
# "For now" (4yz): the governor has halved everything, and who slows down is often let in soon.
_REST_FOR_NOW = Threshold(ReactionKind.REST_PATH, MINUTE, 2 * HOUR)
_DOMAIN_SLOW = Threshold(ReactionKind.HOLD_DOMAIN, 5 * MINUTE, HOUR)
_TEXT = Threshold(ReactionKind.HOLD_CAMPAIGN, HOUR, 4 * HOUR, count=5, within_seconds=HOUR, share=0.02)
_LISTED = Threshold(ReactionKind.HOLD_CAMPAIGN, HOUR, 4 * HOUR, count=3, within_seconds=HOUR)

# Keys first: what a reply names decides. None = whatever it names. Numbers follow the automation that
# KumoMTA ships (5 an hour: suspend 1 to 2 h; domain throttled: 5 min at once) where it has some.
THRESHOLDS: dict[tuple[Category, Key | None], Threshold] = {
    (Category.RATE_LIMITED, Key.CONNECTION): Threshold(ReactionKind.RECONNECT),
    (Category.RATE_LIMITED, Key.RECIPIENT): Threshold(ReactionKind.NONE),  # its own retry is the answer
    (Category.RATE_LIMITED, Key.DOMAIN): _DOMAIN_SLOW,  # Comcast RL000010, Google 4.7.28 on DKIM or SPF
    (Category.RATE_LIMITED, Key.URL): _DOMAIN_SLOW,  # Google 4.7.28 on a link's domain
    (Category.RATE_LIMITED, Key.WORKSPACE): Threshold(ReactionKind.HOLD_WORKSPACE, 5 * MINUTE, HOUR),
    (Category.RATE_LIMITED, Key.CAMPAIGN): Threshold(ReactionKind.HOLD_CAMPAIGN, 5 * MINUTE, HOUR),
    (Category.RATE_LIMITED, None): Threshold(ReactionKind.SLOW),
    (Category.REPUTATION_BLOCK, Key.DOMAIN): Threshold(ReactionKind.HOLD_DOMAIN, 15 * MINUTE, 2 * HOUR),
    (Category.REPUTATION_BLOCK, Key.URL): _LISTED,
    (Category.REPUTATION_BLOCK, Key.CAMPAIGN): _LISTED,
    (Category.REPUTATION_BLOCK, Key.WORKSPACE): Threshold(ReactionKind.HOLD_WORKSPACE, 15 * MINUTE, 2 * HOUR),
    (Category.REPUTATION_BLOCK, Key.RECIPIENT): Threshold(ReactionKind.NONE),
    (Category.REPUTATION_BLOCK, Key.IP): _REST,
    # It names nothing: one reply may be about one message, three in ten minutes are about the path.
    (Category.REPUTATION_BLOCK, None): Threshold(ReactionKind.REST_PATH, 15 * MINUTE, 2 * HOUR, count=3),
    (Category.AUTH_FAILED, None): Threshold(ReactionKind.HOLD_DOMAIN, HOUR, 4 * HOUR, count=3),
    (Category.SPAM_CONTENT, Key.DOMAIN): Threshold(
        ReactionKind.HOLD_DOMAIN, HOUR, 4 * HOUR, count=3, within_seconds=HOUR
    ),
    (Category.SPAM_CONTENT, Key.URL): _LISTED,
    (Category.SPAM_CONTENT, None): _TEXT,
    (Category.CONTENT_REFUSED, None): _TEXT,
    (Category.TOO_LARGE, None): _TEXT,
}

# When a rule names another action than its category has.
ACTION_THRESHOLDS: dict[Action, Threshold] = {
    Action.PAUSE_ROUTE: _REST,
    Action.PAUSE_DOMAIN: Threshold(ReactionKind.HOLD_DOMAIN, HOUR, 4 * HOUR, count=3),
    Action.PAUSE_CAMPAIGN: _TEXT,
    Action.THROTTLE: Threshold(ReactionKind.SLOW),
}


class _Record:
    """The lately seen complaints of one kind about one subject, and how often it was held for them."""

    __slots__ = ("held_seconds", "shares", "steps", "times", "until")

    def __init__(self, threshold: Threshold, now: float) -> None:
        self.times: deque[float] = deque(maxlen=threshold.count)
        self.shares = RollingCount(SHARE_SPAN_SECONDS, now) if threshold.share else None
        self.steps = 0
        self.held_seconds = 0.0
        self.until = now


class Reactions:
    """What the replies of one provider to one source call for."""

    def __init__(self) -> None:
        self._records: dict[tuple[Threshold, str], _Record] = {}
        self._attempts: dict[int, RollingCount] = {}

    def __repr__(self) -> str:
        held = sum(record.steps > 0 for record in self._records.values())
        return f"<Reactions: {len(self._records)} complaints, {held} held for lately>"

    def attempted(self, now: float, campaign: int, count: int = 1) -> None:
        """`count` messages of `campaign` were answered, well or ill."""
        counted = self._attempts.get(campaign)
        if counted is None:
            _make_room(self._attempts)
            counted = self._attempts[campaign] = RollingCount(SHARE_SPAN_SECONDS, now)
        counted.add(now, count)

    def observe(
        self,
        now: float,
        *,
        category: Category,
        key: Key,
        action: Action,
        rule: str,
        text: str = "",
        campaign: int = 0,
        sending_domain: str = "",
        workspace: str = "",
        retry_after_seconds: float | None = None,
        for_now: bool = False,
    ) -> Reaction | None:
        """What this reply, after those before it, calls for now; None: nothing, or it is being done.

        `for_now`: it was a 4yz.
        """
        threshold = threshold_of(category, key, action)
        if threshold is _REST and for_now:
            threshold = _REST_FOR_NOW
        if threshold is None or threshold.kind is ReactionKind.NONE:
            return None
        wait = min(max(retry_after_seconds or 0.0, 0.0), RETRY_AFTER_SECONDS_MAX)
        said = text[:TEXT_MAX]
        if threshold.kind in (ReactionKind.RECONNECT, ReactionKind.SLOW):
            return Reaction(threshold.kind, wait, said, rule)
        subject = {
            ReactionKind.HOLD_DOMAIN: sending_domain,
            ReactionKind.HOLD_CAMPAIGN: str(campaign) if campaign else "",
            ReactionKind.HOLD_WORKSPACE: workspace,
        }.get(threshold.kind, "")
        if not subject and threshold.kind is not ReactionKind.REST_PATH:
            return None  # mail of no campaign, or of no domain: there is nothing to hold
        record = self._record(threshold, subject, now)
        if now < record.until:
            return None  # what was under way when the hold began still comes in
        record.times.append(now)
        if record.shares is not None:
            record.shares.add(now)
        if not self._reached(threshold, record, campaign, now):
            return None
        seconds = self._hold(threshold, record, now, wait)
        reason = said or rule
        if threshold.count > 1:
            reason = f"{threshold.count} replies in {now - record.times[0]:.0f} s: {reason}"
        record.times.clear()
        return Reaction(threshold.kind, seconds, reason, rule, subject)

    def lifted(self, now: float, kind: ReactionKind, subject: str = "") -> None:
        """An operator has ended what was called for: complaints count again from `now` on."""
        for (threshold, about), record in self._records.items():
            if threshold.kind is kind and about == subject:
                record.until = min(record.until, now)

    def _reached(self, threshold: Threshold, record: _Record, campaign: int, now: float) -> bool:
        if len(record.times) < threshold.count or now - record.times[0] > threshold.within_seconds:
            return False
        if record.shares is None:
            return True
        complaints = record.shares.total(now)
        counted = self._attempts.get(campaign)
        attempts = complaints if counted is None else max(counted.total(now), complaints)
        return complaints >= threshold.share * attempts

    def _hold(self, threshold: Threshold, record: _Record, now: float, wait: float) -> float:
        """Mark the subject as held from `now`; for how long."""
        if record.held_seconds:
            calm = now - record.until
            record.steps = max(0, record.steps - int(calm / (CALM_SHARE * record.held_seconds)))
        seconds = min(threshold.seconds * float(2**record.steps), threshold.seconds_max)
        if seconds < threshold.seconds_max:
            record.steps += 1
        record.held_seconds = seconds
        seconds = max(seconds, wait)
        record.until = now + seconds
        return seconds

    def _record(self, threshold: Threshold, subject: str, now: float) -> _Record:
        """The record, made the last one to be forgotten."""
        place = (threshold, subject)
        record = self._records.pop(place, None)
        if record is None:
            _make_room(self._records)
            record = _Record(threshold, now)
        self._records[place] = record
        return record


def threshold_of(category: Category, key: Key, action: Action) -> Threshold | None:
    """The row that holds for such a reply; None: it calls for nothing."""
    named = THRESHOLDS.get((category, key))
    if named is not None and named.kind in (ReactionKind.RECONNECT, ReactionKind.NONE):
        return named
    if action is not TREATMENTS[category].action:
        return ACTION_THRESHOLDS.get(action)
    return named or THRESHOLDS.get((category, None))


def _make_room(entries: dict[Any, Any]) -> None:
    if len(entries) >= SUBJECTS_MAX:
        del entries[next(iter(entries))]
