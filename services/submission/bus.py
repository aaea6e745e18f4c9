"""The bus of one worker: the node's own folder, or the servers that many nodes share.

Decides the member's name, `<node>.submission-<number>`: each worker writes its own part of the stream.
Touches: the bus folder or, later, the network. Raises StorageError, KeyringError.
"""

from pathlib import Path

from engine.bus.api import Bus
from engine.bus.local import LocalBus
from engine.config import BusKind
from engine.config.tables import Config
from engine.keyring import read_secret

SEED_FILE = "submission.seed"


def open_bus(config: Config, number: int) -> Bus:
    """Not running yet. `number` counts workers from 1."""
    member, table = f"{config.node.name}.submission-{number}", config.bus
    if table.kind is BusKind.LOCAL:
        return LocalBus(Path(table.folder) if table.folder else Path(config.node.data) / "bus", member)
    from engine.bus.nats import NatsBus  # the extra `cluster`: a node alone does without

    keys = Path(config.keys.folder)
    seed = read_secret(keys / table.seeds / SEED_FILE).decode().strip() if table.seeds else None
    return NatsBus(
        [(server.host, server.port) for server in table.servers],
        member,
        seed=seed,
        ca_file=keys / table.ca_file if table.ca_file else None,
        replicas=table.replicas,
        stream_octets_max=table.stream_max,
    )
