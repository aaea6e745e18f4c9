"""Postgrey, privately: the greylisting policy service that Postfix asks before it takes a recipient.

It remembers (client network, sender, recipient) and says "not yet" until `delay_seconds` have passed since it
saw the three first. Its own time before that is cut to seconds, so that tests need not wait for minutes; its
lists of exempt clients are empty. Runs as the caller's account over files in `folder`. Failing to start
raises `PeerFailed`.
"""

import grp
import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.place import home
from bench.peers.process import free_port, listens, running


@contextmanager
def greylisting(
    folder: Path, delay_seconds: int, host: str = "127.0.0.1", port: int | None = None
) -> Iterator[tuple[str, int]]:
    """A policy service for `postfix.receiving(policy=...)`; yields where it listens."""
    port = port or free_port(host)
    programs = home("postgrey")
    perl = shutil.which("perl")
    assert perl is not None, "place.missing has looked"
    folder.mkdir(parents=True)
    for name in ("clients", "recipients"):
        (folder / name).write_text("")
    libraries = [programs / "usr/share/perl5", *programs.glob("usr/lib/*/perl5/*")]
    command = [
        perl,
        "-T",
        *[word for library in libraries for word in ("-I", str(library))],
        str(programs / "usr/sbin/postgrey"),
        f"--inet={host}:{port}",
        f"--delay={delay_seconds}",
        f"--dbdir={folder}",
        f"--whitelist-clients={folder / 'clients'}",
        f"--whitelist-recipients={folder / 'recipients'}",
        f"--user={pwd.getpwuid(os.getuid()).pw_name}",
        f"--group={grp.getgrgid(os.getgid()).gr_name}",
        "--auto-whitelist-clients=0",
    ]
    with running(command, address=(host, port), log=folder / "log", ready=listens):
        yield host, port
