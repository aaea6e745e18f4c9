"""Shaping as data: who the mailbox providers are, and what may be done to them, rule by rule.

A rule matches by one of recipient domain, site, MX suffix or provider, or everything, and says some
values; what it leaves out a weaker rule says, and in the end `SITE_DEFAULTS`. The same tables stand in
three places: `shaping.toml` beside this file, an operator's own file, and `[engine]` of `emass.toml`.
Which rule wins is decided in `engine.mta.policy.shaping`; here is only what one rule may say.
A file that does not parse is refused by `load`; what merely makes no sense is found by the lint.
"""

import tomllib
from enum import Enum
from functools import cache
from pathlib import Path

import msgspec
from msgspec.structs import force_setattr

from engine.config.base import Table, check, check_name, check_unique
from engine.config.units import CountRange, Duration, Rate, RateRange, UnitError, parse_unit

SHAPING_VERSION = 1
CONNECTIONS_MAX_LIMIT = 50_000  # descriptors: beyond this a node needs more processes, not more sockets
MESSAGES_PER_CONNECTION_MAX = 1_000_000
CONNECT_SECONDS_MAX = 600  # ten times RFC 1123's 60 s; beyond it a dead host holds a place for nothing
REPLY_SECONDS_MAX = 3600  # RFC 5321 4.5.3.2 asks for 10 min at the final dot; six times that is a slip
BURST_SECONDS_MAX = 3600  # the longest window that receivers are known to count in
FAILURES_LIMIT = 10_000
WEIGHT_MIN, WEIGHT_MAX = 0.01, 1000.0  # shares further apart than this starve: give a rate instead
WARM_UP_DAYS_MAX = 366
WARM_UP_MESSAGES_MAX = 1_000_000_000

_BUILT_IN_FILE = Path(__file__).with_name("shaping.toml")
_TARGETS = ("domain", "mx", "site", "provider")


class TlsPolicy(Enum):
    NEVER = "never"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"


class ProviderRule(Table, frozen=True, kw_only=True):
    """A mailbox company. A site is its when every MX host is one of `hosts` or falls under one of `mx`.

    `domains` are recipient domains that are its wherever their MX hosts stand. A later layer's rule of
    the same name replaces this one.
    """

    name: str
    mx: tuple[str, ...] = ()  # suffixes of MX host names
    hosts: tuple[str, ...] = ()  # exact MX host names
    domains: tuple[str, ...] = ()
    note: str = ""  # where what we know of it comes from

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check("mx", bool(self.mx or self.hosts or self.domains), "say mx suffixes, hosts or domains")


class ShapingRule(Table, frozen=True, kw_only=True):
    """What holds where it matches. None = this rule says nothing; a weaker one may.

    At most one of `domain` (a recipient domain), `mx` (a suffix of MX host names), `site` (a site's
    name as `emass queue show` prints it) and `provider` is set; none = everything. `source` narrows
    it to one egress source. With `workspace` or `campaign` it is about their mail, over all paths.
    """

    domain: str = ""
    mx: str = ""
    site: str = ""
    provider: str = ""
    source: str = ""
    workspace: str = ""
    campaign: int = 0

    connections: CountRange | None = None
    connection_rate: Rate | None = None  # new connections
    rate: RateRange | None = None  # messages
    burst: Duration | None = None  # of the rate: so much of it may go at once
    messages_per_connection: int | None = None
    provider_connections: int | None = None  # over all sites of the provider, for each source
    provider_rate: RateRange | None = None
    connect_timeout: Duration | None = None
    reply_timeout: Duration | None = None  # for the answer to a command; None = by verb, RFC 5321 4.5.3.2
    final_timeout: Duration | None = None  # for the answer to the final dot
    idle_timeout: Duration | None = None
    tls: TlsPolicy | None = None
    pipelining: bool | None = None
    chunking: bool | None = None
    retry_first: Duration | None = None
    retry_factor: float | None = None
    retry_max: Duration | None = None
    expire_after: Duration | None = None
    failures_max: int | None = None  # connection failures in a row before the path rests

    def __post_init__(self) -> None:
        if isinstance(self.connections, int):  # code may write what the file may
            check("connections", self.connections >= 1, "must be at least 1")
            force_setattr(self, "connections", CountRange(1, self.connections))
        if isinstance(self.rate, Rate):
            force_setattr(self, "rate", RateRange.up_to(self.rate))
        said = [key for key in _TARGETS if getattr(self, key)]
        check(said[-1] if said else "domain", len(said) <= 1, f"one rule matches by one key, not {said}")
        check("campaign", self.campaign >= 0, "is the number of a campaign")
        if self.is_flow:
            self._check_flow()
        self._check_counts()
        self._check_times()

    @property
    def is_flow(self) -> bool:
        """About the mail of a workspace or campaign, not about a path."""
        return bool(self.workspace or self.campaign)

    def _check_flow(self) -> None:
        whose = "workspace" if self.workspace else "campaign"
        for key in ("domain", "mx", "site", "source"):
            check(key, not getattr(self, key), f"a rule of a {whose} matches by provider, or everything")
        for key in PATH_VALUES:
            if key not in FLOW_VALUES:
                check(
                    key,
                    getattr(self, key) is None,
                    f"is not for one {whose}: a connection carries mail of every workspace"
                    f" (a {whose} can have {', '.join(FLOW_VALUES)})",
                )

    def _check_counts(self) -> None:
        for key in ("provider_connections", "provider_rate"):
            check(
                key,
                getattr(self, key) is None or not (self.domain or self.mx or self.site),
                "is a sum over the sites of a provider: match by provider, or everything",
            )
        if self.connections is not None:
            ceiling = self.connections.ceiling
            check("connections", ceiling <= CONNECTIONS_MAX_LIMIT, f"is above {CONNECTIONS_MAX_LIMIT}")
        for key, limit in (
            ("messages_per_connection", MESSAGES_PER_CONNECTION_MAX),
            ("provider_connections", CONNECTIONS_MAX_LIMIT),
            ("failures_max", FAILURES_LIMIT),
        ):
            value = getattr(self, key)
            check(key, value is None or value >= 1, "must be at least 1")
            check(key, value is None or value <= limit, f"must be at most {limit}")
        factor = self.retry_factor
        check("retry_factor", factor is None or 1.0 <= factor <= 10.0, "must be from 1 to 10")

    def _check_times(self) -> None:
        for key, limit in (
            ("connect_timeout", CONNECT_SECONDS_MAX),
            ("reply_timeout", REPLY_SECONDS_MAX),
            ("final_timeout", REPLY_SECONDS_MAX),
            ("idle_timeout", CONNECT_SECONDS_MAX),
        ):
            value = getattr(self, key)
            check(key, value is None or 0 < value <= limit, f"must be from 0 s to {Duration(limit)}")
        burst = self.burst
        check("burst", burst is None or burst <= BURST_SECONDS_MAX, "must be at most 1 h")
        first = self.retry_first
        check("retry_first", first is None or first > 0, "must be longer than 0 s")
        for key, word in (("retry_max", "shorter than"), ("expire_after", "not longer than")):
            value = getattr(self, key)
            check(key, value is None or value > 0, "must be longer than 0 s")
            if value is not None and first is not None:
                holds = value >= first if key == "retry_max" else value > first
                check(key, holds, f"is {word} retry_first ({first})")


