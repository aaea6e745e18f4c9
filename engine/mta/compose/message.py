"""From content and envelope to wire bytes: the way in for everybody else.

`compile_content` does once per campaign whatever can be done once: check names, rewrite links,
encode static text, lay out the header. `CompiledContent.compose` makes one recipient's message but
for its signatures; `Draft.finish` puts those in. The result is 7-bit, CRLF only, no line of a body
is longer than 76 octets and none begins with a dot, so it goes out by DATA (append `.` CRLF) or BDAT
as it is. Whatever a merge value holds, it stays inside its place: body values are quoted-printable,
header values are one line. ContentError while compiling, RenderError while composing.
"""

import hashlib
import secrets
from base64 import b32encode
from collections.abc import Callable, Sequence

from msgspec import Struct

from engine.model.content import Content, DkimAlgorithm, MessageClass
from engine.model.envelope import Envelope
from engine.mta.compose import fields, headers
from engine.mta.compose.dkim import (
    SECONDS_PER_DAY,
    Signature,
    SigningRequest,
    body_hash,
    folded_signature,
    relaxed_value,
)
from engine.mta.compose.errors import ContentError, RenderError
from engine.mta.compose.mime import SOFT_BREAK
from engine.mta.compose.parts import CLICK_PATHS, CLICK_TOKEN, UNSUBSCRIBE_PATHS, Parts, known_names
from engine.mta.compose.subject import Subject
from engine.mta.compose.token import (
    CAMPAIGN_MAX,
    DAY_MAX,
    SUBSCRIBER_MAX,
    TOKEN_CHARS,
    TokenKeys,
    encode_payload,
    minter,
    pack_payload,
)

MESSAGE_OCTETS_MAX = 10 * 1024 * 1024  # Postfix's default message_size_limit
RANDOM_OCTETS_MIN = 16
_SIGNATURE_OCTETS = {
    DkimAlgorithm.RSA_SHA256: 256,
    DkimAlgorithm.ED25519_SHA256: 64,
}  # RSA-2048; for Draft.size
_PART = "Content-Type: text/{}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
# Values to try at compile time: one that counts as true, one as false, one that needs all we do to values.
_SAMPLES = ("1", "", '.Grüße <b> & "q"\r\n.\x00 {{ x }} =3D')


class Draft(Struct, frozen=True, gc=False):
    """One message, complete but for its signatures.

    `digests` is empty when the content is unsigned. `smtputf8`: the recipient's local part is beyond
    ASCII, so MAIL needs SMTPUTF8 (the message itself is 7-bit all the same).
    """

    mail_from: str
    recipient: str
    digests: tuple[SigningRequest, ...]
    smtputf8: bool
    unsigned: bytes
    signature_heads: tuple[str, ...] = ()
    require_tls: bool = False
    dotted: bool = False  # some line begins with a dot: what we compose never has one, raw mail may
    eight_bit: bool = False  # octets beyond ASCII, for a peer with 8BITMIME

    @property
    def size(self) -> int:
        """Octets of the finished message: exact, if RSA keys are RSA-2048."""
        if not self.digests:
            return len(self.unsigned)
        return len(self.finish([bytes(_SIGNATURE_OCTETS[request.algorithm]) for request in self.digests]))

    def finish(self, signatures: Sequence[bytes] = ()) -> bytes:
        """The whole message with one signature per digest, in their order; no final dot."""
        assert len(signatures) == len(self.digests), "one signature per digest"
        if not signatures:
            return self.unsigned
        parts = []
        for head, signature in zip(self.signature_heads, signatures, strict=True):
            parts += [head.encode("ascii"), folded_signature(signature), b"\r\n"]
        parts.append(self.unsigned)
        return b"".join(parts)


def compile_content(content: Content, tokens: TokenKeys, *, random: bytes | None = None) -> "CompiledContent":
    """Check and compile `content`. Raises ContentError.

    `random`: 16 octets or more that nobody can guess (default: the system's); tests fix them.
    """
    return CompiledContent(content, tokens, secrets.token_bytes(32) if random is None else random)


