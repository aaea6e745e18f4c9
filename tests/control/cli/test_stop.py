"""`emass stop` ends what runs and what outlived its root, and is content when nothing does."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.cli import stop as stopping
from control.cli.__main__ import run
from control.node.kernel import birth
from control.node.record import ProcessFacts, ProcessState
from control.node.run_folder import RootState, RunFolder
from tests.fakes.node_children import node_config


def outlive(folder: Path, pid: int) -> None:
    """Let `pid` be the engine of a root that died."""
    run_folder = RunFolder(folder / "data")
    run_folder.path.mkdir(parents=True, exist_ok=True)
    engine = ProcessFacts("engine", ProcessState.READY, pid, birth(pid), 1.0, 0, "", "")
    run_folder.write(RootState("n1", 1, "ab", "/e", 1.0, "running", 1.0, processes=(engine,)))


@pytest.fixture
def orphan(tmp_path) -> Iterator["subprocess.Popen[bytes]"]:
    script = "trap '' TERM; echo; while :; do sleep 0.02; done"
    process = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    outlive(tmp_path, process.pid)
    yield process
    process.kill()
    process.communicate()


def test_a_node_that_does_not_run_is_no_error(tmp_path, capsys):
    _, config = node_config(tmp_path)
    assert run(["stop", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "n1 does not run.\n"


def test_who_outlived_a_dead_root_is_ended_by_force_if_need_be(tmp_path, capsys, orphan, monkeypatch):
    monkeypatch.setattr(stopping, "ORPHAN_SECONDS", 0.2)
    _, config = node_config(tmp_path)
    assert run(["stop", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert f"engine (pid {orphan.pid}) outlived its root and is told to end" in said
    assert "is killed" in said
    assert orphan.wait(10) == -9


def test_a_root_that_does_not_end_is_an_error(tmp_path, capsys, monkeypatch):
    told = []
    monkeypatch.setattr(stopping, "POLITE_SECONDS", 0.2)
    monkeypatch.setattr(os, "kill", lambda pid, number: told.append((pid, number.name)))
    _, config = node_config(tmp_path)
    folder = RunFolder(tmp_path / "data")
    folder.hold()
    try:
        assert run(["stop", "--config", str(config)]) == 1
    finally:
        folder.release()
    assert told == [(os.getpid(), "SIGTERM")]
    assert "did not end within 0.2 s" in capsys.readouterr().err
