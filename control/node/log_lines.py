"""What processes write, as lines that may be shown: cut, escaped, bounded in length, rate and number.

A child may write anything, also what a peer sent it: no control character reaches a terminal or a log file, a
line ends somewhere, and one that writes without end costs a bounded share of what is kept. The last lines of
each process stay in memory, for `emass status` and `emass node logs`. Pure: `now` is an argument.
"""

import json
import re
from collections import Counter, deque

from control.cli.visible import visible

LINE_OCTETS_MAX = 4096  # a traceback's line is shorter; some journals cut at this length, too
LINES_PER_SECOND = 500.0  # per process, in the long run: 2 MB/s at most, a few hundred KB/s as lines are
BURST_LINES = 5_000.0  # a start and a stop tell a lot at once
KEPT_LINES = 1_000  # per process
CUT_MARK = " [cut]"
ROOT = "root"

_ERROR = re.compile(r"\[(error|critical)\b")


class LineCutter:
    """Octets in, lines out. What is longer than a line may be is dropped behind its mark."""

    def __init__(self) -> None:
        self._open = b""
        self._cut = False

    def __repr__(self) -> str:
        return f"<LineCutter with {len(self._open)} octets in hand>"

    def feed(self, octets: bytes) -> list[str]:
        """The lines that these octets end."""
        *ended, rest = octets.split(b"\n")
        lines = []
        for piece in ended:
            self._take(piece)
            lines.append(self._end())
        self._take(rest)
        return [line for line in lines if line]

    def finish(self) -> list[str]:
        """What was written without an end."""
        line = self._end()
        return [line] if line else []

    def _take(self, piece: bytes) -> None:
        room = LINE_OCTETS_MAX - len(self._open)
        self._open += piece[:room]
        self._cut = self._cut or len(piece) > room

    def _end(self) -> str:
        text = visible(self._open.decode("utf-8", "replace").rstrip()) + (CUT_MARK if self._cut else "")
        self._open, self._cut = b"", False
        return text


class LineRate:
    """How many lines a process may still have written down. Those over it are counted."""

    def __init__(self, per_second: float = LINES_PER_SECOND, burst: float = BURST_LINES) -> None:
        self.dropped = 0
        self._per_second, self._burst = per_second, burst
        self._room, self._at = burst, 0.0

    def __repr__(self) -> str:
        return f"<LineRate: room for {self._room:.0f}, {self.dropped} dropped>"

    def allows(self, now: float) -> bool:
        """Whether one more line goes through at `now` (seconds, never going back)."""
        self._room = min(self._burst, self._room + max(0.0, now - self._at) * self._per_second)
        self._at = now
        if self._room < 1.0:
            self.dropped += 1
            return False
        self._room -= 1.0
        return True

    def take_dropped(self) -> int:
        """How many were dropped since it was asked last, once there is room again."""
        dropped, self.dropped = self.dropped, 0
        return dropped


class LogBook:
    """The last lines of the root and of each process."""

    def __init__(self, names: tuple[str, ...], kept: int = KEPT_LINES) -> None:
        self.names = (ROOT, *names)
        self._lines = {name: deque[tuple[int, str]](maxlen=kept) for name in self.names}
        self._total = 0
        self._counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<LogBook: {', '.join(f'{name} {self._counts[name]}' for name in self.names)}>"

    def add(self, name: str, line: str) -> None:
        self._total += 1
        self._counts[name] += 1
        self._lines[name].append((self._total, line))

    def last(self, name: str = "", count: int = KEPT_LINES) -> list[str]:
        """The last lines of one or of all in their order, each with its process in front."""
        chosen = [name] if name else self.names
        found = sorted((number, each, line) for each in chosen for number, line in self._lines[each])
        return [prefixed(each, line) for _, each, line in found[-count:]] if count > 0 else []

    def mark(self) -> int:
        """A moment, for `last_line`."""
        return self._total

    def last_line(self, name: str, mark: int) -> str:
        """The last line that it wrote since then."""
        lines = self._lines[name]
        return lines[-1][1] if lines and lines[-1][0] > mark else ""


def prefixed(name: str, line: str) -> str:
    """A line as people read it among those of other processes."""
    return f"{name:<10} | {line}"


def as_json(name: str, line: str) -> str:
    """A line as one JSON object that names its process; what is no object becomes the event of one."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):  # whatever a process has printed
        told = None
    if not isinstance(told, dict):
        told = {"event": line}
    return json.dumps({"process": name} | told)


def tells_error(line: str) -> bool:
    """Whether one of our logs' lines, in either format, is an error."""
    if line.startswith("{"):
        try:
            return json.loads(line).get("level") in ("error", "critical")
        except (ValueError, RecursionError):
            return False
    return _ERROR.search(line) is not None
