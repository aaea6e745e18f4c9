"""The tables of `emass.toml` that the engine reads, as frozen Structs with their defaults.

A `Config()` without a file is complete and usable: the defaults below are the documentation in
`default.toml`, and a test holds the two together. What one value forbids another is checked in
`__post_init__`; those messages start with the key, and `load` adds file, table and hint.
Secrets are files: no table has a place for the secret itself.
"""

import ipaddress
import os
import re
from enum import Enum

from msgspec import Struct, field

from engine.config.units import OCTETS, Duration, HostPort, Rate, Size
from engine.model.address import AddressError, normalise_domain
from engine.model.content import DkimAlgorithm

CONNECTIONS_MAX_LIMIT = 50_000  # descriptors: beyond this a node needs more processes, not more sockets
ACTIVE_SET_LIMIT = 1_000_000  # envelopes held in memory; at about 1 KB each this is a gigabyte
SIGNERS_LIMIT = 256

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Unknown keys are refused: a misspelt key that is silently ignored is the worst kind of setting."""


def _check(key: str, holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(f"{key}: {problem}")


def _check_unique(key: str, names: list[str]) -> None:
    for name in names:
        _check(key, names.count(name) == 1, f"{name!r} stands there twice")


class NodeTable(_Table, frozen=True):
    """Who this node is and where it keeps its data."""

    name: str = "node-1"
    data: str = "data"  # a folder; relative to the file

    def __post_init__(self) -> None:
        _check("name", bool(_NAME.match(self.name)), "use letters, digits, '.', '_' and '-', 63 at most")
        _check("data", bool(self.data), "must not be empty")


class AmbiguousPolicy(Enum):
    """What happens to an envelope whose final dot may have been accepted."""

    RETRY = "retry"  # again, with the same Message-ID, so that receivers can drop the double
    HOLD = "hold"  # wait for an operator


class RetryTable(_Table, frozen=True):
    """Back-off: first, then times factor up to max, each +- jitter; given up after expire_after."""

    first: Duration = Duration(5 * 60)
    factor: float = 2.0
    max: Duration = Duration(4 * 3600)
    jitter: float = 0.2  # share of the interval
    expire_after: Duration = Duration(72 * 3600)  # bulk; RFC 5321 4.5.4.1 would allow 4-5 days
    expire_after_transactional: Duration = Duration(24 * 3600)

    def __post_init__(self) -> None:
        _check("first", self.first > 0, "must be longer than 0 s")
        _check("first", self.first <= self.max, f"is longer than max ({self.max})")
        _check("factor", 1.0 <= self.factor <= 10.0, "must be from 1 to 10")
        _check("jitter", 0.0 <= self.jitter <= 0.9, "must be from 0 to 0.9")
        for key in ("expire_after", "expire_after_transactional"):
            _check(key, getattr(self, key) > self.first, f"is not longer than first ({self.first})")


class SourceRule(_Table, frozen=True):
    """An egress source: the local address to bind and the name said in EHLO."""

    name: str
    address: str = ""  # empty = the system's choice
    ehlo_name: str = ""  # empty = the host's name

    def __post_init__(self) -> None:
        _check("name", bool(_NAME.match(self.name)), "use letters, digits, '.', '_' and '-', 63 at most")
        if self.address:
            try:
                ipaddress.ip_address(self.address)
            except ValueError:
                raise ValueError("address: is no IPv4 or IPv6 address") from None
        if self.ehlo_name:
            try:
                normalise_domain(self.ehlo_name)
            except AddressError as error:
                raise ValueError(f"ehlo_name: {error}") from None


class TlsPolicy(Enum):
    NEVER = "never"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"


class SiteRule(_Table, frozen=True):
    """What holds for the sites that match. None = this rule says nothing; a less specific one may.

    At most one of `domain` (a recipient domain), `mx` (a suffix of MX host names) and `site` (a
    site's name as `emass queue show` prints it) is set; none = every site.
    """

    domain: str = ""
    mx: str = ""
    site: str = ""
    connections: int | None = None
    messages_per_connection: int | None = None
    rate: Rate | None = None
    connect_timeout: Duration | None = None
    tls: TlsPolicy | None = None
    pipelining: bool | None = None
    chunking: bool | None = None

    def __post_init__(self) -> None:
        said = [key for key in ("domain", "mx", "site") if getattr(self, key)]
        _check(said[-1] if said else "domain", len(said) <= 1, f"one rule matches by one key, not {said}")
        _check("connections", self.connections is None or self.connections >= 1, "must be at least 1")
        messages = self.messages_per_connection
        _check("messages_per_connection", messages is None or messages >= 1, "must be at least 1")
        timeout = self.connect_timeout
        _check("connect_timeout", timeout is None or 0 < timeout <= 600, "must be from 0 s to 10 min")


# Where no rule says anything. Connections: Postfix's default_destination_concurrency_limit; messages:
# Exim's connection_max_messages; connect: half of RFC 1123's 60 s, as Postfix's smtp_connect_timeout.
SITE_DEFAULTS = SiteRule(
    connections=20,
    messages_per_connection=500,
    connect_timeout=Duration(30),
    tls=TlsPolicy.OPPORTUNISTIC,
    pipelining=True,
    chunking=True,
)


class EngineTable(_Table, frozen=True):
    """The broadcaster."""

    smtp_port: int = 25
    connections_max: int = 2_000
    active_set_max: int = 20_000  # envelopes in memory, all queues together
    group_commit: Duration = Duration(0.008)  # how long a settle may wait for company
    signers: int = field(default_factory=lambda: max(1, os.cpu_count() or 1))
    ambiguous: AmbiguousPolicy = AmbiguousPolicy.RETRY
    lookups_max: int = 100  # MX look-ups in flight
    prepared_bytes_max: Size = Size(64 * OCTETS["MB"])
    retry: RetryTable = field(default_factory=RetryTable)
    source: tuple[SourceRule, ...] = ()
    site: tuple[SiteRule, ...] = ()

    def __post_init__(self) -> None:
        _check("smtp_port", 1 <= self.smtp_port <= 65_535, "must be from 1 to 65535")
        for key, limit in (
            ("connections_max", CONNECTIONS_MAX_LIMIT),
            ("active_set_max", ACTIVE_SET_LIMIT),
            ("signers", SIGNERS_LIMIT),
            ("lookups_max", 10_000),
        ):
            _check(key, 1 <= getattr(self, key) <= limit, f"must be from 1 to {limit}")
        _check("group_commit", 0 <= self.group_commit <= 1, "must be from 0 s to 1 s")
        _check("prepared_bytes_max", self.prepared_bytes_max >= OCTETS["MB"], "must be at least 1 MB")
        _check_unique("source", [source.name for source in self.source])
        for rule in self.site:
            held = rule.connections or 1
            _check("site", held <= self.connections_max, "connections of a site exceed connections_max")


class ResolverTable(_Table, frozen=True):
    """The recursive resolvers that answer our MX questions."""

    servers: tuple[HostPort, ...] = (HostPort.parse("127.0.0.1:53"),)
    allow_private: bool = False  # deliver to loopback and private addresses
    timeout: Duration = Duration(5)  # for one question to one server
    attempts: int = 3

    def __post_init__(self) -> None:
        _check("servers", bool(self.servers), "name at least one server")
        _check("timeout", 0 < self.timeout <= 60, "must be from 0 s to 1 min")
        _check("attempts", 1 <= self.attempts <= 10, "must be from 1 to 10")


class DkimKeyFile(_Table, frozen=True):
    """A private key that the signer processes may open."""

    name: str
    file: str  # relative to the keys folder
    algorithm: DkimAlgorithm = DkimAlgorithm.RSA_SHA256

    def __post_init__(self) -> None:
        _check("name", bool(self.name), "must not be empty")
        _check("file", bool(self.file), "must not be empty")
        inline = "-----BEGIN" in self.file or "\n" in self.file
        _check("file", not inline, "holds the key itself; put it into a file and name that file here")


class KeysTable(_Table, frozen=True):
    """Where the key files are. Secrets are files, never values in here."""

    folder: str = "keys"  # relative to the file
    master: str = "master.key"  # relative to the folder
    dkim: tuple[DkimKeyFile, ...] = ()

    def __post_init__(self) -> None:
        _check("folder", bool(self.folder), "must not be empty")
        inline = bool(re.fullmatch(r"[0-9a-fA-F]{32,}", self.master)) or "\n" in self.master
        _check("master", not inline, "holds the key itself; put it into a file and name that file here")
        _check_unique("dkim", [key.name for key in self.dkim])


class LimitsTable(_Table, frozen=True):
    """How much room the queue may take, and what happens when the disk fills."""

    spool_map: Size = Size(64 * OCTETS["GB"])  # address space, not disk: the file is sparse
    disk_refuse: Size = Size(2 * OCTETS["GB"])  # less free than this: no new work is accepted
    disk_stop: Size = Size(512 * OCTETS["MB"])  # less free than this: nothing more is leased
    ballast: Size = Size(64 * OCTETS["MB"])  # a file that is freed for the last settles

    def __post_init__(self) -> None:
        _check("spool_map", self.spool_map >= 10 * OCTETS["MB"], "must be at least 10 MB")
        _check(
            "disk_stop", self.disk_stop < self.disk_refuse, f"is not below disk_refuse ({self.disk_refuse})"
        )
        _check("ballast", self.ballast <= self.disk_stop, f"is larger than disk_stop ({self.disk_stop})")


class BusKind(Enum):
    LOCAL = "local"


class BusTable(_Table, frozen=True):
    """How the processes of an installation talk to each other."""

    kind: BusKind = BusKind.LOCAL


class Config(_Table, frozen=True):
    """Everything the engine reads. Folders are as `load_config` resolved them: ready to be opened."""

    node: NodeTable = field(default_factory=NodeTable)
    engine: EngineTable = field(default_factory=EngineTable)
    resolver: ResolverTable = field(default_factory=ResolverTable)
    keys: KeysTable = field(default_factory=KeysTable)
    limits: LimitsTable = field(default_factory=LimitsTable)
    bus: BusTable = field(default_factory=BusTable)

    def __post_init__(self) -> None:
        # A map that cannot hold even what the watermarks guard would be full before they speak.
        _check("limits", self.limits.ballast < self.limits.spool_map, "ballast is not below spool_map")
