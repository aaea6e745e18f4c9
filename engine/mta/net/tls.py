"""TLS to a peer, without the socket: contexts, and the engine that turns plain octets into records.

`TlsEngine` wraps an `ssl.SSLObject` over two memory buffers; `session` pumps the octets between
them and the socket. Two contexts: opportunistic (RFC 7435: encrypt with whoever answers, verify
nobody, since the alternative is clear text) and verifying. `TlsTerms` say what a handshake has to
meet: names are compared here and TLSA records by `dane_check`, once OpenSSL has what the peer sent.
Touches nothing. A peer's bad record or certificate is an `ssl.SSLError`, which `session` turns into a
`TransportFailure`; a certificate that misses the terms is a `Mismatch`.
"""

import contextlib
import ssl
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

from msgspec import Struct

from engine.model.tls import HostTls, TlsaRecord
from engine.model.tls_result import TlsResult
from engine.mta.net.addresses import is_literal
from engine.mta.net.dane_check import Mismatch, check_dane, names_match

RECORD_OCTETS_MAX = 16_384  # plain octets in one record (RFC 8446 5.1)
NAMES_SHOWN_MAX = 200  # characters of a certificate's names in a reason

# What OpenSSL's verification says (x509_vfy.h), in the words of a report.
_EXPIRED = 10
_NOT_YET_VALID = 9
_HOST_MISMATCHES = frozenset({62, 63, 64})


class TlsInfo(Struct, frozen=True):
    """What was negotiated. `verified` = the peer proved who it is, by a public authority or by DANE.

    `policy` is who wanted to know ("sts", "dane"), `resumed` = by a session that was verified before.
    """

    version: str  # "TLSv1.3"
    cipher: str  # "TLS_AES_256_GCM_SHA384"
    bits: int
    verified: bool
    policy: str = ""
    resumed: bool = False

    def __str__(self) -> str:
        words = [self.version, self.cipher]
        if self.verified:
            words.append("verified")
        if self.policy:
            words.append(self.policy)
        if self.resumed:
            words.append("resumed")
        return " ".join(words)


class TlsTerms(Struct, frozen=True):
    """What one handshake has to meet, and the session that it may resume.

    `names` and `tlsa` are those of a `HostDemand`; `wall` is the time that certificates are judged by
    under DANE. `keep` gets the session when the connection closes, if it can be resumed.
    """

    context: ssl.SSLContext
    tls: HostTls = HostTls.OPPORTUNISTIC
    names: tuple[str, ...] = ()
    tlsa: tuple[TlsaRecord, ...] = ()
    policy: str = ""
    wall: float = 0.0
    session: ssl.SSLSession | None = None
    keep: Callable[[ssl.SSLSession], None] | None = None


def opportunistic_context() -> ssl.SSLContext:
    """TLS 1.2 or later with whoever answers. Costs milliseconds: make one and share it.

    Security level 1 lets in the 1,024-bit keys and SHA-1 chains that old mail servers still have:
    refusing them means clear text, which is no better (RFC 7435 3).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ciphers("DEFAULT:@SECLEVEL=1")
    return context


def verifying_context(ca_file: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 or later with a certificate for the server name, from `ca_file` or the system's store.

    Raises OSError when the file cannot be read.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class TlsContexts:
    """The contexts of one engine: making one costs milliseconds, and sessions resume within one only.

    `ca_file` stands in for the system's store. Raises OSError when it cannot be read or holds none.
    """

    def __init__(self, ca_file: str | None = None) -> None:
        self._ca_file = ca_file
        if ca_file is not None:
            _ = self.verifying  # what cannot be used is told at the start, not by a message's failure

    def __repr__(self) -> str:
        return f"<TlsContexts by {self._ca_file or 'the system store'}>"

    @cached_property
    def opportunistic(self) -> ssl.SSLContext:
        return opportunistic_context()

    @cached_property
    def verifying(self) -> ssl.SSLContext:
        """Of public authorities. It compares no name: `TlsTerms.names` may be several."""
        context = verifying_context(self._ca_file)
        context.check_hostname = False
        return context

    def of(self, tls: HostTls) -> ssl.SSLContext:
        return self.verifying if tls is HostTls.VERIFIED else self.opportunistic


@lru_cache(maxsize=1)
def system_contexts() -> TlsContexts:
    """Those by the system's store: one for the whole process."""
    return TlsContexts()


