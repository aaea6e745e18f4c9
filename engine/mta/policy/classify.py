"""What a peer's answer means for the envelope, and what it was about.

A `Judge` asks rules (`engine.config.replies`) for the category of an answer; what becomes of the
envelope follows from RFC 5321 4.2.1 and RFC 3463 (4yz = try again, 5yz = give up) with the exceptions
that practice teaches: a session's own troubles, and 5yz answers that speak of us, for now. `scope`
tells whom the answer is about: one recipient, or the whole session's host. Any text gets a verdict.
"""

import re
from collections.abc import Iterator
from enum import Enum

from msgspec import Struct

from engine.config.replies import ReplyRule, ReplyRules
from engine.model.category import TREATMENTS, Action, BounceClass, Category, Group, Key
from engine.model.disposition import DelayReason, Outcome
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.policy.reply_matcher import Facts, Hits, Match, Matcher, list_key
from engine.mta.policy.reply_words import Enhanced, Words, retry_seconds

LOCAL_PART_MIN = 3  # shorter ones would eat half of every text
REPLY_TEXT_MAX = 512  # octets of a reply that an event keeps: the longest provider texts are about 400
MATCHED_MAX = 80  # characters of the words that decided: a line of a table
VERDICTS_MAX = 20_000  # kept verdicts, about 1 KB each; a big list meets a few thousand different texts
MX_HOSTS_MAX = 10_000  # kept host -> provider; a big list has some thousand sites


class Scope(Enum):
    ENVELOPE = "envelope"
    HOST = "host"  # another host of the site may do better
    SITE = "site"


class Verdict(Struct, frozen=True):
    """What an answer makes of an envelope, and why: the rule, the words that matched, whom it names."""

    outcome: Outcome
    scope: Scope
    rule: str
    reason: DelayReason = DelayReason.NONE
    category: Category = Category.UNKNOWN
    group: Group = Group.UNKNOWN
    bounce_class: BounceClass = BounceClass.SOFT
    action: Action = Action.SCORE
    key: Key = Key.NONE
    matched: str = ""
    retry_after_seconds: float | None = None
    lists: tuple[str, ...] = ()

    @property
    def greylisted(self) -> bool:
        return self.reason is DelayReason.GREYLISTED

    @property
    def blameless(self) -> bool:
        """Nothing was said about this envelope: it need not wait longer each time."""
        slow = self.category is Category.RATE_LIMITED and self.key is not Key.RECIPIENT
        return slow or self.greylisted


# Even as 5yz these speak of us passing away or of the route: the path is paused, the mail is worth keeping.
_KEPT = frozenset({Category.RATE_LIMITED, Category.GREYLISTED, Category.REPUTATION_BLOCK, Category.NO_ANSWER})
_REASONS = {
    Category.GREYLISTED: DelayReason.GREYLISTED,
    Category.RATE_LIMITED: DelayReason.RATE_LIMITED,
    Category.REPUTATION_BLOCK: DelayReason.REPUTATION,
}
_FAILURES = {
    FailureKind.NO_SUCH_DOMAIN: Category.BAD_DOMAIN,
    FailureKind.NULL_MX: Category.BAD_DOMAIN,
    FailureKind.MX_REFUSED: Category.BAD_DOMAIN,
    FailureKind.PROTOCOL: Category.REMOTE_SYSTEM_ERROR,
    FailureKind.TLS: Category.NO_ANSWER,
    FailureKind.STOPPED: Category.NO_ANSWER,
}


