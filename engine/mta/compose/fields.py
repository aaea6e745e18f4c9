"""The header of a content's messages: which fields, in which order, with what static text.

What stays the same for every recipient is encoded, folded and canonicalised here once; what changes
stands as `%(name)s`. So a message's header is one string operation, and its DKIM form another.
Marketing mail (BULK) carries the List-*, Feedback-ID and Precedence fields, transactional mail does
not. Raises ContentError for anything that could not stand in a header as given.
"""

import hashlib
import re
from base64 import b32encode

from engine.model.address import AddressError, normalise_domain, parse_address
from engine.model.content import Content, MessageClass
from engine.mta.compose import headers
from engine.mta.compose.dkim import relaxed_field
from engine.mta.compose.errors import ContentError

# What changes per message: keys of the mapping that the layouts are filled with.
DYNAMIC = ("to", "subject", "date", "reply_token", "unsubscribe_token", "feedback_token")

_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}\Z")  # RFC 5322 3.6.8; short enough for its line
_LIST_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)+\Z")
_URI = re.compile(r"(?:https?://|mailto:)[!-;=?-~]+\Z")
_URI_CHARS_MAX = 900  # one line of at most 998
# Ours to set, or dangerous to let a content set.
_RESERVED = frozenset(
    """from to cc bcc sender reply-to subject date message-id mime-version in-reply-to references return-path
    received received-spf dkim-signature authentication-results delivered-to precedence auto-submitted
    list-id list-help list-unsubscribe list-unsubscribe-post feedback-id cfbl-address cfbl-feedback-id
    """.split()  # noqa: SIM905 - a list of 25 strings reads worse
)
_RESERVED_PREFIXES = ("content-", "resent-", "arc-")
_FEEDBACK_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Layout:
    """`wire % values` is the header without its last empty line, `relaxed % values` what DKIM hashes."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self.names = [name for name, _ in fields]
        self.wire = "".join(f"{name}: {value}\r\n" for name, value in fields)
        self.relaxed = "".join(relaxed_field(name, value) for name, value in fields)
        assert all(len(line) <= headers.LINE_OCTETS_HARD_MAX for line in self.wire.split("\r\n"))


def build_layout(content: Content, content_type: str, encoding: str, *, static_subject: str | None) -> Layout:
    """The layout of all messages of `content`. `static_subject` None = it changes per message."""
    subject = "%(subject)s" if static_subject is None else _static(static_subject)
    fields = [
        ("From", _static(headers.mailbox("From", _text("from_name", content.from_name), sender(content))))
    ]
    fields.append(("To", "%(to)s"))
    if content.reply_to:
        fields.append(("Reply-To", _static(headers.place("Reply-To", address("reply_to", content.reply_to)))))
    fields += [
        ("Subject", subject),
        ("Date", "%(date)s"),
        ("Message-ID", _message_id(content)),
        ("MIME-Version", "1.0"),
        ("Content-Type", _static(content_type)),
        ("Content-Transfer-Encoding", encoding),
    ]
    if content.message_class is not MessageClass.TRANSACTIONAL:
        fields += _bulk_fields(content)
    if content.cfbl_domain:
        cfbl = domain("cfbl_domain", content.cfbl_domain)
        fields.append(("CFBL-Address", _static(headers.place("CFBL-Address", f"fbl@{cfbl}; report=arf"))))
        fields.append(("CFBL-Feedback-ID", "%(feedback_token)s"))
    if content.message_class is not MessageClass.TRANSACTIONAL:
        fields.append(("Precedence", "bulk"))
    fields.append(("Auto-Submitted", "auto-generated"))
    return Layout(fields + _extra_fields(content))


def _static(value: str) -> str:
    return value.replace("%", "%%")


def _message_id(content: Content) -> str:
    # The reply token: an answer's In-Reply-To tells whose it is. One per recipient, the same over all
    # attempts (Gmail limits messages that share a Message-ID).
    name = domain("sending_domain", content.sending_domain or content.return_path_domain)
    value = f"<r-%(reply_token)s@{name}>"
    return value if len(value) <= headers.LINE_OCTETS_MAX - 40 else f"\r\n {value}"


def _bulk_fields(content: Content) -> list[tuple[str, str]]:
    fields = []
    if content.list_id:
        if not _LIST_ID.match(content.list_id) or len(content.list_id) > 255:  # RFC 2919 3
            raise ContentError(
                "list_id", 0, "is no list identifier", "e.g. news.example.org, without brackets"
            )
        name = _text("list_name", content.list_name)
        list_id = headers.mailbox("List-Id", name, content.list_id) if name else f"<{content.list_id}>"
        fields.append(("List-Id", _static(list_id)))
    if content.unsubscribe_host:
        host = domain("unsubscribe_host", content.unsubscribe_host)
        mail = domain("return_path_domain", content.return_path_domain)
        # RFC 8058 3.1: one https URI; the mailto after it is for receivers that know nothing else.
        https = f"<https://{host}/u/%(unsubscribe_token)s>"
        fields.append(("List-Unsubscribe", f"{https},\r\n <mailto:u-%(unsubscribe_token)s@{mail}>"))
        fields.append(("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
    if content.list_help:
        if not _URI.match(content.list_help) or len(content.list_help) > _URI_CHARS_MAX:
            raise ContentError("list_help", 0, "is no https: or mailto: address")
        fields.append(("List-Help", _static(headers.place("List-Help", f"<{content.list_help}>"))))
    fields.append(("Feedback-ID", headers.place("Feedback-ID", _feedback_id(content))))
    return fields


def _feedback_id(content: Content) -> str:
    """Campaign, workspace, class, sender: none of them per recipient, no value twice (Gmail's rules)."""
    workspace = _FEEDBACK_UNSAFE.sub("-", content.workspace)[:40]
    # The sender id is stable per sending domain and has 5 to 15 characters.
    name = domain("sending_domain", content.sending_domain or content.return_path_domain)
    sender_id = b32encode(hashlib.sha256(name.encode()).digest())[:10].decode().lower()
    return f"c{content.campaign}:w-{workspace}:{content.message_class.value}:{sender_id}"


def _extra_fields(content: Content) -> list[tuple[str, str]]:
    fields = []
    seen: set[str] = set()
    for name, value in content.headers:
        low = name.lower()
        part = f"headers.{name[:80]}" if name.isprintable() else "headers"
        if not _FIELD_NAME.match(name):
            raise ContentError(part, 0, "is no header field name (RFC 5322 3.6.8)")
        if low in _RESERVED or low.startswith(_RESERVED_PREFIXES):
            raise ContentError(part, 0, "is set by the engine")
        if low in seen:
            raise ContentError(part, 0, "is there twice")
        seen.add(low)
        fields.append((name, _static(headers.unstructured(name, _text(part, value)))))
    return fields


def _text(part: str, text: str) -> str:
    """Static header text: what a value may not do silently, an author may not do at all."""
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise ContentError(part, 0, "holds a line break or control character")
    if len(text) > headers.TEXT_CHARS_MAX:
        raise ContentError(part, 0, f"is longer than {headers.TEXT_CHARS_MAX} characters")
    return headers.one_line(text)


def sender(content: Content) -> str:
    return address("from_address", content.from_address)


def address(part: str, text: str) -> str:
    """An address of ours for a header, as ASCII."""
    try:
        parsed = parse_address(text)
    except AddressError as error:
        raise ContentError(part, 0, f"address {error}") from None
    if not parsed.local.isascii():
        raise ContentError(
            part, 0, "address has a local part beyond ASCII", "receivers without SMTPUTF8 refuse it"
        )
    return str(parsed)


def domain(part: str, text: str) -> str:
    """A host or domain name in lower-case A-labels."""
    try:
        return normalise_domain(text)
    except AddressError as error:
        raise ContentError(part, 0, str(error), "a host name without scheme or path") from None
