"""Who is on a local bus, and how one process shares their environments."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.bus import local_members
from engine.bus.local_members import READY, Members, hold, list_members, release, remove_folder
from engine.storage import StorageError

MAP_OCTETS = 1024**2


def open_members(root: Path, name: str) -> Members:
    return Members(root, name, MAP_OCTETS)


def names(members: Members) -> list[str]:
    return [member.name for member in members.everyone()]


def test_members_find_each_other_own_first(tmp_path: Path) -> None:
    second = open_members(tmp_path, "b")
    first, third = open_members(tmp_path, "a"), open_members(tmp_path, "c")
    assert second.refresh()
    assert names(second) == ["b", "a", "c"]
    assert not second.refresh()
    for members in (first, second, third):
        members.close()


def test_one_environment_serves_its_writer_and_the_readers_of_a_process(tmp_path: Path) -> None:
    writer, reader = open_members(tmp_path, "a"), open_members(tmp_path, "b")
    seen = reader.everyone()[1]
    assert seen is writer.own
    before = seen.epoch
    writer.close()
    assert not seen.writing
    assert seen.epoch == before
    with seen.read() as transaction:
        assert seen.environment.get_meta(transaction, b"epoch") == before
    writer = open_members(tmp_path, "a")
    assert seen.writing
    assert seen.environment.last_transaction() > 0
    writer.close()
    reader.close()


def test_a_member_is_written_by_one_bus_at_a_time(tmp_path: Path) -> None:
    first = open_members(tmp_path, "a")
    with pytest.raises(StorageError, match="another bus of this process"):
        open_members(tmp_path, "a")
    first.close()
    open_members(tmp_path, "a").close()


def test_a_folder_is_a_member_once_it_is_ready(tmp_path: Path) -> None:
    members = open_members(tmp_path, "a")
    (tmp_path / "half").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / ".removed-1").mkdir()
    (tmp_path / ".removed-1" / READY).touch()
    assert [name for name, _ in list_members(tmp_path)] == ["a"]
    members.close()


def test_a_removed_member_is_gone_and_a_new_one_of_its_name_has_another_epoch(tmp_path: Path) -> None:
    reader, writer = open_members(tmp_path, "reader"), open_members(tmp_path, "x")
    reader.refresh()
    old = reader.everyone()[1].epoch
    writer.close()
    assert remove_folder(tmp_path / "x")
    assert reader.refresh()
    assert names(reader) == ["reader"]
    writer = open_members(tmp_path, "x")
    assert reader.refresh()
    assert reader.everyone()[1].epoch != old
    writer.close()
    reader.close()


def test_another_store_in_the_same_place_is_noticed(tmp_path: Path) -> None:
    reader = open_members(tmp_path / "bus", "reader")
    epochs = []
    for number in range(2):
        open_members(tmp_path / f"made elsewhere {number}", "x").close()
        remove_folder(tmp_path / "bus" / "x")
        (tmp_path / f"made elsewhere {number}" / "x").rename(tmp_path / "bus" / "x")
        assert reader.refresh()
        assert not reader.refresh()
        epochs.append(reader.everyone()[1].epoch)
    assert epochs[0] != epochs[1]
    reader.close()


def test_a_running_member_is_not_removed(tmp_path: Path) -> None:
    members = open_members(tmp_path, "a")
    assert not remove_folder(tmp_path / "a")
    assert (tmp_path / "a" / READY).exists()
    members.close()
    assert remove_folder(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    assert remove_folder(tmp_path / "never")


def test_an_unusable_store_is_a_storage_error(tmp_path: Path) -> None:
    open_members(tmp_path, "a").close()
    (tmp_path / "a" / "data.mdb").write_bytes(b"rubbish" * 1000)
    member = hold(tmp_path / "a")
    with pytest.raises(StorageError, match="cannot open"):
        _ = member.environment
    assert member.exists()
    release(member)


def test_without_a_free_descriptor_nobody_new_is_seen_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_members(tmp_path, "a")
    second = open_members(tmp_path, "b")
    with monkeypatch.context() as patch:
        patch.setattr(local_members, "list_members", refuse(errno.EMFILE))
        assert not first.refresh()
        assert names(first) == ["a"]
        patch.setattr(local_members, "list_members", refuse(errno.EIO))
        with pytest.raises(StorageError, match=r"the folder of the bus cannot be read: Input/output error"):
            first.refresh()
    assert first.refresh()
    assert names(first) == ["a", "b"]
    first.close()
    second.close()


def test_a_member_whose_files_were_taken_away_says_so(tmp_path: Path) -> None:
    members = open_members(tmp_path, "a")
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="were removed or replaced while in use"):
        members.refresh()
    members.close()


def refuse(code: int) -> Callable[[Path], Any]:
    def refused(root: Path) -> Any:
        raise OSError(code, os.strerror(code))

    return refused
