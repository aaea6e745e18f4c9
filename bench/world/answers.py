"""What a receiver says and does next: replies as octets, steps as an enum. Pure values."""

import re
from enum import Enum
from functools import lru_cache

from msgspec import Struct

_ENHANCED = re.compile(r"^(\d{3}[ -])\d\.\d{1,3}\.\d{1,3} ")


class Step(Enum):
    """What the shell does once the replies so far are sent."""

    READ = "read"
    WAIT = "wait"  # `wait_seconds`, then advance again
    TLS = "tls"
    GARBLE = "garble"  # send no TLS where TLS was promised, then close
    CLOSE = "close"  # politely: half-close, let the peer read
    ABORT = "abort"  # hang up without a word


class Answer(Struct, frozen=True, gc=False):
    """One reply line without CRLF ("" = none), and what happens to the connection after it."""

    line: str
    step: Step = Step.READ


@lru_cache(maxsize=4096)
def reply_octets(line: str, enhanced: bool) -> bytes:
    """A reply line as it crosses the wire; the enhanced status is dropped where none was announced."""
    return ((line if enhanced else _ENHANCED.sub(r"\1", line)) + "\r\n").encode()
