"""Which configuration file a command means."""

from pathlib import Path

import pytest

from control.config import find_config, load
from engine.config import Config, ConfigError


def test_the_option_beats_the_environment_beats_the_folder(tmp_path: Path) -> None:
    assert find_config(None, {}, tmp_path) is None
    (tmp_path / "emass.toml").write_text("")
    assert find_config(None, {}, tmp_path) == tmp_path / "emass.toml"
    assert find_config(None, {"EMASS_CONFIG": "e.toml"}, tmp_path) == Path("e.toml")
    assert find_config("o.toml", {"EMASS_CONFIG": "e.toml"}, tmp_path) == Path("o.toml")


def test_without_a_file_the_defaults_hold_and_a_named_one_must_exist(tmp_path: Path) -> None:
    assert load(None, {}, tmp_path) == Config()
    with pytest.raises(ConfigError, match="does not exist"):
        load("none.toml", {}, tmp_path)
