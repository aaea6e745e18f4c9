"""Watermarks: a table, and the ballast that goes with them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.storage import Environment, Space, SpaceLevel, StorageError
from engine.storage.space import space_level

MIB = 1024**2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Environment]:
    store = Environment(tmp_path, kind="test", version=1, databases=("things",), map_octets=64 * MIB)
    yield store
    store.close()


class Disk:
    """What statvfs says."""

    f_frsize = 4096

    def __init__(self, free: int) -> None:
        self.f_bavail = free // 4096


@pytest.mark.parametrize(
    ("free", "level"),
    [
        (101, SpaceLevel.OPEN),
        (100, SpaceLevel.OPEN),
        (99, SpaceLevel.REFUSE_INTAKE),
        (50, SpaceLevel.REFUSE_INTAKE),
        (49, SpaceLevel.STOP_LEASING),
        (0, SpaceLevel.STOP_LEASING),
        (-1, SpaceLevel.STOP_LEASING),
    ],
)
def test_the_level_follows_what_is_free(free: int, level: SpaceLevel) -> None:
    assert space_level(free, refuse_octets=100, stop_octets=50) is level


def test_the_ballast_is_laid_while_there_is_room_and_given_back_when_there_is_none(
    store: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Space(store, refuse_octets=20 * MIB, stop_octets=10 * MIB, ballast_octets=MIB)
    ballast = store.path / "ballast"
    for free, level, there in [
        (30, SpaceLevel.OPEN, True),
        (15, SpaceLevel.REFUSE_INTAKE, True),
        (5, SpaceLevel.STOP_LEASING, False),
        (15, SpaceLevel.REFUSE_INTAKE, False),
        (30, SpaceLevel.OPEN, True),
    ]:
        monkeypatch.setattr(os, "statvfs", lambda path, free=free: Disk(free * MIB))
        assert space.measure() is space.level is level
        assert ballast.exists() is there
    assert ballast.stat().st_size == MIB
    assert ballast.stat().st_blocks * 512 >= MIB, "a sparse file would give nothing back"
    assert repr(space) == f"<Space {store.path}: 30 MiB free, OPEN>"


def test_the_map_counts_as_much_as_the_disk(store: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: Disk(10**12))
    assert (
        Space(store, refuse_octets=63 * MIB, stop_octets=MIB, ballast_octets=0).measure() is SpaceLevel.OPEN
    )
    full = Space(store, refuse_octets=100 * MIB, stop_octets=64 * MIB, ballast_octets=0)
    assert full.measure() is SpaceLevel.STOP_LEASING


def test_a_ballast_that_cannot_be_laid_is_no_trouble(
    store: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    space = Space(store, refuse_octets=2, stop_octets=1, ballast_octets=MIB)
    assert space.measure() is SpaceLevel.OPEN
    assert {path.name for path in store.path.iterdir()} == {"data.mdb", "lock.mdb", "writer.lock"}


def test_freed_pages_are_room_again(store: Environment) -> None:
    space = Space(store, refuse_octets=2, stop_octets=1, ballast_octets=0)
    things = store.databases["things"]
    space.measure()
    empty = space.free_octets
    with store.write() as transaction:
        for number in range(100):
            transaction.put(number.to_bytes(2, "big"), bytes(10_000), db=things)
    space.measure()
    assert space.free_octets < empty - 1_000_000
    with store.write() as transaction:
        transaction.drop(things, delete=False)
    space.measure()
    assert space.free_octets > empty - 100_000
    assert store.file_octets() > 1_000_000


def test_a_store_whose_files_were_taken_away_is_said_to_be_gone(store: Environment) -> None:
    space = Space(store, refuse_octets=2, stop_octets=1, ballast_octets=0)
    space.measure()
    (store.path / "data.mdb").rename(store.path / "elsewhere")
    with pytest.raises(StorageError, match="were removed or replaced while in use"):
        space.measure()
    (store.path / "data.mdb").write_bytes(b"")
    with pytest.raises(StorageError, match="were removed or replaced while in use"):
        space.measure()
