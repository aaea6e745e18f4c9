"""What a process did to one file, from a recording of its system calls, and the files a power cut may leave.

`record` runs a program under strace; `DiskLog` is what came of it: writes (with their data), syncs and
lines on standard output, each with the place in the recording where it began and ended. A power cut at
a place keeps what is *durable*: a write through an O_DSYNC descriptor that had returned, and any write
that had returned before a sync began that had returned. Every other write may be there wholly, not at
all, or in any of its 512-octet sectors.
"""

import random
import re
import subprocess
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

SECTOR = 512  # what a disk writes at once, at the least
CALLS = "openat,close,lseek,write,writev,pwrite64,pwritev,fdatasync,fsync,msync,ftruncate,mmap"

_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?|0x[0-9a-f]+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Write:
    began: int
    ended: int
    offset: int
    data: bytes
    dsync: bool


@dataclass
class Sync:
    began: int
    ended: int


@dataclass
class Said:
    at: int
    text: str


@dataclass
class DiskLog:
    """The history of one file. `length` is the number of lines in the recording."""

    writes: list[Write] = field(default_factory=list)
    syncs: list[Sync] = field(default_factory=list)
    folder_syncs: list[Sync] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)  # calls that this model does not cover
    length: int = 0

    def durable(self, write: Write, cut: int) -> bool:
        if write.dsync and write.ended < cut:
            return True
        return any(write.ended < sync.began and sync.ended < cut for sync in self.syncs)

    def after_power_cut(self, cut: int, chance: random.Random | None) -> bytes:
        """The file when the power goes at `cut`; without `chance` all that may be lost is lost."""
        octets = bytearray()
        for write in self.writes:
            if write.began >= cut:
                break
            if self.durable(write, cut):
                kept = [(0, len(write.data))]
            elif chance is None:
                continue
            else:
                kept = _survivors(write, chance)
            for start, end in kept:
                if len(octets) < write.offset + end:
                    octets.extend(bytes(write.offset + end - len(octets)))
                octets[write.offset + start : write.offset + end] = write.data[start:end]
        return bytes(octets)


def _survivors(write: Write, chance: random.Random) -> list[tuple[int, int]]:
    """The parts of a write that was never synced which reached the disk."""
    fate = chance.random()
    if fate < 0.3:
        return []
    if fate < 0.6:
        return [(0, len(write.data))]
    first = (
        -(-(write.offset + 1) // SECTOR) * SECTOR - write.offset
    )  # sectors are the disk's, not the write's
    edges = [0, *range(first, len(write.data), SECTOR), len(write.data)]
    if fate < 0.8:  # torn once
        edge = chance.choice(edges)
        return [(0, edge)] if chance.random() < 0.5 else [(edge, len(write.data))]
    return [(start, end) for start, end in pairwise(edges) if chance.random() < 0.5]


def record(command: list[str], log: Path) -> None:
    """Run `command` to its end, recording its system calls into `log`."""
    strace = ["strace", "-f", "-xx", "-s", "100000000", "-e", "signal=none", "-e", f"trace={CALLS}"]
    subprocess.run([*strace, "-o", str(log), *command], check=True, stdout=subprocess.DEVNULL, timeout=120)


def read_log(log: Path, file: Path) -> DiskLog:
    """The history of `file` in a recording."""
    found = DiskLog()
    descriptors: dict[int, bool] = {}  # of the file: is it O_DSYNC?
    folders: set[int] = set()
    places: dict[int, int] = {}
    unfinished: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(log.read_text(encoding="ascii").splitlines()):
        found.length = number + 1
        match = _LINE.match(line)
        assert match is not None, line[:100]
        thread, text = match.groups()
        began = number
        if text.endswith("<unfinished ...>"):
            unfinished[thread] = (number, text.removesuffix("<unfinished ...>"))
            continue
        resumed = _RESUMED.match(text)
        if resumed is not None:
            began, head = unfinished.pop(thread)
            text = head + resumed[1]
        call = _CALL.match(text)
        if call is not None and not call[3].startswith(("-", "?")):
            _take(
                found, call[1], call[2], int(call[3], 0), (began, number), file, descriptors, folders, places
            )
    return found


def _take(
    found: DiskLog,
    name: str,
    arguments: str,
    result: int,
    span: tuple[int, int],
    file: Path,
    descriptors: dict[int, bool],
    folders: set[int],
    places: dict[int, int],
) -> None:
    if name == "openat":
        path = _octets(arguments).decode()
        descriptors.pop(result, None)
        folders.discard(result)
        if path == str(file):
            descriptors[result] = "O_DSYNC" in arguments or "O_SYNC" in arguments
            places[result] = 0
        elif path == str(file.parent):
            folders.add(result)
        return
    first = arguments.split(",", 1)[0].strip()
    if name == "mmap":
        _, _, protection, kind, descriptor, _ = arguments.split(", ")
        if int(descriptor) in descriptors and "PROT_WRITE" in protection and "MAP_SHARED" in kind:
            found.surprises.append("the file is mapped for writing")
        return
    if not first.isdigit():
        return
    descriptor = int(first)
    if name == "write" and descriptor == 1:
        lines = _octets(arguments).decode(errors="replace").splitlines()
        found.said.extend(Said(span[0], text) for text in lines if text.startswith("{"))  # no child's output
    elif name == "fsync" and descriptor in folders:
        found.folder_syncs.append(Sync(*span))
    elif descriptor in descriptors:
        match name:
            case "close":
                del descriptors[descriptor]
            case "lseek":
                places[descriptor] = result
            case "fdatasync" | "fsync":
                found.syncs.append(Sync(*span))
            case "write" | "writev" | "pwrite64" | "pwritev":
                data = _octets(arguments)
                if result != len(data):
                    found.surprises.append(f"a short {name}")
                offset = places[descriptor]
                if name.startswith("p"):
                    offset = int(arguments.rsplit(", ", 1)[1])
                else:
                    places[descriptor] += result
                found.writes.append(Write(*span, offset, data, descriptors[descriptor]))
            case _:
                found.surprises.append(name)


def _octets(arguments: str) -> bytes:
    """All strings of a call's arguments, joined (an iovec has several)."""
    return bytes.fromhex("".join(_TEXT.findall(arguments)).replace("\\x", ""))