class Judge:
    """Verdicts by rules. Holds a bounded cache; one per process, used from one thread."""

    def __init__(self, rules: ReplyRules) -> None:
        self._matcher = Matcher(rules)
        self._suffixes = {
            suffix: provider.name for provider in reversed(rules.providers) for suffix in provider.hosts
        }
        self._providers: dict[str, str] = {}
        self._verdicts: dict[tuple[object, ...], Verdict] = {}

    def reply(self, verb: Verb, reply: Reply, *, mx_host: str = "", domain: str = "") -> Verdict:
        """The verdict on a negative (or unexpected) reply to `verb` from `mx_host`.

        The provider is known by the MX host; `domain`, the recipient's, stands in where there is none.
        """
        words = self._matcher.read(reply.text)
        provider = self.provider(mx_host or domain)
        return self._verdict(words, Facts(provider, verb, reply.code, reply.enhanced))

    def failure(self, failure: TransportFailure) -> Verdict:
        """The verdict on a conversation that never took place or broke off before the final dot."""
        return judge_failure(failure)

    def text(
        self,
        text: str,
        *,
        provider: str | None = None,
        reply_code: int | None = None,
        enhanced: Enhanced | None = None,
        verb: Verb | None = None,
    ) -> Verdict:
        """The verdict on a text that came by another way: a late bounce, a log, a paste.

        What is not given is read from the text itself, as far as it tells.
        """
        words, facts = self._read(text, provider or "", reply_code, enhanced, verb)
        return self._verdict(words, facts)

    def matching(
        self,
        text: str,
        *,
        provider: str | None = None,
        reply_code: int | None = None,
        enhanced: Enhanced | None = None,
        verb: Verb | None = None,
    ) -> Iterator[ReplyRule]:
        """Every rule that fits a text, in order: the first decides, the others show overlaps."""
        words, facts = self._read(text, provider or "", reply_code, enhanced, verb)
        hits = self._matcher.look(words.text)
        found = self._matcher.matching(words.text, hits, _completed(words, facts, hits))
        return (rule for rule, _ in found)

    def _read(
        self, text: str, provider: str, code: int | None, enhanced: Enhanced | None, verb: Verb | None
    ) -> tuple[Words, Facts]:
        words = self._matcher.read(text)
        return words, Facts(provider, verb or words.verb, code, enhanced)

    def provider(self, host: str) -> str:
        """The provider that a host or domain belongs to, by its longest known suffix; "" when to none."""
        known = self._providers.get(host)
        if known is None:
            labels = host.lower().rstrip(".").split(".")
            suffixes = (".".join(labels[start:]) for start in range(len(labels)))
            known = next((self._suffixes[s] for s in suffixes if s in self._suffixes), "")
            if len(self._providers) >= MX_HOSTS_MAX:
                self._providers.clear()
            self._providers[host] = known
        return known

    def _verdict(self, words: Words, facts: Facts) -> Verdict:
        # Everything the verdict hangs on; of enums the value, whose hash costs nothing.
        verb = facts.verb or words.verb
        key = (words.text, words.code, words.enhanced, facts.provider, facts.code, facts.enhanced)
        whole = (*key, None if verb is None else verb.value)
        verdict = self._verdicts.get(whole)
        if verdict is None:
            hits = self._matcher.look(words.text)
            facts = _completed(words, facts, hits)
            verdict = _conclude(self._matcher.match(words.text, hits, facts), words, facts)
            if len(self._verdicts) >= VERDICTS_MAX:
                self._verdicts.clear()
            self._verdicts[whole] = verdict
        return verdict


def _completed(words: Words, facts: Facts, hits: Hits) -> Facts:
    """The facts with what only the text tells: codes in it, a provider's marks."""
    enhanced = facts.enhanced
    if words.enhanced and (enhanced is None or enhanced[1:] == (0, 0)):
        enhanced = words.enhanced
    return Facts(facts.provider or hits.provider, facts.verb, facts.code or words.code, enhanced)


def _conclude(match: Match, words: Words, facts: Facts) -> Verdict:
    rule = match.rule
    category = rule.category if rule is not None else Category.UNKNOWN
    treatment = TREATMENTS[category]
    lists = match.lists if category is Category.REPUTATION_BLOCK else ()
    key = (rule.key if rule is not None else None) or (list_key(lists) if lists else None) or treatment.key
    outcome, scope = _outcome(category, facts, keep=rule is not None and rule.keep)
    reason, delay = DelayReason.NONE, None
    action = (rule.action if rule is not None else None) or treatment.action
    if outcome is Outcome.DEFERRED:
        if action is Action.SUPPRESS:
            action = Action.RETRY  # "unknown user" as 4yz is not final; who gives up later may suppress
        reason = _REASONS.get(category, DelayReason.RETRY)
        delay = retry_seconds(words.text)
        if delay is None and rule is not None and rule.retry_seconds is not None:
            delay = float(rule.retry_seconds)
    return Verdict(
        outcome,
        scope,
        rule.id if rule is not None else "no-rule",
        reason,
        category,
        treatment.group,
        treatment.bounce_class,
        action,
        key,
        match.span[:MATCHED_MAX],
        delay,
        tuple(listing.name for listing in lists),
    )


