"""The handshake of an SMTP connection: banner, EHLO or HELO, STARTTLS, EHLO again, AUTH.

Decides one step per reply, strictly one command at a time (RFC 2920 3.1: EHLO and STARTTLS end a
group). Nothing learnt before TLS is kept, and octets that arrive behind the answer to STARTTLS are
an injection (the class of CVE-2011-0411), which ends the session. What the peer says comes out as an
event or a failure, all of them matters of the host; the messages are not touched here.

    BANNER -> EHLO -> [HELO] -> [STARTTLS -> TLS -> EHLO -> [HELO]] -> [AUTH ...] -> ready
"""

import re
from base64 import b64encode

from msgspec.structs import replace

from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.proto.smtp_capabilities import Capabilities, parse_capabilities
from engine.mta.proto.smtp_options import (
    ClientOptions,
    Event,
    Ready,
    SessionFailed,
    StartTls,
    TlsUse,
)
from engine.mta.proto.smtp_wire import Wire

_EHLO_NAME = re.compile(r"[!-~]+")


class Handshake:
    """Speaks until `Ready` or `SessionFailed`. `verb` is the step whose answer it waits for."""

    __slots__ = ("_answers", "_options", "_secure", "_wire", "capabilities", "verb")

    def __init__(self, options: ClientOptions, wire: Wire) -> None:
        assert _EHLO_NAME.fullmatch(options.ehlo_name), "an EHLO name is a domain or an address literal"
        self.verb = Verb.BANNER
        self.capabilities = Capabilities()
        self._options = options
        self._wire = wire
        self._secure = False
        self._answers: list[bytes] = []  # what AUTH still has to say, last first

    def on_reply(self, reply: Reply, more_octets: bool) -> Event | None:
        """`more_octets`: the peer said something beyond this reply before it was asked."""
        if reply.code == 421:
            return SessionFailed(self.verb, reply)
        if more_octets and self.verb is Verb.STARTTLS and reply.code == 220:
            return self._fail(FailureKind.PROTOCOL, "octets behind the answer to STARTTLS")
        match self.verb:
            case Verb.BANNER:
                return self._say_ehlo() if reply.code < 300 else SessionFailed(Verb.BANNER, reply)
            case Verb.EHLO:
                return self._on_ehlo(reply)
            case Verb.HELO:
                return self._greeted() if reply.code < 300 else SessionFailed(Verb.HELO, reply)
            case Verb.STARTTLS:
                return self._on_starttls(reply)
            case Verb.AUTH:
                return self._on_auth(reply)
            case _:
                return self._fail(FailureKind.PROTOCOL, "the peer spoke out of turn")

    def tls_established(self) -> None:
        assert self.verb is Verb.TLS, "no TLS handshake was asked for"
        self._secure = True
        self._say_ehlo()

    def _say_ehlo(self) -> Event | None:
        self.capabilities = Capabilities()
        return self._say(Verb.EHLO, f"EHLO {self._options.ehlo_name}")

    def _on_ehlo(self, reply: Reply) -> Event | None:
        if reply.code < 300:
            found = parse_capabilities(reply)
            # RFC 8689 2: REQUIRETLS is only ever said inside TLS; in clear anybody could have put it there.
            self.capabilities = found if self._secure else replace(found, require_tls=False)
            return self._greeted()
        if reply.permanent:
            return self._say(Verb.HELO, f"HELO {self._options.ehlo_name}")
        return SessionFailed(Verb.EHLO, reply)

    def _greeted(self) -> Event | None:
        if self._secure or self._options.tls is TlsUse.NEVER:
            return self._authenticate()
        if self.capabilities.starttls:
            return self._say(Verb.STARTTLS, "STARTTLS")
        return self._without_tls(None)

    def _on_starttls(self, reply: Reply) -> Event | None:
        if reply.code != 220:
            return self._without_tls(reply)
        self.verb = Verb.TLS
        self.capabilities = Capabilities()
        return StartTls()

    def _without_tls(self, reply: Reply | None) -> Event | None:
        if self._options.tls is not TlsUse.REQUIRED:
            return self._authenticate()
        if reply is not None:
            return SessionFailed(Verb.STARTTLS, reply)
        self.verb = Verb.STARTTLS
        return self._fail(FailureKind.TLS, "the peer offers no STARTTLS and TLS is required")

    def _authenticate(self) -> Event | None:
        credentials = self._options.credentials
        if credentials is None:
            return Ready(self.capabilities)
        self.verb = Verb.AUTH
        if not (self._secure or credentials.clear_allowed):
            return self._fail(FailureKind.TLS, "a password is not sent without TLS")
        user, password = credentials.username.encode(), credentials.password.encode()
        if "PLAIN" in self.capabilities.auth:
            token = b64encode(b"\0" + user + b"\0" + password).decode("ascii")
            return self._say(Verb.AUTH, f"AUTH PLAIN {token}")
        if "LOGIN" in self.capabilities.auth:
            self._answers = [b64encode(password), b64encode(user)]
            return self._say(Verb.AUTH, "AUTH LOGIN")
        return self._fail(FailureKind.PROTOCOL, "the peer offers neither AUTH PLAIN nor AUTH LOGIN")

    def _on_auth(self, reply: Reply) -> Event | None:
        if reply.code == 334 and self._answers:
            return self._say(Verb.AUTH, self._answers.pop().decode("ascii"))
        if reply.code < 300 and not self._answers:
            return Ready(self.capabilities)
        if reply.code < 400:
            return self._fail(FailureKind.PROTOCOL, f"unexpected answer to AUTH: {reply.code}")
        return SessionFailed(Verb.AUTH, reply)

    def _say(self, verb: Verb, command: str) -> Event | None:
        assert not {"\r", "\n"}.intersection(command), "a command is one line"
        self.verb = verb
        self._wire.put(command.encode("ascii") + b"\r\n")
        return None

    def _fail(self, kind: FailureKind, detail: str) -> SessionFailed:
        return SessionFailed(self.verb, None, TransportFailure(kind, self.verb, detail))
