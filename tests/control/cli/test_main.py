"""The frame: help without loading, exit codes, and one line for whatever goes wrong."""

import os
import subprocess
import sys

import click
import pytest

from control.cli import __main__ as frame
from control.cli.errors import CliError, InputError
from engine.config import ConfigError
from engine.keyring import KeyringError


def test_help_names_every_command_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in frame.COMMANDS)
    assert "Example" in out


@pytest.mark.parametrize(
    ("arguments", "aside"), [(["queue", "list", "--help"], True), (["queue", "pin", "--help"], False)]
)
def test_a_command_that_only_looks_lets_an_engine_go_first(
    arguments: list[str], aside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(os, "setpriority", lambda which, who, niceness: told.append(niceness))
    with pytest.raises(SystemExit):
        frame.main(arguments)
    assert told == ([frame.NICENESS] if aside else [])


@pytest.mark.parametrize(
    "arguments", [["init"], ["config"], ["config", "check"], ["config", "show"], ["send"]], ids=" ".join
)
def test_every_command_has_help_with_an_example(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.run([*arguments, "--help"]) == 0
    assert f"emass {arguments[0]}" in capsys.readouterr().out.partition("Example")[2]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nope"], "emass: No such command 'nope'."),
        (["config", "nope"], "emass: No such command 'nope'."),
        (["config", "check", "--nope"], "emass: No such option"),
        (["send"], "emass: Missing option '--csv'."),
    ],
)
def test_wrong_usage_is_one_line_with_the_way_to_help(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.run(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert "--help" in err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CliError("it broke"), 1, "emass: it broke"),
        (InputError("f.csv line 3: bad\x1b[31m"), 2, "emass: f.csv line 3: bad\\x1b[31m"),
        (
            ConfigError("f", "engine", "x", "unknown key", "hint"),
            2,
            "emass: f: [engine] x: unknown key (hint)",
        ),
        (KeyringError("k: not a key"), 2, "emass: k: not a key"),
        (click.ClickException("no"), 1, "emass: no"),
        (KeyboardInterrupt(), 1, "emass: interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 1, "emass: /x: Permission denied"),
        (
            RuntimeError("oops"),
            1,
            "emass: this is a bug in e-MASS: RuntimeError: oops (EMASS_DEBUG=1 shows where)",
        ),
    ],
)
def test_whatever_goes_wrong_is_one_line_without_a_stack_trace(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(frame.emass, "main", fail)
    monkeypatch.delenv("EMASS_DEBUG", raising=False)
    assert frame.run([]) == code
    assert capsys.readouterr().err == line + "\n"


def test_a_bug_shows_its_place_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr(frame.emass, "main", fail)
    monkeypatch.setenv("EMASS_DEBUG", "1")
    assert frame.run([]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_python_m_control_is_emass_and_help_loads_no_engine() -> None:
    code = "import sys; from control.cli.__main__ import run; run(['--help']); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'control.cli.__main__'" in loaded
    for heavy in ("trio", "rich", "lmdb", "minijinja", "cryptography", "engine.config"):
        assert f"'{heavy}'" not in loaded
    run = subprocess.run(
        [sys.executable, "-m", "control", "--help"], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("Usage: emass")