def _outcome(category: Category, facts: Facts, *, keep: bool) -> tuple[Outcome, Scope]:
    """What becomes of the envelope: the code decides, but for a session's troubles and kept categories."""
    code = facts.code
    if code is None:
        hard = TREATMENTS[category].group is Group.ADDRESS
        return (Outcome.BOUNCED if hard else Outcome.DEFERRED), Scope.ENVELOPE
    if code == 421 or facts.verb in _SESSION_VERBS or not 400 <= code <= 599:
        # RFC 5321 3.1: 554 at the banner means no service here; it is about us and that host, and a
        # sender who is blocked today may be welcome tomorrow: the list is not to be burnt for it.
        return Outcome.DEFERRED, Scope.HOST
    if facts.verb is Verb.MAIL and (500 <= code <= 503 or code == 530):
        # "nested MAIL", "not implemented", 530 "STARTTLS first" (RFC 3207 4) or "AUTH first" (RFC 4954 6):
        # about the session, never about the recipient.
        return Outcome.DEFERRED, Scope.HOST
    if code < 500 or keep or category in _KEPT:
        return Outcome.DEFERRED, Scope.ENVELOPE
    if code == 552 and facts.verb is Verb.RCPT and (facts.enhanced is None or facts.enhanced[0] != 5):
        # RFC 5321 4.5.3.1.10: some servers say 552 for "too many recipients", which is temporary.
        return Outcome.DEFERRED, Scope.ENVELOPE
    return Outcome.BOUNCED, Scope.ENVELOPE


_SESSION_VERBS = frozenset(
    {Verb.CONNECT, Verb.BANNER, Verb.EHLO, Verb.HELO, Verb.STARTTLS, Verb.TLS, Verb.AUTH}
)

# Our own address, proxy or machine could not: no attempt, and the envelope may leave by another source.
_OUR_FAILURES = {
    FailureKind.SOURCE: DelayReason.SOURCE_GONE,
    FailureKind.LOCAL: DelayReason.OUT_OF_ROOM,
}

_BOUNCING_FAILURES = {
    FailureKind.NO_SUCH_DOMAIN: "domain-nxdomain",
    FailureKind.NULL_MX: "domain-null-mx",
    FailureKind.MX_REFUSED: "domain-mx-refused",
}


def judge_failure(failure: TransportFailure) -> Verdict:
    """The verdict on a conversation that never took place or broke off before the final dot."""
    category = _FAILURES.get(failure.kind, Category.NO_ANSWER)
    treatment = TREATMENTS[category]
    rule = _BOUNCING_FAILURES.get(failure.kind)
    outcome, scope, reason = Outcome.BOUNCED, Scope.SITE, DelayReason.NONE
    ours = _OUR_FAILURES.get(failure.kind)
    if ours is not None:
        rule, outcome, reason = f"transport-{failure.kind.value}", Outcome.RETURNED, ours
    elif rule is None:
        rule, outcome = f"transport-{failure.kind.value}", Outcome.DEFERRED
        resolving = failure.verb is Verb.RESOLVE
        reason = DelayReason.DNS_TROUBLE if resolving else DelayReason.RETRY
        scope = Scope.SITE if resolving else Scope.HOST
    return Verdict(
        outcome, scope, rule, reason, category, treatment.group, treatment.bounce_class, treatment.action
    )


def reply_text(answer: Reply | TransportFailure | None, recipient: str) -> str:
    """The raw answer for an event: bounded, one line, the recipient's address replaced by <rcpt>."""
    if answer is None:
        return ""
    text = str(answer)
    local = recipient.rpartition("@")[0].lower()
    if local and local in text.lower():
        text = re.sub(re.escape(recipient), "<rcpt>", text, flags=re.IGNORECASE)
        if len(local) >= LOCAL_PART_MIN:
            alone = rf"(?<![\w.]){re.escape(local)}(?![\w.])"
            text = re.sub(alone, "<rcpt>", text, flags=re.IGNORECASE)
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    if len(text) * 4 <= REPLY_TEXT_MAX:
        return text
    return text.encode()[:REPLY_TEXT_MAX].decode("utf-8", errors="ignore")
