"""The splitter agrees with minijinja about where text ends and tags begin."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minijinja import Environment, TemplateError

from engine.mta.compose.lexer import Kind, Mask, line_of, protect, split, trimmed

FRAGMENTS = [
    *("text", " ", "\n", "{", "}", "{{", "%}", "\u3000é", "'", "{{ x }}", "{{- x -}}", "{{ '}}' }}"),
    *('{{ "%}" }}', "{{ {'a': {'b': 1}}['a'] }}", "{# c #}", "{#- c -#}", "{#--#}", "{% if x %}"),
    *("{% raw %} {{ y }} {% endraw %}", "{%- raw -%} {% z %} {%- endraw -%}", "{%- if x -%}"),
    *("{% else %}", "{% endif %}", "{%+ endif +%}"),
]
SOURCES = st.lists(st.sampled_from(FRAGMENTS), max_size=9).map("".join)


def plain_environment() -> Environment:
    return Environment(pycompat=False, keep_trailing_newline=True, undefined_behavior="strict")


@settings(max_examples=400)
@given(SOURCES)
def test_trimmed_pieces_render_as_the_source_does(source: str) -> None:
    try:
        expected = plain_environment().render_str(source, x="X")
    except TemplateError:
        return
    rebuilt = "".join(
        protect(piece.inner) if piece.kind is Kind.TEXT else piece.clean() for piece in trimmed(split(source))
    )
    assert plain_environment().render_str(rebuilt, x="X") == expected


@settings(max_examples=100)
@given(SOURCES)
def test_pieces_join_to_the_source_and_masks_restore_it(source: str) -> None:
    assert "".join(piece.source for piece in split(source)) == source
    mask = Mask(source)
    assert mask.restore(mask.text) == source


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("a{{ b }}c", "text print text"),
        ("{{ '}}' }}", "print"),
        ("{{ {'a': {}} }}", "print"),
        ("{% raw %}{{ b }}{% endraw %}", "raw"),
        ("{# {{ b }} #}", "comment"),
        ("{{ open", "text"),
    ],
)
def test_splitting_by_example(source: str, kinds: str) -> None:
    assert " ".join(piece.kind.value for piece in split(source)) == kinds


def test_the_line_of_a_name_is_that_of_its_first_use_in_a_tag() -> None:
    assert line_of("name\n{# name #}\n{{ a.name }}{{ names }}\n{% if\n name %}", "name") == 5


def test_protected_text_prints_as_it_is() -> None:
    text = "a {{ b }} {% c %} {# d #} {"
    assert plain_environment().render_str(protect(text)) == text
