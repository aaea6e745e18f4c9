"""What a receiver reads out of a message, and what it holds against the sender."""

import pytest

from bench.world.content import framing_faults, message_id, undo_dot_stuffing


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Message-ID: <1@a>\r\n\r\nx", b"<1@a>"),
        (b"From: a\r\nMESSAGE-ID:<2@a>\r\nTo: b\r\n\r\n", b"<2@a>"),
        (b"Message-ID:\r\n <folded@a>\r\n\r\n", b"<folded@a>"),
        (b"From: a\r\n\r\nMessage-ID: <in-the-body@a>\r\n", b""),
        (b"", b""),
    ],
)
def test_the_message_id_is_taken_from_the_header_only(content, expected):
    assert message_id(content) == expected


def test_dot_stuffing_is_undone_at_each_line():
    assert undo_dot_stuffing(b"..a\r\n..\r\n.b\r\nc.\r\n") == b".a\r\n.\r\nb\r\nc.\r\n"


@pytest.mark.parametrize(
    ("content", "announced", "faults"),
    [
        (b"a: b\r\n\r\nplain\r\n", False, []),
        (b"a\nb\r\n", False, ["bare_newline"]),
        (b"a\rb\r\n", False, ["bare_newline"]),
        (b"x" * 998 + b"\r\n", False, []),
        (b"x" * 999 + b"\r\n", False, ["long_line"]),
        ("ü\r\n".encode(), False, ["eight_bit_unannounced"]),
        ("ü\r\n".encode(), True, []),
    ],
)
def test_framing_faults_are_named(content, announced, faults):
    assert list(framing_faults(content, eight_bit_announced=announced)) == faults
