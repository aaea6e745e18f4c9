"""Whether a certificate chain matches a host's TLSA records (RFC 6698, RFC 7671, RFC 7672), without IO.

Python's ssl shows the chain that the peer sent, so the handshake verifies nothing and this file decides.
DANE-EE (usage 3): the leaf or its key matches; name and dates do not count (RFC 7672 3.1.1). DANE-TA
(usage 2): a record names a trust anchor; the leaf must be for one of the names and lead to it by valid
signatures, dates and CA rights. The walk is our own because a private authority's certificates seldom
meet the profile of the public web, which is what libraries check. Certificates are a stranger's: what
does not parse matches nothing. No outcome raises; the answer is "" or the word for a report and why.
"""

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from msgspec import Struct

from engine.model.tls import TlsaRecord
from engine.model.tls_result import TlsResult

CHAIN_CERTIFICATES_MAX = 10  # OpenSSL's servers send 2 to 4; its own depth limit is 100
CHECKS_MAX = 64  # signatures verified for one chain: a hostile set of look-alikes must not keep us busy

_UNDERSTOOD = frozenset(  # critical extensions that the walk heeds, or that bear on nothing it decides
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)
_TRUST_ANCHOR, _END_ENTITY = 2, 3
_WHOLE, _KEY = 0, 1


class Mismatch(Struct, frozen=True):
    """Why a chain does not do."""

    result: TlsResult
    why: str


def check_dane(
    chain: Sequence[bytes], tlsa: Sequence[TlsaRecord], names: Sequence[str], wall: float
) -> Mismatch | None:
    """None = the chain (DER, leaf first) satisfies one of the records at wall time `wall`."""
    if not chain:
        return Mismatch(TlsResult.VALIDATION_FAILURE, "the peer sent no certificate")
    chain = chain[:CHAIN_CERTIFICATES_MAX]
    if any(record.usage == _END_ENTITY and _matches(record, chain[0]) for record in tlsa):
        return None
    anchors = [record for record in tlsa if record.usage == _TRUST_ANCHOR]
    if not anchors:
        return Mismatch(TlsResult.VALIDATION_FAILURE, "no TLSA record matches the certificate")
    return Walk(chain, anchors, wall).check(names)


