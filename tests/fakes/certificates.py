"""Certificates of every kind, good and bad: an authority, whom it vouches for, a leaf.

Keys are P-256, so that making one costs a millisecond. `Identity.server_context` loads a chain for a server.
"""

import datetime
import hashlib
import ssl
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from engine.model.tls import TlsaRecord

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
WALL = NOW.timestamp()
DAY = datetime.timedelta(days=1)


class Identity(Struct, frozen=True):
    """A certificate with its key, and the authorities above it that a server sends along."""

    certificate: x509.Certificate
    key: Any
    above: tuple["Identity", ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_der(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def chain(self) -> list[bytes]:
        return [self.der, *(each.der for each in self.above)]

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for each in (self, *self.above):
            pem += each.certificate.public_bytes(serialization.Encoding.PEM)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "server.pem"
            path.touch(mode=0o600)
            path.write_bytes(pem)
            context.load_cert_chain(path)
        return context

    def pem_file(self, folder: Path) -> str:
        """The certificate alone, as a file of authorities."""
        path = folder / "authority.pem"
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)

    def tlsa(self, usage: int, selector: int = 1, matching: int = 1) -> TlsaRecord:
        selected = self.key_der if selector else self.der
        data = {
            0: selected,
            1: hashlib.sha256(selected).digest(),
            2: hashlib.sha512(selected).digest(),
        }[matching]
        return TlsaRecord(usage, selector, matching, data)


def make(
    name: str,
    issuer: Identity | None = None,
    *,
    names: tuple[str, ...] = (),
    ca: bool = False,
    path_length: int | None = None,
    starts: datetime.datetime = NOW - 30 * DAY,
    ends: datetime.datetime = NOW + 30 * DAY,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    key: Any = None,
) -> Identity:
    """A certificate; without an issuer it signs itself. A server below an issuer sends all but the root."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts)
        .not_valid_after(ends)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False
        )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, path_length), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signer = key if issuer is None else issuer.key
    above = () if issuer is None else (issuer, *issuer.above)
    return Identity(builder.sign(signer, hashes.SHA256()), key, above)


def client_only() -> tuple[x509.ExtensionType, bool]:
    return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False
