"""The coordinator's ledger: what every chunk is, who was given it, who claimed it, what came of it.

An append-only file in the job's folder, one line per fact with a check sum in front. A chunk's cut and each
of its targets are in it, synced, *before* it is published; so a coordinator that was killed knows all that
may be out, cuts the same chunks again from the same list, and nothing is doubled: chunk ids are the same
and claims decide. A torn last line is what a kill leaves and is cut off; any other damage is an error. The
file is locked, so that a job has one coordinator. Touches: the file. Raises LedgerError with the cure.
"""

import fcntl
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

FILE = "ledger"
VERSION = 1


class LedgerError(Exception):
    """The ledger cannot be used; the message names the file and the cure."""


class ChunkLine(Struct):
    """One chunk as the ledger knows it. Records are places in the list, from 1, both ends included."""

    number: int
    first: int
    last: int
    count: int
    targets: tuple[str, ...] = ()  # who was given it, in order; empty = planned, or its copies were lost
    claimed: tuple[str, str] | None = None  # broadcaster and epoch of its spool; never moved from there
    accepted: bool = False  # its broadcaster has said that it is durable
    finished: bool = False
    retired: bool = False  # its broadcaster was given up: what was not finished is ambiguous

    @property
    def state(self) -> str:
        if self.retired:
            return "retired"
        if self.finished:
            return "finished"
        if self.claimed is not None:
            return "claimed"
        return "published" if self.targets else "planned"

    @property
    def holder(self) -> str | None:
        """Who has it, or is to have it."""
        if self.claimed is not None:
            return self.claimed[0]
        return self.targets[-1] if self.targets else None


class Ledger:
    """Facts in memory, lines on their way to the disk; `sync` makes them durable."""

    def __init__(self, path: Path, job: str) -> None:
        """Open or make it for the job of that id. Raises LedgerError."""
        self.path = path
        self.chunks: list[ChunkLine] = []  # chunk n is at n - 1
        self.complete = False  # the list was read to its end
        self._job = job
        self._waiting: list[bytes] = []
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            self._lock()
            self._load()
        except BaseException:
            os.close(self._file)
            raise

    def __repr__(self) -> str:
        return f"<Ledger {self.path}: {len(self.chunks)} chunks, complete {self.complete}>"

    def __iter__(self) -> Iterator[ChunkLine]:
        return iter(self.chunks)

    def __getitem__(self, number: int) -> ChunkLine:
        return self.chunks[number - 1]

    @property
    def people(self) -> int:
        """How many are in chunks."""
        return sum(chunk.count for chunk in self.chunks)

    # --- facts, in memory at once and on disk with the next sync ---

    def cut(self, first: int, last: int, count: int) -> ChunkLine:
        """The next chunk of the list."""
        number = len(self.chunks) + 1
        self._note("cut", number, first, last, count)
        return self.chunks[-1]

    def publish(self, number: int, name: str) -> None:
        """It is about to be published to this broadcaster."""
        self._note("to", number, name)

    def drop(self, number: int, name: str) -> None:
        """What was published to this broadcaster is not on the bus, and nobody has claimed it."""
        self._note("gone", number, name)

    def claim(self, number: int, name: str, epoch: str) -> None:
        self._note("claim", number, name, epoch)

    def accept(self, number: int) -> None:
        self._note("accept", number)

    def finish(self, number: int) -> None:
        self._note("finish", number)

    def retire(self, number: int) -> None:
        self._note("retire", number)

    def end(self) -> None:
        """The list was read to its end."""
        self._note("end")

    def sync(self) -> None:
        """Durable on return. Raises LedgerError; then the facts wait for the next one."""
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        try:
            end = os.lseek(self._file, 0, os.SEEK_END)
            try:
                self._append(data)
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, end)  # not half a line, with another behind it
                raise
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._waiting.clear()

    def close(self) -> None:
        """Write what waits, as far as that is possible."""
        try:
            self.sync()
        finally:
            os.close(self._file)

    # --- the file ---

    def _note(self, kind: str, *facts: Any) -> None:
        self._apply(kind, facts)
        self._waiting.append(encode_line([kind, *facts]))

    def _apply(self, kind: str, facts: tuple[Any, ...]) -> None:
        _APPLY[kind](self, *facts)

    def _append(self, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.write(self._file, data[written:])

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LedgerError(f"{self.path}: another `emass send` coordinates this job") from None

    def _load(self) -> None:
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            data = file.read()
        whole = data.rfind(b"\n") + 1  # what is behind the last newline was torn by a kill
        lines = data[:whole].splitlines()
        for number, line in enumerate(lines):
            facts = decode_line(line)
            if facts is None:
                raise LedgerError(f"{self.path}: line {number + 1} is damaged; start a new job")
            if number == 0:
                self._check_head(facts)
                continue
            try:
                self._apply(facts[0], tuple(facts[1:]))
            except (KeyError, TypeError, IndexError, AssertionError) as error:
                raise LedgerError(f"{self.path}: line {number + 1} does not fit: {error}") from error
        if whole != len(data):
            os.ftruncate(self._file, whole)
        if not lines:
            self._waiting.append(encode_line(["ledger", VERSION, self._job]))
            self.sync()

    def _check_head(self, facts: list[Any]) -> None:
        if facts[:2] != ["ledger", VERSION]:
            raise LedgerError(f"{self.path}: is none of version {VERSION}")
        if facts[2:] != [self._job]:
            raise LedgerError(f"{self.path}: belongs to another job ({facts[2:]})")

    # --- what each line means ---

    def _cut(self, number: int, first: int, last: int, count: int) -> None:
        assert number == len(self.chunks) + 1, f"chunk {number} does not follow {len(self.chunks)}"
        assert 0 < count <= last - first + 1, f"chunk {number} has {count} people"
        self.chunks.append(ChunkLine(number, first, last, count))

    def _to(self, number: int, name: str) -> None:
        chunk = self[number]
        assert chunk.claimed is None, f"chunk {number} is claimed and is not moved"
        chunk.targets = (*(target for target in chunk.targets if target != name), name)

    def _gone(self, number: int, name: str) -> None:
        chunk = self[number]
        assert chunk.claimed is None, f"chunk {number} is claimed"
        chunk.targets = tuple(target for target in chunk.targets if target != name)

    def _claim(self, number: int, name: str, epoch: str) -> None:
        chunk = self[number]
        if chunk.claimed is None:  # the first one has it, whatever a bus says that has forgotten
            chunk.claimed = (name, epoch)

    def _flag(self, flag: str, number: int) -> None:
        setattr(self[number], flag, True)

    def _end(self) -> None:
        self.complete = True


_APPLY: dict[str, Callable[..., None]] = {
    "cut": Ledger._cut,
    "to": Ledger._to,
    "gone": Ledger._gone,
    "claim": Ledger._claim,
    "accept": lambda ledger, number: ledger._flag("accepted", number),
    "finish": lambda ledger, number: ledger._flag("finished", number),
    "retire": lambda ledger, number: ledger._flag("retired", number),
    "end": Ledger._end,
}


def encode_line(facts: list[Any]) -> bytes:
    """Check sum, blank, JSON, newline."""
    text = msgspec.json.encode(facts)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode_line(line: bytes) -> list[Any] | None:
    """The facts, or None when the line is damaged."""
    head, blank, text = line.partition(b" ")
    if not blank or head != b"%08x" % zlib.crc32(text):
        return None
    try:
        facts = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return facts if isinstance(facts, list) and facts else None
