"""Coming onto the cluster's bus with one of this node's keys: the seed file, the servers, the certificate.

The command line and the root process come this way (an engine does it itself). Touches the keys folder.
Raises ConnectError, one line with the cure, when this folder has no way onto a cluster's bus.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from control.cluster.registry import member_name
from engine.bus.nats import NatsBus
from engine.bus.nkeys import decode_seed
from engine.config import BusKind, Config
from engine.keyring import KeyringError, read_secret

ONLINE_SECONDS = 5.0  # for a command: a person waits


class ConnectError(Exception):
    """There is no way onto the bus; the message says why and what would help."""


def seed_path(config: Config, process: str) -> Path:
    """Where the seed of a process of this node is."""
    return Path(config.keys.folder) / config.bus.seeds / f"{process}.seed"


def read_seed(config: Config, process: str) -> str | None:
    """The seed of a process of this node, None on a bus without keys. Raises ConnectError."""
    if not config.bus.seeds:
        return None
    path = seed_path(config, process)
    try:
        seed = read_secret(path).decode().strip()
        decode_seed(seed)
    except KeyringError as error:
        raise ConnectError(str(error)) from None
    except ValueError as error:
        raise ConnectError(f"{path}: {error}") from None
    return seed


def open_bus(config: Config, process: str, member: str = "") -> NatsBus:
    """This node's bus for one of its processes; `run` is the caller's to start. Raises ConnectError."""
    table = config.bus
    if table.kind is not BusKind.NATS:
        raise ConnectError('[bus] kind is "local": this node belongs to no cluster')
    ca_file = Path(config.keys.folder) / table.ca_file if table.ca_file else None
    if ca_file is not None and not ca_file.exists():
        raise ConnectError(f"{ca_file}: is not there; it is the certificate that the bus is judged by")
    try:
        return NatsBus(
            [(server.host, server.port) for server in table.servers],
            member or member_name(config.node.name, process),
            seed=read_seed(config, process),
            ca_file=ca_file,
            replicas=table.replicas,
            stream_octets_max=table.stream_max,
        )
    except OSError as error:
        raise ConnectError(f"{ca_file}: cannot be used as a certificate: {error}") from None


@asynccontextmanager
async def as_operator(config: Config, *, online_seconds: float = ONLINE_SECONDS) -> AsyncIterator[NatsBus]:
    """The bus as an operator, for the length of a command on the hub. Raises ConnectError."""
    bus = open_bus(config, "operator", f"operator-{secrets.token_hex(4)}")
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        try:
            with trio.move_on_after(online_seconds):
                while not bus.online:  # noqa: ASYNC110 - the bus has no bell for it
                    await trio.sleep(0.02)
            if not bus.online:
                servers = ", ".join(map(str, config.bus.servers))
                raise ConnectError(
                    f"the bus at {servers} does not answer (is the hub up? `emass status` on it)"
                )
            yield bus
        finally:
            bus.close()