class CompiledContent:
    """A content ready for its recipients. `links` are the targets of `/c/<token>/<number>`."""

    def __init__(self, content: Content, tokens: TokenKeys, random: bytes) -> None:
        assert len(random) >= RANDOM_OCTETS_MIN
        self.content = content
        self._return_path = fields.domain("return_path_domain", content.return_path_domain)
        if not 0 <= content.campaign <= CAMPAIGN_MAX:
            raise ContentError("campaign", 0, f"must lie between 0 and {CAMPAIGN_MAX}")
        known = known_names(content)
        parts = Parts(content, _secret(random, b"click token", 40), known)
        self.links = parts.links
        self._html, self._text = parts.html, parts.text
        self._subject = Subject(content.subject, known)
        templates = [part for part in (self._subject, self._html, self._text) if part is not None]
        for template in templates:
            template.check_samples([_sample(template.names, value) for value in _SAMPLES])
        needed = frozenset[str]().union(*(template.names for template in templates))
        self._columns = [(name, index) for index, name in enumerate(content.fields) if name in needed]
        self._wants_email = "email" in needed and "email" not in content.fields
        self._wants_click = CLICK_TOKEN in needed
        self._unsubscribe_urls = _urls(UNSUBSCRIBE_PATHS, content.unsubscribe_host, needed)
        self._click_urls = _urls(CLICK_PATHS, content.tracking_host, needed)
        self._lay_out(content, _secret(random, b"boundary", 24))
        self._prepare_tokens(content, tokens)
        self._date = (-1, "")

    def __repr__(self) -> str:
        way = "fast" if self.fast else "plain"
        return (
            f"<CompiledContent {self.content.campaign} {self.content.name!r}, {way}, {len(self.links)} links>"
        )

    @property
    def fast(self) -> bool:
        """Whether the static text of every body part is encoded once (see template.py)."""
        return self._text.fast and (self._html is None or self._html.fast)

    def _lay_out(self, content: Content, secret: str) -> None:
        # "=_" never comes out of quoted-printable, so the boundary cannot occur in a part.
        boundary = f"=_{secret}"
        if self._html is None:
            content_type, encoding = "text/plain; charset=utf-8", "quoted-printable"
        else:
            content_type, encoding = f'multipart/alternative;\r\n boundary="{boundary}"', "7bit"
        self._opening = f"--{boundary}\r\n{_PART.format('plain')}"
        self._middle = f"\r\n--{boundary}\r\n{_PART.format('html')}"
        self._closing = f"\r\n--{boundary}--\r\n"
        self._plan, self._holes = self._join_plans()
        layout = fields.build_layout(content, content_type, encoding, static_subject=self._subject.static)
        self._wire_layout = layout.wire + "\r\n"
        self._relaxed_layout = layout.relaxed
        self._signatures = [Signature(identity, layout.names) for identity in content.dkim]
        self._body_canons = frozenset(signature.body for signature in self._signatures)

    def _join_plans(self) -> tuple[list[str], list[tuple[int, str, Callable[[object], str] | None]]]:
        """One list of pieces for the whole message, the header first, if all its parts have plans.

        Then a message is one join: each copy of 10 KB that is saved is 1 us, and more in a busy cache.
        """
        frames = [(self._opening, self._text)]
        if self._html is not None:
            frames.append((self._middle, self._html))
        pieces, holes = [""], []
        for opening, template in frames:
            plan = template.plan()
            if plan is None or self._html is None:  # a text-only message looks at its end, see `_body`
                return [], []
            pieces.append(opening)
            holes += [(len(pieces) + index, name, show) for index, name, show in plan[1]]
            pieces += plan[0]
        pieces.append(self._closing)
        return pieces, holes

    def _prepare_tokens(self, content: Content, tokens: TokenKeys) -> None:
        domain_id = content.sending_domain or content.return_path_domain
        one_click = bool(content.unsubscribe_host) and content.message_class is not MessageClass.TRANSACTIONAL
        self._key_id = tokens.current
        self._bounce_mac = minter("b", tokens, domain_id)
        self._reply_mac = minter("r", tokens, domain_id)
        self._unsubscribe_mac = (
            minter("u", tokens, domain_id) if one_click or self._unsubscribe_urls else None
        )
        self._click_mac = minter("c", tokens, domain_id) if self._wants_click or self._click_urls else None
        self._feedback_mac = minter("f", tokens, domain_id) if content.cfbl_domain else None

    def compose(self, envelope: Envelope, now: float) -> Draft:
        """One recipient's message at wall seconds `now`. Raises RenderError.

        Return path, Message-ID and links of an envelope are the same at every attempt.
        """
        row = envelope.row
        if len(row) != len(self.content.fields):
            raise RenderError(f"the merge row has {len(row)} values for {len(self.content.fields)} fields")
        recipient = envelope.recipient
        if not headers.is_address(recipient):
            raise RenderError("the recipient is no address")
        payload = self._payload(envelope)
        token = encode_payload(payload)
        values = {name: row[index] for name, index in self._columns}
        if self._wants_email:
            values["email"] = recipient
        unsubscribe = ""
        if self._unsubscribe_mac is not None:
            unsubscribe = token + self._unsubscribe_mac(payload)
            for name, prefix in self._unsubscribe_urls:
                values[name] = prefix + unsubscribe
        if self._click_mac is not None:
            click = token + self._click_mac(payload)
            if self._wants_click:
                values[CLICK_TOKEN] = click
            for name, prefix in self._click_urls:
                values[name] = prefix + click
        seconds = int(now)
        if self._date[0] != seconds:
            self._date = (seconds, headers.date(seconds))
        changing = {
            "to": headers.recipient(recipient),
            "subject": self._subject.render(values) if self._subject.static is None else "",
            "date": self._date[1],
            "reply_token": token + self._reply_mac(payload),
            "unsubscribe_token": unsubscribe,
            "feedback_token": token + self._feedback_mac(payload) if self._feedback_mac else "",
        }
        header = self._wire_layout % changing
        body = b""
        if self._plan and not self._signatures:
            unsigned = self._filled(header, values)
        else:
            body = self._filled("", values) if self._plan else self._body(values)
            unsigned = header.encode("ascii") + body
        if len(unsigned) > MESSAGE_OCTETS_MAX:
            raise RenderError(f"the message is larger than {MESSAGE_OCTETS_MAX} octets")
        mail_from = f"b-{token}{self._bounce_mac(payload)}@{self._return_path}"
        digests, heads = self._digests(changing, body, seconds) if self._signatures else ((), ())
        smtputf8, require_tls = not recipient.isascii(), self.content.require_tls
        return Draft(mail_from, recipient, digests, smtputf8, unsigned, heads, require_tls)

    def _payload(self, envelope: Envelope) -> bytes:
        day = int(envelope.accepted_at) // SECONDS_PER_DAY
        subscriber = envelope.subscriber
        if not (0 <= subscriber <= SUBSCRIBER_MAX and 0 <= day <= DAY_MAX):
            raise RenderError("the subscriber id or the acceptance time does not fit into a token")
        if subscriber:
            single = self.content.single
            return pack_payload(self._key_id, day, self.content.campaign, subscriber, single)
        # A single message: no subscriber, so the low 48 bits of its spool id stand in.
        message = envelope.spool_id & SUBSCRIBER_MAX
        return pack_payload(self._key_id, day, self.content.campaign, message, single=True)

    def _filled(self, header: str, values: dict[str, str]) -> bytes:
        """The plan with its holes filled, behind `header`."""
        pieces = self._plan.copy()
        pieces[0] = header
        for index, name, show in self._holes:
            pieces[index] = values[name] if show is None else show(values[name])
        return "".join(pieces).encode("ascii")

    def _body(self, values: dict[str, str]) -> bytes:
        text = self._text.render(values)
        if self._html is not None:
            html = self._html.render(values)
            return f"{self._opening}{text}{self._middle}{html}{self._closing}".encode("ascii")
        if text.endswith(SOFT_BREAK) or not text:
            text += "\r\n"  # a message ends in a hard break
        return text.encode("ascii")

    def _digests(
        self, changing: dict[str, str], body: bytes, now: int
    ) -> tuple[tuple[SigningRequest, ...], tuple[str, ...]]:
        hashes = {canon: body_hash(body, canon) for canon in self._body_canons}
        changing["to"] = relaxed_value(changing["to"])
        changing["subject"] = relaxed_value(changing["subject"])
        state = hashlib.sha256((self._relaxed_layout % changing).encode("ascii"))
        made = [signature.prepare(state, hashes[signature.body], now) for signature in self._signatures]
        return tuple(request for request, _ in made), tuple(head for _, head in made)


def _secret(random: bytes, label: bytes, chars: int) -> str:
    return b32encode(hashlib.sha256(label + random).digest())[:chars].decode().lower()


def _sample(names: frozenset[str], value: str) -> dict[str, str]:
    return {name: "a" * TOKEN_CHARS if name == CLICK_TOKEN else value for name in names}


def _urls(paths: dict[str, str], host: str, needed: frozenset[str]) -> list[tuple[str, str]]:
    return [
        (name, f"https://{fields.domain('host', host)}/{path}/")
        for name, path in paths.items()
        if name in needed
    ]
