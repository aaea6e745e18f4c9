"""The members of a local bus: one folder each, one LMDB environment each, one writing process each.

Decides who is there (a folder with the file `ready` in it, which stands once the store is set up) and
who is gone (no such folder any more, or another one in its place). LMDB must not open a folder twice in
a process, so environments are shared by all buses of the process: the writer's own is read by the
others too, and a read-only one gives way when a bus of this process starts to write there. All of them
live in one thread. A *temporary* member (a command's) is marked so and may be swept away by anybody once
its process is gone and nobody waits for what it published.

On trouble: a member whose store cannot be opened raises StorageError where it is read.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.storage import Environment, StorageError
from engine.storage.environment import MAP_OCTETS

KIND = "bus"
VERSION = 1
DATABASES = (
    *("entries", "streams", "cursors"),  # local_streams
    *("rows", "changes", "tombstones", "counters"),  # local_tables
    *("asks", "answers"),  # local_asks
)
READY = "ready"
TEMPORARY = "temporary"
REMOVED_PREFIX = ".removed-"
EPOCH_OCTETS = 8

_EPOCH = b"epoch"

Identity = tuple[int, int]  # inode and time of `ready`: another store under the same name has another one


class Member:
    """One member's environment in this process, whoever looks at it. Made by `hold`, ended by `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.writing = False
        self.users = 0
        self.identity: Identity | None = None
        self._environment: Environment | None = None
        self._epoch = b""

    def __repr__(self) -> str:
        how = "writing" if self.writing else "reading" if self._environment else "closed"
        return f"<Member {self.name}: {how}, {self.users} users>"

    @property
    def environment(self) -> Environment:
        """The open environment; opens it for reading. StorageError."""
        if self._environment is None:
            self.identity = identity_of(self.path)
            self._open(readonly=True, map_octets=MAP_OCTETS)
        assert self._environment is not None
        return self._environment

    @property
    def databases(self) -> dict[str, Any]:
        return self.environment.databases

    @property
    def epoch(self) -> bytes:
        """Random per new store: sequences of another epoch say nothing about this one."""
        _ = self.environment  # reads it
        return self._epoch

    def exists(self) -> bool:
        """Whether its folder still stands: a temporary member may leave at any moment."""
        return identity_of(self.path) is not None

    @contextmanager
    def read(self) -> Iterator[Any]:
        """A short read transaction."""
        with self.environment.read() as transaction:
            yield transaction

    def last_visible(self) -> int:
        """The id of the last commit that a reader sees.

        `Environment.last_transaction` may be ahead of it for as long as that commit's fsync takes (LMDB
        writes the meta page first and shows it to readers after): who looked then would look too early.
        """
        with self.read() as transaction:
            return int(transaction.id())

    def start_writing(self, map_octets: int) -> None:
        """Open for writing in this process; creates the store. StorageError when another one writes."""
        if self.writing:
            raise StorageError(f"{self.path}: another bus of this process is writing here")
        self.forget()
        self._open(readonly=False, map_octets=map_octets)
        self.writing = True
        self._mark_ready()

    def stop_writing(self) -> None:
        self.forget()
        self.writing = False

    def forget(self) -> None:
        """Close the environment; the next read opens what lies in the folder then."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _open(self, *, readonly: bool, map_octets: int) -> None:
        environment = Environment(
            self.path,
            kind=KIND,
            version=VERSION,
            databases=DATABASES,
            map_octets=map_octets,
            readonly=readonly,
        )
        with environment.read() as transaction:
            epoch = environment.get_meta(transaction, _EPOCH)
        if epoch is None:
            assert not readonly, "a store is ready only once it has its epoch"
            epoch = secrets.token_bytes(EPOCH_OCTETS)
            with environment.write() as transaction:
                environment.put_meta(transaction, _EPOCH, epoch)
        self._environment, self._epoch = environment, epoch

    def _mark_ready(self) -> None:
        ready = self.path / READY
        if not ready.exists():
            ready.touch(mode=0o600)
            for folder in (self.path, self.path.parent):  # else a power cut could hide what it claimed
                sync_folder(folder)
        self.identity = identity_of(self.path)


NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})

_held: dict[Path, Member] = {}


def hold(path: Path) -> Member:
    """The process's one Member for a folder; give it back with `release`."""
    member = _held.setdefault(path, Member(path))
    member.users += 1
    return member


def release(member: Member) -> None:
    assert member.users > 0
    member.users -= 1
    if member.users == 0:
        member.stop_writing()
        del _held[member.path]


class Members:
    """Who is on the bus, seen by one of them. `refresh` looks; `everyone` lists."""

    def __init__(self, root: Path, own: str, map_octets: int = MAP_OCTETS) -> None:
        self.root = root.resolve()
        self.own = hold(self.root / own)
        try:
            self.own.start_writing(map_octets)
        except BaseException:
            release(self.own)
            raise
        self._others: dict[str, Member] = {}
        self.refresh()

    def __repr__(self) -> str:
        return f"<Members of {self.root}: {', '.join(member.name for member in self.everyone())}>"

    def everyone(self) -> list[Member]:
        """This member first, the others by name."""
        return [self.own, *self._others.values()]

    def refresh(self) -> bool:
        """List the folder; whether somebody came, went or began anew.

        Without a free descriptor nothing is seen for now. Raises StorageError when our own files are gone.
        """
        self.own.environment.check_files()
        try:
            listed = list_members(self.root)
        except OSError as error:
            if error.errno in NO_DESCRIPTOR:
                return False
            raise StorageError(
                f"{self.root}: the folder of the bus cannot be read: {error.strerror}"
            ) from error
        found = {name: identity for name, identity in listed if name != self.own.name}
        changed = False
        for name in self._others.keys() - found.keys():
            release(self._others.pop(name))
            changed = True
        for name, identity in found.items():
            member = self._others.get(name)
            if member is None:
                self._others[name] = hold(self.root / name)
                changed = True
            elif member.identity not in (None, identity) and not member.writing:
                member.forget()
                member.identity = identity
                changed = True
        if changed:
            self._others = dict(sorted(self._others.items()))
        return changed

    def close(self) -> None:
        self.own.stop_writing()
        for member in (self.own, *self._others.values()):
            release(member)
        self._others.clear()


def list_members(root: Path) -> list[tuple[str, Identity]]:
    """Name and identity of every member that is set up."""
    found = []
    with os.scandir(root) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                identity = identity_of(root / entry.name)
                if identity is not None:
                    found.append((entry.name, identity))
    return found


def identity_of(path: Path) -> Identity | None:
    try:
        status = os.stat(path / READY)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def remove_folder(path: Path) -> bool:
    """Remove a member's folder unless some process writes there; whether it is gone."""
    if path in _held and _held[path].writing:
        return False
    try:
        lock = os.open(path / "writer.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return not path.exists()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        aside = path.with_name(f"{REMOVED_PREFIX}{secrets.token_hex(8)}")
        path.rename(aside)  # so that nobody ever lists half a store
        shutil.rmtree(aside, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
