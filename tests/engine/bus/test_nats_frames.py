"""Frames and rows come back as they were, and what is neither is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bus.nats_frames import (
    ENTRY_OCTETS,
    Frame,
    Row,
    cut,
    frame_of,
    new_id,
    pack_frame,
    pack_row,
    unpack_row,
)
from engine.bus.nats_frames import unpack_frame as unpack

PAYLOADS = st.lists(st.binary(max_size=50), max_size=20)
IDS = st.binary(min_size=8, max_size=8)


@given(IDS, st.integers(1, 2**63), PAYLOADS)
def test_a_frame_comes_back_as_it_was(id_: bytes, first: int, payloads: list[bytes]) -> None:
    frame = Frame(id_, first, tuple(payloads))
    assert unpack(pack_frame(frame)) == frame


@given(IDS, st.text(max_size=40), st.none() | st.binary(max_size=50))
def test_a_row_comes_back_as_it_was(id_: bytes, member: str, value: bytes | None) -> None:
    row = Row(id_, member, value)
    assert unpack_row(pack_row(row)) == row


@given(PAYLOADS, st.integers(1, 1000), st.integers(1, 120))
def test_cutting_keeps_order_and_sequences(payloads: list[bytes], first: int, octets_max: int) -> None:
    frames = list(cut(payloads, first, octets_max))
    assert [payload for frame in frames for payload in frame.payloads] == payloads
    for frame in frames:
        assert frame.first == first
        first = frame.last + 1
        octets = sum(len(payload) + ENTRY_OCTETS for payload in frame.payloads)
        assert octets <= octets_max or len(frame.payloads) == 1
    assert len({frame.id for frame in frames}) == len(frames)


@given(st.binary(max_size=80))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    for read in (unpack, unpack_row):
        try:
            read(octets)
        except ValueError:
            continue


def test_what_is_cut_off_or_too_long_is_refused() -> None:
    octets = pack_frame(Frame(new_id(), 1, (b"a", b"bc")))
    for wrong in (octets[:-1], octets + b"x", octets[:5], b"\2" + octets[1:], b""):
        with pytest.raises(ValueError, match="frame"):
            unpack(wrong)
    row = pack_row(Row(new_id(), "node-1", b"value"))
    for wrong in (row[:12], b"\2" + row[1:], b"", row[:10] + b"\xff" + row[11:]):
        with pytest.raises(ValueError, match="row"):
            unpack_row(wrong)


def test_what_is_no_frame_is_none() -> None:
    frame = Frame(b"12345678", 7, (b"a", b""))
    assert frame_of(pack_frame(frame)) == frame
    answer = b'{"type":"io.nats.jetstream.api.v1.account_info_response"}'
    for octets in (b"", answer, pack_frame(frame) + b"x"):
        assert frame_of(octets) is None
