"""What goes over `chunks.<broadcaster>`: a campaign's content once, then its chunks."""

import msgspec
from msgspec import Struct

from engine.model.content import Content
from engine.model.envelope import Chunk


class SubmitContent(Struct, frozen=True, tag="content"):
    content: Content


class SubmitContentBlob(Struct, frozen=True, tag="content_blob"):
    """A content that is too large for a stream: what `encode_content` made of it, kept as a blob."""

    campaign: int
    digest: str  # SHA-256 in hex


class SubmitChunk(Struct, frozen=True, tag="chunk"):
    chunk: Chunk


Submission = SubmitContent | SubmitContentBlob | SubmitChunk
CONTENT_INLINE_OCTETS_MAX = 256 * 1024  # larger ones travel as blobs

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Submission)
_content_decoder = msgspec.msgpack.Decoder(Content)


def encode_submission(submission: Submission) -> bytes:
    return _encoder.encode(submission)


def decode_submission(data: bytes) -> Submission:
    """Raises msgspec.MsgspecError for octets that are no submission."""
    decoded: Submission = _decoder.decode(data)
    return decoded


def encode_content(content: Content) -> bytes:
    """A content as a blob."""
    return _encoder.encode(content)


def decode_content(data: bytes) -> Content:
    """Raises msgspec.MsgspecError for octets that are no content."""
    return _content_decoder.decode(data)
