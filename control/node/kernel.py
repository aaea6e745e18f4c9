"""What the kernel knows of processes: who lives, who descends from whom, how much memory is their own.

A pid alone names nobody for long, since numbers are used again: with the tick of its birth it does. Reads
/proc and nothing else; what has gone meanwhile is left out.
"""

import os
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
_PPID, _STATE, _BIRTH = 1, 0, 19  # fields of /proc/PID/stat behind the name: proc(5) counts them from 3
PRIVATE = ("RssAnon", "RssShmem")


def birth(pid: int) -> int | None:
    """The tick at which the process with this number was born; None when there is none."""
    fields = _stat(pid)
    return None if fields is None or fields[_STATE] == "Z" else int(fields[_BIRTH])


def is_alive(pid: int, born: int | None) -> bool:
    """Whether the very process still runs. A zombie does not."""
    return born is not None and birth(pid) == born


def family(pids: Iterable[int]) -> list[int]:
    """These processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(PROC):
        if name.isdecimal():
            fields = _stat(int(name))
            if fields is not None:
                children.setdefault(int(fields[_PPID]), []).append(int(name))
    found = list(pids)
    for pid in found:
        found += children.get(pid, ())
    return found


def private_octets(pid: int) -> int:
    """Memory that is this process's own and no file's."""
    try:
        text = (PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    sizes = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return sum(1024 * int(sizes.get(name, "0").split()[0]) for name in PRIVATE)


def _stat(pid: int) -> list[str] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return text.rpartition(")")[2].split()  # the name in front may hold anything
