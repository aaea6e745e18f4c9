"""How a provider treats the mail it is offered, as data.

`Manners` holds what a receiver announces, the limits it keeps, and a list of `Trouble`s: things
that go wrong for a share of its recipients. Who is hit is decided by a hash of (seed, recipient,
kind), never by chance, so the same recipient meets the same trouble in every run and a report can be
predicted. The helpers below (`bounced`, `busy`, `hang_up`, ...) write the usual troubles with the
texts that real servers use. Nothing here touches a clock or a socket.
"""

from enum import Enum
from hashlib import blake2b

from msgspec import Struct

MESSAGE_OCTETS_MAX = 26_214_400  # 25 MB, what the large providers announce as SIZE


class Moment(Enum):
    """Where in a transaction a trouble strikes. REPLY is after the final dot, before its answer."""

    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    REPLY = "reply"


class Starttls(Enum):
    """What becomes of STARTTLS (RFC 3207)."""

    ABSENT = "absent"  # not announced, 502 when asked
    OFFERED = "offered"
    REQUIRED = "required"  # 530 to MAIL in the clear
    UNAVAILABLE = "unavailable"  # announced, then 454
    GARBLED = "garbled"  # announced, 220, then no TLS comes: the handshake fails


class Gate(Enum):
    """Where a blocked source is turned away."""

    BANNER = "banner"
    MAIL = "mail"
    RCPT = "rcpt"


class Reputation(Struct, frozen=True, kw_only=True):
    """What a provider makes of a source that keeps running into its limits: good, throttled, blocked.

    Each refusal over a limit (rate or connections) is remembered and `forgets_per_second` are forgotten.
    While `throttle_refusals` are remembered, every limit shrinks to `throttled_share`; at `block_refusals`
    the source is blocked for `block_seconds` and comes back throttled.
    """

    throttle_refusals: float = 100.0
    block_refusals: float = 400.0
    forgets_per_second: float = 2.0
    throttled_share: float = 0.5
    block_seconds: float = 60.0
    block_gate: Gate = Gate.BANNER
    block_reply: str = "421 4.7.0 Temporarily deferred: the reputation of your address is too low"

    def __post_init__(self) -> None:
        assert 0 < self.throttle_refusals <= self.block_refusals
        assert 0 < self.throttled_share <= 1


class Trouble(Struct, frozen=True):
    """One thing that goes wrong for `share` of the recipients.

    `kind` names it in reports and in the hash, so two troubles of one provider need two kinds. With
    `only`, it hits exactly the recipients whose local part begins so, whatever `share` says.
    `reply` is one reply line without CRLF, "" = none. `closes` ends the connection after the reply.
    `accepts`: the message was taken all the same (a lost answer, RFC 1047). The trouble is over for a
    recipient after `times` attempts or `seconds` since the first one, whichever is set (0 = never).
    """

    kind: str
    moment: Moment
    share: float
    reply: str = ""
    closes: bool = False
    accepts: bool = False
    times: int = 0
    seconds: float = 0.0
    only: str = ""

    @property
    def lasts(self) -> bool:
        """True if no number of attempts helps."""
        return not self.times and not self.seconds

    def hits(self, seed: int, recipient: str) -> bool:
        """Whether this recipient (lower case) is among those hit."""
        if self.only:
            return recipient.startswith(self.only)
        return self.share > 0 and fraction(seed, recipient, self.kind) < self.share


class Manners(Struct, frozen=True, kw_only=True):
    """What one provider announces, which limits it keeps and what goes wrong there.

    Limits are 0 for "none"; those of rate and connections hold for each source address over all hosts of
    the provider. A rate is counted evenly (GCRA, `rate_burst` at once) or, with `rate_window_seconds`,
    by fixed windows. `tarpit` delays the answer to a verb ("banner", "ehlo", "mail", "rcpt",
    "data", "content", ...) by seconds; `greylist_seconds` defers the first attempt of each
    (source address, return path, recipient) until that much time has passed. `tarpit_per_connection` is
    added to the answer to the content for each open connection of that source: latency under load.
    """

    banner: str | None = "220 {host} ESMTP"  # None = says nothing, ever
    esmtp: bool = True  # False = 502 to EHLO
    pipelining: bool = True
    pipelining_across: bool = True  # False = as Haraka: 503 to each command behind the final dot
    chunking: bool = False
    size: bool = True
    eight_bit: bool = True
    smtputf8: bool = False
    dsn: bool = False
    enhanced_codes: bool = True
    starttls: Starttls = Starttls.ABSENT
    limits_mailmax: int = 0  # announced as LIMITS MAILMAX=n (RFC 9422)
    message_octets_max: int = MESSAGE_OCTETS_MAX
    recipients_max: int = 100  # RFC 5321 4.5.3.1.8
    messages_per_connection: int = 0  # then 421 to MAIL
    connections_max: int = 0  # of one source; then `connections_reply` instead of a banner
    connections_reply: str = "421 4.7.0 Too many connections"
    rate_per_minute: float = 0.0  # of one source; then `rate_reply`, which closes if it is a 421
    rate_window_seconds: float = 0.0
    rate_burst: int = 10  # messages that may come at once before the rate counts
    rate_reply: str = "451 4.7.1 Rate limit reached, please slow down"
    reputation: Reputation | None = None
    greylist_seconds: float = 0.0
    greylist_reply: str = "451 4.7.1 Greylisted, please try again later"
    tarpit: dict[str, float] = {}
    tarpit_per_connection: float = 0.0
    idle_seconds: float = 300.0  # silence before 421, RFC 5321 4.5.3.2.7
    troubles: tuple[Trouble, ...] = ()


PLAIN = Manners()


def fraction(seed: int, recipient: str, kind: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = blake2b(f"{seed}:{kind}:{recipient}".encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest()) / 2**64


def bounced(share: float, reply: str = "550 5.1.1 No such user here") -> Trouble:
    return Trouble("no_such_user", Moment.RCPT, share, reply)


def refused_content(share: float, reply: str = "554 5.7.1 Message refused by policy") -> Trouble:
    return Trouble("content_refused", Moment.CONTENT, share, reply)


def mailbox_full(share: float, reply: str = "452 4.2.2 Mailbox full", seconds: float = 0.0) -> Trouble:
    """A reply beginning with 4 and no `seconds` keeps deferring until the envelope expires."""
    return Trouble("mailbox_full", Moment.RCPT, share, reply, seconds=seconds)


def busy(share: float, seconds: float, reply: str = "450 4.2.1 Mailbox busy, try again") -> Trouble:
    return Trouble("mailbox_busy", Moment.RCPT, share, reply, seconds=seconds)


def hang_up(moment: Moment, share: float, times: int = 1, accepts: bool = False) -> Trouble:
    """Closes without a word. With REPLY and `accepts`, the message was taken and only the answer is lost."""
    kind = f"hang_up_{moment.value}" + ("_accepted" if accepts else "")
    return Trouble(kind, moment, share, closes=True, accepts=accepts, times=times)


def shutting_down(moment: Moment, share: float, times: int = 1) -> Trouble:
    reply = "421 4.3.2 Service shutting down"
    return Trouble(f"shutting_down_{moment.value}", moment, share, reply, closes=True, times=times)
