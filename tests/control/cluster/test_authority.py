"""The bus's certificate: a client that trusts it alone reaches its server by its names, and no other."""

import datetime
import socket
import ssl
import threading

import pytest
from cryptography import x509

from control.cluster.authority import (
    CERTIFICATE_FILE,
    KEY_FILE,
    create_server_certificate,
    fingerprint,
    fingerprint_of,
)
from engine.keyring import KeyringError

NOW = datetime.datetime.now(datetime.UTC)


def handshake(folder, trusted, name):
    """What a client that trusts one file sees of a server with the folder's certificate."""
    ours, theirs = socket.socketpair()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)

    def serve():
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client = ssl.create_default_context(cafile=trusted)
        with client.wrap_socket(ours, server_hostname=name) as wrapped:
            return wrapped.getpeercert(binary_form=True)
    finally:
        ours.close()
        thread.join()


def test_a_client_that_trusts_it_reaches_the_server_by_each_of_its_names(tmp_path):
    digest = create_server_certificate(tmp_path, ["127.0.0.1", "hub.example", "::1"], NOW)
    assert digest == fingerprint(tmp_path / CERTIFICATE_FILE)
    for name in ("127.0.0.1", "hub.example", "::1"):
        assert handshake(tmp_path, tmp_path / CERTIFICATE_FILE, name)


def test_a_client_refuses_another_name_and_another_certificate(tmp_path):
    create_server_certificate(tmp_path, ["127.0.0.1"], NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, tmp_path / CERTIFICATE_FILE, "127.0.0.2")
    other = tmp_path / "other"
    other.mkdir()
    create_server_certificate(other, ["127.0.0.1"], NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, other / CERTIFICATE_FILE, "127.0.0.1")


def test_it_lasts_ten_years_and_its_files_are_private(tmp_path):
    create_server_certificate(tmp_path, ["127.0.0.1"], NOW)
    certificate = x509.load_pem_x509_certificate((tmp_path / CERTIFICATE_FILE).read_bytes())
    assert (certificate.not_valid_after_utc - NOW).days == 3653 - (NOW.microsecond > 0)
    assert certificate.not_valid_before_utc < NOW
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_an_existing_certificate_is_never_overwritten(tmp_path):
    create_server_certificate(tmp_path, ["127.0.0.1"], NOW)
    with pytest.raises(KeyringError, match="never overwritten"):
        create_server_certificate(tmp_path, ["127.0.0.1"], NOW)


@pytest.mark.parametrize("names", [[], ["bücher.example"], ["a"] * 65])
def test_names_that_no_certificate_can_have_are_refused(tmp_path, names):
    with pytest.raises(KeyringError):
        create_server_certificate(tmp_path, names, NOW)
    assert not list(tmp_path.iterdir())


def test_what_is_no_certificate_is_named(tmp_path):
    with pytest.raises(KeyringError, match="not a certificate"):
        fingerprint_of(b"-----BEGIN nothing", "here")
    with pytest.raises(KeyringError, match="cannot read"):
        fingerprint(tmp_path / "none")
