"""What a client sends, read strictly: commands as lines that end in CRLF, content up to a line with a lone
dot.

Where two servers disagree about the end of a line, one sees a message where the other sees text; so a bare
CR or LF in a command raises, and content ends at CRLF . CRLF and at nothing that looks like it. Content is
read in large pieces, since one call a line was half the cost of a message. Touches: the stream's buffer.
"""

import asyncio
from collections.abc import Iterable
from enum import Enum
from typing import Any, SupportsIndex

from services.submission.limits import Lease

LINE_OCTETS_MAX = 1_001  # of a command, or an answer to a challenge; what is longer is refused by the session
PIECE_OCTETS = 256 * 1024
_END = b"\r\n.\r\n"


class BareNewline(Exception):
    """A line that does not end in CRLF, or holds half of it."""


class LineTooLong(Exception):
    """An answer to a challenge that is longer than a line may be; it was read to its end."""


class SessionOver(Exception):
    """Goodbye was said: what the client has sent behind that is not read."""


class Unread(Enum):
    """Why there is no message: it was read to its end and thrown away."""

    TOO_LONG = "it is longer than allowed"
    NO_ROOM = "the messages of others fill the memory"


class StrictReader(asyncio.StreamReader):
    """The octets of one session."""

    _buffer: bytearray  # of the base class, as these are
    _transport: asyncio.Transport | None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=LINE_OCTETS_MAX, loop=loop)

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """One line. Raises BareNewline, and SessionOver behind a goodbye, though the line may be here."""
        if self._transport is not None and self._transport.is_closing():
            raise SessionOver
        try:
            line = await super().readuntil(separator)
        except asyncio.LimitOverrunError as error:
            if self._buffer[error.consumed - 1 : error.consumed] != b"\r":
                raise
            # Whoever throws away what is too long leaves the line's end whole.
            raise asyncio.LimitOverrunError(str(error), error.consumed - 1) from None
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise BareNewline
        return line

    async def readline(self) -> bytes:
        """The answer to a challenge. Raises BareNewline, SessionOver, LineTooLong."""
        too_long = False
        while True:
            try:
                line = await self.readuntil()
            except asyncio.LimitOverrunError as error:
                too_long = True
                await self.read(error.consumed)
                continue
            if too_long:
                raise LineTooLong
            return line

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        if self.exception() is None:  # behind the end nobody reads it
            super().feed_data(data)

    def end(self) -> None:
        """Forget what came and take no more: who waits for it, or reads later, gets SessionOver."""
        self._buffer.clear()
        self.set_exception(SessionOver())

    async def read_content(self, octets_max: int, lease: Lease) -> bytes | Unread:
        """A message behind DATA, without its final dot and the dots that were put before others.

        Its octets are taken out of the lease's room, and stay taken until the caller ends it.
        """
        content = bytearray(b"\r\n")  # the end of the command before it: content may be a lone dot only
        unread: Unread | None = None
        while True:
            piece = await self.read(PIECE_OCTETS)
            if not piece:
                raise self.exception() or ConnectionResetError("the client left in the middle of a message")
            begin = max(0, len(content) - len(_END))
            content += piece
            if unread is None and not lease.take(len(piece)):
                unread = Unread.NO_ROOM
            end = content.find(_END, begin)
            if end >= 0:
                self._buffer[:0] = content[end + len(_END) :]  # what came early is the next command
                if unread is None and end > octets_max:
                    unread = Unread.TOO_LONG
                return _unstuffed(content, end) if unread is None else unread
            if unread is None and len(content) > octets_max + len(_END) + 2:
                unread = Unread.TOO_LONG
            if unread is not None:
                lease.end()
                del content[: -len(_END)]


def _unstuffed(content: bytearray, end: int) -> bytes:
    """From CRLF before the first line to CRLF before the last dot, as the client meant it."""
    return bytes(content[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]
