"""Derives the plain text part's template from the HTML one.

Template tags live on: prints become words of the text, blocks stay where they are and do not
disturb the layout, so `{% if %}` around a paragraph and `{% for %}` around list items do what they
should. Links read "text (url)", images show their alternative text, lists get dashes or numbers,
headings are underlined, paragraphs are parted by a blank line, scripts and styles vanish. Lines are
not wrapped: quoted-printable does that for the wire and the reader's program for the eye.
Broken HTML gives poorer text, never an error.
"""

import re
from html.parser import HTMLParser

from engine.mta.compose.lexer import Kind, Mask, protect

_DROPPED = frozenset({"style", "script", "title", "template"})
_PARAGRAPHS = frozenset(
    {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "blockquote", "pre", "table", "figure", "hr"}
)
_LINES = frozenset(
    {
        "div",
        "tr",
        "li",
        "dt",
        "dd",
        "section",
        "article",
        "header",
        "footer",
        "main",
        "center",
        "address",
        "body",
    }
)
_CELLS = frozenset({"td", "th"})
_UNDERLINES = {"h1": "=", "h2": "-"}
_UNDERLINE_CHARS = (3, 60)
_PLACEHOLDER_CHARS = 8  # what a value is taken to be long, for underlines
_SPACES = re.compile(r"[ \t\n\f\r\xa0]+")


def text_from_html(source: str) -> str:
    """The text template of an HTML template; both may hold tags. Ends in a newline."""
    mask = Mask(source, flat=True)
    writer = _Writer(mask)
    writer.feed(mask.text)
    writer.close()
    return mask.restore(writer.text(), protect)


class _Writer(HTMLParser):
    """Collects text; white space is owed, and paid when the next word comes."""

    def __init__(self, mask: Mask) -> None:
        super().__init__(convert_charrefs=True)
        self._mask = mask
        self._out: list[str] = []
        self._newlines = 0
        self._space = False
        self._started = False
        self._dropping = ""
        self._pre = 0
        self._lists: list[int] = []  # the next number; 0 = bullets
        self._link_target = ""
        self._link_from = 0
        self._heading_from = 0

    def text(self) -> str:
        return "".join(self._out).rstrip("\n") + "\n"

    def _word(self, word: str) -> None:
        if self._started:
            if self._newlines:
                self._out.append("\n" * self._newlines)
            elif self._space:
                self._out.append(" ")
        self._newlines, self._space, self._started = 0, False, True
        self._out.append(word)

    def _break(self, newlines: int) -> None:
        self._newlines = max(self._newlines, newlines)
        self._space = False

    def _blocks_only(self, data: str) -> None:
        """Keep what steers the template, so that an `{% if %}` never loses its `{% endif %}`."""
        for marker in self._mask.marker.finditer(data):
            if self._mask.tag(marker).kind is Kind.BLOCK:
                self._out.append(marker[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._dropping:
            if tag != "body":
                return
            self._dropping = ""
        if tag in _DROPPED:
            self._dropping = tag
        elif tag == "br":
            self._newlines = self._newlines + 1 if self._newlines < 2 else 2
            self._space = False
        elif tag == "a":
            self._link_target = self._flat_target(dict(attrs).get("href"))
            self._link_from = len(self._out)
        elif tag == "img":
            if alt := _SPACES.sub(" ", dict(attrs).get("alt") or "").strip():
                self._word(alt)
        elif tag in _CELLS:
            self._space = True
        elif tag == "li":
            self._start_item()
        elif tag in _PARAGRAPHS or tag in _LINES:
            self._break(2 if tag in _PARAGRAPHS and not self._lists else 1)
            self._start_block(tag)

    def _start_block(self, tag: str) -> None:
        if tag in ("ul", "ol"):
            self._lists.append(1 if tag == "ol" else 0)
        elif tag == "hr":
            self._word("-" * 40)
            self._break(2)
        elif tag == "pre":
            self._pre += 1
        elif tag in _UNDERLINES:
            self._heading_from = len(self._out)

    def _start_item(self) -> None:
        self._break(1)
        indent = "  " * max(0, len(self._lists) - 1)
        if self._lists and self._lists[-1]:
            self._word(f"{indent}{self._lists[-1]}.")
            self._lists[-1] += 1
        else:
            self._word(f"{indent}-")
        self._space = True

    def handle_endtag(self, tag: str) -> None:
        if self._dropping:
            if tag == self._dropping:
                self._dropping = ""
            return
        if tag == "a":
            self._end_link()
        elif tag in ("ul", "ol") and self._lists:
            self._lists.pop()
            self._break(1 if self._lists else 2)
        elif tag in _UNDERLINES:
            self._end_heading(_UNDERLINES[tag])
        elif tag in _PARAGRAPHS or tag in _LINES:
            if tag == "pre":
                self._pre = max(0, self._pre - 1)
            self._break(2 if tag in _PARAGRAPHS and not self._lists else 1)

    def _end_link(self) -> None:
        target, self._link_target = self._link_target, ""
        if not target:
            return
        label = "".join(self._out[self._link_from :]).strip()
        if label and label in (target, target.partition(":")[2].lstrip("/").rstrip("/")):
            return
        self._space = bool(label) or self._space
        self._word(f"({target})" if label else target)

    def _end_heading(self, underline: str) -> None:
        heading = "".join(self._out[self._heading_from :]).strip("\n")
        length = len(self._mask.marker.sub("x" * _PLACEHOLDER_CHARS, heading))
        if length:
            self._break(1)
            self._word(underline * min(max(length, _UNDERLINE_CHARS[0]), _UNDERLINE_CHARS[1]))
        self._break(2)

    def _flat_target(self, href: str | None) -> str:
        target = _SPACES.sub("", href or "")
        return "" if target.startswith("#") or target.lower().startswith("javascript:") else target

    def handle_data(self, data: str) -> None:
        if self._dropping:
            self._blocks_only(data)
            return
        at = 0
        for marker in self._mask.marker.finditer(data):
            self._flow(data[at : marker.start()])
            if self._mask.tag(marker).kind is Kind.BLOCK:
                self._block(marker)
            else:
                self._word(marker[0])
            at = marker.end()
        self._flow(data[at:])

    def _block(self, marker: re.Match[str]) -> None:
        if self._space and self._started and not self._newlines:
            self._out.append(" ")
        self._space = False
        repeats = self._mask.tag(marker).inner.lstrip().startswith("for")
        if repeats and self._lists and self._newlines > 1:
            # The blank line before a list stands outside the loop over its items.
            self._out.append("\n" * (self._newlines - 1) if self._started else "")
            self._newlines = 1
        self._started = self._started or repeats  # line breaks of what may be repeated count
        self._out.append(marker[0])

    def _flow(self, text: str) -> None:
        if self._pre:
            if text:
                self._word(text)
            return
        words = _SPACES.sub(" ", text)
        if words.startswith(" "):
            self._space = True
        if inner := words.strip(" "):
            self._word(inner)
            self._space = words.endswith(" ")

    def handle_comment(self, data: str) -> None:
        self._blocks_only(data)

    def unknown_decl(self, data: str) -> None:
        self._blocks_only(data)
