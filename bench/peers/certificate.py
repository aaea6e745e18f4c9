"""Certificates for servers that offer STARTTLS or HTTPS: of their own signature, or by a private authority.

Opportunistic TLS (RFC 7435) encrypts without asking who the peer is, so a self-signed certificate is
what many real receivers show. MTA-STS and DANE do ask: `Authority` issues what a test wants, for any
names, lapsed or not, with or without an intermediate. Keys are made anew each time and lie only in the
caller's folder.
"""

import datetime
import hashlib
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

VALID_DAYS = 7
LAPSED_DAYS = 2  # how long ago a lapsed certificate ended


class Certificate(Struct, frozen=True):
    """A chain, leaf first, and the key of its leaf."""

    chain: tuple[x509.Certificate, ...]
    key: Key

    def write(self, folder: Path, *, owner: tuple[int, int] | None = None) -> tuple[Path, Path]:
        """Write `certificate.pem` and `key.pem` and return their paths; the key may get an owner."""
        certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
        certificate_path.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in self.chain))
        key_path.touch(mode=0o600)
        key_path.write_bytes(
            self.key.private_bytes(
                Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        if owner is not None:
            os.chown(key_path, *owner)
        return certificate_path, key_path


def tlsa(usage: int, selector: int, certificate: x509.Certificate, matching: int = 1) -> str:
    """The text of a TLSA record (RFC 6698 2.2) for a certificate; matching 1 is SHA-256, 2 SHA-512."""
    if selector == 1:
        octets = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        octets = certificate.public_bytes(Encoding.DER)
    digests = {0: octets, 1: hashlib.sha256(octets).digest(), 2: hashlib.sha512(octets).digest()}
    return f"{usage} {selector} {matching} {digests[matching].hex()}"


class Authority:
    """A certificate authority of nobody's trust but the test's. `chained` issues through an intermediate."""

    def __init__(self, name: str = "Private Test Authority", *, chained: bool = False) -> None:
        root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = _issue(name, root_key, name, root_key, authority=True)
        self._issuer, self._key = self.root, root_key
        self.between: tuple[x509.Certificate, ...] = ()
        """What a server sends above its leaf."""
        if chained:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._issuer = _issue(f"{name} I", self._key, name, root_key, authority=True, above=self.root)
            self.between = (self._issuer,)

    def issue(self, *names: str, lapsed: bool = False, whole: bool = False) -> Certificate:
        """A certificate for host names or addresses. `whole` puts the root into the chain as well.

        Usage 2 of DANE wants that (RFC 7672 3.1.2), where the root is what a TLSA record names.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _issue(
            names[0], key, _name_of(self._issuer), self._key, names=names, lapsed=lapsed, above=self._issuer
        )
        return Certificate((leaf, *self.between, *([self.root] if whole else [])), key)

    def write_root(self, path: Path) -> Path:
        """The root in PEM, for `ca_file`."""
        path.write_bytes(self.root.public_bytes(Encoding.PEM))
        return path


def self_signed(host: str, key: Key | None = None) -> Certificate:
    """One certificate for an address, by nobody; with an ECDSA key unless another is given."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = f"mx.{host}.test"
    return Certificate((_issue(name, key, name, key, names=(host,)),), key)


def furnish(
    folder: Path, host: str, tls: bool | Certificate, *, owner: tuple[int, int] | None = None
) -> tuple[Path, Path]:
    """Write the given certificate, or one for `host` by nobody, to `folder`; the paths of chain and key."""
    certificate = tls if isinstance(tls, Certificate) else self_signed(host)
    return certificate.write(folder, owner=owner)


def _name_of(certificate: x509.Certificate) -> str:
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def _issue(
    subject: str,
    key: Key,
    issuer: str,
    issuer_key: Key,
    *,
    names: Sequence[str] = (),
    authority: bool = False,
    lapsed: bool = False,
    above: x509.Certificate | None = None,
) -> x509.Certificate:
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(
        days=-LAPSED_DAYS if lapsed else VALID_DAYS
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_distinguished(subject))
        .issuer_name(_distinguished(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=2 * VALID_DAYS))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if above is not None:
        identifier = above.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
    if authority:
        usage = x509.KeyUsage(
            key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    else:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    digest = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key, digest)


def _distinguished(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
