"""Opening an LMDB folder: stamps, the one writer, what is refused and with which words."""

import errno
import os
from pathlib import Path
from typing import Any

import lmdb
import pytest

from engine.storage import Environment, StorageError, StorageFull, environment
from engine.storage.environment import file_system_kind, is_full, renamed_errors

MAP_OCTETS = 4 * 1024**2


def opened(path: Path, **facts: Any) -> Environment:
    known: dict[str, Any] = {
        "kind": "test",
        "version": 3,
        "databases": ("things",),
        "map_octets": MAP_OCTETS,
    }
    return Environment(path, **(known | facts))


def stamped(path: Path, **facts: Any) -> Path:
    opened(path, **facts).close()
    return path


def put(store: Environment, key: bytes, value: bytes) -> None:
    with store.write() as transaction:
        transaction.put(key, value, db=store.databases["things"])


def got(store: Environment, key: bytes) -> bytes | None:
    with store.read() as transaction:
        value: bytes | None = transaction.get(key, db=store.databases["things"])
        return value


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    store = opened(tmp_path / "deep" / "store")
    put(store, b"a", b"1")
    before = store.last_transaction()
    with store.write() as transaction:
        store.put_meta(transaction, b"mark", b"2")
    assert store.last_transaction() == before + 1
    store.close()
    store.close()
    store = opened(tmp_path / "deep" / "store")
    with store.read() as transaction:
        assert store.get_meta(transaction, b"mark") == b"2"
        assert store.get_meta(transaction, b"none") is None
    assert got(store, b"a") == b"1"
    assert 0 < store.used_octets() < store.map_octets() == MAP_OCTETS
    assert store.check_readers() == 0
    assert repr(store) == f"<Environment test {tmp_path}/deep/store>"
    store.close()


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = stamped(tmp_path / "store")
    assert path.stat().st_mode & 0o077 == 0
    assert (path / "data.mdb").stat().st_mode & 0o077 == 0


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    stamped(tmp_path, version=4)
    with pytest.raises(StorageError, match="has version 4, this program knows 3; use the newer program"):
        opened(tmp_path)
    opened(tmp_path, version=4).close()  # a refusal keeps neither the lock nor the file


def test_an_older_version_is_migrated_step_by_step(tmp_path: Path) -> None:
    stamped(tmp_path, version=1)

    def to_2(store: Environment, transaction: Any) -> None:
        store.put_meta(transaction, b"mark", b"two")

    def to_3(store: Environment, transaction: Any) -> None:
        store.put_meta(transaction, b"mark", (store.get_meta(transaction, b"mark") or b"") + b" three")

    for _ in range(2):
        store = opened(tmp_path, migrations={1: to_2, 2: to_3})
        with store.read() as transaction:
            assert store.get_meta(transaction, b"mark") == b"two three"
        store.close()


def test_a_migration_that_fails_leaves_the_step_before_it(tmp_path: Path) -> None:
    stamped(tmp_path, version=1)
    done: list[int] = []

    def to_3(store: Environment, transaction: Any) -> None:
        store.put_meta(transaction, b"mark", b"half")
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        opened(tmp_path, migrations={1: lambda store, transaction: done.append(1), 2: to_3})
    store = opened(tmp_path, migrations={1: lambda store, transaction: done.append(1)}, version=2)
    with store.read() as transaction:
        assert store.get_meta(transaction, b"mark") is None
    store.close()
    assert done == [1]


def test_an_older_version_without_a_way_up_is_refused(tmp_path: Path) -> None:
    stamped(tmp_path, version=1)
    with pytest.raises(StorageError, match="version 1, which cannot be migrated to 3"):
        opened(tmp_path)
    with pytest.raises(StorageError, match="older version 1; start the engine once"):
        opened(tmp_path, readonly=True)


def test_another_kind_of_store_is_refused(tmp_path: Path) -> None:
    stamped(tmp_path, kind="spool")
    with pytest.raises(StorageError, match="holds a b'spool' store, not a test store"):
        opened(tmp_path)


def test_a_damaged_stamp_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with store.write() as transaction:
        store.put_meta(transaction, b"version", b"?")
    store.close()
    with pytest.raises(StorageError, match="stamp of the test store is damaged"):
        opened(tmp_path)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(os.urandom(16_384))
    with pytest.raises(StorageError, match="cannot open the test store"):
        opened(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write here"):
        opened(tmp_path / "file" / "store")


def test_a_second_writer_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(StorageError, match="another process is writing here"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_a_reader_without_a_store_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        opened(tmp_path / "none", readonly=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p"])
def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(environment, "file_system_kind", lambda path: kind)
    with pytest.raises(StorageError, match=f"is on {kind}; LMDB needs a local disk"):
        opened(tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_file_system_is_that_of_the_deepest_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b" / "c").mkdir(parents=True)
    spaced = str(tmp_path / "a b").replace(" ", "\\040")
    mounts = f"x / ext4 rw 0 0\ny {tmp_path} xfs rw 0 0\nz {spaced} nfs rw\n?\n"
    real = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, **kind: mounts if str(path) == "/proc/self/mounts" else real(path, **kind),
    )
    assert file_system_kind(tmp_path / "new" / "folder") == "xfs"
    assert file_system_kind(tmp_path / "a b" / "c") == "nfs"
    assert file_system_kind(Path("/nowhere/at/all")) == "ext4"


def test_the_map_being_full_is_storage_full(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(StorageFull):
        put(store, b"big", bytes(MAP_OCTETS))
    put(store, b"small", b"1")
    store.close()


@pytest.mark.parametrize(
    ("error", "room", "full"),
    [
        (lmdb.MapFullError("mdb_put", -30792), 10**9, True),
        (lmdb.DiskError("mdb_txn_commit", errno.ENOSPC), 10**9, True),
        (lmdb.Error("mdb_txn_commit: No space left on device"), 10**9, True),
        (lmdb.Error("mdb_txn_commit: Disk quota exceeded"), 10**9, True),
        (lmdb.Error("mdb_txn_commit: File too large"), 10**9, True),
        (lmdb.Error("mdb_txn_commit: Input/output error"), 4_096, True),
        (lmdb.Error("mdb_txn_commit: Input/output error"), 10**9, False),
        (lmdb.CorruptedError("mdb_get"), 0, False),
    ],
)
def test_errors_are_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: lmdb.Error, room: int, full: bool
) -> None:
    class Disk:
        f_bavail = room
        f_frsize = 1

    monkeypatch.setattr(os, "statvfs", lambda path: Disk())
    assert is_full(tmp_path, error) is full
    with pytest.raises(StorageError) as caught, renamed_errors(tmp_path):
        raise error
    assert isinstance(caught.value, StorageFull) is full
    assert str(tmp_path) in str(caught.value)
