"""The subject line: a template whose result is one header value.

It is rendered as text, made one line and encoded per RFC 2047, so no value can end the field. A
subject without tags is encoded once. ContentError while compiling, RenderError while rendering.
"""

from collections.abc import Mapping, Sequence

from minijinja import TemplateError

from engine.mta.compose.errors import ContentError, RenderError
from engine.mta.compose.headers import TEXT_CHARS_MAX, one_line, unstructured
from engine.mta.compose.lexer import Kind, split, trimmed
from engine.mta.compose.template import (
    AUTHORS_ERRORS,
    add_template,
    bare_names,
    check_names,
    environment,
    raise_content_error,
    render_error,
    show,
)


class Subject:
    """`names` are the values it needs; `static` is the encoded value when there are no tags."""

    def __init__(self, source: str, known: Mapping[str, str]) -> None:
        env = environment(show, html=False)
        self.names = add_template(env, "subject", source)
        check_names("subject", source, self.names, known)
        self._render = env.render_template
        self.static: str | None = None
        pieces = trimmed(split(source))
        self._join = bare_names(pieces, self.names)
        self._segments = [piece.inner for piece in pieces]
        if all(piece.kind is Kind.TEXT for piece in pieces):
            if len(source) > TEXT_CHARS_MAX:
                raise ContentError("subject", 0, f"is longer than {TEXT_CHARS_MAX} characters")
            self.static = unstructured("Subject", one_line("".join(self._segments)))

    def check_samples(self, samples: Sequence[Mapping[str, str]]) -> None:
        """Raises ContentError for what must fail whatever the values are."""
        for sample in samples:
            try:
                self._render("subject", **sample)
            except TemplateError as error:
                if error.kind in AUTHORS_ERRORS:
                    raise_content_error("subject", error)

    def render(self, values: Mapping[str, str]) -> str:
        """The field's value, encoded and folded."""
        if self._join is not None:
            segments = self._segments.copy()
            for index, name in self._join.items():
                segments[index] = values[name]
            text = one_line("".join(segments))
        else:
            try:
                text = one_line(self._render("subject", **values))
            except TemplateError as error:
                raise render_error("subject", error) from None
        if len(text) > TEXT_CHARS_MAX:
            raise RenderError(f"subject is longer than {TEXT_CHARS_MAX} characters")
        return unstructured("Subject", text)
