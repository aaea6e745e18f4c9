"""Opening a spool's folder: its epoch, its version, and who is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.mta.spool import tables
from engine.mta.spool.tables import DATABASES, EPOCH, SPOOL_VERSION, Tables, open_spool_environment
from engine.storage import Environment, StorageError

MAP_OCTETS = 16 * 1024**2


def test_a_new_store_gets_an_epoch_and_keeps_it(tmp_path: Path) -> None:
    epochs = []
    for name in ("one", "one", "two"):
        environment = open_spool_environment(tmp_path / name, map_octets=MAP_OCTETS)
        epochs.append(Tables(environment, "node").epoch)
        environment.close()
    assert epochs[0] == epochs[1] != epochs[2]
    assert len(epochs[0]) == 16


def test_a_store_that_died_between_stamp_and_epoch_is_finished(tmp_path: Path) -> None:
    Environment(
        tmp_path, kind="spool", version=SPOOL_VERSION, databases=DATABASES, map_octets=MAP_OCTETS
    ).close()
    environment = open_spool_environment(tmp_path, map_octets=MAP_OCTETS)
    with environment.read() as transaction:
        assert environment.get_meta(transaction, EPOCH)
    environment.close()


def test_a_spool_of_a_newer_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tables, "SPOOL_VERSION", SPOOL_VERSION + 1)
        open_spool_environment(tmp_path, map_octets=MAP_OCTETS).close()
    with pytest.raises(StorageError, match="use the newer program or another data folder"):
        open_spool_environment(tmp_path, map_octets=MAP_OCTETS)


def test_a_spool_of_an_older_program_is_refused_unless_it_can_be_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_spool_environment(tmp_path, map_octets=MAP_OCTETS).close()
    monkeypatch.setattr(tables, "SPOOL_VERSION", SPOOL_VERSION + 1)
    with pytest.raises(StorageError, match="finish its queue with the program that wrote it"):
        open_spool_environment(tmp_path, map_octets=MAP_OCTETS)
    lifted: list[int] = []
    monkeypatch.setattr(
        tables, "MIGRATIONS", {SPOOL_VERSION: lambda environment, transaction: lifted.append(1)}
    )
    open_spool_environment(tmp_path, map_octets=MAP_OCTETS).close()
    open_spool_environment(tmp_path, map_octets=MAP_OCTETS).close()
    assert lifted == [1]


def test_another_process_may_read_but_not_write(tmp_path: Path) -> None:
    environment = open_spool_environment(tmp_path, map_octets=MAP_OCTETS)
    program = (
        "import sys; from pathlib import Path\n"
        "from engine.mta.spool.tables import open_spool_environment\n"
        "from engine.storage import StorageError\n"
        "for readonly in (True, False):\n"
        "    try:\n"
        "        folder = Path(sys.argv[1])\n"
        f"        open_spool_environment(folder, map_octets={MAP_OCTETS}, readonly=readonly).close()\n"
        "        print('opened')\n"
        "    except StorageError as error:\n"
        "        print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = found.stdout.splitlines()
    assert first == "opened"
    assert "another process is writing here" in second
    environment.close()


def test_a_reader_before_the_first_start_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        open_spool_environment(tmp_path / "none", map_octets=MAP_OCTETS, readonly=True)
