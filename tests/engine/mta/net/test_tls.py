"""The TLS engine without a socket, against the standard library's server side."""

import ssl

import pytest
import trustme

from engine.mta.net.tls import (
    RECORD_OCTETS_MAX,
    TlsEngine,
    TlsInfo,
    opportunistic_context,
    verifying_context,
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Server:
    """The other end, between memory buffers as well."""

    def __init__(self, authority: trustme.CA, name: str = "mx.example") -> None:
        self.names: list[str | None] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(self.context)
        self.context.sni_callback = lambda sock, name, context: self.names.append(name)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = self.context.wrap_bio(self.incoming, self.outgoing, server_side=True)


def shake_hands(engine: TlsEngine, server: Server) -> TlsInfo:
    for _ in range(10):
        info = engine.handshake()
        server.incoming.write(engine.take())
        try:
            server.object.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            if info is not None:
                return info
        if data := server.outgoing.read():
            engine.feed(data)
    raise AssertionError("no end to the handshake")


def test_an_opportunistic_client_takes_a_certificate_of_nobody(authority: trustme.CA) -> None:
    server = Server(authority, "somebody.else.example")
    engine = TlsEngine(opportunistic_context(), "mx.example")
    info = shake_hands(engine, server)
    assert info.version == "TLSv1.3"
    assert not info.verified
    assert str(info) == f"TLSv1.3 {info.cipher}"
    assert server.names == ["mx.example"]


@pytest.mark.parametrize("name", ["192.0.2.1", "2001:db8::1", None, ""])
def test_a_literal_is_not_put_into_sni(authority: trustme.CA, name: str | None) -> None:
    server = Server(authority)
    shake_hands(TlsEngine(opportunistic_context(), name), server)
    assert server.names == [None]


def test_a_verifying_client_checks_the_name(authority: trustme.CA) -> None:
    context = verifying_context()
    authority.configure_trust(context)
    info = shake_hands(TlsEngine(context, "mx.example"), Server(authority))
    assert info.verified
    assert str(info).endswith(" verified")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(TlsEngine(context, "other.example"), Server(authority))


@pytest.mark.parametrize("name", [None, "", "a" * 64 + ".example", ".example"])
def test_a_verifying_client_needs_a_name(name: str | None) -> None:
    with pytest.raises(ValueError):
        TlsEngine(verifying_context(), name)


def test_old_versions_are_refused(authority: trustme.CA) -> None:
    for context in (opportunistic_context(), verifying_context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_tls_1_2_is_taken(authority: trustme.CA) -> None:
    server = Server(authority)
    server.context.maximum_version = ssl.TLSVersion.TLSv1_2
    server.object = server.context.wrap_bio(server.incoming, server.outgoing, server_side=True)
    assert shake_hands(TlsEngine(opportunistic_context(), "mx.example"), server).version == "TLSv1.2"


def test_octets_pass_in_both_directions_split_anywhere(authority: trustme.CA) -> None:
    server = Server(authority)
    engine = TlsEngine(opportunistic_context(), "mx.example")
    shake_hands(engine, server)
    server.incoming.write(engine.encrypt(b"x" * RECORD_OCTETS_MAX))
    assert server.object.read(2 * RECORD_OCTETS_MAX) == b"x" * RECORD_OCTETS_MAX
    server.object.write(b"250 fine\r\n")
    wire = server.outgoing.read()
    read = []
    for place in range(len(wire)):
        engine.feed(wire[place : place + 1])
        read.append(engine.decrypt())
    assert read[-1] == b"250 fine\r\n"
    assert not any(read[:-1])


def test_a_close_with_and_without_its_alert_is_an_end(authority: trustme.CA) -> None:
    for polite in (True, False):
        server = Server(authority)
        engine = TlsEngine(opportunistic_context(), "mx.example")
        shake_hands(engine, server)
        server.object.write(b"221 bye\r\n")
        if polite:
            with pytest.raises(ssl.SSLWantReadError):
                server.object.unwrap()
        engine.feed(server.outgoing.read())
        engine.feed(b"")
        assert engine.decrypt() == b"221 bye\r\n"
        assert engine.decrypt() == b""


def test_closing_tells_the_peer(authority: trustme.CA) -> None:
    server = Server(authority)
    engine = TlsEngine(opportunistic_context(), "mx.example")
    shake_hands(engine, server)
    server.incoming.write(engine.close())
    assert server.object.read(100) == b""