def names_match(certified: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a certificate for `certified` (DNS names, IP addresses) is one for any of `names`.

    A wildcard stands for exactly one whole left label (RFC 6125 6.4.3, RFC 8461 4.1).
    """
    wanted = {_plain_name(name) for name in names}
    for name in map(_plain_name, certified):
        if name in wanted and not name.startswith("*"):
            return True
        if name.startswith("*.") and name.count(".") >= 2:
            suffix = name[1:]
            if any(_left_of(one, suffix) for one in wanted):
                return True
    return False


def _left_of(name: str, suffix: str) -> bool:
    """Whether `name` is one label in front of `suffix`."""
    label = name.removesuffix(suffix)
    return label != name and bool(label) and "." not in label


def _plain_name(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower().removesuffix(".")


def key_info(certificate: bytes) -> bytes | None:
    """The SubjectPublicKeyInfo of a certificate as it stands there; None when there is none.

    Cut out by its place in the DER and not encoded anew: a digest is of the octets that were sent, and
    keys that no library reads (odd curves, RSA-PSS) match all the same.
    """
    certificate_body = _element(certificate, 0)
    if certificate_body is None:
        return None
    body = _element(certificate, certificate_body[0])
    if body is None:
        return None
    place, end = body
    if place < end and certificate[place] == 0xA0:  # [0] version
        version = _element(certificate, place)
        if version is None:
            return None
        place = version[1]
    for _ in range(5):  # serial number, signature algorithm, issuer, validity, subject
        field = _element(certificate, place)
        if field is None or field[1] > end:
            return None
        place = field[1]
    found = _element(certificate, place)
    if found is None or found[1] > end or certificate[place] != 0x30:
        return None
    return certificate[place : found[1]]


def _element(der: bytes, place: int) -> tuple[int, int] | None:
    """Where the content of the DER element at `place` begins and ends."""
    if place + 2 > len(der):
        return None
    length, start = der[place + 1], place + 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4:
            return None
        length, start = int.from_bytes(der[start : start + count]), start + count
    end = start + length
    return (start, end) if end <= len(der) else None


def _matches(record: TlsaRecord, certificate: bytes) -> bool:
    selected = certificate if record.selector == _WHOLE else key_info(certificate)
    if selected is None:
        return False
    match record.matching:
        case 0:
            return selected == record.data
        case 1:
            return hashlib.sha256(selected).digest() == record.data
        case 2:
            return hashlib.sha512(selected).digest() == record.data
        case _:
            return False


class _Anchor(Struct, frozen=True):
    """A trust anchor: a certificate, or a bare key that a full record brought."""

    certificate: x509.Certificate | None
    key: object = None


class Walk:
    """From the leaf to a trust anchor. Remembers the first reason why not; `checks` counts signatures."""

    def __init__(self, chain: Sequence[bytes], anchors: Sequence[TlsaRecord], wall: float) -> None:
        self._now = datetime.datetime.fromtimestamp(wall, datetime.UTC)
        self._leaf = _load(chain[0])
        self._others: list[x509.Certificate] = []
        self._anchors: list[_Anchor] = []
        self.checks = 0
        self._problem: Mismatch | None = None
        for der in chain[1:]:
            certificate = _load(der)
            if certificate is None:
                continue
            self._others.append(certificate)
            if any(_matches(record, der) for record in anchors):
                self._anchors.append(_Anchor(certificate))
        for record in anchors:
            if record.matching == 0:
                self._anchors += _anchor_of(record)

    def check(self, names: Sequence[str]) -> Mismatch | None:
        leaf = self._leaf
        if leaf is None:
            return Mismatch(TlsResult.VALIDATION_FAILURE, "the certificate does not parse")
        if not self._anchors:
            return Mismatch(TlsResult.VALIDATION_FAILURE, "no TLSA record matches the chain that was sent")
        certified = _names_of(leaf)
        if not names_match(certified, names):
            shown = ", ".join(certified)[:200] or "no name"
            return Mismatch(TlsResult.HOST_MISMATCH, f"the certificate is for {shown}")
        if problem := self._unfit(leaf, server=True):
            return problem
        if self._leads_on(leaf, certified, depth=1, seen=()):
            return None
        return self._problem or Mismatch(TlsResult.NOT_TRUSTED, "no signatures lead to a TLSA trust anchor")

    def _leads_on(
        self,
        certificate: x509.Certificate,
        certified: list[str],
        depth: int,
        seen: tuple[x509.Certificate, ...],
    ) -> bool:
        """Whether an anchor issued this certificate, or somebody whom an anchor vouches for."""
        for anchor in self._anchors:
            if anchor.certificate is None:
                if self._may_check() and _signed_by(certificate, anchor.key):
                    return True
            elif self._issued(anchor.certificate, certificate, certified, depth):
                return True
        if depth >= CHAIN_CERTIFICATES_MAX:
            return False
        for issuer in self._others:
            if issuer in seen or issuer == certificate:
                continue
            if self._issued(issuer, certificate, certified, depth) and self._leads_on(
                issuer, certified, depth + 1, (*seen, certificate)
            ):
                return True
        return False

    def _issued(
        self, issuer: x509.Certificate, certificate: x509.Certificate, certified: list[str], depth: int
    ) -> bool:
        if issuer.subject != certificate.issuer or not self._may_check():
            return False
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        problem = self._unfit(issuer, server=False) or _unfit_issuer(issuer, certified, depth)
        if problem is not None:
            self._problem = self._problem or problem
        return problem is None

    def _may_check(self) -> bool:
        if self.checks >= CHECKS_MAX:
            return False
        self.checks += 1
        return True

    def _unfit(self, certificate: x509.Certificate, *, server: bool) -> Mismatch | None:
        if self._now > certificate.not_valid_after_utc:
            return Mismatch(TlsResult.EXPIRED, "a certificate of the chain has expired")
        if self._now < certificate.not_valid_before_utc:
            return Mismatch(TlsResult.VALIDATION_FAILURE, "a certificate of the chain is not valid yet")
        try:
            extensions = certificate.extensions
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            return Mismatch(TlsResult.VALIDATION_FAILURE, "a certificate's extensions do not parse")
        if any(each.critical and each.oid not in _UNDERSTOOD for each in extensions):
            return Mismatch(TlsResult.VALIDATION_FAILURE, "a critical extension is not understood")
        for each in extensions:
            value = each.value
            if server and isinstance(value, x509.ExtendedKeyUsage):
                good = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
                if not any(usage in good for usage in value):
                    return Mismatch(TlsResult.VALIDATION_FAILURE, "the certificate is not for servers")
        return None


def _unfit_issuer(issuer: x509.Certificate, certified: list[str], depth: int) -> Mismatch | None:
    """What forbids it to issue: no CA, a path too long, other names. Version 1 roots have no say on it."""
    if issuer.version is x509.Version.v1:
        return None
    ca = False
    for each in issuer.extensions:
        value = each.value
        if isinstance(value, x509.BasicConstraints):
            ca = value.ca
            if value.path_length is not None and depth - 1 > value.path_length:
                return Mismatch(TlsResult.NOT_TRUSTED, "the chain is longer than its authority allows")
        elif isinstance(value, x509.KeyUsage) and not value.key_cert_sign:
            return Mismatch(TlsResult.NOT_TRUSTED, "an issuer's key may not sign certificates")
        elif isinstance(value, x509.NameConstraints) and not _within(value, certified):
            return Mismatch(TlsResult.NOT_TRUSTED, "an issuer may not certify these names")
    return None if ca else Mismatch(TlsResult.NOT_TRUSTED, "an issuer is no authority")


def _within(constraints: x509.NameConstraints, certified: list[str]) -> bool:
    """RFC 5280 4.2.1.10 for DNS names; constraints on IP addresses are not understood, so nothing fits."""
    permitted = constraints.permitted_subtrees or ()
    excluded = constraints.excluded_subtrees or ()
    if any(isinstance(tree, x509.IPAddress) for tree in (*permitted, *excluded)):
        return False
    allowed = [_plain_name(tree.value) for tree in permitted if isinstance(tree, x509.DNSName)]
    denied = [_plain_name(tree.value) for tree in excluded if isinstance(tree, x509.DNSName)]
    for name in map(_plain_name, certified):
        if any(_under(name, tree) for tree in denied):
            return False
        if allowed and not any(_under(name, tree) for tree in allowed):
            return False
    return True


def _under(name: str, tree: str) -> bool:
    tree = tree.removeprefix(".")
    return not tree or name == tree or name.endswith("." + tree)


def _load(der: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None


def _anchor_of(record: TlsaRecord) -> list[_Anchor]:
    """The anchor that a full record brings along (RFC 7671 5.2.2): the peer need not send it."""
    if record.selector == _WHOLE:
        certificate = _load(record.data)
        return [] if certificate is None else [_Anchor(certificate)]
    try:
        return [_Anchor(None, load_der_public_key(record.data))]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return []


def _names_of(leaf: x509.Certificate) -> list[str]:
    """DNS names and addresses; the common name where there is no DNS name (RFC 7672 3.2.3)."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        found = None
    names = [] if found is None else list(found.get_values_for_type(x509.DNSName))
    if not names:
        names = [str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if found is not None:
        names += [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return names


def _signed_by(certificate: x509.Certificate, key: object) -> bool:
    """Whether a bare key made this signature."""
    signature, body = certificate.signature, certificate.tbs_certificate_bytes
    digest = certificate.signature_hash_algorithm
    try:
        parameters = certificate.signature_algorithm_parameters
        if isinstance(key, rsa.RSAPublicKey) and digest is not None:
            if not isinstance(parameters, padding.PKCS1v15 | padding.PSS):
                return False
            key.verify(signature, body, parameters, digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and digest is not None:
            key.verify(signature, body, ec.ECDSA(digest))
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, body)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True
