"""What a client's message becomes: itself, with a trace before it, and Date and Message-ID where they lack.

RFC 6409 8 lets a submission server add what is missing; Bcc goes (RFC 5322 3.6.3). Nothing else is touched.
What could not be sent on as it is, or would mean two things to two readers, is refused: bare CR or LF (they
smuggle commands past servers that end lines elsewhere), NUL, lines of more than 998 octets, a field that
stands there twice, a header beyond ASCII without SMTPUTF8, an author whose domain is not the account's.
Pure: time and ids are arguments.
"""

import inspect
import re
from collections.abc import Collection
from email import errors, headerregistry
from email.utils import getaddresses
from functools import lru_cache
from typing import Any

from msgspec import Struct

from engine.model.address import AddressError, parse_address
from engine.mta.compose.errors import RenderError
from engine.mta.compose.headers import date
from engine.mta.compose.raw import RawHeader

LINE_OCTETS_MAX = 998  # RFC 5322 2.1.1
HOPS_MAX = 100  # RFC 5321 6.3
AUTHOR_OCTETS_MAX = 2_000  # of a From or Sender field: the parser is slow on long ones, and they are cached
AUTHORS_MAX = 10

_UNFOLD = re.compile(r"\r\n(?=[ \t])")
_HELO = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?\Z|\[[0-9A-Za-z:.]{2,60}\]\Z")
_BCC = (b"bcc", b"resent-bcc")
# What the standard library's parser finds wrong with a field that all readers understand alike. Of anything
# else it takes the first address and says nothing of the second: "a@shop.example <ceo@bank.example>".
_HARMLESS = frozenset(
    (
        "period in 'phrase'",  # J. Doe <j@shop.example>
        "comment found without atom",  # the same, of a phrase that ends in a full stop
        "empty element in address-list",
        "local-part contains non-ASCII characters)",
        "encoded word inside quoted string",  # many programs write it; to a strict reader it is text
        "missing trailing whitespace after encoded-word",
        "whitespace inside encoded word",
    )
)
# Of what encoded words mean in a name: half a character in each of two, an unknown charset, lacking padding.
_HARMLESS_KINDS = (
    errors.UndecodableBytesDefect,
    errors.InvalidBase64PaddingDefect,
    errors.InvalidBase64CharactersDefect,
    errors.InvalidBase64LengthDefect,
    errors.CharsetError,
)
# Some take an encoded word as one token, others see what is special in it: =?utf-8?q?<ceo@bank.example>?=.
# A comma is common there and does no harm without an @.
_SPECIAL_WORD = re.compile(r'=\?[^?]*\?[bBqQ]\?[^?]*["<>@][^?]*\?=')
_SAME_TWICE = re.compile(r'([^\s"(),:;<>@\[\]\\]+@[^\s"(),:;<>@\[\]\\]+)\s*<\1>\Z')
# Newer Pythons find nothing rather than something doubtful, unless they are asked; others find it.
_LENIENT: dict[str, Any] = {"strict": False} if "strict" in inspect.signature(getaddresses).parameters else {}
_registry = headerregistry.HeaderRegistry(use_default_map=True)


class Refusal(Struct, frozen=True):
    """Why a message is not taken; it would be refused again. `str` is the reply."""

    code: int
    status: str
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.text}"


class Prepared(Struct, frozen=True):
    """A message as it goes on, and the domain of its (first) author, in lower-case A-labels."""

    octets: bytes
    author_domain: str


class Trace(Struct, frozen=True):
    """What our Received field says. `message_id` is the left part of a Message-ID that lacks."""

    helo: str
    address: str
    hostname: str
    protocol: str  # RFC 3848: ESMTPSA, or UTF8SMTPSA (RFC 6531 4.3)
    id: str
    now: float  # wall seconds


def prepare_message(
    message: bytes, trace: Trace, domains: Collection[str], *, smtputf8: bool, one_click: bool = False
) -> Prepared | Refusal:
    """A client's message as it goes on, or why it does not.

    `domains` are those that it may be from; `one_click`: it is of a class that has to offer that.
    """
    refusal = _unsendable(message)
    if refusal is not None:
        return refusal
    try:
        header = RawHeader(message)
    except RenderError:
        return Refusal(554, "5.6.0", "the message has no header, or one that is none (RFC 5322 2.2)")
    refusal = _misleading(message, header, smtputf8=smtputf8)
    if refusal is not None:
        return refusal
    if one_click and not header.one_click:
        text = "mail of this account's class offers one-click unsubscribe (RFC 8058 3.1)"
        return Refusal(550, "5.7.1", text)
    authors = author_domains(header.values(b"from")[0])
    senders = header.values(b"sender")
    claimed = (*authors, *(author_domains(senders[0]) or ("",) if senders else ()))
    if not authors or any(domain not in domains for domain in claimed):
        return Refusal(550, "5.7.1", "the author's or sender's address is not of a domain of this account")
    return Prepared(_additions(header, trace, authors[0]) + _without_bcc(message, header), authors[0])


