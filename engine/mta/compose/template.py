"""A user's template, compiled so that rendering gives wire text.

Two ways lead to the same result. The *fast* one encodes the static text as quoted-printable once,
here; minijinja then only copies it, and the finalizer escapes and encodes each value as it prints.
When all tags print bare names, as in most letters, not even minijinja is needed: pieces are joined.
That is right as long as no expression ever sees static text, so a template that captures its own
output (macro, call, filter, block `set`, recursive loop) goes the *plain* way: render text, then
encode all of it. The way is chosen once; both are rendered with samples here and must agree.
Fuel bounds time and memory.
On failure: ContentError while compiling, RenderError while rendering, with lines of the source.
"""

import quopri
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Never

from markupsafe import Markup, escape
from minijinja import Environment, TemplateError

from engine.mta.compose.errors import ContentError, RenderError
from engine.mta.compose.lexer import Kind, Piece, line_of, split, trimmed
from engine.mta.compose.mime import SOFT_BREAK, normalise, qp_piece

# minijinja (3.1) takes about one per instruction and one per 64 octets printed. A long letter uses some
# hundreds; this ends an endless loop within 20 ms and stops a template that prints some 12 MB.
FUEL = 200_000

_CAPTURING = re.compile(
    r"\s*(?:macro|call|filter|block|autoescape|import|from|include|extends|do)\b"
    r"|\s*set\s+\w+\s*(?:\||\Z)|\s*for\b.*\brecursive\s*\Z",
    re.DOTALL,
)
# What joins safe (already escaped) and other text gives another result under minijinja's own escaping.
_SAFE = re.compile(r"\b(?:safe|e|escape|tojson)\b")
_JOINING = re.compile(r"\b(?:join|replace|format)\b|~")
_GLOBALS = frozenset({"range", "dict", "namespace", "cycler", "joiner"})  # minijinja's, but debug()

# Errors that no recipient's values can cause or cure.
AUTHORS_ERRORS = frozenset(
    {"OutOfFuel", "UnknownFilter", "UnknownTest", "UnknownFunction", "TemplateNotFound", "BadInclude"}
)
_WORDS = {
    "OutOfFuel": "it runs too long",
    "UndefinedError": "it uses a value that does not exist",
    "InvalidOperation": "an operation does not fit the value",
}

# Values that need no escaping, encoding or wrapping: most names, dates, numbers and cities. No "." or
# "From " at the start of a line, see mime.py.
_TEXT_AS_IS = re.compile(r"(?!From )[ -\-/-<>-z|}~][ -<>-z|}~]{0,74}\Z").match
_HTML_AS_IS = re.compile(r"(?!From )[ !#-%(-\-/-;?-z|}~][ !#-%(-;?-z|}~]{0,74}\Z").match


Plan = tuple[list[str], list[tuple[int, str, Callable[[object], str] | None]]]


class Template:
    """One compiled body part. `render(values)` gives its wire text.

    `names` are the values it needs. `fast` tells which way it goes.
    """

    def __init__(self, part: str, source: str, *, html: bool, atom: str = "", atom_name: str = "") -> None:
        """`source` is normalised. `atom` in its static text stands for the value called `atom_name`."""
        self.part = part
        self._source = source
        self._atom = atom if atom and atom in source else ""
        self._atom_name = atom_name
        plain_source = source.replace(self._atom, "{{ %s }}" % atom_name) if self._atom else source  # noqa: UP031
        self._plain = environment(_plain_html if html else _plain_text, html=html)
        self.names = add_template(self._plain, part, plain_source)
        pieces = trimmed(split(source))
        tags = [piece for piece in pieces if piece.kind is not Kind.TEXT]
        self.fast = not any(_CAPTURING.match(tag.inner) for tag in tags if tag.kind is Kind.BLOCK)
        if html and all(any(pattern.search(tag.inner) for tag in tags) for pattern in (_SAFE, _JOINING)):
            self.fast = False
        encoded = [
            qp_piece(piece.inner, self._atom) if piece.kind is Kind.TEXT else piece.clean()
            for piece in pieces
        ]
        self._constant = "".join(encoded) if not tags else None
        self._fast_render: Callable[..., str] | None = None
        self._show = _wire_html if html else _wire_text
        self._join = bare_names(pieces, self.names)
        if self._join is not None:
            self._segments = ["" if index in self._join else code for index, code in enumerate(encoded)]
        elif self.fast and tags:
            self._compile_fast("".join(encoded))

    def _compile_fast(self, code: str) -> None:
        env = environment(self._show, html=False)
        try:
            env.add_template(self.part, code)
        except TemplateError:
            self.fast = False  # lexer.py and minijinja read this one differently
        else:
            self._fast_render = env.render_template

    def check_names(self, known: Mapping[str, str]) -> None:
        """Check that a column or built-in fills every placeholder.

        `known` maps a name to "", or to the reason why it cannot be used here. Raises ContentError for the
        first name, in source order, that nothing fills.
        """
        check_names(self.part, self._source, self.names, known)

    def check_samples(self, samples: Sequence[Mapping[str, str]]) -> None:
        """Render samples. Raises ContentError for what must fail whatever the values are."""
        for sample in samples:
            try:
                plain = self._plain.render_template(self.part, **sample)
            except TemplateError as error:
                if error.kind in AUTHORS_ERRORS:
                    raise_content_error(self.part, error)
                continue
            if self.fast and self._decoded(sample) != plain:
                self.fast, self._fast_render, self._join, self._constant = False, None, None, None

    def _decoded(self, sample: Mapping[str, str]) -> str | None:
        try:
            wire = self.render(sample)
        except RenderError:
            return None
        return quopri.decodestring(wire.encode()).decode().replace("\r\n", "\n")

    def render(self, values: Mapping[str, str]) -> str:
        """The part as quoted-printable text that ends in column 0. Raises RenderError."""
        if self._constant is not None:
            wire = self._constant
        elif self._join is not None:
            segments = self._segments.copy()
            for index, name in self._join.items():
                segments[index] = self._show(values[name])
            wire = "".join(segments)
        elif self._fast_render is not None:
            try:
                wire = self._fast_render(self.part, **values)
            except TemplateError as error:
                self._render_plain(values)  # if it fails there, too, then with the source's lines
                raise render_error(self.part, error) from None
        else:
            return qp_piece(normalise(self._render_plain(values)))
        return wire.replace(self._atom, values[self._atom_name]) if self._atom else wire

    def plan(self) -> Plan | None:
        """Static pieces with holes, when all tags print bare names: to be joined with other parts at once.

        The holes are (index, name of the value, how it is shown). None = only `render` can do it.
        """
        if self._constant is None and self._join is None:
            return None
        pieces: list[str] = []
        holes: list[tuple[int, str, Callable[[object], str] | None]] = []
        for index, segment in enumerate(self._segments if self._join is not None else [self._constant or ""]):
            if self._join is not None and index in self._join:
                holes.append((len(pieces), self._join[index], self._show))
                pieces.append("")
                continue
            texts = segment.split(self._atom) if self._atom else [segment]
            for number, text in enumerate(texts):
                if number:
                    holes.append((len(pieces), self._atom_name, None))
                    pieces.append("")
                pieces.append(text)
        return pieces, holes

    def _render_plain(self, values: Mapping[str, str]) -> str:
        try:
            text: str = self._plain.render_template(self.part, **values)
        except TemplateError as error:
            raise render_error(self.part, error) from None
        return text


