"""Subjects: encoded once when static, one line whatever the values are."""

import pytest

from engine.mta.compose.errors import ContentError, RenderError
from engine.mta.compose.subject import Subject

KNOWN = {"x": "", "y": ""}


@pytest.mark.parametrize(
    ("source", "static"),
    [
        ("Hello", "Hello"),
        (" Two\n lines ", "Two  lines"),
        ("Ü", "=?utf-8?b?w5w=?="),
        ("a{# c #}b{% raw %}{{{% endraw %}", "ab{{"),
    ],
)
def test_a_subject_without_tags_is_encoded_once(source: str, static: str) -> None:
    assert Subject(source, KNOWN).static == static


@pytest.mark.parametrize(
    ("source", "x", "value"),
    [
        ("Hi {{ x }}!", "Ann", "Hi Ann!"),
        ("Hi {{ x }}!", "Ann\r\nBcc: e@f.example", "Hi Ann Bcc: e@f.example!"),
        ("{% if x %}Hi {{ x|upper }}{% endif %}", "Ann\n", "Hi ANN"),
        ("{{ x }}", "<&>", "<&>"),
        ("{{ x }}", "", ""),
        ("{{- x -}} !", "a", "a!"),
        ("{{ x }}", "Ü", "=?utf-8?b?w5w=?="),
    ],
)
def test_values_are_one_line(source: str, x: str, value: str) -> None:
    assert Subject(source, KNOWN).render({"x": x}) == value


@pytest.mark.parametrize("source", ["{{ z }}", "{{ x", "x" * 2001])
def test_a_bad_subject_is_the_authors_error(source: str) -> None:
    with pytest.raises(ContentError) as caught:
        Subject(source, KNOWN)
    assert caught.value.part == "subject"


def test_an_endless_subject_is_found_with_a_sample() -> None:
    subject = Subject("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", KNOWN)
    with pytest.raises(ContentError, match="too long"):
        subject.check_samples([{}])


@pytest.mark.parametrize(("source", "x"), [("{{ x }}", "x" * 2001), ("{{ x|int }}", "a")])
def test_a_value_that_does_not_fit_is_the_recipients_error(source: str, x: str) -> None:
    with pytest.raises(RenderError, match="subject"):
        Subject(source, KNOWN).render({"x": x})