MATCH_KEYS = (*_TARGETS, "source", "workspace", "campaign")
PATH_VALUES = tuple(key for key in ShapingRule.__struct_fields__ if key not in MATCH_KEYS)
FLOW_VALUES = ("rate", "burst", "retry_first", "retry_factor", "retry_max", "expire_after")


# Where no rule says anything. Connections: Postfix's default_destination_concurrency_limit; messages:
# Exim's connection_max_messages; connect: half of RFC 1123's 60 s, as Postfix's smtp_connect_timeout;
# idle: a receiver would rather have its socket back; burst: what a receiver counting by the second
# does not notice; failures: rest at once, since a resting path asks again within the retry curve.
SITE_DEFAULTS = ShapingRule(
    connections=CountRange(1, 20),
    burst=Duration(0.25),
    messages_per_connection=500,
    connect_timeout=Duration(30),
    idle_timeout=Duration(5),
    tls=TlsPolicy.OPPORTUNISTIC,
    pipelining=True,
    chunking=True,
    failures_max=1,
)


class ShareRule(Table, frozen=True, kw_only=True):
    """How much of a busy site a workspace or campaign gets, beside those of weight 1."""

    workspace: str = ""
    campaign: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        check(
            "workspace", bool(self.workspace) != bool(self.campaign), "say workspace or campaign, one of them"
        )
        check("campaign", self.campaign >= 0, "is the number of a campaign")
        check(
            "weight",
            WEIGHT_MIN <= self.weight <= WEIGHT_MAX,
            f"must be from {WEIGHT_MIN} to {WEIGHT_MAX:.0f}",
        )

    @property
    def of(self) -> str:
        return f"workspace {self.workspace}" if self.workspace else f"campaign {self.campaign}"


class WarmUpPlan(Table, frozen=True, kw_only=True):
    """How a new source becomes known: messages on sending day 1, 2, ...; it starts on first use."""

    source: str
    provider: str = ""  # empty = every provider that has no plan of its own for this source
    per_day: tuple[int, ...]
    counted_share: float = 0.5  # of a day's quota; a day on which less was sent is repeated
    overflow: bool = True  # what is over the quota may leave by a warm source of the same pool

    def __post_init__(self) -> None:
        check_name("source", self.source)
        check("per_day", 1 <= len(self.per_day) <= WARM_UP_DAYS_MAX, f"say 1 to {WARM_UP_DAYS_MAX} days")
        for count in self.per_day:
            check("per_day", 1 <= count <= WARM_UP_MESSAGES_MAX, f"{count} messages are no day's quota")
        check("counted_share", 0.0 <= self.counted_share <= 1.0, "must be from 0 to 1")


class ShapingFile(Table, frozen=True, kw_only=True):
    """A file of shaping: the built-in one, or an operator's."""

    version: int = SHAPING_VERSION
    provider: tuple[ProviderRule, ...] = ()
    site: tuple[ShapingRule, ...] = ()

    def __post_init__(self) -> None:
        check("version", self.version == SHAPING_VERSION, f"must be {SHAPING_VERSION}")
        check_unique("provider", (provider.name for provider in self.provider))


class ShapingPath(str):
    """The path of an operator's shaping file; `file` is what stands in it, once `load_config` read it."""

    __slots__ = ("file",)
    file: ShapingFile | None

    def __new__(cls, path: str = "", file: ShapingFile | None = None) -> "ShapingPath":
        made = super().__new__(cls, path)
        made.file = file
        return made

    @classmethod
    def parse(cls, text: object) -> "ShapingPath":
        """Raises UnitError."""
        if not isinstance(text, str):
            raise UnitError("must be a text in quotes: the path of a file")
        return cls(text)


@cache
def builtin_shaping() -> ShapingFile:
    """What this version knows of the providers. A fault in it is a bug, so it raises as one."""
    document = tomllib.loads(_BUILT_IN_FILE.read_text(encoding="utf-8"))
    return msgspec.convert(document, ShapingFile, dec_hook=parse_unit)
