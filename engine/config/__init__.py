"""`emass.toml`: one file per node, decoded into frozen values that the rest of the engine trusts.

`units` parses texts with units, `tables` and `shaping` hold the Structs and what may not be combined,
`load` joins file, environment and defaults and turns every mistake into one `ConfigError`. Import from
here; the division below is ours.
"""

from engine.config.bus import BusKind, BusTable
from engine.config.egress import RelayRule, RouteRule, SourceRule
from engine.config.load import ConfigError, load_config, load_shaping, parse_rule
from engine.config.metrics import MetricsTable
from engine.config.render import find_origins, render_commented_default, render_toml
from engine.config.shaping import (
    SITE_DEFAULTS,
    ProviderRule,
    ShapingFile,
    ShapingPath,
    ShapingRule,
    ShareRule,
    TlsPolicy,
    WarmUpPlan,
    builtin_shaping,
)
from engine.config.tables import (
    AmbiguousPolicy,
    Config,
    DkimKeyFile,
    EngineTable,
    KeysTable,
    LimitsTable,
    NodeTable,
    ResolverTable,
    RetryTable,
    Runs,
    SiteRule,
)
from engine.config.tls import TlsTable, TrustAd
from engine.config.units import CountRange, Duration, HostPort, Rate, RateRange, Size, UnitError

__all__ = [
    "SITE_DEFAULTS",
    "AmbiguousPolicy",
    "BusKind",
    "BusTable",
    "Config",
    "ConfigError",
    "CountRange",
    "DkimKeyFile",
    "Duration",
    "EngineTable",
    "HostPort",
    "KeysTable",
    "LimitsTable",
    "MetricsTable",
    "NodeTable",
    "ProviderRule",
    "Rate",
    "RateRange",
    "RelayRule",
    "ResolverTable",
    "RetryTable",
    "RouteRule",
    "Runs",
    "ShapingFile",
    "ShapingPath",
    "ShapingRule",
    "ShareRule",
    "SiteRule",
    "Size",
    "SourceRule",
    "TlsPolicy",
    "TlsTable",
    "TrustAd",
    "UnitError",
    "WarmUpPlan",
    "builtin_shaping",
    "find_origins",
    "load_config",
    "load_shaping",
    "parse_rule",
    "render_commented_default",
    "render_toml",
]
