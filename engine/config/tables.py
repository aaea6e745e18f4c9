"""The tables of `emass.toml` that the engine reads, as frozen Structs with their defaults.

A `Config()` without a file is complete and usable: the defaults below are the documentation in
`default.toml`, and a test holds the two together. What one value forbids another is checked in
`__post_init__`; those messages start with the key, and `load` adds file, table and hint. The rules for
receivers are in `shaping`.
Secrets are files: no table has a place for the secret itself.
"""

import os
import re
from enum import Enum

from msgspec import field

from engine.config.base import Table, check, check_name, check_unique
from engine.config.bus import BusTable
from engine.config.egress import PoolMembers, RelayRule, RouteRule, SourceRule, check_egress
from engine.config.metrics import MetricsTable
from engine.config.shaping import (
    CONNECTIONS_MAX_LIMIT,
    ProviderRule,
    ShapingPath,
    ShapingRule,
    ShareRule,
    WarmUpPlan,
)
from engine.config.tls import TlsTable, TrustAd
from engine.config.units import OCTETS, Duration, HostPort, Size
from engine.model.content import DkimAlgorithm

ACTIVE_SET_LIMIT = 1_000_000  # envelopes held in memory; at about 1 KB each this is a gigabyte
SIGNERS_LIMIT = 256

SiteRule = ShapingRule  # as its table is called: [[engine.site]]


class Runs(Enum):
    """The processes that a node may run, in the order of their start."""

    BUS = "bus"  # a nats-server: on the hub
    ENGINE = "engine"
    SUBMISSION = "submission"


class NodeTable(Table, frozen=True):
    """Who this node is and where it keeps its data."""

    name: str = "node-1"
    data: str = "data"  # a folder; relative to the file
    runs: tuple[Runs, ...] = (Runs.ENGINE,)  # what `emass up` starts here

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check("data", bool(self.data), "must not be empty")
        check_unique("runs", (each.value for each in self.runs))


class AmbiguousPolicy(Enum):
    """What happens to an envelope whose final dot may have been accepted."""

    RETRY = "retry"  # again, with the same Message-ID, so that receivers can drop the double
    HOLD = "hold"  # wait for an operator
    ASSUME_DELIVERED = "assume"  # over: no double, and what had not been sent is never sent


class RetryTable(Table, frozen=True):
    """Back-off: first, then times factor up to max, each +- jitter; given up after expire_after."""

    first: Duration = Duration(5 * 60)
    factor: float = 2.0
    max: Duration = Duration(4 * 3600)
    jitter: float = 0.2  # share of the interval
    expire_after: Duration = Duration(72 * 3600)  # bulk; RFC 5321 4.5.4.1 would allow 4-5 days
    expire_after_transactional: Duration = Duration(24 * 3600)

    def __post_init__(self) -> None:
        check("first", self.first > 0, "must be longer than 0 s")
        check("first", self.first <= self.max, f"is longer than max ({self.max})")
        check("factor", 1.0 <= self.factor <= 10.0, "must be from 1 to 10")
        check("jitter", 0.0 <= self.jitter <= 0.9, "must be from 0 to 0.9")
        for key in ("expire_after", "expire_after_transactional"):
            check(key, getattr(self, key) > self.first, f"is not longer than first ({self.first})")


class EngineTable(Table, frozen=True):
    """The broadcaster."""

    smtp_port: int = 25
    connections_max: int = 2_000
    connections_per_address: int = 200  # over all sites and sources; a relay of our own has no such limit
    active_set_max: int = 20_000  # envelopes in memory, all queues together
    group_commit: Duration = Duration(0.008)  # how long a settle may wait for company
    signers: int = field(default_factory=lambda: max(1, os.cpu_count() or 1))
    ambiguous: AmbiguousPolicy = AmbiguousPolicy.RETRY
    lookups_max: int = 100  # MX look-ups in flight
    prepared_bytes_max: Size = Size(64 * OCTETS["MB"])
    retry: RetryTable = field(default_factory=RetryTable)
    source: tuple[SourceRule, ...] = ()
    pools: dict[str, PoolMembers] = field(default_factory=dict)
    relay: tuple[RelayRule, ...] = ()
    route: tuple[RouteRule, ...] = ()
    replies: str = ""  # relative to the file; empty = the built-in rules alone
    shaping: ShapingPath = field(default_factory=ShapingPath)  # relative to the file; empty = none
    provider: tuple[ProviderRule, ...] = ()
    site: tuple[ShapingRule, ...] = ()
    share: tuple[ShareRule, ...] = ()
    warmup: tuple[WarmUpPlan, ...] = ()

    def __post_init__(self) -> None:
        check("smtp_port", 1 <= self.smtp_port <= 65_535, "must be from 1 to 65535")
        for key, limit in (
            ("connections_max", CONNECTIONS_MAX_LIMIT),
            ("connections_per_address", CONNECTIONS_MAX_LIMIT),
            ("active_set_max", ACTIVE_SET_LIMIT),
            ("signers", SIGNERS_LIMIT),
            ("lookups_max", 10_000),
        ):
            check(key, 1 <= getattr(self, key) <= limit, f"must be from 1 to {limit}")
        check("group_commit", 0 <= self.group_commit <= 1, "must be from 0 s to 1 s")
        check("prepared_bytes_max", self.prepared_bytes_max >= OCTETS["MB"], "must be at least 1 MB")
        check_egress(self.source, self.pools, self.relay, self.route)
        check_unique("provider", (provider.name for provider in self.provider))
        check_unique("share", (share.of for share in self.share))
        check_unique("warmup", (f"{plan.source} {plan.provider}".strip() for plan in self.warmup))
        for rule in self.site:
            held = 1 if rule.connections is None else rule.connections.ceiling
            check("site", held <= self.connections_max, "connections of a site exceed connections_max")


