"""`emass.toml`: one file per node, decoded into frozen values that the rest of the engine trusts.

`units` parses texts with units, `tables` holds the Structs and what may not be combined, `load`
joins file, environment and defaults and turns every mistake into one `ConfigError`. Import from
here; the division below is ours.
"""

from engine.config.load import ConfigError, load_config
from engine.config.render import find_origins, render_commented_default, render_toml
from engine.config.tables import (
    SITE_DEFAULTS,
    AmbiguousPolicy,
    BusKind,
    BusTable,
    Config,
    DkimKeyFile,
    EngineTable,
    KeysTable,
    LimitsTable,
    NodeTable,
    ResolverTable,
    RetryTable,
    SiteRule,
    SourceRule,
    TlsPolicy,
)
from engine.config.units import Duration, HostPort, Rate, Size, UnitError

__all__ = [
    "SITE_DEFAULTS",
    "AmbiguousPolicy",
    "BusKind",
    "BusTable",
    "Config",
    "ConfigError",
    "DkimKeyFile",
    "Duration",
    "EngineTable",
    "HostPort",
    "KeysTable",
    "LimitsTable",
    "NodeTable",
    "Rate",
    "ResolverTable",
    "RetryTable",
    "SiteRule",
    "Size",
    "SourceRule",
    "TlsPolicy",
    "UnitError",
    "find_origins",
    "load_config",
    "render_commented_default",
    "render_toml",
]