def _wire_text(value: object) -> str:
    """The text part's finalizer of the fast way: from a value to a quoted-printable piece."""
    if type(value) is str and _TEXT_AS_IS(value):
        return value + SOFT_BREAK
    return qp_piece(normalise(show(value)))


def _wire_html(value: object) -> str:
    if type(value) is str:
        if _HTML_AS_IS(value):
            return value + SOFT_BREAK
    elif isinstance(value, Markup):  # `|safe` skips the escaping, never the encoding
        return qp_piece(normalise(show(value)))
    return qp_piece(normalise(str.__str__(escape(show(value)))))


def _plain_text(value: object) -> str:
    return normalise(show(value))


def _plain_html(value: object) -> Markup:
    text = normalise(show(value))
    return Markup(text) if isinstance(value, Markup) else escape(text)  # noqa: S704 - what `|safe` asks for


def bare_names(pieces: Sequence[Piece], values: frozenset[str]) -> dict[int, str] | None:
    """Which pieces print which value, if all tags are prints of bare names; else None."""
    prints = {index: piece.inner.strip() for index, piece in enumerate(pieces) if piece.kind is not Kind.TEXT}
    return prints if values.issuperset(prints.values()) else None


def show(value: object) -> str:
    """How a template prints a value: text as it is, nothing for none, true/false, numbers in full."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def environment(finalizer: Callable[[object], str], *, html: bool) -> Environment:
    """A minijinja environment as all of ours are: strict, with fuel, without loader and debug()."""
    env = Environment(
        pycompat=False,
        debug=False,
        fuel=FUEL,
        finalizer=finalizer,
        keep_trailing_newline=True,
        undefined_behavior="strict",
        auto_escape_callback=lambda _name: "html" if html else None,
    )
    env.remove_global("debug")
    return env


def add_template(env: Environment, part: str, source: str) -> frozenset[str]:
    """Compile `source` into `env` as `part` and tell which values it needs. Raises ContentError."""
    try:
        env.add_template(part, source)
        return frozenset(env.undeclared_variables_in_template(part)) - _GLOBALS
    except TemplateError as error:
        raise_content_error(part, error)


def check_names(part: str, source: str, names: frozenset[str], known: Mapping[str, str]) -> None:
    wrong = [(line_of(source, name), name) for name in names if known.get(name, "?")]
    if not wrong:
        return
    line, name = min(wrong)
    close = get_close_matches(name, [key for key, reason in known.items() if not reason], 1)
    hint = f"did you mean {close[0]}?" if close else "add a column of that name, or remove the placeholder"
    raise ContentError(part, line, f"no column fills the placeholder {name!r}", known.get(name) or hint)


def raise_content_error(part: str, error: TemplateError) -> Never:
    hint = "is there an endless loop?" if error.kind == "OutOfFuel" else ""
    raise ContentError(part, error.line or 0, _WORDS.get(error.kind) or error.detail or error.message, hint)


def render_error(part: str, error: TemplateError) -> RenderError:
    """Without minijinja's detail, which may quote the recipient's values."""
    return RenderError(f"{part}, line {error.line or 0}: {_WORDS.get(error.kind, error.kind)}")
