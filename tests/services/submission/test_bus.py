"""Which bus a worker opens, and as whom."""

from pathlib import Path

import pytest

from engine.bus.local import LocalBus
from engine.config import BusKind
from engine.config.bus import BusTable
from engine.config.tables import Config, KeysTable, NodeTable
from engine.keyring import KeyringError
from services.submission.bus import open_bus


@pytest.mark.parametrize("folder", ["", "shared"])
def test_a_local_bus_is_the_nodes_or_the_shared_folder(tmp_path: Path, folder: str) -> None:
    shared = str(tmp_path / folder) if folder else ""
    config = Config(node=NodeTable(name="a", data=str(tmp_path / "data")), bus=BusTable(folder=shared))
    bus = open_bus(config, 2)
    assert isinstance(bus, LocalBus)
    assert bus.member == "a.submission-2"
    assert (tmp_path / (folder or "data/bus") / "a.submission-2").is_dir()
    bus.close_files()


def test_a_seed_that_is_not_there_is_said(tmp_path: Path) -> None:
    config = Config(
        node=NodeTable(name="a"), keys=KeysTable(folder=str(tmp_path)), bus=BusTable(kind=BusKind.NATS)
    )
    with pytest.raises(KeyringError, match=r"submission\.seed"):
        open_bus(config, 1)


def test_a_bus_over_the_network_is_not_connected_before_it_runs(tmp_path: Path) -> None:
    bus = BusTable(kind=BusKind.NATS, seeds="", ca_file="")
    config = Config(node=NodeTable(name="a"), keys=KeysTable(folder=str(tmp_path)), bus=bus)
    assert open_bus(config, 1).member == "a.submission-1"
