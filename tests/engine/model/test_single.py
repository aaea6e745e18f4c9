"""Single messages as facts: names, numbers, and what a repeat has in common with its first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import MsgspecError
from msgspec.structs import replace

from engine.model.content import DkimIdentity, MessageClass
from engine.model.envelope import ChunkEntry
from engine.model.single import (
    FORGET_SECONDS,
    RAW_FIELD,
    STANDING_FIRST,
    BlobMessage,
    RawMessage,
    SingleKind,
    SubmitSingle,
    TemplateMessage,
    chunk_id,
    decode_single,
    encode_single,
    forgettable,
    is_standing,
    message_number,
    raw_row,
    single_chunk,
    single_stream,
    standing_content,
)

KIND = SingleKind(
    workspace="shop",
    sending_domain="shop.example",
    return_path_domain="bounce.shop.example",
    dkim=(DkimIdentity("shop.example", "s1", "shop"),),
)
DAY = 86_400


def a_single(**changes: object) -> SubmitSingle:
    raw = RawMessage(KIND, b"From: a@shop.example\r\n\r\n\xff\r\n")
    return replace(SubmitSingle("id-1", "b@x.test", 1.8e9, raw), **changes)


@pytest.mark.parametrize(
    "single",
    [
        a_single(),
        a_single(message=BlobMessage(KIND, "00" * 32, last=False)),
        a_single(message=TemplateMessage(7, ("Ann",))),
    ],
)
def test_a_single_comes_back_as_it_was(single: SubmitSingle) -> None:
    assert decode_single(encode_single(single)) == single


def test_other_octets_are_no_single() -> None:
    with pytest.raises(MsgspecError):
        decode_single(b"\x93\x01\x02\x03")


def test_the_stream_is_the_broadcasters() -> None:
    assert single_stream("a") == "chunks.a.single"


def test_a_message_number_fits_a_token_and_is_never_nobody() -> None:
    numbers = {message_number(f"id-{number}") for number in range(1_000)}
    assert len(numbers) == 1_000
    assert all(0 < number < 2**48 for number in numbers)


def test_standing_contents_have_numbers_of_their_own_by_kind_day_and_place() -> None:
    content = standing_content(KIND, 20_000, 0)
    assert content == standing_content(KIND, 20_000, 0)
    others = [
        standing_content(KIND, 20_001, 0),
        standing_content(KIND, 20_000, 1),
        standing_content(replace(KIND, message_class=MessageClass.DEFAULT), 20_000, 0),
        standing_content(replace(KIND, dkim=()), 20_000, 0),
    ]
    assert len({content.campaign, *(other.campaign for other in others)}) == 5
    for one in (content, *others):
        assert STANDING_FIRST <= one.campaign <= 0xFFFF_FFFF
        assert is_standing(one.campaign)
        assert one.single
        assert one.raw
        assert one.fields == (RAW_FIELD,)
    assert not is_standing(STANDING_FIRST - 1)


def test_a_single_is_a_chunk_of_one_with_its_message_number() -> None:
    chunk = single_chunk(a_single(), 9, ("row",))
    assert chunk.id == "single/20833/id-1"
    assert chunk.entries == (ChunkEntry(message_number("id-1"), "b@x.test", ("row",)),)
    assert (chunk.campaign, chunk.expires_at) == (9, 1.8e9)


@given(st.floats(0, 6e9), st.floats(0, 6e9), st.text("abc/0", max_size=5))
def test_ids_are_forgotten_a_week_after_expiry_and_never_before(
    expires: float, now: float, name: str
) -> None:
    first, before = forgettable(now)
    forgotten = first <= chunk_id(a_single(id=name, expires_at=expires)) < before
    if now < expires + FORGET_SECONDS:
        assert not forgotten
    if now > expires + FORGET_SECONDS + DAY:
        assert forgotten


@given(st.binary())
def test_a_row_holds_any_octets(octets: bytes) -> None:
    (text,) = raw_row(octets)
    assert text.encode("latin-1") == octets
