"""The verdict file: what is in it, and that a spreadsheet does not act on it."""

import csv
import stat
from pathlib import Path

import pytest

from control.cli.errors import CliError
from control.cli.people import Refused
from control.cli.verdicts import VerdictFile, harmless


def test_each_verdict_is_a_line_with_line_address_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    with VerdictFile(path) as verdicts:
        verdicts.write(Refused(3, "=cmd|' /C calc'!A0", "address has no @"))
        verdicts.write(Refused(9, 'Jörg, "x"', "address is doubled"))
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["line", "address", "reason"],
        ["3", "'=cmd|' /C calc'!A0", "address has no @"],
        ["9", 'Jörg, "x"', "address is doubled"],
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert verdicts.count == 2


def test_without_a_verdict_there_is_no_file(tmp_path: Path) -> None:
    with VerdictFile(tmp_path / "verdicts.csv"):
        pass
    assert not (tmp_path / "verdicts.csv").exists()


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_cell_that_could_start_a_formula_gets_an_apostrophe(start: str) -> None:
    assert harmless(f"{start}x").startswith("'")
    assert harmless("x@example.org") == "x@example.org"


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert harmless("a\x1b[31mb") == "a\ufffd[31mb"


def test_a_folder_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    with (
        VerdictFile(tmp_path / "none" / "v.csv") as verdicts,
        pytest.raises(CliError, match="cannot be written"),
    ):
        verdicts.write(Refused(1, "", "x"))
