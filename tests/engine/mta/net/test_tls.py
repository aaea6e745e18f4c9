"""The TLS engine without a socket, against the standard library's server side."""

import ssl
from pathlib import Path

import pytest
import trustme

from engine.model.tls import HostTls
from engine.model.tls_result import TlsResult
from engine.mta.net.dane_check import Mismatch
from engine.mta.net.tls import (
    RECORD_OCTETS_MAX,
    TlsContexts,
    TlsEngine,
    TlsInfo,
    TlsTerms,
    opportunistic_context,
    system_contexts,
    verification_result,
    verifying_context,
)
from tests.fakes.certificates import DAY, NOW, WALL, Identity, make


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Server:
    """The other end, between memory buffers as well."""

    def __init__(
        self, authority: trustme.CA, name: str = "mx.example", context: ssl.SSLContext | None = None
    ) -> None:
        self.names: list[str | None] = []
        self.context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if context is None:
            authority.issue_cert(name).configure_cert(self.context)
        self.context.sni_callback = lambda sock, name, context: self.names.append(name)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = self.context.wrap_bio(self.incoming, self.outgoing, server_side=True)


def shake_hands(engine: TlsEngine, server: Server) -> TlsInfo:
    info = judged(engine, server)
    assert isinstance(info, TlsInfo)
    return info


def judged(engine: TlsEngine, server: Server) -> TlsInfo | Mismatch:
    for _ in range(10):
        info = engine.handshake()
        if isinstance(info, Mismatch):
            return info
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
    engine = TlsEngine(TlsTerms(opportunistic_context()), "mx.example")
    info = shake_hands(engine, server)
    assert info.version == "TLSv1.3"
    assert not info.verified
    assert str(info) == f"TLSv1.3 {info.cipher}"
    assert server.names == ["mx.example"]


@pytest.mark.parametrize("name", ["192.0.2.1", "2001:db8::1", None, ""])
def test_a_literal_is_not_put_into_sni(authority: trustme.CA, name: str | None) -> None:
    server = Server(authority)
    shake_hands(TlsEngine(TlsTerms(opportunistic_context()), name), server)
    assert server.names == [None]


def test_a_verifying_client_checks_the_name(authority: trustme.CA) -> None:
    context = verifying_context()
    authority.configure_trust(context)
    info = shake_hands(TlsEngine(TlsTerms(context), "mx.example"), Server(authority))
    assert info.verified
    assert str(info).endswith(" verified")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(TlsEngine(TlsTerms(context), "other.example"), Server(authority))


@pytest.mark.parametrize("name", [None, "", "a" * 64 + ".example", ".example"])
def test_a_verifying_client_needs_a_name(name: str | None) -> None:
    with pytest.raises(ValueError):
        TlsEngine(TlsTerms(verifying_context()), name)


def test_old_versions_are_refused(authority: trustme.CA) -> None:
    for context in (opportunistic_context(), verifying_context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_tls_1_2_is_taken(authority: trustme.CA) -> None:
    server = Server(authority)
    server.context.maximum_version = ssl.TLSVersion.TLSv1_2
    server.object = server.context.wrap_bio(server.incoming, server.outgoing, server_side=True)
    assert (
        shake_hands(TlsEngine(TlsTerms(opportunistic_context()), "mx.example"), server).version == "TLSv1.2"
    )


def test_octets_pass_in_both_directions_split_anywhere(authority: trustme.CA) -> None:
    server = Server(authority)
    engine = TlsEngine(TlsTerms(opportunistic_context()), "mx.example")
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
        engine = TlsEngine(TlsTerms(opportunistic_context()), "mx.example")
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
    engine = TlsEngine(TlsTerms(opportunistic_context()), "mx.example")
    shake_hands(engine, server)
    server.incoming.write(engine.close())
    assert server.object.read(100) == b""


# --- terms: who the peer has to be ---


def verified(authority: trustme.CA, *names: str) -> TlsTerms:
    contexts = TlsContexts()
    authority.configure_trust(contexts.verifying)
    return TlsTerms(contexts.of(HostTls.VERIFIED), HostTls.VERIFIED, names, policy="sts")


def test_a_certificate_for_any_of_the_names_will_do(authority: trustme.CA) -> None:
    server = Server(authority)
    info = shake_hands(TlsEngine(verified(authority, "mail.example", "mx.example"), "mail.example"), server)
    assert server.names == ["mail.example"]
    assert str(info) == f"{info.version} {info.cipher} verified sts"


def test_a_certificate_for_none_of_the_names_is_a_mismatch(authority: trustme.CA) -> None:
    found = judged(TlsEngine(verified(authority, "other.example"), "other.example"), Server(authority))
    assert isinstance(found, Mismatch)
    assert found.result is TlsResult.HOST_MISMATCH
    assert "mx.example" in found.why


def test_an_address_is_verified_against_addresses(authority: trustme.CA) -> None:
    server = Server(authority, "192.0.2.1")
    assert shake_hands(TlsEngine(verified(authority, "192.0.2.1"), "192.0.2.1"), server).verified
    assert server.names == [None]


def test_what_openssl_refuses_has_a_word_in_reports(authority: trustme.CA) -> None:
    ends = NOW - DAY * 3_000
    old = make("old", names=("mx.example",), starts=ends - DAY, ends=ends)
    for server, expected in (
        (Server(authority, context=old.server_context()), TlsResult.NOT_TRUSTED),
        (Server(trustme.CA()), TlsResult.NOT_TRUSTED),
    ):
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            shake_hands(TlsEngine(verified(authority, "mx.example"), "mx.example"), server)
        assert verification_result(caught.value) is expected
    terms = verified(authority, "mx.example")
    terms.context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(old.der))
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        shake_hands(TlsEngine(terms, "mx.example"), Server(authority, context=old.server_context()))
    assert verification_result(caught.value) is TlsResult.EXPIRED
    assert verification_result(ssl.SSLError("wrong version")) is TlsResult.VALIDATION_FAILURE


