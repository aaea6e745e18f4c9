"""The table of metrics: off by default, and never open to the world by accident."""

from pathlib import Path

import pytest

from engine.config import Config, ConfigError, MetricsTable, load_config


def test_nothing_is_served_by_default() -> None:
    table = Config().metrics
    assert (table.listen, table.place, table.sample) == ("", None, 64)


@pytest.mark.parametrize("where", ["127.0.0.1:9464", "[::1]:9464", "10.1.2.3:80", "[fd00::1]:80"])
def test_loopback_and_private_addresses_are_taken(where: str) -> None:
    place = MetricsTable(listen=where).place
    assert place is not None
    assert str(place) == where


@pytest.mark.parametrize("where", ["0.0.0.0:9464", "[::]:9464", "8.8.8.8:80", "[::ffff:8.8.8.8]:80"])
def test_an_address_that_the_world_reaches_must_be_meant(where: str) -> None:
    with pytest.raises(ValueError, match=r"^listen: is an address that the world may reach"):
        MetricsTable(listen=where)
    assert MetricsTable(listen=where, allow_public=True).place is not None


@pytest.mark.parametrize("where", ["localhost:9464", "monitor.example:80", "127.0.0.1", "127.0.0.1:0", ":80"])
def test_what_is_no_address_and_port_is_refused(where: str) -> None:
    with pytest.raises(ValueError, match=r"^listen: "):
        MetricsTable(listen=where, allow_public=True)


@pytest.mark.parametrize("sample", [-1, 1_000_001])
def test_an_impossible_sample_is_refused(sample: int) -> None:
    with pytest.raises(ValueError, match=r"^sample: "):
        MetricsTable(sample=sample)


def test_a_refusal_names_table_and_key(tmp_path: Path) -> None:
    path = tmp_path / "emass.toml"
    path.write_text('[metrics]\nlisten = "0.0.0.0:9464"\n')
    with pytest.raises(ConfigError, match=r"\[metrics\] listen"):
        load_config(path, {})
