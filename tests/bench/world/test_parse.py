"""The arguments of MAIL and RCPT, strictly."""

import pytest

from bench.world.parse import MAIL, RCPT, parse_parameters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"FROM:<a@b.test>", (b"a@b.test", None)),
        (b"from:<>", (b"", None)),
        (b'FROM:<"a b"@c.test> SIZE=3', (b'"a b"@c.test', b"SIZE=3")),
        (b"FROM:a@b.test", None),
        (b"FROM: <a@b.test>", None),
        (b"FROM:<a b@c.test>", None),
        (b"FROM:<a@b.test>SIZE=3", None),
    ],
)
def test_mail_takes_a_path_in_angle_brackets(text, expected):
    found = MAIL.match(text)
    assert (found and found.groups()) == expected


def test_rcpt_wants_somebody():
    assert RCPT.match(b"TO:<>") is None
    assert RCPT.match(b"TO:<a@b.test>")[1] == b"a@b.test"


def test_parameters_are_names_in_capitals_and_values():
    assert parse_parameters(b"size=10 Body=8BITMIME SMTPUTF8") == {
        "SIZE": "10",
        "BODY": "8BITMIME",
        "SMTPUTF8": "",
    }
