"""The certificate of a hub's nats-server: made once, shown by the server, pinned by every node.

It signs itself, and that is the point: a node trusts this one certificate (`bus-ca.pem`) for the bus and
nothing else, and learns its SHA-256 from the join code, so no outside authority can put another server in
between. Touches two files of the keys folder; the key has mode 0600. Raises KeyringError when they cannot be
written or are no such files.
"""

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from engine.keyring import KeyringError, write_secret

CERTIFICATE_FILE = "bus-ca.pem"
KEY_FILE = "bus-server.key"
VALID_DAYS = 3653  # ten years: every node has to get a new one before it ends
BACKDATED = datetime.timedelta(days=1)  # a node whose clock is behind can still connect, and be told
NAMES_MAX = 64
CERTIFICATE_OCTETS_MAX = 64 * 1024


def create_server_certificate(keys: Path, names: Sequence[str], now: datetime.datetime) -> bytes:
    """Write certificate and key for the names and addresses that others reach the server by.

    Returns the certificate's SHA-256. Raises KeyringError; nothing is overwritten.
    """
    if not 1 <= len(names) <= NAMES_MAX:
        raise KeyringError(f"a bus certificate has 1 to {NAMES_MAX} names, not {len(names)}")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "e-MASS bus")])
    try:
        others = x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names)])
    except ValueError as error:
        raise KeyringError(f"no name for a certificate: {error}") from None
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(others, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,  # servers of one cluster are each other's clients
        )
        .sign(key, hashes.SHA256())
    )
    write_secret(
        keys / KEY_FILE,
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    write_secret(keys / CERTIFICATE_FILE, certificate.public_bytes(Encoding.PEM))
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def fingerprint(path: Path) -> bytes:
    """The SHA-256 of the certificate in a PEM file. Raises KeyringError."""
    try:
        with path.open("rb") as file:
            data = file.read(CERTIFICATE_OCTETS_MAX)
    except OSError as error:
        raise KeyringError(f"{path}: cannot read the certificate: {error.strerror}") from error
    return fingerprint_of(data, str(path))


def fingerprint_of(pem: bytes, where: str) -> bytes:
    """The SHA-256 of a certificate in PEM; `where` names it in a refusal. Raises KeyringError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise KeyringError(f"{where}: not a certificate in PEM") from None
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
