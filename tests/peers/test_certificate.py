"""What the private authority issues, held against OpenSSL's own check; and the policy host that shows it."""

import contextlib
import hashlib
import http.client
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.peers import policy_host
from bench.peers.certificate import Authority, Certificate, self_signed, tlsa

HOST = "127.0.9.80"


def shake_hands(certificate: Certificate, authority: Authority, name: str, folder: Path) -> ssl.SSLObject:
    """A handshake in memory. Raises SSLCertVerificationError."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(*certificate.write(folder))
    client_side = ssl.create_default_context(cafile=str(authority.write_root(folder / "root.pem")))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for peer in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.do_handshake()
    return client


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_a_certificate_is_good_for_its_names_and_addresses(
    chained: bool, whole: bool, tmp_path: Path
) -> None:
    authority = Authority(chained=chained)
    certificate = authority.issue("mx.a.test", "127.0.0.1", whole=whole)
    assert len(certificate.chain) == 1 + chained + whole
    for name in ("mx.a.test", "127.0.0.1"):
        assert shake_hands(certificate, authority, name, tmp_path).version() == "TLSv1.3"


def test_a_wrong_name_a_lapsed_one_and_a_strangers_are_refused(tmp_path: Path) -> None:
    authority = Authority()
    for certificate, why in (
        (authority.issue("mx.b.test"), "Hostname mismatch"),
        (authority.issue("mx.a.test", lapsed=True), "expired"),
        (
            Authority().issue("mx.a.test"),
            "certificate signature failure|unable to get local issuer|self-signed",
        ),
        (self_signed("127.0.0.1"), "self-signed"),
    ):
        with pytest.raises(ssl.SSLCertVerificationError, match=why):
            shake_hands(certificate, authority, "mx.a.test", tmp_path)


def test_the_key_file_is_for_its_owner_only(tmp_path: Path) -> None:
    _, key = self_signed("127.0.0.1").write(tmp_path)
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_tlsa_record_names_certificate_or_key_whole_or_by_digest() -> None:
    certificate = self_signed("127.0.0.1").chain[0]
    whole = certificate.public_bytes(Encoding.DER)
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert tlsa(3, 0, certificate, 0) == f"3 0 0 {whole.hex()}"
    assert tlsa(2, 0, certificate) == f"2 0 1 {hashlib.sha256(whole).hexdigest()}"
    assert tlsa(3, 1, certificate) == f"3 1 1 {hashlib.sha256(key).hexdigest()}"
    assert tlsa(3, 1, certificate, 2) == f"3 1 2 {hashlib.sha512(key).hexdigest()}"


@pytest.mark.peers
def test_a_policy_host_serves_each_of_its_names_and_no_other(tmp_path: Path) -> None:
    authority = Authority()
    certificate = authority.issue("mta-sts.a.test", "mta-sts.b.test")
    context = ssl.create_default_context(cafile=str(authority.write_root(tmp_path / "root.pem")))
    context.check_hostname = (
        False  # http.client asks for the address; the client under test asks for the name
    )
    policies = {"mta-sts.a.test": "version: STSv1\n", "mta-sts.b.test": ""}
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(policy_host.serving(tmp_path / "host", policies, certificate, HOST))
        except OSError as error:
            pytest.skip(f"port 443 cannot be bound: {error.strerror}; cure: run the tests as root")
        found = [_get(context, name) for name in ("mta-sts.a.test", "mta-sts.b.test", "c.test")]
    assert found == [(200, b"version: STSv1\r\n"), (404, b""), (404, b"")]


def _get(context: ssl.SSLContext, name: str) -> tuple[int, bytes]:
    client = http.client.HTTPSConnection(HOST, context=context, timeout=10)
    try:
        client.request("GET", policy_host.WELL_KNOWN, headers={"Host": name})
        response = client.getresponse()
        return response.status, response.read() if response.status == 200 else b""
    finally:
        client.close()
