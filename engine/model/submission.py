"""What goes over `chunks.<broadcaster>`: a campaign's content once, then its chunks."""

import msgspec
from msgspec import Struct

from engine.model.content import Content
from engine.model.envelope import Chunk


class SubmitContent(Struct, frozen=True, tag="content"):
    content: Content


class SubmitChunk(Struct, frozen=True, tag="chunk"):
    chunk: Chunk


Submission = SubmitContent | SubmitChunk

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Submission)


def encode_submission(submission: Submission) -> bytes:
    return _encoder.encode(submission)


def decode_submission(data: bytes) -> Submission:
    """Raises msgspec.MsgspecError for octets that are no submission."""
    decoded: Submission = _decoder.decode(data)
    return decoded
