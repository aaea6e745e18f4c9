"""Single messages: what goes over `chunks.<broadcaster>.single`, and how one looks to the rest of the engine.

A receipt, an alert, a mail that a client handed in over SMTP: one envelope with its content, either a whole
message as octets (in the entry, or as a blob that it names) or a row for a content that was submitted before.
To spool, queue and events it is a chunk of one envelope under a *standing content*, which all singles of one
kind and day share: same workspace, class, domains and signatures. The day is part of it because row keys are
kept, and destroyed, by days. Standing contents have campaign numbers from a range of their own. Pure.
"""

import hashlib

import msgspec
from msgspec import Struct

from engine.model.content import Content, DkimIdentity, MessageClass
from engine.model.envelope import Chunk, ChunkEntry
from engine.model.submission import SubmitContent

STANDING_FIRST = 0xF000_0000  # campaign numbers from here on are those of standing contents
STANDING_BITS = 28
ID_OCTETS_MAX = 120  # with the prefix it stays far below the spool's 511
RAW_OCTETS_MAX = 10 * 1024 * 1024  # of a message; Postfix's default message_size_limit
RAW_INLINE_OCTETS_MAX = 700 * 1024  # a larger one is a blob: the bus takes entries of up to 1 MB
FORGET_SECONDS = 7 * 86_400.0  # how long after its expiry an id is remembered: as long as the bus keeps facts
RAW_FIELD = "message"  # the one field of a raw content's rows
CHUNK_PREFIX = "single/"

_SECONDS_PER_DAY = 86_400
_DAY_DIGITS = 5  # until the year 2243


class SingleKind(Struct, frozen=True, kw_only=True):
    """What a single message shares with others like it: whose it is, and how it is signed and returned."""

    message_class: MessageClass = MessageClass.TRANSACTIONAL
    workspace: str = "default"
    sending_domain: str = ""  # id that tokens are bound to; empty = return_path_domain
    return_path_domain: str
    dkim: tuple[DkimIdentity, ...] = ()


class RawMessage(Struct, frozen=True, tag="raw"):
    """A whole message (RFC 5322): CRLF line ends, the last included. It goes out as it is, but signed."""

    kind: SingleKind
    octets: bytes


class BlobMessage(Struct, frozen=True, tag="blob"):
    """The same, kept on the bus under its SHA-256. `last`: no entry behind this one needs the blob."""

    kind: SingleKind
    digest: str
    last: bool = True


class TemplateMessage(Struct, frozen=True, tag="template"):
    """A row for a content that came before: one with `single` set."""

    campaign: int
    row: tuple[str, ...] = ()


class SubmitSingle(Struct, frozen=True, tag="single"):
    """One message to one recipient. `id` is stable over repeats, and so is `expires_at` (wall seconds)."""

    id: str
    recipient: str
    expires_at: float
    message: RawMessage | BlobMessage | TemplateMessage


SingleSubmission = SubmitSingle | SubmitContent

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SingleSubmission)


def encode_single(submission: SingleSubmission) -> bytes:
    return _encoder.encode(submission)


def decode_single(data: bytes) -> SingleSubmission:
    """Raises msgspec.MsgspecError for octets that are no submission."""
    decoded: SingleSubmission = _decoder.decode(data)
    return decoded


def single_stream(broadcaster: str) -> str:
    return f"chunks.{broadcaster}.single"


def message_number(single_id: str) -> int:
    """The 6-octet message id that stands in tokens and events where a subscriber's would; never 0."""
    return int.from_bytes(hashlib.sha256(single_id.encode()).digest()[:6], "big") or 1


def chunk_id(single: SubmitSingle) -> str:
    """The chunk that a single is to the spool. Ids of one day of expiry stand together, to be forgotten."""
    return f"{_day_prefix(single.expires_at)}{single.id}"


def forgettable(now: float) -> tuple[str, str]:
    """The first chunk id that may be forgotten at `now`, and the one behind the last."""
    return CHUNK_PREFIX, _day_prefix(now - FORGET_SECONDS)


def _day_prefix(seconds: float) -> str:
    return f"{CHUNK_PREFIX}{max(0, int(seconds)) // _SECONDS_PER_DAY:0{_DAY_DIGITS}}/"


def standing_content(kind: SingleKind, day: int, place: int) -> Content:
    """The content that raw singles of a kind share on a day (since 1970).

    Its campaign number is a hash. Where another content has the number already, the caller counts `place` on.
    """
    facts = _encoder.encode((kind, day, place))
    number = int.from_bytes(hashlib.sha256(facts).digest()[:4], "big") & ((1 << STANDING_BITS) - 1)
    return Content(
        campaign=STANDING_FIRST | number,
        name=f"single messages of {kind.sending_domain or kind.return_path_domain}, day {day}",
        message_class=kind.message_class,
        workspace=kind.workspace,
        from_address="",
        subject="",
        fields=(RAW_FIELD,),
        return_path_domain=kind.return_path_domain,
        sending_domain=kind.sending_domain,
        dkim=kind.dkim,
        single=True,
        raw=True,
    )


def raw_row(octets: bytes) -> tuple[str, ...]:
    """A message as the row of its envelope: one character an octet."""
    return (octets.decode("latin-1"),)


def single_chunk(single: SubmitSingle, campaign: int, row: tuple[str, ...]) -> Chunk:
    entry = ChunkEntry(message_number(single.id), single.recipient, row)
    return Chunk(chunk_id(single), campaign, single.expires_at, (entry,))


def is_standing(campaign: int) -> bool:
    """Whether a campaign number is one of standing contents."""
    return campaign >= STANDING_FIRST
