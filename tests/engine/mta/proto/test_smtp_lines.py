"""Replies from octets: forms a peer may use, forms it should not, and limits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.reply import Reply
from engine.mta.proto.smtp_lines import TEXT_CHARS_MAX, ReplyReader

FORMS = [
    (b"250 Ok\r\n", Reply(250, None, ("Ok",))),
    (b"250\r\n", Reply(250, None, ("",))),
    (b"250 Ok\n", Reply(250, None, ("Ok",))),
    (b"250 2.1.5 Ok\r\n", Reply(250, (2, 1, 5), ("Ok",))),
    (b"250 2.1.5\r\n", Reply(250, (2, 1, 5), ("",))),
    (b"421 5.7.32 later\r\n", Reply(421, (5, 7, 32), ("later",))),
    (b"550 5.1.1000 x\r\n", Reply(550, None, ("5.1.1000 x",))),
    (b"550 3.1.1 x\r\n", Reply(550, None, ("3.1.1 x",))),
    (b"550-5.7.1 one\r\n550 5.7.1 two\r\n", Reply(550, (5, 7, 1), ("one", "two"))),
    (b"550-one\r\n550-5.7.1 two\r\n550 three\r\n", Reply(550, (5, 7, 1), ("one", "two", "three"))),
    (b"550-5.7.1 one\r\n550 5.7.26 two\r\n", Reply(550, (5, 7, 1), ("one", "5.7.26 two"))),
    (b"250-one\r\n550 two\r\n", Reply(550, None, ("one", "two"))),
    (b"250-one\r\nno code\r\n250 two\r\n", Reply(250, None, ("one", "no code", "two"))),
    (b"250 caf\xc3\xa9 \xff\r\n", Reply(250, None, ("café \ufffd",))),
    (b"250 a\tb\0c\rd\r\n", Reply(250, None, ("a b c d",))),
    (b"250-\r\n250 end\r\n", Reply(250, None, ("", "end"))),
]


@pytest.mark.parametrize(("octets", "reply"), FORMS)
def test_a_form_is_read_whole_and_octet_by_octet_and_cut_in_two(octets: bytes, reply: Reply) -> None:
    assert ReplyReader().feed(octets) == [reply]
    for cut in range(1, len(octets)):
        reader = ReplyReader()
        first = reader.feed(octets[:cut])
        assert reader.pending is (first == [])
        assert first + reader.feed(octets[cut:]) == [reply]
    reader = ReplyReader()
    assert [found for at in range(len(octets)) for found in reader.feed(octets[at : at + 1])] == [reply]
    assert not reader.pending


def test_all_forms_joined_are_read_in_order() -> None:
    reader = ReplyReader()
    assert reader.feed(b"".join(octets for octets, _ in FORMS)) == [reply for _, reply in FORMS]
    assert reader.feed(b"".join(octets for octets, _ in FORMS)) == [reply for _, reply in FORMS]


@pytest.mark.parametrize(
    ("octets", "word"),
    [
        (b"hello\r\n", "no SMTP"),
        (b"\r\n", "no SMTP"),
        (b"199 early\r\n", "no SMTP"),
        (b"600 late\r\n", "no SMTP"),
        (b"250_Ok\r\n", "no SMTP"),
        (b"25\xb2 Ok\r\n", "no SMTP"),
        (b"HTTP/1.1 400 Bad Request\r\n", "no SMTP"),
        (b"\x16\x03\x01\x02\x00\n", "no SMTP"),
        (b"250 " + b"x" * 300 + b"\r\n", "longer than 200 octets"),
        (b"x" * 300, "longer than 200 octets"),
        (b"250-abcdefghijklmnopqrstuvwxyz\r\n" * 9, "longer than 200 octets"),
        (b"250-\r\n" * 12, "more than 10 lines"),
    ],
)
def test_what_is_no_smtp_or_too_large_stops_the_reader(octets: bytes, word: str) -> None:
    reader = ReplyReader(octets_max=200, lines_max=10)
    assert reader.feed(b"220 before\r\n" + octets) == [Reply(220, None, ("before",))]
    assert word in reader.trouble
    assert reader.pending
    assert reader.feed(b"250 Ok\r\n") == []


def test_many_small_replies_do_not_add_up_to_a_large_one() -> None:
    reader = ReplyReader(octets_max=40)
    assert len(reader.feed(b"250 Ok\r\n250-a\r\n250 b\r\n" * 1000)) == 2000
    assert not reader.trouble


def test_a_long_line_is_cut_in_what_is_kept() -> None:
    (reply,) = ReplyReader().feed(b"550 " + b"x" * 5000 + b"\r\n")
    assert reply.lines == ("x" * TEXT_CHARS_MAX,)


def test_a_line_that_was_known_as_a_whole_reply_is_a_line_when_it_ends_a_long_one() -> None:
    reader = ReplyReader()
    assert reader.feed(b"250 Ok\r\n250-first\r\n250 Ok\r\n250 Ok\r\n") == [
        Reply(250, None, ("Ok",)),
        Reply(250, None, ("first", "Ok")),
        Reply(250, None, ("Ok",)),
    ]


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"250 Ok\r\n", b"250-a\n", b"\r\n"]), max_size=12))
def test_any_octets_cut_anywhere_give_the_same_replies_and_no_exception(pieces: list[bytes]) -> None:
    cut, whole = ReplyReader(200, 5), ReplyReader(200, 5)
    in_pieces = [reply for piece in pieces for reply in cut.feed(piece)]
    assert in_pieces == whole.feed(b"".join(pieces))
    assert cut.trouble == whole.trouble
