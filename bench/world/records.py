"""What the world has seen: counts, and one line for each message it took.

`Accepted` is one message for one recipient. `RecordFile` appends it as a line of JSON with a single
write before the sender gets its answer, so that another process finds there every message that was
ever acknowledged, even after a `kill -9` of either side (the page cache outlives both; no fsync).
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
from msgspec import Struct

SECONDS_MAX = 3_600  # of a timeline: an hour, ten times a bench


class Accepted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message taken for one recipient. Addresses and Message-ID are text, odd octets escaped.

    `content` is what crossed the wire with dot-stuffing undone, None unless it is kept.
    `sha256` (hex) is over the same octets. `at` is wall time in seconds.
    """

    provider: str
    recipient: str
    mail_from: str
    message_id: str
    at: float
    octets: int
    sha256: str
    source: str
    tls: bool = False
    answered: bool = True  # False: the answer was withheld on purpose, the sender cannot know
    content: bytes | None = None


class AcceptedSink(Protocol):
    """Takes messages as they are accepted, before the reply is sent. Must not block for long."""

    def __call__(self, messages: Iterable[Accepted], /) -> None: ...


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def text_of(octets: bytes) -> str:
    """Octets from the wire as text that JSON can hold; what is no UTF-8 becomes \\xNN."""
    return octets.decode("utf-8", "backslashreplace")


class RecordFile:
    """An append-only file of `Accepted` lines. Several processes may append to one file."""

    def __init__(self, path: Path) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, messages: Iterable[Accepted]) -> None:
        lines = b"".join(self._encode(message) + b"\n" for message in messages)
        view = memoryview(lines)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(path: Path) -> Iterator[Accepted]:
    """The complete lines of a record file; a torn last line is left out."""
    decode = msgspec.json.Decoder(Accepted).decode
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield decode(line)


class Timeline:
    """Messages taken, and attempts and connections refused over a limit, for each second, for charts.

    The first second seen is number 0; what comes after `SECONDS_MAX` is not kept.
    """

    def __init__(self) -> None:
        self.begin = -1  # whole seconds of the receivers' clock
        self.accepted: list[int] = []
        self.refused: list[int] = []

    def add(self, now: float, *, accepted: int = 0, refused: int = 0) -> None:
        if self.begin < 0:
            self.begin = int(now)
        number = int(now) - self.begin
        while len(self.accepted) <= number < SECONDS_MAX:
            self.accepted.append(0)
            self.refused.append(0)
        if 0 <= number < SECONDS_MAX:
            self.accepted[number] += accepted
            self.refused[number] += refused

    def statistics(self) -> dict[str, Any]:
        return {"begin": self.begin, "accepted": self.accepted, "refused": self.refused}


class Tally:
    """Counts of one provider: outcomes, troubles by kind, protocol errors by what was wrong."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.troubles: Counter[str] = Counter()
        self.protocol_errors: Counter[str] = Counter()

    def statistics(self) -> dict[str, Any]:
        return {
            **{name: self.counts[name] for name in ALWAYS_COUNTED},
            **self.counts,
            "protocol_errors": self.protocol_errors.total(),
            "protocol_error_kinds": dict(self.protocol_errors),
            "troubles": dict(self.troubles),
        }


ALWAYS_COUNTED = (
    "connections",
    "connections_refused",
    "connections_open",
    "attempts",
    "rate_refusals",
    "blocks",
    "blocked_refusals",
    "accepted",
    "accepted_unanswered",
    "deferred",
    "bounced",
    "hung_up",
    "pipelining_refused",
)
