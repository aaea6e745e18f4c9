"""Mail addresses: one parser for everything that comes in, one canonical form for hashing.

`parse_address` accepts what can be delivered over SMTP (RFC 5321 4.1.2 dot-string and
quoted-string local parts, RFC 6531 for non-ASCII ones) and normalises the domain to lower-case
A-labels (IDNA 2008 with the UTS 46 mapping). `canonical_v1` is the only input of address hashes:
NFC, casefold, A-label, no needless quotes (RFC 5321 4.1.2: `"a.b"` is `a.b`), since a suppression must
hold for every spelling; no dot or plus tricks, which are one provider's habit, not a rule.
"""

import re
import unicodedata
from functools import lru_cache

import idna
from msgspec import Struct

LOCAL_OCTETS_MAX = 64  # RFC 5321 4.5.3.1.1
DOMAIN_OCTETS_MAX = 253  # RFC 1035 2.3.4 without the root dot
ADDRESS_OCTETS_MAX = 254  # RFC 5321 4.5.3.1.3 less the angle brackets

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_DOT_STRING = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*\Z")
_QUOTED_STRING = re.compile(r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"\Z')
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_PLAIN = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")


class AddressError(ValueError):
    """The text is no deliverable address; the message says why, without repeating the text."""


class Address(Struct, frozen=True, gc=False):
    """A parsed address: `local` as written, `domain` in lower-case A-labels."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


def parse_address(text: str) -> Address:
    """Parse one bare address (no display name, no angle brackets). Raises AddressError."""
    local, at, domain_text = text.rpartition("@")
    if not at:
        raise AddressError("has no @")
    if not local:
        raise AddressError("has no local part")
    if len(local) > LOCAL_OCTETS_MAX:  # first of all: the patterns below never see a long text
        raise AddressError(f"local part is longer than {LOCAL_OCTETS_MAX} octets")
    if not _PLAIN.match(local):
        _check_unusual_local(local)
        if len(local.encode()) > LOCAL_OCTETS_MAX:
            raise AddressError(f"local part is longer than {LOCAL_OCTETS_MAX} octets")
    domain = normalise_domain(domain_text)
    if len(local.encode()) + 1 + len(domain) > ADDRESS_OCTETS_MAX:
        raise AddressError(f"is longer than {ADDRESS_OCTETS_MAX} octets")
    return Address(local, domain)


def _check_unusual_local(local: str) -> None:
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for char in local):
        raise AddressError("local part holds an invisible or control character")
    if any(char.isspace() and char != " " for char in local):
        raise AddressError("local part holds white space")
    if not (_DOT_STRING.match(local) or _QUOTED_STRING.match(local)):
        raise AddressError("local part is not valid (RFC 5321 4.1.2)")


@lru_cache(maxsize=65_536)
def normalise_domain(text: str) -> str:
    """The domain as lower-case A-labels without a trailing dot. Raises AddressError.

    Address literals are refused: bulk mail has no business with them, and they dodge the resolver.
    """
    if text.startswith("["):
        raise AddressError("domain is an address literal")
    domain = text.removesuffix(".").lower()
    if not domain:
        raise AddressError("has no domain")
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise AddressError("domain is not valid (IDNA 2008)") from error
    labels = domain.split(".")
    if len(domain) > DOMAIN_OCTETS_MAX:
        raise AddressError(f"domain is longer than {DOMAIN_OCTETS_MAX} octets")
    if len(labels) < 2:
        raise AddressError("domain has no dot")
    if not all(_LABEL.match(label) for label in labels):
        raise AddressError("domain is not valid (RFC 1035 2.3.1)")
    if labels[-1].isdigit():
        raise AddressError("domain ends in a number")
    return domain


def canonical_v1(address: Address) -> bytes:
    """The input of every address hash, version 1. Two spellings of one mailbox give the same octets."""
    local = address.local
    if local.startswith('"'):
        local = _requoted(local)
    local = unicodedata.normalize("NFC", local).casefold()
    return f"{unicodedata.normalize('NFC', local)}@{address.domain}".encode()


def _requoted(local: str) -> str:
    """A quoted local part with as little quoting as it needs."""
    bare = re.sub(r"\\(.)", r"\1", local[1:-1])
    if _DOT_STRING.match(bare):
        return bare
    return '"' + re.sub(r'(["\\])', r"\\\1", bare) + '"'
