"""DKIM (RFC 6376, 8301, 8463): header digests out, signatures in.

No private key is here: a signer process signs the 32-octet digests. Header canonicalisation is
relaxed, body simple or relaxed. h= is fixed per content; each field we set once is named once more
than it occurs, so nobody can add a second one behind the signature (replay edits). No l=, no i=.
Rsa-sha256 signs the digest as PKCS#1 v1.5 does (prehashed); ed25519-sha256 signs the digest itself.
Input is our own wire text: 7-bit, CRLF only, no white space at line ends.
"""

import hashlib
import re
from binascii import b2a_base64
from collections.abc import Sequence

from msgspec import Struct

from engine.model.address import AddressError, normalise_domain
from engine.model.content import BodyCanon, DkimAlgorithm, DkimIdentity
from engine.mta.compose.errors import ContentError

SECONDS_PER_DAY = 86_400
EXPIRE_DAYS_MAX = 365  # longer than any queue or forwarder; 3 to 7 limit replays
_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9][A-Za-z0-9_-]{0,62})*\Z")
_LINE_CHARS = 72  # of folded base64 and h= lists
_WHITE_SPACE = re.compile(rb"[ \t]+")
_HEADER_SPACE = re.compile(r"[ \t\r\n]+")

# Signed once more than they occur, also when they do not occur at all.
OVERSIGNED = (
    "from",
    "to",
    "cc",
    "subject",
    "date",
    "reply-to",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "list-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "feedback-id",
)


class SigningRequest(Struct, frozen=True, gc=False):
    """What a signer process gets: the key's name, and the SHA-256 digest to sign."""

    key: str
    algorithm: DkimAlgorithm
    digest: bytes


def relaxed_field(name: str, value: str) -> str:
    """One field in relaxed form (RFC 6376 3.4.2), with its CRLF."""
    return f"{name.lower()}:{_HEADER_SPACE.sub(' ', value).strip(' ')}\r\n"


def relaxed_value(value: str) -> str:
    """A field's value in relaxed form."""
    if "  " in value or "\n" in value or "\t" in value:
        value = _HEADER_SPACE.sub(" ", value)
    return value.strip(" ")


def body_hash(body: bytes, canon: BodyCanon) -> str:
    """bh= of a wire body that ends in CRLF."""
    if canon is BodyCanon.RELAXED and (b"  " in body or b"\t" in body):
        body = _WHITE_SPACE.sub(b" ", body)
        body = body.replace(b" \r\n", b"\r\n")
    if body.endswith(b"\r\n\r\n") or body == b"\r\n":
        body = body.rstrip(b"\r\n") + b"\r\n"
        if body == b"\r\n" and canon is BodyCanon.RELAXED:
            body = b""
    return b2a_base64(hashlib.sha256(body).digest(), newline=False).decode()


class Signature:
    """One identity's DKIM-Signature field for one content."""

    def __init__(self, identity: DkimIdentity, names: Sequence[str]) -> None:
        """`names` are the message's fields in order. Raises ContentError."""
        _check(identity)
        self.key = identity.key
        self.algorithm = identity.algorithm
        self.body = identity.body
        self._lifetime = identity.expire_days * SECONDS_PER_DAY
        signed = signed_names(names)
        self._head = (
            f"v=1; a={identity.algorithm.value}; c=relaxed/{identity.body.value};"
            f"\r\n\td={identity.domain}; s={identity.selector};\r\n\tt="
        )
        self._names = f";\r\n\th={_fold_names(signed)};\r\n\tbh="
        self._relaxed_head = "dkim-signature:" + _HEADER_SPACE.sub(" ", self._head)
        self._relaxed_names = _HEADER_SPACE.sub(" ", self._names)

    def prepare(self, relaxed: "hashlib._Hash", hashed_body: str, now: int) -> tuple[SigningRequest, str]:
        """The digest to sign and the field up to `b=`. `relaxed` holds the signed fields, hashed."""
        times = f"{now}; x={now + self._lifetime}" if self._lifetime else f"{now}"
        state = relaxed.copy()
        state.update(f"{self._relaxed_head}{times}{self._relaxed_names}{hashed_body}; b=".encode())
        request = SigningRequest(self.key, self.algorithm, state.digest())
        return request, f"DKIM-Signature: {self._head}{times}{self._names}{hashed_body};\r\n\tb="


def _check(identity: DkimIdentity) -> None:
    try:
        domain = normalise_domain(identity.domain)
    except AddressError as error:
        raise ContentError("dkim", 0, f"signing domain {error}") from None
    if domain != identity.domain:
        raise ContentError("dkim", 0, "the signing domain is not in lower-case A-labels", f"write {domain}")
    if not _SELECTOR.match(identity.selector):
        raise ContentError("dkim", 0, "the selector is no DNS name (RFC 6376 3.1)")
    if not 0 <= identity.expire_days <= EXPIRE_DAYS_MAX:
        raise ContentError("dkim", 0, f"expire_days must lie between 0 (never) and {EXPIRE_DAYS_MAX}")


def signed_names(names: Sequence[str]) -> list[str]:
    """h=: every field of the message, then the oversigned ones once more."""
    present = [name.lower() for name in names]
    extra = [name for name in OVERSIGNED if name not in present]
    singletons = [name for name in dict.fromkeys(present) if name in OVERSIGNED or name in _ALSO_ONCE]
    return present + singletons + extra


_ALSO_ONCE = frozenset({"cfbl-address", "cfbl-feedback-id", "list-help", "precedence", "auto-submitted"})


def _fold_names(names: list[str]) -> str:
    lines = [""]
    for index, name in enumerate(names):
        item = name + (":" if index + 1 < len(names) else "")
        if len(lines[-1]) + len(item) > _LINE_CHARS - 2:
            lines.append("")
        lines[-1] += item
    return "\r\n\t".join(lines)


def folded_signature(signature: bytes) -> bytes:
    """Base64 for b=, folded; verifiers drop the white space."""
    code = b2a_base64(signature, newline=False)
    if len(code) <= _LINE_CHARS:
        return code
    return b"\r\n\t".join(code[at : at + _LINE_CHARS] for at in range(0, len(code), _LINE_CHARS))
