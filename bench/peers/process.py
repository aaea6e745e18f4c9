"""Starts one server program as a child, in its own namespaces where it wants accounts, and stops it.

A guard shell stands between us and the program: when its standard input closes, because we stop it
or because we died, it takes down the program with its process group. A server that wants accounts
(Postfix, Exim, OpenSMTPD) runs in a mount and process namespace of its own. There `/etc/passwd` has
the accounts it was built for, its folder is `/mnt`, the unpacked programs are `/srv`, folders of ours
stand in place of `/run` or `/var/spool`, and the resolver leads nowhere. So nothing changes on the
machine, and when the guard goes the kernel ends every process that the server started.

Everything here is synchronous, so that tests, benchmarks and other event loops can use it alike.
Failing to start raises `PeerFailed` with the end of the program's log.
"""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 5.0
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 15

# Above Debian's ranges for accounts of people and services, so they meet no account of the machine.
ACCOUNT_IDS_FIRST = 61180

# Two folders that every Debian has and no server uses. Fixed, short and open to every account, where
# the real ones may lie in root's home or be too long for a socket's name.
FOLDER_INSIDE = Path("/mnt")
PROGRAMS_INSIDE = Path("/srv")

# Nobody listens there, so a server's question about its client fails at once and leaves no machine.
_RESOLVER = "nameserver 127.255.255.53\noptions timeout:1 attempts:1\n"

_GUARD = """
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
trap 'trap "" TERM; kill -TERM 0 2>/dev/null; exit 0' TERM
(cat <&3 >/dev/null; kill -TERM $$ 2>/dev/null) &
exec 3<&-
wait $child
"""


class PeerFailed(Exception):
    """A peer is here but did not start; the text holds the end of its log."""


class Namespace(Struct, frozen=True):
    """What a server sees differently from the machine."""

    programs: Path
    """The unpacked root, seen as PROGRAMS_INSIDE; never with set-uid rights."""
    accounts: tuple[str, ...] = ()
    """Users, each with a group of its name; see `account_id`."""
    groups: tuple[str, ...] = ()
    """Groups without a user."""
    mounts: tuple[tuple[Path, str], ...] = ()
    """(folder or file of ours, absolute path that it covers)."""

    def account_id(self, name: str) -> int:
        """The user and group number that `name` has inside."""
        return ACCOUNT_IDS_FIRST + (self.accounts + self.groups).index(name)


def greets(address: tuple[str, int]) -> bool:
    """Whether a mail server is ready at `address`: it says 220. Raises OSError while nobody listens."""
    with socket.create_connection(address, timeout=5) as probe:
        if not probe.recv(512).startswith(b"220"):
            return False
        probe.sendall(b"QUIT\r\n")
        return True


def listens(address: tuple[str, int]) -> bool:
    """Whether anybody listens at the TCP `address`. Raises OSError while nobody does."""
    with socket.create_connection(address, timeout=5):
        return True


def free_port(host: str) -> int:
    """A port that nobody listens on at `host` just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str],
    *,
    address: tuple[str, int],
    log: Path,
    environment: Mapping[str, str] | None = None,
    namespace: Namespace | None = None,
    ready: Callable[[tuple[str, int]], bool] = greets,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block ends; the block starts when `ready(address)` is true.

    `ready` may raise OSError for not yet.
    """
    guarded = ["/bin/sh", "-c", _mounts(namespace, log.parent) + _GUARD, "guard", *command]
    if namespace is not None:
        own = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        guarded = [*own, *guarded]
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with log.open("ab") as output:
        child = subprocess.Popen(
            guarded,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            start_new_session=True,
            env={"PATH": path, "LANG": "C.UTF-8", **(environment or {})},
        )
    try:
        _wait_until_ready(child, address, log, ready)
        yield child
    finally:
        _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _mounts(namespace: Namespace | None, folder: Path) -> str:
    """The shell lines that furnish the namespace; its account files are written to `folder`."""
    if namespace is None:
        return ""
    passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    for name in namespace.accounts:
        number = namespace.account_id(name)
        passwd += f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n"
    for name in namespace.accounts + namespace.groups:
        group += f"{name}:x:{namespace.account_id(name)}:\n"
    own_passwd, own_group = folder / "passwd", folder / "group"
    own_passwd.write_text(passwd)
    own_group.write_text(group)
    own_resolver = folder / "resolv.conf"
    own_resolver.write_text(_RESOLVER)
    mounts = [
        *namespace.mounts,
        (own_passwd, "/etc/passwd"),
        (own_group, "/etc/group"),
        *([(own_resolver, "/etc/resolv.conf")] if Path("/etc/resolv.conf").exists() else []),
        (namespace.programs, str(PROGRAMS_INSIDE)),
        (folder, str(FOLDER_INSIDE)),
    ]
    binds = "".join(f"mount --bind '{ours}' '{covered}'\n" for ours, covered in mounts)
    # A set-uid program would ignore LD_LIBRARY_PATH, and no server here needs to gain rights.
    return f"set -e\n{binds}mount -o remount,bind,nosuid {PROGRAMS_INSIDE}\ncd {FOLDER_INSIDE}\nset +e\n"


def _wait_until_ready(
    child: subprocess.Popen[bytes],
    address: tuple[str, int],
    log: Path,
    ready: Callable[[tuple[str, int]], bool],
) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            if ready(address):
                return
        except OSError:
            pass
        if child.poll() is not None or time.monotonic() > deadline:
            what = "did not answer" if child.poll() is None else f"ended with code {child.returncode}"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
            raise PeerFailed(f"the server at {address[0]}:{address[1]} {what}:\n{tail}")
        time.sleep(POLL_SECONDS)
