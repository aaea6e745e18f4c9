"""What may stand in the table [bus]."""

from pathlib import Path

import pytest

from engine.config import BusKind, ConfigError, load_config


def load(tmp_path: Path, text: str) -> object:
    path = tmp_path / "emass.toml"
    path.write_text(text)
    return load_config(path, {}).bus


def test_without_a_word_the_bus_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    assert load_config(None, {}).bus.kind is BusKind.LOCAL


def test_servers_are_hosts_and_ports(tmp_path: Path) -> None:
    bus = load(
        tmp_path, '[bus]\nkind = "nats"\nservers = ["hub.example:4222", "10.0.0.2:4222"]\nreplicas = 3'
    )
    assert bus.servers[0].host == "hub.example"  # type: ignore[attr-defined]


def test_the_folder_of_a_local_bus_is_relative_to_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, '[bus]\nfolder = "shared"').folder == str(tmp_path / "shared")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("replicas = 2", "odd"),
        ("replicas = 7", "1 to 5"),
        ("servers = []", "name 1 to"),
        ('stream_max = "1 MB"', "at least 10 MB"),
        ('status_every = "1 h"', "1 min"),
        ('seeds = "SUAB\\nX"', "names? a file"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(tmp_path, f"[bus]\n{text}")
