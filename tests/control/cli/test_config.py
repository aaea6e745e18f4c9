"""`emass config check` and `show`."""

import json
from pathlib import Path

import pytest

from control.cli.__main__ import run


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    return tmp_path / "emass.toml"


def test_a_correct_file_is_said_to_be(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check"]) == 0
    assert "the defaults hold" in capsys.readouterr().out
    file.write_text("[engine]\nsmtp_port = 26\n")
    assert run(["config", "check"]) == 0
    assert capsys.readouterr().out == f"{file}: correct\n"


def test_the_file_may_be_named_by_option_or_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMASS_CONFIG", "other.toml")
    assert run(["config", "check"]) == 2
    assert "other.toml: does not exist" in capsys.readouterr().err
    file.write_text("")
    assert run(["config", "check", "--config", str(file)]) == 0


def test_a_mistake_is_one_line_and_exit_code_2(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[engine]\nsmtp_prot = 26\n")
    assert run(["config", "check"]) == 2
    assert (
        capsys.readouterr().err
        == f'emass: {file}: [engine] smtp_prot: unknown key (did you mean "smtp_port"?)\n'
    )
    assert run(["config", "check", "--json"]) == 2
    facts = json.loads(capsys.readouterr().out)
    assert (facts["ok"], facts["table"], facts["key"]) == (False, "engine", "smtp_prot")


def test_a_key_file_that_is_missing_or_open_to_others_is_found(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('[[keys.dkim]]\nname = "a"\nfile = "a.pem"\n')
    assert run(["config", "check"]) == 2
    assert "[keys.dkim[0]] file" in capsys.readouterr().err
    key = file.parent / "keys" / "a.pem"
    key.parent.mkdir()
    key.write_text("x")
    key.chmod(0o644)
    assert run(["config", "check"]) == 2
    assert "chmod 600" in capsys.readouterr().err
    key.chmod(0o600)
    assert run(["config", "check"]) == 0


def test_show_prints_what_was_set_and_resolved_prints_all(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config", "show"]) == 0
    assert capsys.readouterr().out.startswith("#")
    file.write_text("[engine]\nsmtp_port = 26\n")
    monkeypatch.setenv("EMASS_RESOLVER__TIMEOUT", "7 s")
    assert run(["config", "show"]) == 0
    assert capsys.readouterr().out == (
        "[engine]\nsmtp_port = 26  # from file\n\n"
        '[resolver]\ntimeout = "7 s"  # from EMASS_RESOLVER__TIMEOUT\n'
    )
    assert run(["config", "show", "--resolved"]) == 0
    assert 'spool_map = "64 GB"' in capsys.readouterr().out
    assert run(["config", "show", "--resolved", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resolver"]["timeout"] == "7 s"
