"""`emass reload` tells what came of it; a node that does not run is named. The rest: `test_up`."""

import os
import signal

import pytest

from control.cli import reload as reloading
from control.cli.__main__ import run
from control.node.run_folder import ReloadFacts, RootState, RunFolder
from tests.fakes.node_children import node_config


@pytest.fixture
def root(tmp_path, monkeypatch):
    """This process is the root: it answers SIGHUP with what the test says."""
    folder = RunFolder(tmp_path / "data")
    folder.hold()
    answers: list[ReloadFacts] = []

    def write(facts: ReloadFacts) -> None:
        folder.write(RootState("n1", os.getpid(), "ab", "/e", 1.0, "running", 1.0, reload=facts))

    def answer(number, frame) -> None:
        if answers:
            write(answers.pop())

    monkeypatch.setattr(reloading, "ANSWER_SECONDS", 0.3)
    before = signal.signal(signal.SIGHUP, answer)
    write(ReloadFacts(4))
    yield answers
    signal.signal(signal.SIGHUP, before)
    folder.release()


def test_a_node_that_does_not_run_is_named(tmp_path, capsys):
    _, config = node_config(tmp_path)
    assert run(["reload", "--config", str(config)]) == 1
    assert "n1 does not run here" in capsys.readouterr().err


def test_what_was_done_and_noted_is_told(tmp_path, capsys, root):
    _, config = node_config(tmp_path)
    root.append(ReloadFacts(5, 2.0, "read anew: 3 rules", "", ("one is odd",)))
    assert run(["reload", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "read anew: 3 rules\n  note: one is odd\n"


def test_a_refusal_is_exit_code_2(tmp_path, capsys, root):
    _, config = node_config(tmp_path)
    root.append(ReloadFacts(5, 2.0, "", "[node] name: cannot change"))
    assert run(["reload", "--config", str(config), "--json"]) == 2
    assert "[node] name: cannot change" in capsys.readouterr().err


@pytest.mark.slow
def test_a_root_that_does_not_answer_is_an_error(tmp_path, capsys, root):
    _, config = node_config(tmp_path)
    assert run(["reload", "--config", str(config)]) == 1
    assert "did not say within" in capsys.readouterr().err


def test_a_mistake_in_the_file_is_told_at_once(tmp_path, capsys):
    _, config = node_config(tmp_path)
    config.write_text("[engine]\nsmtp_prot = 1\n")
    assert run(["reload", "--config", str(config)]) == 2
    assert "smtp_prot" in capsys.readouterr().err
