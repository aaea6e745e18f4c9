"""What a root leaves for others: one holder, a state for its owner's eyes, and who outlived it."""

import os

import pytest

from control.node import run_folder
from control.node.kernel import birth
from control.node.record import ProcessFacts, ProcessState
from control.node.run_folder import RootRuns, RootState, RunFolder, outlived


def state(*processes: ProcessFacts) -> RootState:
    return RootState("n1", os.getpid(), "ab", "/emass.toml", 1.0, "running", 2.0, processes=processes)


def process(pid: int | None, born: int | None) -> ProcessFacts:
    return ProcessFacts("engine", ProcessState.READY, pid, born, 1.0, 0, "", "")


def test_a_folder_has_one_holder_whose_pid_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "LOOK_SECONDS", 0.001)
    folder, other = RunFolder(tmp_path), RunFolder(tmp_path)
    assert folder.holder() is None
    folder.hold()
    assert other.holder() == os.getpid()
    with pytest.raises(RootRuns, match=f"pid {os.getpid()}"):
        other.hold()
    folder.release()
    assert other.holder() is None
    other.hold()
    other.release()


def test_the_state_comes_back_as_it_was_and_is_for_its_owner_alone(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read() is None
    folder.hold()
    told = state(process(1, 2))
    folder.write(told)
    assert folder.read() == told
    assert (folder.path / "root.json").stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.release()


def test_a_state_that_cannot_be_read_is_none(tmp_path):
    folder = RunFolder(tmp_path)
    folder.path.mkdir()
    for octets in (b"{", b'{"node":"\xff"}', b'{"x":' * 10_000):
        (folder.path / "root.json").write_bytes(octets)
        assert folder.read() is None


def test_who_outlived_a_root_is_known_by_pid_and_birth():
    mine = os.getpid()
    lives = process(mine, birth(mine))
    assert outlived(state(lives, process(mine, 1), process(None, None))) == (lives,)
    assert outlived(None) == ()
