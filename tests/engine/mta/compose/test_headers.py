"""Header values decode to what went in, keep their lines short, and never end their field."""

from email import message_from_string
from email.header import decode_header, make_header
from email.policy import default
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.mta.compose import headers
from tests.engine.mta.compose.test_mime import AWKWARD

NAMES = ["Subject", "X-A-Quite-Long-Name-Of-A-Header-Field-Which-Leaves-Little-Room-For-Any-Text"]


def assert_field(name: str, value: str) -> None:
    lines = f"{name}: {value}".split("\r\n")
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert all(line.startswith(" ") and line.strip() for line in lines[1:])
    assert all(len(line) <= 78 for line in lines)


@settings(max_examples=200)
@given(st.sampled_from(NAMES), AWKWARD)
def test_unstructured_text_comes_back(name: str, text: str) -> None:
    line = headers.one_line(text)
    value = headers.unstructured(name, line)
    if " " in line or len(line) < 60 or "=?" in value:
        assert_field(name, value)
    unfolded = value.replace("\r\n", "")
    assert str(make_header(decode_header(unfolded))).strip() == line.strip()
    parsed = message_from_string(f"{name}: {value}\n\n".replace("\r\n", "\n"), policy=default)
    assert parsed.keys() == [name]


@settings(max_examples=100)
@given(st.text("ab c,.=?_é", max_size=400))
def test_plain_and_encoded_text_comes_back_to_the_modern_parser(text: str) -> None:
    line = headers.one_line(text)
    value = headers.unstructured("Subject", line)
    assert_field("Subject", value)
    parsed = message_from_string(f"Subject: {value}\n\n".replace("\r\n", "\n"), policy=default)
    assert str(parsed["Subject"]).strip() == line.strip()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Hello", "Hello"),
        ("", ""),
        ("Grüße", "=?utf-8?b?R3LDvMOfZQ==?="),
        ("Grüße aus dem November", "=?utf-8?q?Gr=C3=BC=C3=9Fe_aus_dem_November?="),
        ("日本語の件名", "=?utf-8?b?5pel5pys6Kqe44Gu5Lu25ZCN?="),
        ("a =?utf-8?q?b?=", "=?utf-8?b?YSA9P3V0Zi04P3E/Yj89?="),
        ("word " * 15 + "end", "word " * 13 + "word\r\n word end"),
    ],
)
def test_encoding_by_example(text: str, value: str) -> None:
    assert headers.unstructured("Subject", text) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\r\nBcc: x@y.example", "a Bcc: x@y.example"),
        ("a\nb\rc\0d\x0be\x85f\u2028g", "a b c d e f g"),
        (" a ", "a"),
        ("\ta\t", "a"),
    ],
)
def test_one_line_knows_no_controls(text: str, line: str) -> None:
    assert headers.one_line(text) == line


@settings(max_examples=100)
@given(AWKWARD.map(lambda text: headers.one_line(text)[:150]))
def test_a_display_name_comes_back_and_the_address_is_not_touched(name: str) -> None:
    value = headers.mailbox("From", name, "news@example.org")
    assert_field("From", value)
    message = message_from_string(f"From: {value}\n\n".replace("\r\n", "\n"), policy=default)
    (address,) = message["From"].addresses
    assert address.addr_spec == "news@example.org"
    # The parser itself loses runs and ends of white space between and around encoded words.
    assert "".join(address.display_name.split()) == "".join(name.split())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "news@example.org"),
        ("Example", "Example <news@example.org>"),
        ("Example, Inc.", '"Example, Inc." <news@example.org>'),
        ('The "best" \\', '"The \\"best\\" \\\\" <news@example.org>'),
        ("Müller", "=?utf-8?b?TcO8bGxlcg==?= <news@example.org>"),
        ("x" * 60, "x" * 60 + "\r\n <news@example.org>"),
    ],
)
def test_display_names_by_example(name: str, value: str) -> None:
    assert headers.mailbox("From", name, "news@example.org") == value


@pytest.mark.parametrize(
    ("address", "value"),
    [
        ("a@example.net", "a@example.net"),
        ('"a b, c"@example.net', '"a b, c"@example.net'),
        ("a" * 64 + "@example.net", "\r\n " + "a" * 64 + "@example.net"),
        ("jürgen@example.net", "=?utf-8?b?asO8cmdlbkBleGFtcGxlLm5ldA==?= :;"),
    ],
)
def test_recipients_by_example(address: str, value: str) -> None:
    assert headers.recipient(address) == value


def test_dates_are_rfc_5322_and_in_utc() -> None:
    assert headers.date(1_795_500_000) == "Tue, 24 Nov 2026 06:00:00 +0000"
    assert parsedate_to_datetime(headers.date(951_782_400)).timestamp() == 951_782_400