class TlsEngine:
    """One TLS client connection between memory buffers. All methods may raise ssl.SSLError."""

    def __init__(self, terms: TlsTerms, server_name: str | None) -> None:
        """`server_name` goes into SNI; literals do not (RFC 6066 3), but are verified against.

        Raises ValueError when a verifying context gets no name or the name cannot be one.
        """
        context = terms.context
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        if not server_name and context.check_hostname:
            raise ValueError("none to verify")  # SSLObject, unlike SSLSocket, would verify no name at all
        if server_name is not None and is_literal(server_name) and not context.check_hostname:
            server_name = None
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_name or None, session=terms.session
        )
        self._terms = terms
        self._verified = context.verify_mode is ssl.CERT_REQUIRED or terms.tls is HostTls.DANE

    def handshake(self) -> TlsInfo | Mismatch | None:
        """Go on with the handshake; None = it wants more of the peer's octets."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return None
        resumed = bool(self._object.session_reused)
        if problem := self._problem(resumed=resumed):
            return problem
        cipher = self._object.cipher()
        version = self._object.version()
        assert cipher is not None
        assert version is not None
        return TlsInfo(version, cipher[0], cipher[2], self._verified, self._terms.policy, resumed)

    def resumable(self) -> ssl.SSLSession | None:
        """The session as it stands, if the peer would resume it.

        TLS 1.3 brings its tickets some time after the handshake.
        """
        session = self._object.session
        if session is None or not (
            session.has_ticket or (session.id and self._object.version() == "TLSv1.2")
        ):
            return None
        return session

    def _problem(self, *, resumed: bool) -> Mismatch | None:
        """What the certificate misses. A resumed session shows no chain: it was judged when it began."""
        terms = self._terms
        match terms.tls:
            case HostTls.VERIFIED:
                certified = _certified_names(self._object.getpeercert() or {})
                if not names_match(certified, terms.names):
                    shown = ", ".join(certified)[:NAMES_SHOWN_MAX] or "no name"
                    return Mismatch(TlsResult.HOST_MISMATCH, f"the certificate is for {shown}")
            case HostTls.DANE if not resumed:
                return check_dane(_chain_of(self._object), terms.tlsa, terms.names, terms.wall)
            case _:
                pass
        return None

    def feed(self, octets: bytes) -> None:
        """Octets from the wire; b"" = the peer closed."""
        if octets:
            self._incoming.write(octets)
        else:
            self._incoming.write_eof()

    def take(self) -> bytes:
        """Octets for the wire, b"" when there are none. Also after an error: an alert may wait."""
        return self._outgoing.read()

    def encrypt(self, plain: bytes | memoryview) -> bytes:
        """At most RECORD_OCTETS_MAX plain octets as wire octets, behind whatever waited before."""
        assert 0 < len(plain) <= RECORD_OCTETS_MAX
        written = self._object.write(plain)
        assert written == len(plain), "a memory buffer takes all"
        return self._outgoing.read()

    def decrypt(self) -> bytes | None:
        """Plain octets; None = more wire octets are needed; b"" = the peer closed.

        A close without its alert counts as a close: SMTP replies tell their own end, and many
        servers just hang up after QUIT.
        """
        try:
            return self._object.read(RECORD_OCTETS_MAX)
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def close(self) -> bytes:
        """The closing alert as wire octets; does not wait for the peer's."""
        with contextlib.suppress(ssl.SSLError):  # the peer's own alert has not come, which is no matter
            self._object.unwrap()
        return self._outgoing.read()


def verification_result(error: ssl.SSLError) -> TlsResult:
    """The word of a report for a handshake that OpenSSL gave up."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return TlsResult.VALIDATION_FAILURE
    code = error.verify_code
    if code == _EXPIRED:
        return TlsResult.EXPIRED
    if code in _HOST_MISMATCHES:
        return TlsResult.HOST_MISMATCH
    return TlsResult.VALIDATION_FAILURE if code == _NOT_YET_VALID else TlsResult.NOT_TRUSTED


def _certified_names(certificate: Any) -> list[str]:
    """The DNS names and addresses of a verified certificate, as `getpeercert` tells them."""
    return [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]


def _chain_of(connection: ssl.SSLObject) -> list[bytes]:
    """What the peer sent, leaf first, in DER.

    Python 3.13 has a public `get_unverified_chain` that gives octets; before, it is there, but private.
    """
    own: Any = getattr(connection, "get_unverified_chain", None)
    if own is not None:
        return list(own() or ())
    inner: Any = getattr(connection, "_sslobj", None)
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in inner.get_unverified_chain() or ()]
