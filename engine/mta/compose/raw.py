"""Raw messages on their way out: somebody else's octets, with our return path and our signatures before them.

Nothing in the message is touched. DKIM (RFC 6376) covers the fields that a reader sees and those that say
what the body is, each signed once more than it stands there; a field that stands there twice though it may
not (RFC 5322 3.6) is a RenderError, since verifiers and readers would not look at the same one. Body and
header are canonicalised as any mail may be, not as ours is: white space at line ends, no last empty line.
Raises ContentError while compiling, RenderError for a message that is none.
"""

import hashlib
import re
from binascii import b2a_base64
from collections import Counter

from engine.model.content import BodyCanon, Content, MessageClass
from engine.model.envelope import Envelope
from engine.mta.compose import fields
from engine.mta.compose.dkim import SECONDS_PER_DAY, Signature, SigningRequest
from engine.mta.compose.errors import ContentError, RenderError
from engine.mta.compose.headers import is_address
from engine.mta.compose.message import MESSAGE_OCTETS_MAX, Draft
from engine.mta.compose.token import DAY_MAX, SUBSCRIBER_MAX, TokenKeys, encode_payload, minter, pack_payload

SIGNATURES_KEPT = 256  # layouts of header names whose h= is remembered; a program's mail has one or two
FIELDS_MAX = 1_000  # of one header; more is an attack on whoever parses it

# At most one of each (RFC 5322 3.6, 2045 3, 2369 2, 2919 3, 8058 3): all that are signed once more than they
# stand there must be among them.
ONCE = frozenset(
    b"from sender reply-to to cc bcc subject date message-id in-reply-to references mime-version"
    b" content-type content-transfer-encoding list-id list-unsubscribe list-unsubscribe-post"
    b" feedback-id".split()
)
_SIGNED = ONCE - {b"bcc"} | frozenset(
    b"content-id content-description content-disposition list-help list-subscribe list-post list-owner"
    b" list-archive precedence auto-submitted".split()
)
_FIELD = re.compile(rb"([!-9;-~]+):((?:[^\r\n]*\r\n)(?:[ \t][^\r\n]*\r\n)*)")
_SPACE = re.compile(rb"[ \t\r\n]+")
_BODY_SPACE = re.compile(rb"[ \t]+")


class RawHeader:
    """The fields of a message, in order: (lower-case name, value as it stands, with its CRLF)."""

    __slots__ = ("end", "fields")

    def __init__(self, message: bytes) -> None:
        """Raises RenderError for octets that do not begin with a header."""
        self.fields: list[tuple[bytes, bytes]] = []
        at = 0
        while not message.startswith(b"\r\n", at):
            match = _FIELD.match(message, at)
            if match is None or len(self.fields) == FIELDS_MAX:
                raise RenderError("the message's header is none (RFC 5322 2.2)")
            self.fields.append((match[1].lower(), match[2]))
            at = match.end()
            if at == len(message):  # a header alone, which is a message without a body
                break
        self.end = at
        """Where the empty line before the body stands."""

    def __repr__(self) -> str:
        return f"<RawHeader of {len(self.fields)} fields>"

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each == name]

    @property
    def one_click(self) -> bool:
        """Whether it offers to unsubscribe as RFC 8058 3.1 has it."""
        return any(b"<https:" in value.lower() for value in self.values(b"list-unsubscribe")) and any(
            b"list-unsubscribe=one-click" in value.lower() for value in self.values(b"list-unsubscribe-post")
        )

    def doubled(self) -> str:
        """A field that stands there twice and may not, or nothing."""
        counted = Counter(name for name, _ in self.fields if name in ONCE)
        return next((name.decode() for name, count in counted.items() if count > 1), "")

    def signed(self) -> list[tuple[bytes, bytes]]:
        """What a signature covers: fields that stand there once, in order."""
        counted = Counter(name for name, _ in self.fields)
        return [(name, value) for name, value in self.fields if name in _SIGNED and counted[name] == 1]


