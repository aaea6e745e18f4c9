"""`emass suppress import` into a store: what is counted, what is said, and that twice is as once."""

import json
from pathlib import Path
from typing import Any

import pytest

from control.cli import suppress_import
from control.cli.__main__ import run
from control.cli.suppress_import import Display


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    return tmp_path


def test_a_list_is_imported_and_again_without_effect(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "list.txt").write_text("ann@x.test\nbob@x.test\nANN@x.test\n=1+1\n")
    again = ["suppress", "import", "list.txt", "--note", "old system"]
    assert run(again) == 0
    assert capsys.readouterr().out == (
        "2 suppressed, 2 of them new; 1 lines were doubled; 1 lines were refused: see list.txt.refused.csv\n"
    )
    assert "4,'=1+1,address has no @" in (folder / "list.txt.refused.csv").read_text("utf-8-sig")
    assert run([*again, "--json", "--refused", "other.csv"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    counts = {name: facts[name] for name in ("rows", "keys", "added", "hashes", "refused", "through")}
    assert counts == {"rows": 4, "keys": 2, "added": 0, "hashes": 0, "refused": 1, "through": "store"}
    assert (folder / "other.csv").exists()
    assert run(["suppress", "show", "bob@x.test", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert (entry["scope"], entry["reason"]) == ("installation", "imported")
    assert entry["by"].endswith(": old system")
    assert entry["since"] < entry["at"]


def test_an_import_has_the_scope_and_the_reason_that_are_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "list.csv").write_text("E-Mail\nann@x.test\n")
    words = ["--scope", "workspace:shop", "--reason", "complained"]
    assert run(["suppress", "import", "list.csv", *words]) == 0
    assert run(["suppress", "show", "ann@x.test"]) == 0
    assert "address: complained, workspace:shop, since " in capsys.readouterr().out


def test_a_file_that_holds_nothing_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "list.txt").write_text("nobody\n")
    assert run(["suppress", "import", "list.txt"]) == 2
    assert "holds no address" in capsys.readouterr().err
    assert not (folder / "data" / "suppressions").exists()


def test_what_takes_long_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("QUIET_SECONDS", "LINE_SECONDS"):
        monkeypatch.setattr(suppress_import, name, -1.0)
    with Display() as display:
        display.show("5,000 lines", 0.25)
    assert capsys.readouterr().err == "5,000 lines (25%)\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(suppress_import, "QUIET_SECONDS", -1.0)
    monkeypatch.setattr(suppress_import, "REDRAW_SECONDS", -1.0)
    with Display() as display:
        display.show("5,000 lines", 0.25)
    assert "5,000 lines" in capsys.readouterr().err
