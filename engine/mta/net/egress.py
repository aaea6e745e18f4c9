"""From the configuration to sources, relays and ways: what is read and tried once, before anything is sent.

Reads the password files of proxies and relays, and finds out whether each address can be bound. Everything
that makes a source or a relay unusable is an `EgressError` that names the table and the cure; a proxy that
does not answer is no reason not to start, since it may come back, and its source is suspended until then.
Touches: files in the keys folder, a socket for a moment. Not an actor.
"""

import socket
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from engine.config.egress import SOCKS_TEXT_OCTETS_MAX, members_of
from engine.config.tables import Config
from engine.keyring import KeyringError, read_secret
from engine.model.address import AddressError, normalise_domain
from engine.model.egress import Credentials, Relay, Source
from engine.model.reply import FailureKind
from engine.mta.net.dial import address_trouble
from engine.mta.policy.egress import Egress

PASSWORD_OCTETS_MAX = 1_024  # of a relay's; RFC 4616 knows no limit, and nobody types more


class EgressError(Exception):
    """A source or relay cannot be used; the message names table, key and cure."""


def egress_sources(config: Config) -> tuple[Source, ...]:
    """The configured sources, or one that leaves the address to the system. Reads no passwords."""
    name = host_name()
    if not config.engine.source:
        return (Source("default", name),)
    return tuple(
        Source(rule.name, rule.ehlo_name or name, rule.address or None, rule.proxy_facts(), rule.weight)
        for rule in config.engine.source
    )


def host_name() -> str:
    """Our EHLO name where none is configured: the host's, if it is a domain name at all."""
    name = socket.getfqdn()
    try:
        return normalise_domain(name)
    except AddressError:
        return "localhost.localdomain"


def unlocked(config: Config, sources: Sequence[Source]) -> tuple[Source, ...]:
    """The sources with the passwords of their proxies. Raises EgressError."""
    files = {rule.name: rule.proxy_password_file for rule in config.engine.source}
    found = []
    for source in sources:
        proxy, file = source.proxy, files.get(source.name)
        if proxy is not None and file:
            where = f"[[engine.source]] {source.name}: proxy_password_file"
            password = _password(config, file, where, SOCKS_TEXT_OCTETS_MAX)
            found.append(replace(source, proxy=replace(proxy, password=password)))
        else:
            found.append(source)
    return tuple(found)


def check_sources(sources: Sequence[Source]) -> None:
    """Raises EgressError for an address that is none of this machine's."""
    for source in sources:
        trouble = address_trouble(source)
        if trouble is not None and trouble.kind is FailureKind.SOURCE:
            raise EgressError(
                f"[[engine.source]] {source.name}: address: {source.address} cannot be used: {trouble.detail}"
                f" (give this machine the address, as `ip address add` does, or take the source away)"
            )


def read_egress(config: Config, sources: Sequence[Source]) -> Egress:
    """All ways, with the passwords of relays. Raises EgressError."""
    weights = {source.name: source.weight for source in sources}
    pools = {name: members_of(pool, weights) for name, pool in config.engine.pools.items()}
    return Egress(sources, pools, read_relays(config), config.engine.route)


def read_relays(config: Config) -> list[Relay]:
    """Every relay, ready to be used. Raises EgressError."""
    relays = []
    for rule in config.engine.relay:
        credentials = None
        if rule.user:
            where = f"[[engine.relay]] {rule.name}: password_file"
            password = _password(config, rule.password_file, where, PASSWORD_OCTETS_MAX)
            credentials = Credentials(rule.user, password, clear_allowed=rule.on_loopback)
        relays.append(replace(rule.facts(), credentials=credentials))
    return relays


def _password(config: Config, file: str, where: str, octets_max: int) -> str:
    """The first line of a file in the keys folder."""
    path = Path(config.keys.folder) / file
    if not path.exists():
        raise EgressError(f"{where}: {path} does not exist (write the password into it, and chmod 600 it)")
    try:
        data = read_secret(path)
    except KeyringError as error:
        raise EgressError(f"{where}: {error}") from error
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise EgressError(f"{where}: {file} is not UTF-8: write the password as one line") from error
    if not text or len(line) > octets_max or "\n" in text or "\0" in text:
        raise EgressError(f"{where}: {file} does not hold one line of 1 to {octets_max} octets")
    return text
