"""Which `emass.toml` a command means, and its configuration.

In this order: `--config FILE`, the environment's `EMASS_CONFIG`, `emass.toml` in the working
folder, none (then the defaults hold). Only what was asked for by name must exist.
"""

from collections.abc import Mapping
from pathlib import Path

from engine.config import Config, load_config

FILE_NAME = "emass.toml"
FILE_VARIABLE = "EMASS_CONFIG"


def find_config(named: str | None, environ: Mapping[str, str], folder: Path) -> Path | None:
    """The file to read, or None when the defaults hold. Existence is checked on loading."""
    chosen = named or environ.get(FILE_VARIABLE)
    if chosen:
        return Path(chosen)
    local = folder / FILE_NAME
    return local if local.exists() else None


def load(named: str | None, environ: Mapping[str, str], folder: Path) -> Config:
    """The node's configuration. Raises ConfigError."""
    return load_config(find_config(named, environ, folder), environ)
