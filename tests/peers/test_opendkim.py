"""OpenDKIM's verdicts, on letters that dkimpy signed: it says yes, it says no, and which signature."""

import base64
from collections.abc import Callable

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from bench.peers.opendkim import judge, verify_with_opendkim

pytestmark = pytest.mark.peers

LETTER = (
    b"From: a@sender.example\r\nTo: b@one.example\r\nSubject: hi\r\n\r\nhello  world\r\n\r\n.x\r\n"
    + b"y" * 2000
)
LETTER += b"\r\n"


@pytest.fixture(scope="module")
def signed(require_peer: Callable[[str], None]) -> tuple[bytes, dict[str, str]]:
    """The letter signed with both algorithms, and the two public records."""
    require_peer("opendkim")
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ed_key = ed25519.Ed25519PrivateKey.generate()
    pem = rsa_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    first = dkim.sign(LETTER, b"r", b"sender.example", pem, canonicalize=(b"relaxed", b"relaxed"))
    second = dkim.sign(
        LETTER,
        b"e",
        b"sender.example",
        base64.b64encode(ed_key.private_bytes_raw()),
        canonicalize=(b"relaxed", b"simple"),
        signature_algorithm=b"ed25519-sha256",
    )
    spki = rsa_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    raw = ed_key.public_key().public_bytes_raw()
    return first + second + LETTER, {
        "r._domainkey.sender.example": f"v=DKIM1; k=rsa; p={base64.b64encode(spki).decode()}",
        "e._domainkey.sender.example": f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode()}",
    }


def test_both_signatures_of_an_untouched_letter_pass(signed: tuple[bytes, dict[str, str]]) -> None:
    message, keys = signed
    assert verify_with_opendkim(message, keys)


def test_each_signature_is_judged_by_itself(signed: tuple[bytes, dict[str, str]]) -> None:
    message, keys = signed
    # Relaxed body canonicalization forgives the lost space, simple does not.
    (signatures,) = judge([message.replace(b"hello  world", b"hello world")], keys)
    assert [(one.algorithm, one.selector, one.result) for one in signatures] == [
        ("rsa-sha256", "r", "pass"),
        ("ed25519-sha256", "e", "fail"),
    ]


def test_a_changed_body_fails_and_an_unsigned_letter_has_no_verdict(
    signed: tuple[bytes, dict[str, str]],
) -> None:
    message, keys = signed
    assert not verify_with_opendkim(message.replace(b"hello", b"hallo"), keys)
    assert not verify_with_opendkim(LETTER, keys)
    assert judge([LETTER, message], keys)[0] == ()
