"""Where suppressions are found: the words around them, and the errors of a store."""

from pathlib import Path

import pytest

from control.cli.errors import CliError
from control.cli.suppress_store import FOLDER, look_into, open_store, reason_of, scope_of, source_of
from engine.mta.policy.suppression import SOURCE_OCTETS_MAX, Reason
from tests.contract.suppressions import HASHER


def test_a_note_is_kept_as_long_as_a_record_takes() -> None:
    assert source_of("ann", "") == "ann"
    assert source_of("ann", "by phone") == "ann: by phone"
    assert len(source_of("ann", "\u00e4" * 200).encode()) <= SOURCE_OCTETS_MAX


def test_what_is_not_said_is_left_open() -> None:
    assert (scope_of(None), reason_of(None)) == (None, None)
    assert reason_of("hard_bounce") is Reason.HARD_BOUNCE


def test_a_folder_without_a_store_is_looked_into_and_left_alone(tmp_path: Path) -> None:
    with look_into(tmp_path, HASHER) as store:
        assert store is None
    assert list(tmp_path.iterdir()) == []


def test_two_writers_are_one_clear_line(tmp_path: Path) -> None:
    with open_store(tmp_path, HASHER) as store:
        assert store.keys() == 0
        with pytest.raises(CliError, match="another process is writing here"), open_store(tmp_path, HASHER):
            pass
    with look_into(tmp_path, HASHER) as again:
        assert again is not None


def test_a_damaged_store_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "data.mdb").write_bytes(b"no store at all" * 1000)
    with pytest.raises(CliError, match="cannot open the suppressions store"), look_into(tmp_path, HASHER):
        pass
