"""`python -m services.submission`: usage and configuration, said in one line."""

from pathlib import Path

import pytest

from engine.config.tables import Config, NodeTable
from services.submission import __main__ as module
from services.submission.__main__ import main
from tests.fakes.submission_house import furnish


@pytest.mark.parametrize("words", [["--worker"], ["--worker", "0"], ["--worker", "x"], ["a", "b"]])
def test_wrong_usage_is_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("usage: python -m services.submission")


def test_help_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--worker N" in capsys.readouterr().err


def test_a_configuration_that_cannot_be_used_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "emass.toml"
    file.write_text("[submission]\nworkers = 0\n")
    assert main(["--worker", "1", str(file)]) == 2
    assert "[submission] workers: must be from 1 to 64" in capsys.readouterr().err


@pytest.mark.slow  # it makes a certificate
def test_a_worker_that_cannot_start_says_its_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = furnish(tmp_path)
    (tmp_path / "accounts.json").chmod(0o644)
    config = Config(node=NodeTable(name="node"))
    monkeypatch.setattr(module, "load_submission", lambda path, environ: (config, table))
    assert main(["--worker", "1"]) == 1
    said = capsys.readouterr().err
    assert "submission: " in said
    assert "chmod 600" in said
    assert "sub-exception" not in said
