"""What a benchmark says about where it ran: cores, memory of a process, versions."""

import os
import platform
import resource
import sys
from pathlib import Path


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """Private and mapped resident memory in MB (10^6): LMDB's pages count as mapped, not private."""
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name in {"RssAnon", "RssShmem", "RssFile"}:
            fields[name] = int(value.split()[0]) * 1024
    private = fields.get("RssAnon", 0) + fields.get("RssShmem", 0)
    return {"rss_mb": round(private / 1e6, 1), "rss_file_mb": round(fields.get("RssFile", 0) / 1e6, 1)}


def cpu_seconds() -> float:
    """CPU time of this process so far, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cpu_seconds_of(pid: int) -> float:
    """CPU time of another process so far, user and system; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    # Behind the name, which may hold anything but is closed by the last parenthesis: fields 14 and 15.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def written_octets() -> int:
    """Octets this process caused to be written to storage so far (0 when the system does not tell)."""
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "implementation": sys.implementation.name}


def pin(cpu: int) -> None:
    """Keep this process on one processor, when it may choose."""
    if cpu in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {cpu})
