"""One LMDB environment: a folder with a fixed sparse map, a version stamp and one writing process.

Decides how environments are opened, and by whom: never with a flag that weakens a commit (NOSYNC,
NOMETASYNC, MAPASYNC, WRITEMAP), never on a network file system, never resized while open. The
writing process holds `writer.lock`; readers of other processes open with `readonly=True`. A
version stamp is written at birth; an older one is migrated step by step, a newer one refused.
Touches: one folder. Raises StorageError (with the folder and the cure), StorageFull when the map
or the disk has no room.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

MAP_OCTETS = 64 * 1024**3  # sparse: costs address space, not disk
DATABASES_MAX = 32
READERS_MAX = 126  # LMDB's default
META_PAGES = 2
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs"})

FULL_OCTETS = 1024**2  # a commit of a full group writes about this much: with less free, EIO means "full"
FULL_TEXTS = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

_META = b"meta"
_VERSION = b"version"
_KIND = b"kind"

Transaction = Any  # lmdb ships no types for its transactions
Migration = Callable[["Environment", Transaction], None]


class StorageError(Exception):
    """The store cannot be used; the message names the folder and the cure."""


class StorageFull(StorageError):
    """The disk or the map has no room for this commit; nothing of it was kept."""


class Environment:
    """An open environment. `kind` and `version` are stamped into it; `migrations[n]` lifts n to n + 1."""

    def __init__(
        self,
        path: Path,
        *,
        kind: str,
        version: int,
        databases: tuple[str, ...],
        migrations: Mapping[int, Migration] | None = None,
        map_octets: int = MAP_OCTETS,
        readonly: bool = False,
    ) -> None:
        self.path = path
        self.kind = kind
        self._lock: int | None = None
        self._env: Any = None
        self._closed = False
        self._refuse_network_file_system()
        if not readonly:
            self._lock = self._take_writer_lock()
        is_new = not (path / "data.mdb").exists()
        try:
            self._env = lmdb.open(
                str(path),
                map_size=map_octets,
                max_dbs=DATABASES_MAX,
                max_readers=READERS_MAX,
                readonly=readonly,
                create=not readonly,
                mode=0o600,
                subdir=True,
                max_spare_txns=4,
            )
            self._env.reader_check()
            self._meta = self._env.open_db(_META, create=not readonly)
            self._check_stamp(version, migrations or {}, readonly)
            self.databases = {
                name: self._env.open_db(name.encode(), create=not readonly) for name in databases
            }
            if is_new:
                self._sync_folders()
            self._identity = self._identify()
        except lmdb.Error as error:
            self.close()
            if is_full(path, error):
                raise StorageFull(f"{path}: no room to open the {kind} store: {error}") from error
            raise StorageError(f"{path}: cannot open the {kind} store: {error}") from error
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Environment {self.kind} {self.path}{' closed' if self._closed else ''}>"

    def begin(self, *, write: bool = False) -> Transaction:
        """A transaction; the caller ends it. Write transactions belong to the committer."""
        return self._env.begin(write=write, buffers=False)

    @property
    def begin_read(self) -> Callable[[], Transaction]:
        """Begins a read transaction, for who asks so often that `begin` would cost a tenth of it."""
        begin: Callable[[], Transaction] = self._env.begin
        return begin

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A short read transaction. Never hold it over an await: it pins old pages."""
        with self._env.begin(buffers=False) as transaction:
            yield transaction

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A synced write transaction in this thread: for opening and repair, not for running."""
        with renamed_errors(self.path), self._env.begin(write=True) as transaction:
            yield transaction

    def get_meta(self, transaction: Transaction, key: bytes) -> bytes | None:
        value = transaction.get(key, db=self._meta)
        return None if value is None else bytes(value)

    def put_meta(self, transaction: Transaction, key: bytes, value: bytes) -> None:
        transaction.put(key, value, db=self._meta)

    def check_files(self) -> None:
        """Raises StorageError when the file that we write is not the one that others find in the folder."""
        if self._identify() != self._identity:
            raise StorageError(
                f"{self.path}: the files of the {self.kind} store were removed or replaced while in use; "
                "what is written now would be lost: put them back and start again"
            )

    def check_readers(self) -> int:
        """Free the slots of dead reading processes; returns how many. Called at start and each minute."""
        return int(self._env.reader_check())

    def last_transaction(self) -> int:
        """The id of the last commit that a reader sees now: what readers of other processes poll.

        Not the environment's own record of it, which runs ahead for as long as that commit's fsync takes.
        """
        with self.read() as transaction:
            return int(transaction.id())

    def used_octets(self) -> int:
        """Octets of pages that hold something. The rest of the file is freed pages, to be written again."""
        with self.read() as transaction:
            every = [self._env.stat(), transaction.stat(self._meta)]
            every += [transaction.stat(database) for database in self.databases.values()]
        pages = sum(each["branch_pages"] + each["leaf_pages"] + each["overflow_pages"] for each in every)
        return int((META_PAGES + pages) * every[0]["psize"])

    def file_octets(self) -> int:
        """Octets that the file has ever needed: LMDB never gives any back."""
        return (int(self._env.info()["last_pgno"]) + 1) * int(self._env.stat()["psize"])

    def map_octets(self) -> int:
        return int(self._env.info()["map_size"])

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._env is not None:
                self._env.close()
            self._release_writer_lock()

    def _check_stamp(self, version: int, migrations: Mapping[int, Migration], readonly: bool) -> None:
        with self._env.begin() as transaction:
            stamped = transaction.get(_VERSION, db=self._meta)
            kind = transaction.get(_KIND, db=self._meta)
        if stamped is None:
            if readonly:
                raise StorageError(f"{self.path}: the {self.kind} store is not set up yet")
            with self.write() as transaction:
                self.put_meta(transaction, _VERSION, str(version).encode())
                self.put_meta(transaction, _KIND, self.kind.encode())
            return
        if kind != self.kind.encode():
            raise StorageError(f"{self.path}: holds a {kind!r} store, not a {self.kind} store")
        if not stamped.isdigit():
            raise StorageError(f"{self.path}: the version stamp of the {self.kind} store is damaged")
        found = int(stamped)
        if found > version:
            raise StorageError(
                f"{self.path}: the {self.kind} store has version {found}, this program knows {version}; "
                "use the newer program or another data folder"
            )
        if found < version and readonly:
            raise StorageError(
                f"{self.path}: the {self.kind} store has the older version {found}; start the engine once"
            )
        for step in range(found, version):
            if step not in migrations:
                raise StorageError(
                    f"{self.path}: the {self.kind} store has version {found}, which cannot be migrated to "
                    f"{version}; finish its queue with the program that wrote it"
                )
            with self.write() as transaction:
                migrations[step](self, transaction)
                self.put_meta(transaction, _VERSION, str(step + 1).encode())

    def _identify(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path / "data.mdb")
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _sync_folders(self) -> None:
        """Make the names of a new store durable: LMDB syncs its file, never the folder."""
        for folder in (self.path, self.path.parent):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _take_writer_lock(self) -> int:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot write here: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StorageError(
                f"{self.path}: another process is writing here; stop it or use another data folder"
            ) from error
        return lock

    def _release_writer_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _refuse_network_file_system(self) -> None:
        kind = file_system_kind(self.path)
        if kind in NETWORK_FILE_SYSTEMS:
            raise StorageError(f"{self.path}: is on {kind}; LMDB needs a local disk")


def file_system_kind(path: Path) -> str:
    """The type of the file system that holds `path` (or its nearest existing parent), as mount(8) says."""
    target = path.absolute()
    while not target.exists():
        target = target.parent
    target = target.resolve()
    best, kind = -1, "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return kind
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = Path(fields[1].replace("\\040", " "))
        if len(mount.parts) > best and (mount == target or mount in target.parents):
            best, kind = len(mount.parts), fields[2]
    return kind


@contextmanager
def renamed_errors(path: Path) -> Iterator[None]:
    """Turn lmdb's errors into ours."""
    try:
        yield
    except lmdb.Error as error:
        if is_full(path, error):
            raise StorageFull(f"{path}: no room: {error}") from error
        raise StorageError(f"{path}: {error}") from error


def is_full(path: Path, error: lmdb.Error) -> bool:
    """Whether the map, the disk, a quota or a file size limit has no room.

    LMDB says EIO when the kernel took only a part of a write, which is what a disk does that fills up
    in the middle of it; then the room that is left tells.
    """
    if isinstance(error, (lmdb.MapFullError, lmdb.DiskError)):
        return True
    text = str(error)
    if any(reason in text for reason in FULL_TEXTS):
        return True
    if os.strerror(errno.EIO) not in text:
        return False
    try:
        disk = os.statvfs(path)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < FULL_OCTETS
