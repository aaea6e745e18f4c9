"""Frames come out whole however the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runtime.frames import FrameBuffer, FrameTooLarge, encode_frame, encode_frames

FRAMES = [b"", b"a", b"hello", bytes(300)]


def test_a_frame_is_its_length_and_its_octets() -> None:
    assert encode_frame(b"abc") == b"\x00\x00\x00\x03abc"


def test_frames_split_at_every_point_come_out_whole() -> None:
    stream = encode_frames(FRAMES)
    for cut in range(len(stream) + 1):
        buffer = FrameBuffer()
        assert buffer.feed(stream[:cut]) + buffer.feed(stream[cut:]) == FRAMES
        assert not buffer.torn


def test_frames_come_out_octet_by_octet_and_joined() -> None:
    stream = encode_frames(FRAMES)
    buffer = FrameBuffer()
    assert [frame for octet in stream for frame in buffer.feed(bytes([octet]))] == FRAMES
    assert FrameBuffer().feed(stream) == FRAMES


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_any_cutting_gives_the_same_frames(frames: list[bytes], sizes: list[int]) -> None:
    stream = encode_frames(frames)
    buffer = FrameBuffer()
    got: list[bytes] = []
    position = 0
    while position < len(stream):
        size = sizes[position % len(sizes)]
        got += buffer.feed(stream[position : position + size])
        position += size
    assert got == frames


def test_a_torn_frame_is_known() -> None:
    buffer = FrameBuffer()
    assert buffer.feed(encode_frame(b"abc")[:-1]) == []
    assert buffer.torn


def test_the_limit_is_kept_on_both_sides() -> None:
    assert FrameBuffer(3).feed(encode_frame(b"abc", 3)) == [b"abc"]
    with pytest.raises(FrameTooLarge):
        encode_frame(b"abcd", 3)
    with pytest.raises(FrameTooLarge):
        FrameBuffer(3).feed(encode_frame(b"abcd"))
    with pytest.raises(FrameTooLarge):
        FrameBuffer().feed(b"GET / HTTP/1.1\r\n")