def _unsendable(message: bytes) -> Refusal | None:
    ends = message.count(b"\r\n")
    if message.count(b"\n") != ends or message.count(b"\r") != ends:
        return Refusal(554, "5.6.0", "bare CR or LF: lines end in CRLF (RFC 5321 2.3.8)")
    if not message.endswith(b"\r\n"):
        return Refusal(554, "5.6.0", "the last line does not end")
    if b"\0" in message:
        return Refusal(554, "5.6.0", "the message holds NUL")
    if max(map(len, message.split(b"\r\n"))) > LINE_OCTETS_MAX:
        return Refusal(554, "5.6.0", f"a line has more than {LINE_OCTETS_MAX} octets (RFC 5322 2.1.1)")
    return None


def _misleading(message: bytes, header: RawHeader, *, smtputf8: bool) -> Refusal | None:
    head = message[: header.end]
    if not head.isascii():
        if not smtputf8:
            return Refusal(554, "5.6.7", "the header has octets beyond ASCII: encode them, or use SMTPUTF8")
        try:
            head.decode("utf-8")
        except UnicodeDecodeError:
            return Refusal(554, "5.6.7", "the header is not UTF-8")
    if doubled := header.doubled():
        return Refusal(554, "5.6.0", f"the field {doubled} stands there twice (RFC 5322 3.6)")
    if not header.values(b"from"):
        return Refusal(554, "5.6.0", "the message has no From (RFC 5322 3.6.2)")
    if len(header.values(b"received")) > HOPS_MAX:
        return Refusal(554, "5.4.6", "too many hops: this message goes round in a circle")
    return None


def author_domains(value: bytes) -> tuple[str, ...]:
    """The domains of a From or Sender field's addresses.

    Nothing when one of them is no address, or two readers may find different ones.
    """
    return _cached_domains(value) if len(value) <= AUTHOR_OCTETS_MAX else ()


@lru_cache(maxsize=4_096)
def _cached_domains(value: bytes) -> tuple[str, ...]:
    text = _UNFOLD.sub("", value.decode("utf-8", "replace")).strip()
    if _SPECIAL_WORD.search(text):
        return ()
    if same := _SAME_TWICE.match(text):  # info@shop.example <info@shop.example>
        text = same[1]
    try:
        field: Any = _registry("From", text)
        found = field.addresses
        harmless = all(_is_harmless(defect) for defect in field.defects)
        others = [address for _, address in getaddresses([text], **_LENIENT) if "@" in address]
    except Exception:  # the standard library's parser fails in many ways on what is none
        return ()
    if not harmless or not 1 <= len(found) <= AUTHORS_MAX:
        return ()
    # An address stands there as it is. The parser decodes encoded words inside of it, too, and others do not.
    if not all(_stands_in(text, address) for address in found):
        return ()
    try:
        domains = tuple(parse_address(address.addr_spec).domain for address in found)
        return domains if {parse_address(other).domain for other in others} == set(domains) else ()
    except AddressError:
        return ()


def _is_harmless(defect: Exception) -> bool:
    return isinstance(defect, _HARMLESS_KINDS) or str(defect) in _HARMLESS


def _stands_in(text: str, address: Any) -> bool:
    """As it is, or in quotes that it does not need and that the parser takes away."""
    return address.addr_spec in text or f'"{address.username}"@{address.domain}' in text


def _additions(header: RawHeader, trace: Trace, domain: str) -> bytes:
    helo = trace.helo if _HELO.match(trace.helo) else "unknown"
    address = f"IPv6:{trace.address}" if ":" in trace.address else trace.address
    at = date(int(trace.now))
    added = (
        f"Received: from {helo} ([{address}])\r\n"
        f"\tby {trace.hostname} with {trace.protocol} id {trace.id};\r\n\t{at}\r\n"
    )
    if not header.values(b"message-id"):
        added += f"Message-ID: <{trace.id}@{domain}>\r\n"
    if not header.values(b"date"):
        added += f"Date: {at}\r\n"
    return added.encode("ascii")


def _without_bcc(message: bytes, header: RawHeader) -> bytes:
    if not any(name in _BCC for name, _ in header.fields):
        return message
    kept, at = [], 0
    for name, value in header.fields:
        end = at + len(name) + 1 + len(value)
        if name not in _BCC:
            kept.append(message[at:end])
        at = end
    return b"".join(kept) + message[header.end :]
