"""Domains with TLS policies and real mail servers behind them: signed DNS, policy host, certificates.

Everything has its real port (25 and 443) on loopback addresses, so the engine needs no other setting than
where its resolver is and which authority it trusts. `Case` is one domain and what has to become of its mail.
"""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from msgspec import Struct

from bench.peers import missing, policy_host
from bench.peers.certificate import Authority, Certificate
from bench.peers.dnssec import Zone, private_dns
from bench.peers.receiver import Receiver
from engine.config.tables import EngineTable, ResolverTable, RetryTable, SiteRule
from engine.config.tls import TlsTable
from engine.config.units import Duration, HostPort
from engine.model.event import Deferred, Delivered
from tests.fakes.hop_engine import Told

SMTP_PORT, HTTPS_PORT = 25, 443
# No second attempt while a test runs, and so few messages for a connection that sessions are taken up again.
ENGINE = EngineTable(
    signers=1,
    retry=RetryTable(first=Duration(3600)),
    site=(SiteRule(connections=1, messages_per_connection=4),),
)


class Case(Struct, frozen=True):
    """`says` are words of the event's `tls` where mail is delivered, else of its reason."""

    zone: Zone
    delivered: bool
    says: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    """Words that must not be there."""

    @property
    def domain(self) -> str:
        return self.zone.name

    def check(self, told: Told) -> None:
        events = told.of(self.domain)
        assert events, "nothing became of its mail"
        for event in events:
            assert isinstance(event, Delivered if self.delivered else Deferred), event
            text = event.tls if self.delivered else f"{event.reply} {event.reason}"
            assert all(word in text for word in self.says), text
            assert not any(word in text for word in self.silent), text


def mx_at(address: str, *tlsa: str, host: str = "mx") -> str:
    """Master file lines for a domain with one MX host, and TLSA records for its port 25."""
    records = "".join(f"_25._tcp.{host} IN TLSA {each}\n" for each in tlsa)
    return f"@ IN MX 10 {host}\n{host} IN A {address}\n{records}"


def sts_at(address: str, policy_id: str = "1") -> str:
    """Master file lines that announce an MTA-STS policy and say where it is."""
    return f'_mta-sts IN TXT "v=STSv1; id={policy_id};"\nmta-sts IN A {address}\n'


def policy_of(*mx: str, mode: str = "enforce") -> str:
    """The text of a policy (RFC 8461 3.2)."""
    return "".join(
        f"{line}\n"
        for line in ("version: STSv1", f"mode: {mode}", "max_age: 86400", *(f"mx: {each}" for each in mx))
    )


def require_ports(*addresses: tuple[str, int]) -> None:
    """Skip where a port of these cannot be had."""
    for address in addresses:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                pytest.skip(
                    f"port {address[1]} cannot be bound: {error.strerror}; cure: run as root, port free"
                )


def require_peers(*names: str) -> None:
    """Skip where a server of these cannot run."""
    for reason in filter(None, map(missing, names)):
        pytest.skip(reason)


@contextmanager
def mail_servers(
    folder: Path, servers: Mapping[str, tuple[ModuleType, bool | Certificate]]
) -> Iterator[dict[str, Receiver]]:
    """Start a server at port 25 of each address; yields them by address."""
    with ExitStack() as stack:
        yield {
            address: stack.enter_context(module.receiving(folder / address, address, SMTP_PORT, tls=tls))
            for address, (module, tls) in servers.items()
        }


@contextmanager
def policy_world(
    folder: Path,
    zones: Sequence[Zone],
    authority: Authority,
    policies: Mapping[str, str],
    host: str,
    *,
    policy_certificate: Certificate | None = None,
) -> Iterator[tuple[ResolverTable, TlsTable]]:
    """DNS for the zones and a policy host at `host` for the policies (domain -> text, empty for none).

    Yields the tables of an engine that lives there.
    """
    folder.mkdir()
    names = [f"mta-sts.{domain}" for domain in policies]
    certificate = policy_certificate or authority.issue(*(names or ["mta-sts.nobody.test"]))
    texts = dict(zip(names, policies.values(), strict=True))
    with (
        private_dns(folder / "dns", zones, host) as resolver,
        policy_host.serving(folder / "policies", texts, certificate, host),
    ):
        yield (
            ResolverTable(servers=(HostPort.parse(f"{resolver[0]}:{resolver[1]}"),), allow_private=True),
            TlsTable(ca_file=str(authority.write_root(folder / "root.pem"))),
        )
