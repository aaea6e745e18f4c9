"""Quoted-printable (RFC 2045 6.7) for a message that is put together from pieces.

Every piece starts in column 0 and ends in column 0: with a hard break where the text has one, else
with a soft break (`=` CRLF). So a static piece is encoded once, when the content is compiled, and a
dynamic value next to it never re-wraps it. Beyond the RFC's rules a line never begins with `.` (no
dot-stuffing is needed on the wire) nor with `From ` (mbox writers would change it and break the
signature), and `{` before `{`, `%` or `#` is encoded, so that encoded text is never template syntax.
Output is ASCII, CRLF only, at most 76 octets a line. Nothing here raises.
"""

import re
from functools import lru_cache

LINE_OCTETS_MAX = 76  # RFC 2045 6.7 rule 5, without CRLF
_ROOM = LINE_OCTETS_MAX - 1  # a soft break's "=" takes one
SOFT_BREAK = "=\r\n"

# C0 controls but tab and newline, and DEL: no mail reader shows them, NUL and others are refused by
# receivers (CVE-2023-51764 family), so they are dropped from static text and values alike.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_UNSAFE = re.compile(r"[^\t -<>-~]|\{(?=[{%#])")


def normalise(text: str) -> str:
    """CR, LF and CRLF become `\\n`; other controls but tab are dropped; lone surrogates become `?`."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _CONTROLS.search(text):
        text = _CONTROLS.sub("", text)
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def qp_piece(text: str, atom: str = "") -> str:
    """Encode normalised `text` (newline = `\\n`) as a piece that starts and ends in column 0.

    `atom`, an ASCII word of letters and digits of at most 64 octets, is never split across lines.
    """
    *lines, rest = text.split("\n")
    encoded = [_qp_line(line, "\r\n", atom) for line in lines]
    if rest:
        encoded.append(_qp_line(rest, SOFT_BREAK, atom))
    return "".join(encoded)


def _qp_line(line: str, end: str, atom: str) -> str:
    code = _UNSAFE.sub(_octets_of, line)
    room = _ROOM
    if end != SOFT_BREAK:
        room = LINE_OCTETS_MAX
        if code.endswith((" ", "\t")):  # rule 3: white space at a line's end would be lost
            code = code[:-1] + f"={ord(code[-1]):02X}"
    wrapped = []
    start = 0
    while True:
        # A dot needs no stuffing and "From " no quoting once its first octet is encoded.
        head = f"={ord(code[start]):02X}" if code.startswith((".", "From "), start) else ""
        start += bool(head)
        if len(code) - start + len(head) <= room:
            wrapped.append(head + code[start:])
            return SOFT_BREAK.join(wrapped) + end
        cut = start + _ROOM - len(head)
        if code[cut - 1] == "=":
            cut -= 1
        elif code[cut - 2] == "=":
            cut -= 2
        if atom:
            at = code.find(atom, max(start, cut - len(atom) + 1), cut + len(atom) - 1)
            if start < at < cut:
                cut = at
        wrapped.append(head + code[start:cut])
        start = cut


def _octets_of(match: re.Match[str]) -> str:
    return _octets(match[0])


@lru_cache(maxsize=4096)
def _octets(char: str) -> str:
    return "".join(f"={octet:02X}" for octet in char.encode("utf-8", "replace"))
