"""What a client sends, read strictly: commands as lines that end in CRLF, content up to a line with a lone
dot.

Where two servers disagree about the end of a line, one sees a message where the other sees text; so a bare
CR or LF in a command raises, and content ends at CRLF . CRLF and at nothing that looks like it. Content is
read in large pieces, since one call a line was half the cost of a message. Touches: the stream's buffer.
"""

import asyncio
from typing import Any

LINE_OCTETS_MAX = 1_001  # of a command, or an answer to a challenge; what is longer is refused by the session
PIECE_OCTETS = 256 * 1024
_END = b"\r\n.\r\n"


class BareNewline(Exception):
    """A line that does not end in CRLF, or holds half of it."""


class StrictReader(asyncio.StreamReader):
    """The octets of one session."""

    _buffer: bytearray  # of the base class

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=LINE_OCTETS_MAX, loop=loop)

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """One line. Raises BareNewline."""
        line = await super().readuntil(separator)
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise BareNewline
        return line

    async def read_content(self, octets_max: int) -> bytes | None:
        """A message behind DATA, without its final dot and the dots that were put before others.

        None when it is longer than `octets_max`; it was read to its end and thrown away then.
        """
        content = bytearray(b"\r\n")  # the end of the command before it: content may be a lone dot only
        too_long = False
        while True:
            piece = await self.read(PIECE_OCTETS)
            if not piece:
                raise ConnectionResetError("the client left in the middle of a message")
            begin = max(0, len(content) - len(_END))
            content += piece
            end = content.find(_END, begin)
            if end >= 0:
                self._buffer[:0] = content[end + len(_END) :]  # what came early is the next command
                if too_long or end > octets_max:
                    return None
                return _unstuffed(content, end)
            if len(content) > octets_max + len(_END) + 2:
                too_long = True
                del content[: -len(_END)]


def _unstuffed(content: bytearray, end: int) -> bytes:
    """From CRLF before the first line to CRLF before the last dot, as the client meant it."""
    return bytes(content[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]
