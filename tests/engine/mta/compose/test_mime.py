"""Quoted-printable pieces: they give the text back, and keep the promises about lines."""

import quopri
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.mta.compose.mime import normalise, qp_piece

ATOM = "k7qwertyuiopasdfghjklzxcvbnm234567aeiouy"
AWKWARD = st.text(
    st.one_of(
        st.sampled_from(" \t.=\r\n\0\x0b\x7f{}%#Fé€😀\u2028"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=300,
)


def assert_wire(wire: str) -> None:
    """What holds for all encoded text: 7-bit, CRLF only, short lines, no dot first, no white space last."""
    assert wire.isascii()
    assert not re.search(r"(?<!\r)\n|\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", wire)
    for line in wire.split("\r\n"):
        assert len(line) <= 76
        assert not line.startswith((".", "From "))
        assert not line.endswith((" ", "\t"))


@settings(max_examples=150)
@given(AWKWARD)
def test_a_piece_decodes_to_its_normalised_text(text: str) -> None:
    wire = qp_piece(normalise(text))
    assert_wire(wire)
    assert wire == "" or wire.endswith("\r\n")
    assert quopri.decodestring(wire.encode()).decode().replace("\r\n", "\n") == normalise(text)


@settings(max_examples=100)
@given(st.lists(AWKWARD, max_size=6))
def test_pieces_can_be_joined_in_any_order(texts: list[str]) -> None:
    wire = "".join(qp_piece(normalise(text)) for text in texts)
    assert_wire(wire)
    joined = "".join(normalise(text) for text in texts)
    assert quopri.decodestring(wire.encode()).decode().replace("\r\n", "\n") == joined


@settings(max_examples=100)
@given(st.lists(st.text("ab =é.", max_size=90), min_size=1, max_size=4))
def test_an_atom_is_never_split(texts: list[str]) -> None:
    wire = qp_piece(ATOM.join(texts), ATOM)
    assert_wire(wire)
    assert wire.count(ATOM) == ATOM.join(texts).count(ATOM)


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("", ""),
        ("abc", "abc=\r\n"),
        ("abc\n", "abc\r\n"),
        (".\n..\n", "=2E\r\n=2E.\r\n"),
        ("From me\n", "=46rom me\r\n"),
        ("a \nb\t\n", "a=20\r\nb=09\r\n"),
        ("a=b\n", "a=3Db\r\n"),
        ("é\n", "=C3=A9\r\n"),
        ("{{ x {% {# { }\n", "=7B{ x =7B% =7B# { }\r\n"),
        ("x" * 76 + "\n", "x" * 76 + "\r\n"),
        ("x" * 77 + "\n", "x" * 75 + "=\r\nxx\r\n"),
        ("x" * 75 + ".y\n", "x" * 75 + "=\r\n=2Ey\r\n"),
    ],
)
def test_encoding_by_example(text: str, wire: str) -> None:
    assert qp_piece(text) == wire


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\r\nb\rc\nd", "a\nb\nc\nd"),
        ("a\0b\x1b[0m\x7f", "ab[0m"),
        ("a\tb", "a\tb"),
        ("\ud800x", "?x"),
        ("é", "é"),
    ],
)
def test_normalising_leaves_one_kind_of_line_end_and_no_controls(text: str, clean: str) -> None:
    assert normalise(text) == clean
