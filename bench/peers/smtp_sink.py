"""Postfix's smtp-sink: swallows mail at the speed of C and keeps nothing.

The receiving end of the benchmarks, so that what is measured is the sender. `smtp_sink_command`
gives the bare command for callers that pin it to a core; `sinking` runs it. It announces
PIPELINING and 8BITMIME, and takes several mails in one write.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.place import home, library_path
from bench.peers.process import free_port, running

BACKLOG = 1000


def smtp_sink_command(
    host: str,
    port: int,
    *,
    sessions_max: int | None = None,
    delay_seconds: int = 0,
    core: int | None = None,
) -> list[str]:
    """The command that runs smtp-sink at an address; `PeerMissing` when Postfix is not unpacked.

    `sessions_max` limits concurrent sessions (its own default is 256); `delay_seconds` waits before
    each answer to a final dot; `core` pins it to one core. Ends on SIGTERM.
    """
    root = home("postfix", root_needed=False)
    command = ["env", f"LD_LIBRARY_PATH={library_path(root)}", str(root / "usr/sbin/smtp-sink")]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    if os.geteuid() == 0:
        # It refuses to run as root. Any account without files of its own will do.
        command += ["-u", "nobody"]
    if sessions_max is not None:
        command += ["-m", str(sessions_max)]
    if delay_seconds:
        command += ["-w", str(delay_seconds)]
    address = f"inet:[{host}]:{port}" if ":" in host else f"inet:{host}:{port}"
    return [*command, address, str(BACKLOG)]


@contextmanager
def sinking(
    folder: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    sessions_max: int | None = None,
    delay_seconds: int = 0,
    core: int | None = None,
) -> Iterator[tuple[str, int]]:
    """smtp-sink at an address until the block ends; its log goes to `folder`. Yields (host, port)."""
    port = port or free_port(host)
    folder.mkdir(parents=True, exist_ok=True)
    command = smtp_sink_command(host, port, sessions_max=sessions_max, delay_seconds=delay_seconds, core=core)
    with running(command, address=(host, port), log=folder / "log"):
        yield host, port
