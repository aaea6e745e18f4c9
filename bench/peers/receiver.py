"""What a receiving peer delivered, read back the same way whichever server it was.

Every server here delivers into `mails/new`, one file per message, and prepends its own trace lines
(Return-Path and one that names the recipient). `Receiver.arrived` takes those lines off again and
restores CRLF, so that what remains is the message as it crossed the wire, below the server's
Received line.
"""

import time
from pathlib import Path

from msgspec import Struct

POLL_SECONDS = 0.02

# The lines that servers put on top at delivery, by the fact each one holds.
_RECIPIENT_LINES = ("x-original-to", "envelope-to", "delivered-to")
_TRACE_LINES = ("return-path", "delivery-date", *_RECIPIENT_LINES)


class Arrived(Struct, frozen=True):
    """One delivered message."""

    return_path: str
    """MAIL FROM without brackets; empty for the null path."""
    recipient: str
    """RCPT TO without brackets."""
    message: bytes
    """From the server's Received line on, lines ended with CRLF."""


class Receiver(Struct, frozen=True):
    """A running server that takes mail for every domain and keeps it."""

    name: str
    host: str
    port: int
    mails: Path
    """The folder of delivered messages."""
    log: Path
    """What the server said, for failures."""

    def arrived(self) -> list[Arrived]:
        """Every message delivered so far, oldest file name first."""
        return [read_arrived(path.read_bytes()) for path in sorted(self.mails.glob("new/*"))]

    def count(self) -> int:
        """How many messages were delivered so far."""
        return sum(1 for _ in self.mails.glob("new/*"))

    def wait_for(self, count: int, *, seconds: float = 30.0) -> list[Arrived]:
        """Block until at least `count` messages are there, then return all; `TimeoutError` otherwise.

        It blocks its thread: call it from a worker thread when a server under test runs in this one.
        """
        deadline = time.monotonic() + seconds
        while self.count() < count:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.name} delivered {self.count()} of {count} in {seconds:g} s; see {self.log}"
                )
            time.sleep(POLL_SECONDS)
        return self.arrived()


def read_arrived(raw: bytes) -> Arrived:
    """Split a delivered file into the server's trace lines and the message below them."""
    facts: dict[str, str] = {}
    lines = raw.replace(b"\r\n", b"\n")
    while True:
        line, _, rest = lines.partition(b"\n")
        name, colon, value = line.decode("utf-8", "surrogateescape").partition(":")
        if not colon or name.lower() not in _TRACE_LINES:
            break
        facts.setdefault(name.lower(), value.strip().removeprefix("<").removesuffix(">"))
        lines = rest
    recipient = next((facts[name] for name in _RECIPIENT_LINES if name in facts), "")
    return Arrived(facts.get("return-path", ""), recipient, lines.replace(b"\n", b"\r\n"))
