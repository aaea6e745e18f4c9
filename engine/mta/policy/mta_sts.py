"""MTA-STS in words: what a domain's TXT record and its policy file say (RFC 8461 3), and which hosts fit.

Decides whether there is exactly one record, what a policy demands, and whether a host is among its
patterns. Pure: the record is asked for and the file is fetched elsewhere (`net.sts`). Both are a stranger's
text: what does not fit the grammar is no policy, and the reason is a value. Unknown keys are ignored, so
that the grammar can grow; of a key that stands there twice the first counts (RFC 8461 3.2).
"""

import re
from collections.abc import Sequence
from enum import Enum

from msgspec import Struct

POLICY_OCTETS_MAX = 64 * 1024  # RFC 8461 3.2 suggests 64 kB as a sender's limit
MAX_AGE_SECONDS_MAX = 31_557_600  # RFC 8461 3.2: about a year; more counts as this
PATTERNS_MAX = 100  # a route has 24 hosts at most; the largest providers list ten patterns

_VERSION = re.compile(rb"v=STSv1[ \t]*;")  # RFC 8461 3.1: records that begin otherwise are not counted
_ID = re.compile(rb"[A-Za-z0-9]{1,32}")
_FIELD_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_FIELD_VALUE = re.compile(rb"[\x21-\x3a\x3c\x3e-\x7e]+")
_LINE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z")
_MAX_AGE = re.compile(r"[0-9]{1,10}\Z")
_PATTERN = re.compile(
    r"(?=.{1,253}\Z)(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
)


class StsMode(Enum):
    ENFORCE = "enforce"
    TESTING = "testing"  # deliver anyway, and report
    NONE = "none"  # the domain has taken its policy back


class StsPolicy(Struct, frozen=True):
    """A policy file as it counts. `mx`: host names in lower case, or `*.` and a name."""

    mode: StsMode
    max_age_seconds: int
    mx: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """What reports quote (RFC 8460 4.4)."""
        hosts = (f"mx: {pattern}" for pattern in self.mx)
        return ("version: STSv1", f"mode: {self.mode.value}", *hosts, f"max_age: {self.max_age_seconds}")


class NoPolicy(Struct, frozen=True):
    """The text is no policy; `why` for people, printable."""

    why: str


def policy_id(texts: Sequence[bytes]) -> str | None:
    """The id in the TXT records of `_mta-sts.<domain>`; None = the domain has no MTA-STS (RFC 8461 3.1)."""
    records = [text for text in texts if _VERSION.match(text)]
    if len(records) != 1:
        return None
    found = None
    fields = [field.strip(b" \t") for field in records[0].split(b";")[1:]]
    if fields and not fields[-1]:
        fields.pop()  # the last delimiter may stand there
    for field in fields:
        name, equals, value = field.partition(b"=")
        if not (equals and _FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value)):
            return None
        if name == b"id" and found is None:
            if not _ID.fullmatch(value):
                return None
            found = value.decode("ascii")
    return found


def parse_policy(octets: bytes) -> StsPolicy | NoPolicy:
    """A policy file (RFC 8461 3.2), with LF or CRLF."""
    if len(octets) > POLICY_OCTETS_MAX:
        return NoPolicy(f"more than {POLICY_OCTETS_MAX:,} octets")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        return NoPolicy("not UTF-8")
    first: dict[str, str] = {}
    patterns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip(" \t\r"):
            continue
        name, colon, value = line.removesuffix("\r").partition(":")
        value = value.strip(" \t")
        if not (colon and _LINE_NAME.match(name)):
            return NoPolicy(f"line {number} is no key and value")
        if name == "mx":
            pattern = value.lower()
            if not _PATTERN.match(pattern):
                return NoPolicy(f"line {number} names no host")
            patterns[pattern] = None
        else:
            first.setdefault(name, value)
    if first.get("version") != "STSv1":
        return NoPolicy("no version STSv1")
    try:
        mode = StsMode(first.get("mode"))
    except ValueError:
        return NoPolicy("no mode that we know")
    if not _MAX_AGE.match(first.get("max_age", "")):
        return NoPolicy("no max_age")
    if not patterns and mode is not StsMode.NONE:
        return NoPolicy("no mx")
    if len(patterns) > PATTERNS_MAX:
        return NoPolicy(f"more than {PATTERNS_MAX} mx")
    return StsPolicy(mode, min(int(first["max_age"]), MAX_AGE_SECONDS_MAX), tuple(patterns))


def allows(policy: StsPolicy, host: str) -> bool:
    """Whether an MX host is one of the policy's; `*` stands for one label (RFC 8461 4.1)."""
    host = host.lower().removesuffix(".")
    _, dot, parent = host.partition(".")
    return host in policy.mx or (bool(dot) and f"*.{parent}" in policy.mx)
