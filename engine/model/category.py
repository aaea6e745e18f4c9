"""The words for what an answer was about, and what each of them is worth.

`Category` is for reports; `Group` is what decisions hang on: only the group `address` says that a
recipient's address is bad. `Action` is the default of each category; a rule may name another. `Key`
says what a rate or reputation reply speaks of, so that a reaction hits that and nothing else. The
table `TREATMENTS` holds all of it; nothing here decides or fails.
"""

from enum import Enum

from msgspec import Struct


class Group(Enum):
    ADDRESS = "address"  # this address will not work
    FULL = "full"
    REFUSED = "refused"  # this person's, or their administrator's, own block
    TRANSIENT = "transient"
    SENDER = "sender"  # about us: address, route, content or manners
    UNKNOWN = "unknown"
    NONE = "none"  # no bounce at all


class BounceClass(Enum):
    HARD = "hard"  # the address will not work
    SOFT = "soft"  # may work later, or is not about the address
    NONE = "none"


class Action(Enum):
    SUPPRESS = "suppress"
    RETRY = "retry"
    RETRY_THEN_SCORE = "retry-then-score"
    SCORE = "score"
    THROTTLE = "throttle"
    PAUSE_ROUTE = "pause-route"
    PAUSE_DOMAIN = "pause-domain"
    PAUSE_CAMPAIGN = "pause-campaign"
    ALERT = "alert"
    IGNORE = "ignore"
    UNSUBSCRIBE = "unsubscribe"
    REPLY = "reply"  # to whoever handles replies of people


class Key(Enum):
    """What a rate or reputation reply names, and so what a reaction may touch."""

    NONE = "none"
    IP = "ip"
    DOMAIN = "domain"  # the sending, DKIM or SPF domain
    WORKSPACE = "workspace"
    CAMPAIGN = "campaign"  # its content
    URL = "url"
    RECIPIENT = "recipient"
    CONNECTION = "connection"  # the session's own cap: reconnect, nobody is angry


class Category(Enum):
    BAD_MAILBOX = "bad-mailbox"
    BAD_DOMAIN = "bad-domain"
    INACTIVE_MAILBOX = "inactive-mailbox"
    MAILBOX_FULL = "mailbox-full"
    RECIPIENT_REFUSED = "recipient-refused"
    RATE_LIMITED = "rate-limited"
    GREYLISTED = "greylisted"
    REMOTE_SYSTEM_ERROR = "remote-system-error"
    NO_ANSWER = "no-answer"
    EXPIRED = "expired"
    REPUTATION_BLOCK = "reputation-block"
    AUTH_FAILED = "auth-failed"
    SPAM_CONTENT = "spam-content"
    POLICY = "policy"
    SENDER_REFUSED = "sender-refused"
    CONTENT_REFUSED = "content-refused"
    TOO_LARGE = "too-large"
    RELAY_DENIED = "relay-denied"
    PROTOCOL_ERROR = "protocol-error"
    UNKNOWN = "unknown"
    DELIVERED = "delivered"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    AUTH_REPORT = "auth-report"
    AUTO_REPLY = "auto-reply"
    CHALLENGE = "challenge"
    NOT_A_BOUNCE = "not-a-bounce"


class Treatment(Struct, frozen=True):
    """What a category is worth when no rule says otherwise."""

    group: Group
    bounce_class: BounceClass
    action: Action
    key: Key = Key.NONE


_SOFT, _HARD, _NO = BounceClass.SOFT, BounceClass.HARD, BounceClass.NONE

TREATMENTS: dict[Category, Treatment] = {
    Category.BAD_MAILBOX: Treatment(Group.ADDRESS, _HARD, Action.SUPPRESS),
    Category.BAD_DOMAIN: Treatment(Group.ADDRESS, _HARD, Action.SUPPRESS),
    Category.INACTIVE_MAILBOX: Treatment(Group.ADDRESS, _HARD, Action.SUPPRESS),
    Category.MAILBOX_FULL: Treatment(Group.FULL, _SOFT, Action.RETRY_THEN_SCORE),
    Category.RECIPIENT_REFUSED: Treatment(Group.REFUSED, _SOFT, Action.SCORE),
    Category.RATE_LIMITED: Treatment(Group.TRANSIENT, _SOFT, Action.THROTTLE, Key.IP),
    Category.GREYLISTED: Treatment(Group.TRANSIENT, _SOFT, Action.RETRY),
    Category.REMOTE_SYSTEM_ERROR: Treatment(Group.TRANSIENT, _SOFT, Action.RETRY),
    Category.NO_ANSWER: Treatment(Group.TRANSIENT, _SOFT, Action.RETRY),
    Category.EXPIRED: Treatment(Group.TRANSIENT, _SOFT, Action.SCORE),
    Category.REPUTATION_BLOCK: Treatment(Group.SENDER, _SOFT, Action.PAUSE_ROUTE, Key.IP),
    Category.AUTH_FAILED: Treatment(Group.SENDER, _SOFT, Action.PAUSE_DOMAIN, Key.DOMAIN),
    Category.SPAM_CONTENT: Treatment(Group.SENDER, _SOFT, Action.PAUSE_CAMPAIGN, Key.CAMPAIGN),
    Category.POLICY: Treatment(Group.SENDER, _SOFT, Action.ALERT),
    Category.SENDER_REFUSED: Treatment(Group.SENDER, _SOFT, Action.ALERT, Key.DOMAIN),
    Category.CONTENT_REFUSED: Treatment(Group.SENDER, _SOFT, Action.ALERT, Key.CAMPAIGN),
    Category.TOO_LARGE: Treatment(Group.SENDER, _SOFT, Action.ALERT, Key.CAMPAIGN),
    Category.RELAY_DENIED: Treatment(Group.SENDER, _SOFT, Action.ALERT),
    Category.PROTOCOL_ERROR: Treatment(Group.SENDER, _SOFT, Action.ALERT),
    Category.UNKNOWN: Treatment(Group.UNKNOWN, _SOFT, Action.SCORE),
    Category.DELIVERED: Treatment(Group.NONE, _NO, Action.IGNORE),
    Category.COMPLAINT: Treatment(Group.NONE, _NO, Action.SUPPRESS),
    Category.UNSUBSCRIBE: Treatment(Group.NONE, _NO, Action.UNSUBSCRIBE),
    Category.AUTH_REPORT: Treatment(Group.NONE, _NO, Action.ALERT),
    Category.AUTO_REPLY: Treatment(Group.NONE, _NO, Action.IGNORE),
    Category.CHALLENGE: Treatment(Group.NONE, _NO, Action.IGNORE),
    Category.NOT_A_BOUNCE: Treatment(Group.NONE, _NO, Action.REPLY),
}
