"""What a peer's answer means for the envelope: a table over verb, code and enhanced status.

Basic rules of RFC 5321 4.2.1 and RFC 3463: 4yz = try again, 5yz = give up, with the exceptions that
practice teaches. `scope` tells whom the answer is about: one recipient, or the whole session's host.
"""

import re
from enum import Enum

from msgspec import Struct

from engine.model.disposition import DelayReason, Outcome
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb

LOCAL_PART_MIN = 3  # shorter ones would eat half of every text
REPLY_TEXT_MAX = 512  # octets of a reply that an event keeps: the longest provider texts are about 400


class Scope(Enum):
    ENVELOPE = "envelope"
    HOST = "host"  # another host of the site may do better
    SITE = "site"


class Verdict(Struct, frozen=True):
    outcome: Outcome
    scope: Scope
    rule: str
    reason: DelayReason = DelayReason.NONE

    @property
    def greylisted(self) -> bool:
        return self.reason is DelayReason.GREYLISTED


_GREYLIST = re.compile(r"gr[ea]y-?list", re.IGNORECASE)
_SESSION_VERBS = frozenset(
    {Verb.CONNECT, Verb.BANNER, Verb.EHLO, Verb.HELO, Verb.STARTTLS, Verb.TLS, Verb.AUTH}
)

_BOUNCING_FAILURES = {
    FailureKind.NO_SUCH_DOMAIN: "domain-nxdomain",
    FailureKind.NULL_MX: "domain-null-mx",
    FailureKind.MX_REFUSED: "domain-mx-refused",
}


def judge_reply(verb: Verb, reply: Reply) -> Verdict:
    """The verdict on a negative (or unexpected) reply to `verb`."""
    if reply.code == 421:
        return Verdict(Outcome.DEFERRED, Scope.HOST, "421-closing", DelayReason.RETRY)
    if verb is Verb.MAIL and (500 <= reply.code <= 503 or reply.code == 530):
        # "nested MAIL", "not implemented", 530 "STARTTLS first" (RFC 3207 4) or "AUTH first" (RFC 4954 6):
        # about the session, never about the recipient.
        return Verdict(Outcome.DEFERRED, Scope.HOST, "session-mail", DelayReason.RETRY)
    if verb in _SESSION_VERBS:
        # RFC 5321 3.1: 554 at the banner means no service here; it is about us and that host, and a
        # sender who is blocked today may be welcome tomorrow: the list is not to be burnt for it.
        return Verdict(Outcome.DEFERRED, Scope.HOST, f"session-{verb.value}", DelayReason.RETRY)
    if verb is Verb.RCPT and reply.code == 552 and (reply.enhanced is None or reply.enhanced[0] != 5):
        # RFC 5321 4.5.3.1.10: some servers say 552 for "too many recipients", which is temporary.
        return Verdict(Outcome.DEFERRED, Scope.ENVELOPE, "552-recipients", DelayReason.RETRY)
    if reply.transient:
        if _GREYLIST.search(reply.text):
            return Verdict(Outcome.DEFERRED, Scope.ENVELOPE, "greylisted", DelayReason.GREYLISTED)
        return Verdict(Outcome.DEFERRED, Scope.ENVELOPE, "transient", DelayReason.RETRY)
    if reply.permanent:
        return Verdict(Outcome.BOUNCED, Scope.ENVELOPE, f"permanent-{verb.value}")
    return Verdict(Outcome.DEFERRED, Scope.HOST, "unexpected-reply", DelayReason.RETRY)


def judge_failure(failure: TransportFailure) -> Verdict:
    """The verdict on a conversation that never took place or broke off before the final dot."""
    rule = _BOUNCING_FAILURES.get(failure.kind)
    if rule is not None:
        return Verdict(Outcome.BOUNCED, Scope.SITE, rule)
    reason = DelayReason.DNS_TROUBLE if failure.verb is Verb.RESOLVE else DelayReason.RETRY
    scope = Scope.SITE if failure.verb is Verb.RESOLVE else Scope.HOST
    return Verdict(Outcome.DEFERRED, scope, f"transport-{failure.kind.value}", reason)


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
