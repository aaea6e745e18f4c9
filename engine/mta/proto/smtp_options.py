"""The facts that the SMTP client is given and gives back: options, transactions, verdicts, events.

All are frozen values. `ClientOptions` says what we allow on one connection, `PipeliningVerdict` what a
site is known to bear (the caller keeps it per site for days and hands it to the next connection), a
`Transaction` is one message for one recipient, and every input of the client answers with a list of
events. Of each transaction that was submitted exactly one `Result` tells the end.
"""

from enum import Enum

from msgspec import Struct

from engine.model.egress import Credentials
from engine.model.reply import Reply, TransportFailure, Verb
from engine.mta.proto.smtp_capabilities import Capabilities
from engine.mta.proto.smtp_lines import REPLY_LINES_MAX, REPLY_OCTETS_MAX


class TlsUse(Enum):
    NEVER = "never"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"


class TimeLimits(Struct, frozen=True):
    """Seconds to wait for an answer, per verb. RFC 5321 4.5.3.2 where it has a word, else as noted."""

    banner: float = 300.0
    ehlo: float = 300.0  # Postfix smtp_helo_timeout
    starttls: float = 300.0  # Postfix smtp_starttls_timeout; also for the handshake itself
    auth: float = 300.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0  # for the kernel to take more octets: the shell's limit while it writes
    content: float = 600.0  # after the final dot, and after a last chunk
    rset: float = 300.0
    quit: float = 10.0  # nothing depends on its answer

    def seconds(self, verb: Verb) -> float:
        """The limit for an answer to `verb`; a verb without one of its own waits as MAIL does."""
        return float(getattr(self, _LIMIT_NAMES.get(verb, "mail")))


_LIMIT_NAMES = {
    Verb.BANNER: "banner",
    Verb.EHLO: "ehlo",
    Verb.HELO: "ehlo",
    Verb.STARTTLS: "starttls",
    Verb.TLS: "starttls",
    Verb.AUTH: "auth",
    Verb.RCPT: "rcpt",
    Verb.DATA: "data",
    Verb.CONTENT: "content",
    Verb.BDAT: "content",
    Verb.RSET: "rset",
    Verb.QUIT: "quit",
}


class Knowledge(Enum):
    """What experience says about one habit of a site. REFUSED holds until the caller forgets it."""

    UNTRIED = "untried"
    WORKS = "works"
    REFUSED = "refused"


class PipeliningVerdict(Struct, frozen=True):
    """What a site bears: command groups inside a transaction, across them, BDAT, several BDAT in flight.

    `served` counts messages delivered there; `note` is the oddity that caused the last REFUSED.
    """

    inside: Knowledge = Knowledge.UNTRIED
    across: Knowledge = Knowledge.UNTRIED
    chunking: Knowledge = Knowledge.UNTRIED
    windows: Knowledge = Knowledge.UNTRIED
    served: int = 0
    note: str = ""

    @property
    def odd(self) -> bool:
        """The site answered oddly to pipelining: it gets one command at a time."""
        return self.inside is Knowledge.REFUSED

    def after(self, before: "PipeliningVerdict", learned: "PipeliningVerdict") -> "PipeliningVerdict":
        """This site's verdict with what one connection added that began with `before`.

        Connections of a site end in any order, so only what changed on one counts, and a refusal that
        another has seen meanwhile stays.
        """

        def join(now: Knowledge, old: Knowledge, new: Knowledge) -> Knowledge:
            return now if new is old or now is Knowledge.REFUSED else new

        return PipeliningVerdict(
            inside=join(self.inside, before.inside, learned.inside),
            across=join(self.across, before.across, learned.across),
            chunking=join(self.chunking, before.chunking, learned.chunking),
            windows=join(self.windows, before.windows, learned.windows),
            served=self.served + learned.served - before.served,
            note=self.note if learned.note == before.note else learned.note,
        )


class ClientOptions(Struct, frozen=True, kw_only=True):
    """What we allow on one connection. The limits on size and number are ours, the peer's come on top."""

    ehlo_name: str
    tls: TlsUse = TlsUse.OPPORTUNISTIC
    credentials: Credentials | None = None
    verdict: PipeliningVerdict = PipeliningVerdict()
    pipelining: bool = True
    across: bool = True
    chunking: bool = True
    window_messages: int = 4  # BDAT units in flight: what one lost connection leaves ambiguous at most
    window_bytes: int = 1_048_576  # content of those units
    messages_max: int = 1_000  # MAIL commands on one connection
    served_before_across: int = 3  # a site's messages before forms that cross transactions are tried
    time_limits: TimeLimits = TimeLimits()
    reply_octets_max: int = REPLY_OCTETS_MAX
    reply_lines_max: int = REPLY_LINES_MAX


class Transaction(Struct, frozen=True, kw_only=True):
    """One message for one recipient.

    `content` is complete: CRLF line ends, the last included, and no line that starts with a dot unless
    `dotted` says that some may. `eight_bit`: it holds octets beyond ASCII, which a peer must take.
    An empty `mail_from` is the null return path. `ret` (FULL, HDRS), `envid` and `notify` (NEVER, or a
    list of SUCCESS, FAILURE, DELAY) are RFC 3461's, sent only to a peer that announces DSN.
    `require_tls` (RFC 8689): it goes to nobody who does not promise to hand it on in TLS only; that the
    peer is who it should be is for the caller to know.
    """

    key: int
    mail_from: str
    recipient: str
    content: bytes
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    notify: str = ""
    require_tls: bool = False
    dotted: bool = False
    eight_bit: bool = False


class ResultKind(Enum):
    DELIVERED = "delivered"  # the peer took responsibility
    REFUSED = "refused"  # the peer (or a capability it lacks) said no: `reply` says so
    UNSENT = "unsent"  # nothing that could be a message reached it; no attempt is counted
    AMBIGUOUS = "ambiguous"  # it may have taken the message and we cannot know


class Ready(Struct, frozen=True):
    """The handshake is over; transactions may be submitted."""

    capabilities: Capabilities


class StartTls(Struct, frozen=True):
    """The shell upgrades the socket now, then calls `tls_established` or `tls_failed`."""


class Result(Struct, frozen=True, gc=False):
    """The end of one transaction. `verb` is the step that decided; UNSENT carries what stopped it."""

    key: int
    kind: ResultKind
    verb: Verb
    reply: Reply | None = None
    failure: TransportFailure | None = None


class SessionFailed(Struct, frozen=True):
    """Banner, EHLO, TLS or AUTH failed: a matter of the host, not of a message. `Closed` follows."""

    verb: Verb
    reply: Reply | None = None
    failure: TransportFailure | None = None


class Closed(Struct, frozen=True):
    """The last event of a connection. `clean` = no transaction was open; the shell closes the socket."""

    clean: bool
    reply: Reply | None = None
    failure: TransportFailure | None = None


Event = Ready | StartTls | Result | SessionFailed | Closed
