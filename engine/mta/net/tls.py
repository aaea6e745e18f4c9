"""TLS to a peer, without the socket: contexts, and the engine that turns plain octets into records.

`TlsEngine` wraps an `ssl.SSLObject` over two memory buffers; `session` pumps the octets between
them and the socket. Two contexts: opportunistic (RFC 7435: encrypt with whoever answers, verify
nobody, since the alternative is clear text) and verifying. Touches nothing. A peer's bad record
or certificate is an `ssl.SSLError`, which `session` turns into a `TransportFailure`.
"""

import contextlib
import ssl

from msgspec import Struct

from engine.mta.net.addresses import is_literal

RECORD_OCTETS_MAX = 16_384  # plain octets in one record (RFC 8446 5.1)


class TlsInfo(Struct, frozen=True):
    """What was negotiated. `verified` = the peer's certificate was checked against its name."""

    version: str  # "TLSv1.3"
    cipher: str  # "TLS_AES_256_GCM_SHA384"
    bits: int
    verified: bool

    def __str__(self) -> str:
        return f"{self.version} {self.cipher}" + (" verified" if self.verified else "")


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


class TlsEngine:
    """One TLS client connection between memory buffers. All methods may raise ssl.SSLError."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None) -> None:
        """`server_name` goes into SNI; literals do not (RFC 6066 3), but are verified against.

        Raises ValueError when a verifying context gets no name or the name cannot be one.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        if not server_name and context.check_hostname:
            raise ValueError("none to verify")  # SSLObject, unlike SSLSocket, would verify no name at all
        if server_name is not None and is_literal(server_name) and not context.check_hostname:
            server_name = None
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name or None)
        self._verified = context.verify_mode is ssl.CERT_REQUIRED

    def handshake(self) -> TlsInfo | None:
        """Go on with the handshake; None = it wants more of the peer's octets."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return None
        cipher = self._object.cipher()
        version = self._object.version()
        assert cipher is not None
        assert version is not None
        return TlsInfo(version, cipher[0], cipher[2], self._verified)

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