@pytest.mark.parametrize(
    ("code", "expected"), [(9, TlsResult.VALIDATION_FAILURE), (62, TlsResult.HOST_MISMATCH)]
)
def test_other_codes_of_openssl_have_theirs(code: int, expected: TlsResult) -> None:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code = code
    assert verification_result(error) is expected


ROOT = make("root", ca=True)
LEAF = make("leaf", make("middle", ROOT, ca=True), names=("mx.example",))


def dane(*who: tuple[int, Identity], names: tuple[str, ...] = ("mx.example",)) -> TlsTerms:
    records = tuple(one.tlsa(usage) for usage, one in who)
    context = system_contexts().of(HostTls.DANE)
    return TlsTerms(context, HostTls.DANE, names, records, "dane", WALL)


def test_dane_sees_the_chain_that_was_sent(authority: trustme.CA) -> None:
    for terms in (dane((3, LEAF)), dane((2, ROOT)), dane((2, LEAF.above[0]))):
        info = shake_hands(TlsEngine(terms, "mx.example"), Server(authority, context=LEAF.server_context()))
        assert str(info) == f"TLSv1.3 {info.cipher} verified dane"


def test_dane_that_is_not_met_is_a_mismatch(authority: trustme.CA) -> None:
    for terms, expected in (
        (dane((3, ROOT)), TlsResult.VALIDATION_FAILURE),
        (dane((2, ROOT), names=("other.example",)), TlsResult.HOST_MISMATCH),
    ):
        found = judged(TlsEngine(terms, "mx.example"), Server(authority, context=LEAF.server_context()))
        assert isinstance(found, Mismatch)
        assert found.result is expected


def test_a_file_of_authorities_stands_in_for_the_system_s(authority: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    contexts = TlsContexts(str(path))
    terms = TlsTerms(contexts.of(HostTls.VERIFIED), HostTls.VERIFIED, ("mx.example",))
    assert shake_hands(TlsEngine(terms, "mx.example"), Server(authority)).verified
    assert str(path) in repr(contexts)
    for text in ("", "nonsense"):
        path.write_text(text)
        with pytest.raises(OSError):
            TlsContexts(str(path))
    with pytest.raises(OSError):
        TlsContexts(str(tmp_path / "missing"))


# --- resuming ---


def rest(engine: TlsEngine, server: Server) -> None:
    """TLS 1.3 tickets travel with the next words of the server."""
    server.object.write(b"250 hi\r\n")
    engine.feed(server.outgoing.read())
    assert engine.decrypt() == b"250 hi\r\n"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_with_either_version(authority: trustme.CA, version: ssl.TLSVersion) -> None:
    context = LEAF.server_context()
    context.maximum_version = version
    server = Server(authority, context=context)
    engine = TlsEngine(dane((2, ROOT)), "mx.example")
    assert not shake_hands(engine, server).resumed
    rest(engine, server)
    session = engine.resumable()
    assert session is not None
    again = TlsEngine(TlsTerms(dane().context, HostTls.DANE, session=session), "mx.example")
    info = shake_hands(again, Server(authority, context=context))
    assert info.resumed
    assert str(info).endswith("verified resumed")


def test_a_verified_session_resumes_with_its_name_checked_again(authority: trustme.CA) -> None:
    server = Server(authority)
    terms = verified(authority, "mx.example")
    engine = TlsEngine(terms, "mx.example")
    shake_hands(engine, server)
    rest(engine, server)
    for names, expected in ((("mx.example",), TlsInfo), (("other.example",), Mismatch)):
        again = TlsTerms(terms.context, HostTls.VERIFIED, names, session=engine.resumable())
        found = judged(TlsEngine(again, "mx.example"), Server(authority, context=server.context))
        assert isinstance(found, expected)


def test_without_a_ticket_there_is_nothing_to_resume(authority: trustme.CA) -> None:
    server = Server(authority)
    server.context.num_tickets = 0
    server.object = server.context.wrap_bio(server.incoming, server.outgoing, server_side=True)
    engine = TlsEngine(TlsTerms(opportunistic_context()), "mx.example")
    shake_hands(engine, server)
    rest(engine, server)
    assert engine.resumable() is None
