"""What a peer said, and what became of the wire when it said nothing.

`Reply` is one complete SMTP reply (RFC 5321 4.2), parsed once at the edge. `TransportFailure` is
the other way a conversation ends: a socket, TLS or DNS error, caught in `engine.mta.net` only.
Both are values; a remote's misbehaviour is never an exception above the network layer.
"""

from enum import Enum

from msgspec import Struct

from engine.model.tls_result import TlsResult


class Verb(Enum):
    """The step of the conversation that a reply or a failure belongs to."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    HELO = "helo"
    STARTTLS = "starttls"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    BDAT = "bdat"
    RSET = "rset"
    QUIT = "quit"
    IDLE = "idle"


class Reply(Struct, frozen=True, array_like=True):
    """One SMTP reply: `code` 200-599, `enhanced` status (RFC 3463) or None, text lines without codes."""

    code: int
    enhanced: tuple[int, int, int] | None
    lines: tuple[str, ...]

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 400

    @property
    def transient(self) -> bool:
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    @property
    def text(self) -> str:
        """All lines joined by one space, as a person would read them."""
        return " ".join(self.lines)

    def __str__(self) -> str:
        text = self.lines[0] if len(self.lines) == 1 else self.text
        if self.enhanced is None:
            return f"{self.code} {text}"
        major, subject, detail = self.enhanced
        return f"{self.code} {major}.{subject}.{detail} {text}"


class FailureKind(Enum):
    """Why the wire failed; one word for reports and rules."""

    NO_SUCH_DOMAIN = "no_such_domain"  # NXDOMAIN
    NULL_MX = "null_mx"  # RFC 7505
    NO_ADDRESS = "no_address"  # MX exists, no usable address
    MX_REFUSED = "mx_refused"  # MX points at a literal, a private address or ourselves
    DNS = "dns"  # SERVFAIL, timeout, lame answer
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    UNREACHABLE = "unreachable"
    SOURCE = "source"  # our own source address or its proxy cannot be used
    LOCAL = "local"  # this machine is out of ports, descriptors or buffers for a moment
    TLS = "tls"
    TIMEOUT = "timeout"  # the peer was silent longer than the verb allows
    CLOSED = "closed"  # the peer closed or reset the connection
    PROTOCOL = "protocol"  # a reply that is no SMTP, or too large
    STOPPED = "stopped"  # we closed: shutdown or a lost actor


class TransportFailure(Struct, frozen=True, array_like=True):
    """The wire failed at `verb`; `detail` is a short text for the operator, never for the peer.

    `tls` is the word of a report (RFC 8460) where TLS itself was the trouble.
    """

    kind: FailureKind
    verb: Verb
    detail: str = ""
    tls: TlsResult | None = None

    def __str__(self) -> str:
        return f"{self.kind.value} at {self.verb.value}" + (f": {self.detail}" if self.detail else "")
