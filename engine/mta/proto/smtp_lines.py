"""SMTP replies out of a stream of octets (RFC 5321 4.2), lenient in form and strict in size.

`ReplyReader` takes whatever a read returned - half a line, ten replies, rubbish - and gives complete
`Reply` values in order. It decides what still counts as a reply: bare LF ends a line, text that is no
UTF-8 is replaced, control characters are dropped, a multi-line reply takes the code of its last line,
and a line without a code is text while a multi-line reply is open. What is no SMTP at all, or larger
than its limits, sets `trouble`; from then on it reads nothing more. It touches nothing and never raises.

Most replies are one short line that the peer repeats word for word (`250 2.1.0 Ok`), so the first few
different lines of a connection are remembered with their parsed form.
"""

import re
from functools import lru_cache

from engine.model.reply import Reply

REPLY_OCTETS_MAX = 16_384  # 32 times a reply line of RFC 5321 4.5.3.1.5; the longest real EHLO is about 1 KB
REPLY_LINES_MAX = 100  # above every EHLO seen; stops a peer that talks for ever
TEXT_CHARS_MAX = 512  # RFC 5321 4.5.3.1.5, a reply line; more is cut from what reports keep

_KNOWN_LINES_MAX = 16  # MAIL, RCPT and DATA answers of one peer, with room for variants
_KNOWN_OCTETS_MAX = 96

_CODES = {b"%d" % code: code for code in range(200, 600)}
_MARKS = frozenset((b" ", b"-", b""))
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")  # RFC 2034 4
_ENHANCED_CHARS_MAX = 9


class ReplyReader:
    """Collects octets into replies. `trouble` is empty, or says why the stream is no SMTP."""

    __slots__ = ("_known", "_lines", "_lines_max", "_octets", "_octets_max", "_tail", "trouble")

    def __init__(self, octets_max: int = REPLY_OCTETS_MAX, lines_max: int = REPLY_LINES_MAX) -> None:
        self.trouble = ""
        self._octets_max = octets_max
        self._lines_max = lines_max
        self._known: dict[bytes, Reply] = {}
        self._tail = b""  # a line that has no end yet
        self._lines: list[str] = []  # of a multi-line reply that is still open
        self._octets = 0  # of that reply

    @property
    def pending(self) -> bool:
        """Octets were read that are not part of a complete reply."""
        return bool(self._tail or self._lines or self.trouble)

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that `data` completes, oldest first. Those before a malformed one still count."""
        replies: list[Reply] = []
        if self.trouble:
            return replies
        lines = (self._tail + data if self._tail else data).split(b"\n")
        self._tail = lines.pop()
        known = self._known
        for line in lines:
            reply = known.get(line) if not self._lines else None
            if reply is None:
                reply = self._line(line)
                if self.trouble:
                    self._tail = b""
                    return replies
            if reply is not None:
                replies.append(reply)
        if len(self._tail) + self._octets > self._octets_max:
            self._give_up(f"a reply is longer than {self._octets_max} octets")
        return replies

    def _line(self, raw: bytes) -> Reply | None:
        """One line without its LF: the reply that it completes, or None while more must follow."""
        self._octets += len(raw) + 1
        if self._octets > self._octets_max:
            self._give_up(f"a reply is longer than {self._octets_max} octets")
            return None
        line = raw.rstrip(b"\r")
        lines = self._lines
        code = _CODES.get(line[:3])
        mark = line[3:4]
        if code is None or mark not in _MARKS:
            if not lines:
                self._give_up(f"no SMTP reply: {_text(line[:60])!r}")
                return None
            lines.append(_text(line))
        elif mark == b"-":
            lines.append(_text(line[4:]))
        elif lines:
            self._lines = []
            self._octets = 0
            return _reply(code, [*lines, _text(line[4:])])
        else:
            self._octets = 0
            reply = _reply(code, [_text(line[4:])])
            if len(self._known) < _KNOWN_LINES_MAX and len(raw) <= _KNOWN_OCTETS_MAX:
                self._known[raw] = reply
            return reply
        if len(lines) >= self._lines_max:
            self._give_up(f"a reply has more than {self._lines_max} lines")
        return None

    def _give_up(self, trouble: str) -> None:
        self.trouble = trouble
        self._tail = b""
        self._lines = []


def _reply(code: int, lines: list[str]) -> Reply:
    """Take the enhanced status from the first line that has one; drop its repeats on other lines."""
    for line in lines:
        mark = line.partition(" ")[0]
        enhanced = _enhanced(mark)
        if enhanced is not None:
            texts = [text[len(mark) :].lstrip() if text.startswith(mark) else text for text in lines]
            return Reply(code, enhanced, tuple(texts))
    return Reply(code, None, tuple(lines))


@lru_cache(maxsize=256)
def _enhanced(mark: str) -> tuple[int, int, int] | None:
    """`5.7.1` as numbers (RFC 3463 2). The class need not be that of the code: Gmail says 421 5.7.32."""
    if len(mark) <= _ENHANCED_CHARS_MAX and _ENHANCED.fullmatch(mark):
        kind, subject, detail = mark.split(".")
        return (int(kind), int(subject), int(detail))
    return None


def _text(octets: bytes) -> str:
    text = octets.decode("utf-8", "replace")[:TEXT_CHARS_MAX]
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)
