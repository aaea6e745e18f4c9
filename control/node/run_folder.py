"""What a running root leaves in `data/run` for others: who it is, how its processes are.

`root.lock` is held for the root's life, so that a second one over the same folder is refused, and it holds
the pid. `root.json` is written at each change: commands read it, also after the root's death, when it names
those that may have outlived it. Files are for the owner alone. Nothing here is needed to send mail: a disk
without room costs a status that is old, and no more. Touches: `data/run/`.
"""

import fcntl
import os
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from control.node.kernel import is_alive
from control.node.record import ProcessFacts
from engine.model.decoding import UNDECODABLE

FOLDER = "run"
LOCK_FILE = "root.lock"
STATE_FILE = "root.json"
STATE_OCTETS_MAX = 1024 * 1024
LOOK_SECONDS = 0.05


class RootRuns(Exception):
    """Another root runs over this folder."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(
            f"it runs already, as pid {pid or 'unknown'} (emass status shows it, emass stop ends it)"
        )
        self.pid = pid


class ReloadFacts(Struct, frozen=True):
    """How the last reload went; `number` counts them."""

    number: int = 0
    at: float = 0.0
    done: str = ""
    error: str = ""
    warnings: tuple[str, ...] = ()


class RootState(Struct, frozen=True):
    """The root as it told of itself. Times are wall seconds."""

    node: str
    pid: int
    incarnation: str
    config: str
    started_at: float
    state: str  # starting, running, stopping, stopped, failed
    at: float
    error: str = ""
    processes: tuple[ProcessFacts, ...] = ()
    reload: ReloadFacts = ReloadFacts()


class RunFolder:
    """One node's `data/run`."""

    def __init__(self, data: Path) -> None:
        self.path = data / FOLDER
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"<RunFolder {self.path}{', held' if self._lock is not None else ''}>"

    def hold(self) -> None:
        """Be the root of this folder until `release`. Raises RootRuns, OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for last in (False, False, True):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if last:
                    os.close(lock)
                    raise RootRuns(self.holder()) from None
                time.sleep(LOOK_SECONDS)  # `holder` of some command holds it for a moment
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def holder(self) -> int | None:
        """The pid of the root that runs; None when none does. 0: one runs that has not said its pid yet."""
        try:
            lock = os.open(self.path / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            said = os.pread(lock, 20, 0).strip()
            return int(said) if said.isdigit() else 0
        finally:
            os.close(lock)
        return None

    def write(self, state: RootState) -> None:
        """Replace what was told. Raises OSError."""
        new = self.path / f".{STATE_FILE}.new"
        with open(new, "wb", opener=_private) as file:
            file.write(msgspec.json.encode(state))
        new.replace(self.path / STATE_FILE)

    def read(self) -> RootState | None:
        """What the last root told; None when none ever ran, or its file cannot be read."""
        try:
            with (self.path / STATE_FILE).open("rb") as file:
                return msgspec.json.decode(file.read(STATE_OCTETS_MAX), type=RootState)
        except (OSError, *UNDECODABLE):
            return None


def outlived(state: RootState | None) -> tuple[ProcessFacts, ...]:
    """The processes of a root that still run."""
    if state is None:
        return ()
    return tuple(each for each in state.processes if each.pid is not None and is_alive(each.pid, each.born))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
