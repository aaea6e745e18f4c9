"""Where lines go: to the root's own output, and to a file per process that is turned over by its size.

Lines are taken at once and written by a thread in batches, since a terminal that stands still or a slow disk
must not hold up who watches over processes. When the writing falls far behind, further lines are dropped and
counted; a file that cannot be written is said once, and tried again with each batch. Touches: `data/log/`.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import trio

from control.node.log_lines import ROOT, LineCutter, LineRate, LogBook, as_json, prefixed

FILE_OCTETS_MAX = 10 * 1000 * 1000
FILES_KEPT = 5  # with the one that is written: 50 MB a process
WAITING_LINES_MAX = 20_000  # some MB
SCREEN = ""  # stands for no process
FLUSH_SECONDS = 2.0  # at the end: the last lines say why


class LogFile:
    """One process's log: NAME.log, NAME.log.1 (the one before it), ..."""

    def __init__(self, path: Path, octets_max: int = FILE_OCTETS_MAX, kept: int = FILES_KEPT) -> None:
        self.path = path
        self._octets_max, self._kept = octets_max, kept

    def __repr__(self) -> str:
        return f"<LogFile {self.path}>"

    def write(self, lines: list[str]) -> None:
        """Append. Raises OSError."""
        data = "".join(f"{line}\n" for line in lines).encode()
        with open(self.path, "ab", opener=_private) as file:
            file.write(data)
            full = file.tell() >= self._octets_max
        if full:
            self._turn()

    def _turn(self) -> None:
        for number in range(self._kept - 1, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


class LogOutput:
    """Takes every line of this node. `add` never waits."""

    def __init__(
        self,
        book: LogBook,
        folder: Path,
        stream: TextIO,
        *,
        json_logs: bool,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.book = book
        self.dropped = 0
        self._stream = stream
        self._json_logs = json_logs
        self._now, self._wall = now, wall
        self._files = {name: LogFile(folder / f"{name}.log") for name in book.names}
        self._rates = {name: LineRate() for name in book.names}
        self._waiting: deque[tuple[str, str]] = deque()
        self._bell = trio.Event()
        self._refused = ""

    def __repr__(self) -> str:
        return f"<LogOutput: {len(self._waiting)} lines wait, {self.dropped} dropped>"

    def add(self, name: str, line: str) -> None:
        """One line of a process or of the root."""
        rate = self._rates[name]
        if not rate.allows(self._now()):
            return
        if dropped := rate.take_dropped():
            self._take(name, f"... {dropped:,} lines were dropped: too many at once")
        self._take(name, line)

    def say(self, line: str, level: str = "info") -> None:
        """A line of the root's own, in the form of our logs."""
        stamp = datetime.fromtimestamp(self._wall(), UTC).isoformat().replace("+00:00", "Z")
        if self._json_logs:
            told = {"event": line, "level": level, "timestamp": stamp, "logger": ROOT}
            self.add(ROOT, json.dumps(told))
        else:
            self.add(ROOT, f"{stamp} [{level:<9}] {line}")

    def show(self, text: str) -> None:
        """A word to whoever sits before the screen, which no log needs."""
        if not self._json_logs:
            self._waiting.append((SCREEN, text))
            self._bell.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what comes, until cancelled."""
        task_status.started()
        while True:
            await self._bell.wait()
            self._bell = trio.Event()
            await self._write_waiting()

    async def flush(self) -> None:
        """Write what waits, within a time limit."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FLUSH_SECONDS):
            await self._write_waiting()

    def _take(self, name: str, line: str) -> None:
        self.book.add(name, line)
        if len(self._waiting) >= WAITING_LINES_MAX:
            self.dropped += 1
            return
        self._waiting.append((name, line))
        self._bell.set()

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch = list(self._waiting)
            self._waiting.clear()
            await trio.to_thread.run_sync(self._write, batch, abandon_on_cancel=True)
        await trio.lowlevel.checkpoint()

    def _write(self, batch: list[tuple[str, str]]) -> None:
        """In a thread: one batch to the stream, then to the files."""
        form = as_json if self._json_logs else prefixed
        try:
            lines = (line if name == SCREEN else form(name, line) for name, line in batch)
            self._stream.write("".join(f"{line}\n" for line in lines))
            self._stream.flush()
        except (OSError, ValueError):
            pass  # the reader went away: the files have it
        try:
            for name in dict.fromkeys(name for name, _ in batch if name != SCREEN):
                own = [line for each, line in batch if each == name]
                self._files[name].write([as_json(name, line) for line in own] if self._json_logs else own)
            self._refused = ""
        except OSError as error:
            if not self._refused:
                self._refused = f"{error.filename}: cannot be written: {error.strerror}"
                trio.from_thread.run_sync(self.say, self._refused, "error")


class RootStream:
    """The root's own log as a stream of text: what actors beside the processes say."""

    def __init__(self, output: LogOutput) -> None:
        self._output = output
        self._cutter = LineCutter()

    def __repr__(self) -> str:
        return "<RootStream>"

    def write(self, text: str) -> int:
        for line in self._cutter.feed(text.encode()):
            self._output.add(ROOT, line)
        return len(text)

    def flush(self) -> None:
        """Each line goes on as it ends."""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
