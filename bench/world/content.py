"""What a receiver looks at in a message: its Message-ID, its framing, its size.

Pure functions over the octets that crossed the wire. Framing faults (a bare CR or LF, a line over
998 octets, 8-bit octets nobody announced) are the sender's protocol errors: real servers repair or
refuse them, so a sender must never rely on it.
"""

import re
from collections.abc import Iterator

LINE_OCTETS_MAX = 998  # RFC 5322 2.1.1, without CRLF

_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*(?:\r\n[ \t]+)?([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


def message_id(content: bytes) -> bytes:
    """The value of the first Message-ID field, b"" if there is none."""
    end = content.find(b"\r\n\r\n")
    found = _MESSAGE_ID.search(content, 0, len(content) if end < 0 else end + 2)
    return found[1].rstrip() if found else b""


def undo_dot_stuffing(content: bytes) -> bytes:
    """The message as it was before RFC 5321 4.5.2."""
    if content.startswith(b"."):
        content = content[1:]
    return content.replace(b"\r\n.", b"\r\n")


def framing_faults(content: bytes, *, eight_bit_announced: bool) -> Iterator[str]:
    """Names of what is wrong with these octets; nothing for a well-formed message."""
    # One split and two single-octet counts: a regular expression costs ten times as much here.
    lines = content.split(b"\r\n")
    if not content.count(b"\n") == content.count(b"\r") == len(lines) - 1:
        yield "bare_newline"
    if max(map(len, lines)) > LINE_OCTETS_MAX:
        yield "long_line"
    if not eight_bit_announced and not content.isascii():
        yield "eight_bit_unannounced"
