"""Header fields: encoding, folding, and addresses that cannot break out of their field.

Text is RFC 2047 encoded when it is not plain ASCII, when it could be taken for an encoded word, or
when it has no place to fold; encoded words are at most 75 octets, hold whole code points and stand
one to a line of at most 76. Plain text folds at single spaces, so that unfolding gives it back
exactly. Controls become spaces first: no value, whatever it holds, ends a line here.
All functions give the value part of a field, already folded, without the final CRLF.
"""

import re
from binascii import b2a_base64
from datetime import UTC, datetime

from engine.model.address import AddressError, parse_address

LINE_OCTETS_MAX = 78  # RFC 5322 2.1.1, what it asks for
LINE_OCTETS_HARD_MAX = 998  # RFC 5322 2.1.1, what it allows
_ENCODED_LINE_MAX = 76  # RFC 2047 2
_ENCODED_WORD_MAX = 75  # RFC 2047 2
_WORD_FRAME = len("=?utf-8?b??=")
_FIRST_WORD_LEAST = 16
ADDRESS_CHARS_MAX = 254  # RFC 5321 4.5.3.1.3
TEXT_CHARS_MAX = 2_000  # of one header text; receivers cap the whole header (Gmail 552 5.3.4)

_USUAL_ADDRESS = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[a-z0-9_-]+(?:\.[a-z0-9_-]+)+\Z")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")
_Q_LITERAL = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def one_line(text: str) -> str:
    """Text for a header: controls and line separators become spaces, outer white space goes."""
    if _CONTROLS.search(text):
        text = _CONTROLS.sub(" ", text.replace("\r\n", " "))
    return text.strip(" ")


def unstructured(name: str, text: str) -> str:
    """The value of an unstructured field such as Subject; `text` went through `one_line`."""
    room = LINE_OCTETS_MAX - len(name) - 2
    if text.isascii() and "=?" not in text:
        if len(text) <= room:
            return text
        if (folded := _fold(text, room)) is not None:
            return folded
    return _encoded_words(text, len(name) + 2)


def _fold(text: str, room: int) -> str | None:
    """Fold plain text at single spaces; None when a line cannot be kept short that way."""
    lines = []
    while len(text) > room:
        at = text.rfind(" ", 1, room + 1)
        while at > 0 and (text[at - 1] == " " or text[at + 1] == " "):
            at = text.rfind(" ", 1, at)
        if at <= 0:
            return None
        lines.append(text[:at])
        text = text[at + 1 :]
        room = LINE_OCTETS_MAX - 1
    lines.append(text)
    return "\r\n ".join(lines)


def _encoded_words(text: str, column: int) -> str:
    """RFC 2047 words, one to a line; the first one starts at `column`. Q or B, whichever is shorter."""
    octets = [char.encode("utf-8", "replace") for char in text]
    cost_q = sum(_q_cost(char) for char in octets)
    use_q = cost_q <= sum(map(len, octets)) * 4 / 3
    words = []
    word = b""
    room = _ENCODED_LINE_MAX - column - _WORD_FRAME
    if room < _FIRST_WORD_LEAST:  # a long field name: begin on the next line
        words.append("")
        room = _ENCODED_WORD_MAX - _WORD_FRAME
    used = 0
    for char in octets:
        grown = used + _q_cost(char) if use_q else (len(word) + len(char) + 2) // 3 * 4
        if grown > room and word:
            words.append(_encoded_word(word, use_q))
            word, room = b"", _ENCODED_WORD_MAX - _WORD_FRAME
            used = 0
            grown = _q_cost(char)
        word += char
        used = grown
    words.append(_encoded_word(word, use_q))
    return "\r\n ".join(words)


def _q_cost(char: bytes) -> int:
    return 1 if char == b" " or (len(char) == 1 and char[0] in _Q_LITERAL) else 3 * len(char)


def _encoded_word(octets: bytes, use_q: bool) -> str:
    if not use_q:
        return f"=?utf-8?b?{b2a_base64(octets, newline=False).decode()}?="
    # The literal set is the one for phrases (RFC 2047 5 (3)), so that one form serves everywhere.
    text = "".join(
        "_" if octet == 0x20 else chr(octet) if octet in _Q_LITERAL else f"={octet:02X}" for octet in octets
    )
    return f"=?utf-8?q?{text}?="


def mailbox(name: str, display_name: str, address: str) -> str:
    """Value of field `name`: the display name, if any, before `address` in angle brackets (ASCII)."""
    if not display_name:
        return place(name, address)
    phrase = _phrase(display_name, len(name) + 2)
    _, folded, last_line = phrase.rpartition("\r\n")
    column = len(last_line) + (0 if folded else len(name) + 2)
    between = " " if column + len(address) + 3 <= LINE_OCTETS_MAX else "\r\n "
    return f"{phrase}{between}<{address}>"


def _phrase(text: str, column: int) -> str:
    if text.isascii() and "=?" not in text and column + len(text) + 2 <= LINE_OCTETS_MAX:
        if _ATOMS.match(text):
            return text
        quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if column + len(quoted) <= LINE_OCTETS_MAX:
            return quoted
    return _encoded_words(text, column)


def place(name: str, value: str) -> str:
    """A value that must not be broken: on the field's first line if it fits, else on its second."""
    return value if len(name) + 2 + len(value) <= LINE_OCTETS_MAX else f"\r\n {value}"


def is_address(text: str) -> bool:
    """Whether `text` is one bare address. Intake has parsed it already; here it goes into a header."""
    if _USUAL_ADDRESS.match(text) and len(text) <= ADDRESS_CHARS_MAX:
        return True
    try:
        parse_address(text)
    except AddressError:
        return False
    return True


def recipient(address: str) -> str:
    """The value of To for one recipient.

    A local part beyond ASCII cannot stand in a 7-bit field and must never be an encoded word inside
    an addr-spec. It is shown the way RFC 6857 3.1.7 downgrades it: as the name of an empty group. The real
    address travels in RCPT TO, for which the peer must offer SMTPUTF8; the message itself stays 7-bit
    and its signature survives every hop.
    """
    if address.isascii():
        return address if len(address) <= 74 else f"\r\n {address}"  # place("To", address)
    return f"{_encoded_words(address, 4)} :;"


def date(now: int) -> str:
    """RFC 5322 3.3 date-time of wall seconds `now`, in UTC."""
    at = datetime.fromtimestamp(now, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} +0000"
    )
