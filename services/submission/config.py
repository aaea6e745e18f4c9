"""The table `[submission]`: where clients hand in mail, in whose name, and how much of it.

What a sending domain's messages are signed with stands in `[[submission.domain]]`; who may use which domain
is in the accounts file, not here. `load_submission` reads file and environment as the engine does and
resolves paths. Raises ConfigError.
"""

from collections.abc import Mapping
from pathlib import Path

from msgspec import field
from msgspec.structs import replace

from engine.config import ConfigError, load_config
from engine.config.base import Table, check, check_unique
from engine.config.load import load_table
from engine.config.tables import Config
from engine.config.units import OCTETS, Duration, HostPort, Rate, Size
from engine.model.address import AddressError, normalise_domain
from engine.model.content import BodyCanon, DkimAlgorithm, DkimIdentity
from engine.model.single import RAW_OCTETS_MAX

WORKERS_LIMIT = 64
RECIPIENTS_LIMIT = 1_000
CONNECTIONS_LIMIT = 20_000
TRACE_OCTETS = 64 * 1024  # kept free for our fields and the signatures: 10 MB is the engine's last word


class DkimRule(Table, frozen=True):
    """One signature of a domain's messages. `key` names a key in the engine's `[[keys.dkim]]`."""

    key: str
    selector: str
    domain: str = ""  # d=; empty = the sending domain
    algorithm: DkimAlgorithm = DkimAlgorithm.RSA_SHA256
    body: BodyCanon = BodyCanon.SIMPLE
    expire_days: int = 7


class DomainRule(Table, frozen=True):
    """A domain that messages may be from."""

    name: str
    return_path: str = ""  # domain of bounces; empty = the same
    dkim: tuple[DkimRule, ...] = ()  # none = unsigned, which few receivers take today

    def __post_init__(self) -> None:
        for key, value in (("name", self.name), ("return_path", self.return_path)):
            if key == "name" or value:
                _check_domain(key, value)

    def identities(self) -> tuple[DkimIdentity, ...]:
        return tuple(
            DkimIdentity(
                rule.domain or self.name, rule.selector, rule.key, rule.algorithm, rule.body, rule.expire_days
            )
            for rule in self.dkim
        )


class SubmissionTable(Table, frozen=True):
    """Limits hold for each worker by itself; the kernel spreads connections over them."""

    listen: tuple[HostPort, ...] = (HostPort.parse("127.0.0.1:587"),)  # STARTTLS before anything else
    listen_tls: tuple[HostPort, ...] = ()  # TLS from the first octet (RFC 8314), port 465
    hostname: str = ""  # said in the greeting and in Received; empty = this machine's
    tls_cert: str = ""  # PEM, chain included; relative to the file
    tls_key: str = ""
    accounts: str = "accounts.json"  # relative to the keys folder
    workers: int = 1  # processes
    size_max: Size = Size(RAW_OCTETS_MAX)
    recipients_max: int = 100  # of one message; RFC 5321 4.5.3.1.8 wants at least that
    fan_out_max: Size = Size(256 * OCTETS["MB"])  # size times recipients: each gets a copy in the queue
    messages_per_account: Rate = Rate(600, 60.0)
    connections_max: int = 2_000
    connections_per_address: int = 50
    idle_timeout: Duration = Duration(5 * 60)  # RFC 5321 4.5.3.2.7
    expire_after: Duration = Duration(24 * 3600)  # as [engine.retry] has it for transactional mail
    durable_timeout: Duration = Duration(20)  # then the client is told to come again
    domain: tuple[DomainRule, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        check("workers", 1 <= self.workers <= WORKERS_LIMIT, f"must be from 1 to {WORKERS_LIMIT}")
        check("listen", bool(self.listen or self.listen_tls), "and listen_tls are both empty")
        check("size_max", 1024 <= self.size_max <= RAW_OCTETS_MAX, "must be from 1 KB to 10 MB")
        check("recipients_max", 1 <= self.recipients_max <= RECIPIENTS_LIMIT, "must be from 1 to 1000")
        check("fan_out_max", self.fan_out_max >= self.size_max, f"is below size_max ({self.size_max})")
        check("connections_max", 1 <= self.connections_max <= CONNECTIONS_LIMIT, "must be from 1 to 20000")
        check("connections_per_address", self.connections_per_address >= 1, "must be at least 1")
        check("idle_timeout", self.idle_timeout >= 1, "must be at least 1 s")
        check("durable_timeout", self.durable_timeout >= 1, "must be at least 1 s")
        check("expire_after", self.expire_after >= 60, "must be at least 1 min")
        check_unique("domain", [rule.name for rule in self.domain])
        if self.hostname:
            _check_domain("hostname", self.hostname)

    def rule(self, domain: str) -> DomainRule | None:
        return next((rule for rule in self.domain if rule.name == domain), None)


def load_submission(path: Path | None, environ: Mapping[str, str]) -> tuple[Config, SubmissionTable]:
    """The node's configuration and the table, its files resolved and said to be there. Raises ConfigError."""
    config = load_config(path, environ)
    table = load_table(path, environ, "submission", SubmissionTable)
    base = Path() if path is None else path.resolve().parent
    files = {}
    for key in ("tls_cert", "tls_key"):
        named = getattr(table, key)
        if not named or not (base / named).is_file():
            problem = "is not set" if not named else f"names no file: {base / named}"
            hint = "passwords are taken over TLS only: name a certificate and its key, both PEM"
            raise ConfigError(str(path or "configuration"), "submission", key, problem, hint)
        files[key] = str(base / named)
    accounts = str(Path(config.keys.folder) / table.accounts)
    return config, replace(table, **files, accounts=accounts)


def _check_domain(key: str, name: str) -> None:
    try:
        same = normalise_domain(name) == name
    except AddressError as error:
        raise ValueError(f"{key}: {error}") from None
    check(key, same, f"is not in lower-case A-labels: write {normalise_domain(name)}")