class RawContent:
    """A standing content, ready for its messages: what `CompiledContent` is to a campaign."""

    def __init__(self, content: Content, tokens: TokenKeys) -> None:
        """Raises ContentError."""
        if not content.raw or len(content.fields) != 1:
            raise ContentError("fields", 0, "a raw content has one field, the message")
        self.content = content
        self.links: tuple[str, ...] = ()
        self._return_path = fields.domain("return_path_domain", content.return_path_domain)
        self._key_id = tokens.current
        self._bounce_mac = minter("b", tokens, content.sending_domain or content.return_path_domain)
        self._layouts: dict[tuple[bytes, ...], list[Signature]] = {}
        self._signatures([b"from"])  # says now what is wrong with an identity

    def __repr__(self) -> str:
        return f"<RawContent {self.content.campaign} {self.content.name!r}>"

    def compose(self, envelope: Envelope, now: float) -> Draft:
        """The message of one envelope at wall seconds `now`, to be signed. Raises RenderError."""
        if len(envelope.row) != 1:
            raise RenderError(f"the row has {len(envelope.row)} values and is no message")
        if not is_address(envelope.recipient):
            raise RenderError("the recipient is no address")
        try:
            message = envelope.row[0].encode("latin-1")
        except UnicodeEncodeError:
            raise RenderError("the row is no message: one character is one octet") from None
        header = RawHeader(message)
        self._check(message, header)
        ascii_only = message.isascii()
        smtputf8 = not envelope.recipient.isascii() or not (ascii_only or message[: header.end].isascii())
        digests, heads = self._digests(message, header, int(now)) if self.content.dkim else ((), ())
        return Draft(
            f"b-{self._token(envelope)}@{self._return_path}",
            envelope.recipient,
            digests,
            smtputf8,
            message,
            heads,
            self.content.require_tls,
            dotted=message.startswith(b".") or b"\n." in message,
            eight_bit=not ascii_only,
        )

    def _check(self, message: bytes, header: RawHeader) -> None:
        """What would let a message speak SMTP, or mean two things, was refused before it came here."""
        if not message.endswith(b"\r\n"):
            raise RenderError("the message ends in the middle of a line")
        if message.count(b"\n") != message.count(b"\r\n") or message.count(b"\r") != message.count(b"\r\n"):
            raise RenderError("the message holds a bare CR or LF")
        if len(message) > MESSAGE_OCTETS_MAX:
            raise RenderError(f"the message is larger than {MESSAGE_OCTETS_MAX} octets")
        if doubled := header.doubled():
            raise RenderError(f"the field {doubled} stands there twice")
        if self.content.message_class is not MessageClass.TRANSACTIONAL and not header.one_click:
            raise RenderError("bulk mail without one-click unsubscribe")

    def _token(self, envelope: Envelope) -> str:
        day = int(envelope.accepted_at) // SECONDS_PER_DAY
        if not (0 < envelope.subscriber <= SUBSCRIBER_MAX and 0 <= day <= DAY_MAX):
            raise RenderError("the message id or the acceptance time does not fit into a token")
        payload = pack_payload(self._key_id, day, self.content.campaign, envelope.subscriber, single=True)
        return encode_payload(payload) + self._bounce_mac(payload)

    def _signatures(self, names: list[bytes]) -> list[Signature]:
        key = tuple(names)
        found = self._layouts.get(key)
        if found is None:
            if len(self._layouts) >= SIGNATURES_KEPT:
                self._layouts.pop(next(iter(self._layouts)))
            texts = [name.decode("ascii") for name in names]
            found = self._layouts[key] = [Signature(identity, texts) for identity in self.content.dkim]
        return found

    def _digests(
        self, message: bytes, header: RawHeader, now: int
    ) -> tuple[tuple[SigningRequest, ...], tuple[str, ...]]:
        signed = header.signed()
        signatures = self._signatures([name for name, _ in signed])
        body = message[header.end + 2 :]
        hashes = {canon: raw_body_hash(body, canon) for canon in {one.body for one in signatures}}
        state = hashlib.sha256(b"".join(relaxed_raw_field(name, value) for name, value in signed))
        made = [signature.prepare(state, hashes[signature.body], now) for signature in signatures]
        return tuple(request for request, _ in made), tuple(head for _, head in made)


def relaxed_raw_field(name: bytes, value: bytes) -> bytes:
    """RFC 6376 3.4.2 of a field as it stands; `name` in lower case."""
    return name + b":" + _SPACE.sub(b" ", value).strip(b" ") + b"\r\n"


def raw_body_hash(body: bytes, canon: BodyCanon) -> str:
    """bh= of any body with CRLF line ends (RFC 6376 3.4.3, 3.4.4)."""
    if canon is BodyCanon.RELAXED:
        body = _BODY_SPACE.sub(b" ", body).replace(b" \r\n", b"\r\n")
    body = body.rstrip(b"\r\n")  # CRLF only stands there: a bare one is refused
    if body or canon is BodyCanon.SIMPLE:
        body += b"\r\n"
    return b2a_base64(hashlib.sha256(body).digest(), newline=False).decode()
