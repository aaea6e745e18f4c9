"""The child's side of the root supervisor: says when it is ready, and ends when its supervisor is gone.

A process that is started with `--supervised` has a lifeline, its standard input, on which nothing ever
comes: when it closes, the supervisor has died or wants this process to end, and it ends politely. It says
that it is ready by one line on a pipe whose number is in the environment. Its output goes to the supervisor,
too, and a line that nobody reads any more must not crash a process that is settling its mail, so writing is
made forgiving.

Touches: file descriptors 0 to 2, the environment. Without the variable, `tell_ready` does nothing.
"""

import io
import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import TextIO

import trio

SUPERVISED = "--supervised"
READY_VARIABLE = "EMASS_READY_FD"
READY_LINE = b"ready\n"

_READ_OCTETS = 512


def begin_supervised() -> None:
    """Call first, before logs are configured: output to a supervisor that died is dropped from here on."""
    sys.stdout = ForgivingOutput(sys.stdout)
    sys.stderr = ForgivingOutput(sys.stderr)


def tell_ready(environ: MutableMapping[str, str] | None = None) -> None:
    """Tell the supervisor, if there is one, that this process does its work now. The second call is none."""
    environ = os.environ if environ is None else environ
    number = environ.pop(READY_VARIABLE, "")
    if not number.isdecimal():
        return
    with suppress(OSError):  # it died meanwhile: the lifeline says so, too
        os.write(int(number), READY_LINE)
        os.close(int(number))


async def until_lifeline_closes(descriptor: int = 0) -> None:
    """Return when the supervisor has closed this process's standard input, or has died."""
    async with trio.lowlevel.FdStream(os.dup(descriptor)) as lifeline:
        try:
            while await lifeline.receive_some(_READ_OCTETS):
                pass
        except trio.BrokenResourceError:
            pass


class ForgivingOutput(io.TextIOBase):
    """A text stream that drops what can no longer be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<ForgivingOutput to {self._stream.name}>"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            return len(text)

    def flush(self) -> None:
        with suppress(BrokenPipeError):
            self._stream.flush()
