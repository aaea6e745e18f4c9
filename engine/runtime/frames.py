"""Length-prefixed frames, sans-IO: four octets of length, big-endian, then that many octets.

`encode_frame` and `FrameBuffer` are both ends of what a parent and its child process say to each other.
A length over the limit raises `FrameTooLarge` before anything is kept: the peer is broken or no peer of ours.
"""

import struct
from collections.abc import Iterable

FRAME_BYTES_MAX = (
    4 * 1024 * 1024
)  # a batch of 64 messages of 60 KB; stops a garbled length from eating memory
READ_BYTES = 64 * 1024  # both ends read this much at once: the size of a Linux pipe
LENGTH = struct.Struct(">I")


class FrameTooLarge(Exception):
    """A frame beyond the limit, ours or the peer's."""


def encode_frame(frame: bytes, frame_bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """The frame with its length in front. Raises FrameTooLarge."""
    if len(frame) > frame_bytes_max:
        raise FrameTooLarge(f"a frame of {len(frame)} octets, limit {frame_bytes_max}")
    return LENGTH.pack(len(frame)) + frame


def encode_frames(frames: Iterable[bytes], frame_bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """Several frames as one piece for one write. Raises FrameTooLarge."""
    return b"".join([encode_frame(frame, frame_bytes_max) for frame in frames])


class FrameBuffer:
    """Turns pieces of a stream into frames, however the pieces are cut."""

    __slots__ = ("_buffer", "_frame_bytes_max")

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._frame_bytes_max = frame_bytes_max

    def feed(self, piece: bytes | bytearray) -> list[bytes]:
        """The frames that `piece` completes, in order. Raises FrameTooLarge."""
        buffer = self._buffer
        buffer += piece
        frames: list[bytes] = []
        position = 0
        while len(buffer) - position >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer, position)
            if length > self._frame_bytes_max:
                raise FrameTooLarge(f"a frame of {length} octets announced, limit {self._frame_bytes_max}")
            end = position + LENGTH.size + length
            if len(buffer) < end:
                break
            frames.append(bytes(buffer[position + LENGTH.size : end]))
            position = end
        del buffer[:position]
        return frames

    @property
    def torn(self) -> bool:
        """The stream ended here would have lost part of a frame."""
        return bool(self._buffer)