class ResolverTable(Table, frozen=True):
    """The recursive resolvers that answer our MX questions."""

    servers: tuple[HostPort, ...] = (HostPort.parse("127.0.0.1:53"),)
    allow_private: bool = False  # deliver to loopback and private addresses
    timeout: Duration = Duration(5)  # for one question to one server
    attempts: int = 3
    trust_ad: TrustAd = TrustAd.LOOPBACK  # whose word counts that DNSSEC proves an answer

    def __post_init__(self) -> None:
        check("servers", bool(self.servers), "name at least one server")
        check("timeout", 0 < self.timeout <= 60, "must be from 0 s to 1 min")
        check("attempts", 1 <= self.attempts <= 10, "must be from 1 to 10")


class DkimKeyFile(Table, frozen=True):
    """A private key that the signer processes may open."""

    name: str
    file: str  # relative to the keys folder
    algorithm: DkimAlgorithm = DkimAlgorithm.RSA_SHA256

    def __post_init__(self) -> None:
        check("name", bool(self.name), "must not be empty")
        check("file", bool(self.file), "must not be empty")
        inline = "-----BEGIN" in self.file or "\n" in self.file
        check("file", not inline, "holds the key itself; put it into a file and name that file here")


class KeysTable(Table, frozen=True):
    """Where the key files are. Secrets are files, never values in here."""

    folder: str = "keys"  # relative to the file
    master: str = "master.key"  # relative to the folder
    ring: str = "ring.json"  # likewise; what a node without a master key was given of its keys
    signer_box: str = "signer.box"  # likewise; opens DKIM keys that were sealed to this node's signers
    signer_user: str = "emass-signer"  # a name or a number: who signers run as when the engine is root
    dkim: tuple[DkimKeyFile, ...] = ()

    def __post_init__(self) -> None:
        check("folder", bool(self.folder), "must not be empty")
        inline = bool(re.fullmatch(r"[0-9a-fA-F]{32,}", self.master)) or "\n" in self.master
        check("master", not inline, "holds the key itself; put it into a file and name that file here")
        check_unique("dkim", [key.name for key in self.dkim])


class LimitsTable(Table, frozen=True):
    """How much room the queue may take, and what happens when the disk fills."""

    spool_map: Size = Size(64 * OCTETS["GB"])  # address space, not disk: the file is sparse
    disk_refuse: Size = Size(2 * OCTETS["GB"])  # less free than this: no new work is accepted
    disk_stop: Size = Size(512 * OCTETS["MB"])  # less free than this: nothing more is leased
    ballast: Size = Size(64 * OCTETS["MB"])  # a file that is freed for the last settles

    def __post_init__(self) -> None:
        check("spool_map", self.spool_map >= 10 * OCTETS["MB"], "must be at least 10 MB")
        check(
            "disk_stop", self.disk_stop < self.disk_refuse, f"is not below disk_refuse ({self.disk_refuse})"
        )
        check("ballast", self.ballast <= self.disk_stop, f"is larger than disk_stop ({self.disk_stop})")


class Config(Table, frozen=True):
    """Everything the engine reads. Folders are as `load_config` resolved them: ready to be opened."""

    node: NodeTable = field(default_factory=NodeTable)
    engine: EngineTable = field(default_factory=EngineTable)
    resolver: ResolverTable = field(default_factory=ResolverTable)
    tls: TlsTable = field(default_factory=TlsTable)
    keys: KeysTable = field(default_factory=KeysTable)
    limits: LimitsTable = field(default_factory=LimitsTable)
    bus: BusTable = field(default_factory=BusTable)
    metrics: MetricsTable = field(default_factory=MetricsTable)

    def __post_init__(self) -> None:
        # A map that cannot hold even what the watermarks guard would be full before they speak.
        check("limits", self.limits.ballast < self.limits.spool_map, "ballast is not below spool_map")
