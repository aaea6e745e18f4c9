"""A copy of a spool is no spool."""

import shutil
from pathlib import Path

import pytest

from engine.mta.spool.place import PLACE_FILE, adopt, check_place
from engine.storage import StorageError


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "one" / "spool"
    folder.mkdir(parents=True)
    (folder / "data.mdb").write_bytes(b"store")
    check_place(folder)
    return folder


def test_a_spool_is_known_at_its_place(spool: Path) -> None:
    assert check_place(spool) == check_place(spool)


def test_a_folder_that_was_moved_is_the_same_spool(spool: Path, tmp_path: Path) -> None:
    moved = spool.rename(tmp_path / "elsewhere")
    assert "elsewhere" in check_place(moved)


def test_a_copy_is_refused_with_both_ways_out(spool: Path, tmp_path: Path) -> None:
    copy = tmp_path / "two" / "spool"
    shutil.copytree(spool, copy)
    with pytest.raises(StorageError, match=r"is a copy .*emass queue adopt --data .*two"):
        check_place(copy)
    check_place(spool)


def test_a_copy_that_was_adopted_is_the_spool(spool: Path, tmp_path: Path) -> None:
    copy = tmp_path / "two" / "spool"
    shutil.copytree(spool, copy)
    adopt(copy)
    assert "two" in check_place(copy)


def test_a_damaged_note_names_its_cure(spool: Path) -> None:
    (spool / PLACE_FILE).write_bytes(b"{")
    with pytest.raises(StorageError, match="emass queue adopt"):
        check_place(spool)


def test_a_folder_without_a_store_is_no_spool(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no spool"):
        adopt(tmp_path)
