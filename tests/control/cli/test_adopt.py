"""Taking a copied queue for the original."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from control.cli.adopt import adopt
from engine.mta.spool.place import check_place
from engine.storage import StorageError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    spool = tmp_path / "data" / "spool"
    spool.mkdir(parents=True)
    (spool / "data.mdb").write_bytes(b"store")
    check_place(spool)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    return tmp_path / "copy"


def test_a_copy_is_adopted_when_the_operator_says_yes(copy: Path) -> None:
    result = CliRunner().invoke(adopt, ["--data", str(copy)], input="y\n")
    assert result.exit_code == 0
    assert "is the original now" in result.output
    check_place(copy / "spool")


def test_without_a_yes_nothing_changes(copy: Path) -> None:
    assert CliRunner().invoke(adopt, ["--data", str(copy)], input="n\n").exit_code == 1
    with pytest.raises(StorageError):
        check_place(copy / "spool")
