"""Splits template source into text and tags, the way minijinja's own lexer does.

Static text is what we encode, rewrite links in and derive the text part from, so we must know where
it is; everything between `{{ }}` and `{% %}` stays minijinja's business and is only measured:
strings and brackets are skipped so that a `}}` inside them does not end a tag. Raw blocks become
text, comments vanish, and white space control (`{%-`, `-%}`) is applied to the text next to it.
`Mask` is the same source with each tag replaced by a short marker, for code that reads HTML.
Callers have minijinja check the syntax first; what it would refuse, `split` leaves as text.
"""

import re
from collections.abc import Callable
from enum import Enum

from msgspec import Struct

# Unicode White_Space, which is what minijinja trims (str.strip() would also take \x1c-\x1f).
_WHITE_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_OPEN = re.compile(r"\{([{%#])([-+]?)")
_RAW = re.compile(r"\{%[-+]?\s*raw\s*([-+]?)%\}")
_ENDRAW = re.compile(r"\{%([-+]?)\s*endraw\s*([-+]?)%\}")
_INSIDE = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?P<close>([-+]?)(?:\}\}|%\}))|(?P<up>[(\[{])|(?P<down>[)\]}])""",
    re.DOTALL,
)
_BRACES = re.compile(r"\{(?=[{%#]|\Z)")


class Kind(Enum):
    TEXT = "text"
    PRINT = "print"
    BLOCK = "block"
    COMMENT = "comment"
    RAW = "raw"


class Piece(Struct, frozen=True):
    """`source` is verbatim. `inner`: text itself, raw block's text, or a tag without its braces."""

    kind: Kind
    source: str
    inner: str
    trims_before: bool = False
    trims_after: bool = False

    def clean(self) -> str:
        """The tag without white space control."""
        if self.kind is Kind.PRINT:
            return "{{ %s }}" % self.inner.strip()  # noqa: UP031 - braces
        return "{%% %s %%}" % self.inner.strip()  # noqa: UP031 - braces


def split(source: str) -> list[Piece]:
    """All pieces in order; their `source` texts join to `source` again."""
    pieces: list[Piece] = []
    text_from = at = 0
    while (opening := _OPEN.search(source, at)) is not None:
        tag = _tag_at(source, opening)
        if tag is None:
            at = opening.start() + 1
            continue
        if text_from < opening.start():
            pieces.append(_text(source[text_from : opening.start()]))
        pieces.append(tag)
        text_from = at = opening.start() + len(tag.source)
    if text_from < len(source):
        pieces.append(_text(source[text_from:]))
    return pieces


def _text(text: str) -> Piece:
    return Piece(Kind.TEXT, text, text)


def _tag_at(source: str, opening: re.Match[str]) -> Piece | None:
    start, inner_from = opening.span()
    before = opening[2] == "-"
    if opening[1] == "#":
        end = source.find("#}", opening.start() + 2)
        if end < 0:
            return None
        whole = source[start : end + 2]
        return Piece(Kind.COMMENT, whole, "", before, len(whole) > 4 and whole[-3] == "-")
    if (raw := _RAW.match(source, start)) is not None:
        ending = _ENDRAW.search(source, raw.end())
        if ending is None:
            return None
        inner = source[raw.end() : ending.start()]
        if raw[1] == "-":
            inner = inner.lstrip(_WHITE_SPACE)
        if ending[1] == "-":
            inner = inner.rstrip(_WHITE_SPACE)
        return Piece(Kind.RAW, source[start : ending.end()], inner, before, ending[2] == "-")
    depth = 0
    closer = "}}" if opening[1] == "{" else "%}"
    at = inner_from
    while (found := _INSIDE.search(source, at)) is not None:
        at = found.end()
        if found["up"]:
            depth += 1
        elif found["down"]:
            depth = max(0, depth - 1)
        elif found["close"] is not None:
            if depth:
                at = found.start() + 1
                depth -= source[found.start()] == "}"
            elif found["close"].endswith(closer):
                kind = Kind.PRINT if closer == "}}" else Kind.BLOCK
                return Piece(
                    kind, source[start:at], source[inner_from : found.start()], before, found[2] == "-"
                )
            else:
                at = found.start() + 1
    return None


def trimmed(pieces: list[Piece]) -> list[Piece]:
    """Text, prints and blocks as they render: trims done, comments gone, raw blocks and text joined."""
    result: list[Piece] = []
    text = ""
    for index, piece in enumerate(pieces):
        if piece.kind is Kind.TEXT:
            part = piece.inner
            if index and pieces[index - 1].trims_after:
                part = part.lstrip(_WHITE_SPACE)
            if index + 1 < len(pieces) and pieces[index + 1].trims_before:
                part = part.rstrip(_WHITE_SPACE)
            text += part
        elif piece.kind is Kind.RAW:
            text += piece.inner
        elif piece.kind is not Kind.COMMENT:
            if text:
                result.append(_text(text))
            result.append(piece)
            text = ""
    if text:
        result.append(_text(text))
    return result


def protect(text: str) -> str:
    """Template source that prints `text` as it is."""
    return _BRACES.sub('{{ "{" }}', text)


def line_of(source: str, name: str) -> int:
    """The 1-based line of the first tag that uses `name`; 1 when none is found."""
    word = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w)")
    line = 1
    for piece in split(source):
        if piece.kind in (Kind.PRINT, Kind.BLOCK) and (use := word.search(piece.source)):
            return line + piece.source.count("\n", 0, use.start())
        line += piece.source.count("\n")
    return 1


class Mask:
    """`text` is `source` with every tag replaced by a marker that no HTML syntax can break.

    With `flat` tags keep no white space control, comments vanish and raw blocks are text: the view
    of code that writes a new template. Without it `restore(text)` gives back the very source.
    """

    def __init__(self, source: str, *, flat: bool = False) -> None:
        self._open, self._close = _two_unused_characters(source)
        self.marker = re.compile(f"{self._open}(\\d+){self._close}")
        self.tags: list[Piece] = []
        self._flat = flat
        parts = []
        for piece in split(source):
            if piece.kind is Kind.TEXT or (flat and piece.kind in (Kind.RAW, Kind.COMMENT)):
                parts.append(piece.inner)
            else:
                parts.append(f"{self._open}{len(self.tags)}{self._close}")
                self.tags.append(piece)
        self.text = "".join(parts)

    def has_marker(self, text: str) -> bool:
        return self._open in text

    def tag(self, marker: re.Match[str]) -> Piece:
        return self.tags[int(marker[1])]

    def restore(self, text: str, protect: Callable[[str], str] = str) -> str:
        """Template source again; `protect` is applied to the text between the tags."""
        parts = []
        at = 0
        for marker in self.marker.finditer(text):
            piece = self.tag(marker)
            parts.append(protect(text[at : marker.start()]))
            parts.append(piece.clean() if self._flat else piece.source)
            at = marker.end()
        parts.append(protect(text[at:]))
        return "".join(parts)


def _two_unused_characters(source: str) -> tuple[str, str]:
    # The private use area has 6,400 characters; a source that uses all of them is no letter.
    free = [chr(code) for code in range(0xE000, 0xF900) if chr(code) not in source[:200_000]]
    assert len(free) >= 2, "a template uses the whole private use area"
    return free[0], free[1]
