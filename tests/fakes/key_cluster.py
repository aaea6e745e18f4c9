"""A hub with keys and nodes that follow them, over a bus in memory: the actors are the real ones.

A node is the engine's keeper of keys with its boxes in a folder; its signer processes are played by a task,
which opens what is sealed to the signers' box as they do.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
from msgspec.structs import replace

from engine.actors.dkim_keys import DkimKeys
from engine.actors.keys import key_keeper
from engine.actors.parts import Parts
from engine.config.tables import Config, DkimKeyFile, KeysTable, NodeTable
from engine.keyring import KeyringError, create_master_key, load_master_key, parse_dkim_key
from engine.sealing import NODE_BOX, create_box, dkim_bound, load_boxes
from engine.token_ring import ring_for, save_ring
from tests.fakes.engine_house import memory_parts, weak_key
from tests.fakes.memory_bus import MemoryBus
from tests.fakes.trees import running_actor

BEAT_SECONDS = 2.0


class RingingBus(MemoryBus):
    """Watches of a table hear of a change at once."""

    async def put(self, table: str, key: str, value: bytes) -> None:
        await super().put(table, key, value)
        self.ring()


class KeyCluster:
    """The hub's folder and configuration, and the bus that all share."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        create_master_key(folder / "master.key")
        self.master = load_master_key(folder / "master.key")
        files = []
        for name in names:
            weak_key(folder / f"{name}.pem")
            files.append(DkimKeyFile(name, f"{name}.pem"))
        self.config = Config(
            node=NodeTable(name="hub"), keys=KeysTable(folder=str(folder), dkim=tuple(files))
        )
        self.bus = RingingBus("hub.agent")

    def pem(self, name: str) -> bytes:
        return (self.folder / f"{name}.pem").read_bytes()

    async def register(self, node: str, role: str = "broadcaster", **facts: Any) -> None:
        row = {"name": node, "role": role, "retired_at": None, **facts}
        await self.bus.put("nodes", node, json.dumps(row).encode())

    def told(self, node: str) -> dict[str, Any]:
        row = self.bus.tables.get("status", {}).get(f"{node}/keys")
        return {} if row is None else msgspec.json.decode(row, type=dict[str, Any])

    @asynccontextmanager
    async def node(self, folder: Path, name: str) -> AsyncIterator["KeyNode"]:
        """A node that runs for the length of the block."""
        node = KeyNode(folder, name, self)
        await self.register(name)
        async with running_actor(key_keeper(node.parts)), trio.open_nursery() as nursery:
            nursery.start_soon(node.beat)
            nursery.start_soon(node.signers)
            yield node
            nursery.cancel_scope.cancel()


class KeyNode:
    """One node's folder and parts."""

    def __init__(self, folder: Path, name: str, cluster: KeyCluster) -> None:
        self.folder, self.name, self.cluster = folder, name, cluster
        folder.mkdir(exist_ok=True)
        self.box, self.signer_box = folder / NODE_BOX, folder / "signer.box"
        if not self.box.exists():
            create_box(self.box)
            create_box(self.signer_box)
            save_ring(folder / "ring.json", ring_for(cluster.master))
        self.parts: Parts = memory_parts()
        keys = replace(self.parts.config.keys, folder=str(folder))
        self.parts.config = replace(self.parts.config, keys=keys, node=NodeTable(name=name))
        self.parts.dkim_keys = self.keys = DkimKeys(box=str(self.signer_box))
        self.parts.cluster = cluster.bus
        self.opened: dict[str, bytes] = {}  # private keys as the signers have them

    async def beat(self) -> None:
        """What `presence` writes."""
        beat = 0
        while True:
            beat += 1
            await self.cluster.bus.put("status", f"{self.name}/engine", json.dumps({"beat": beat}).encode())
            await trio.sleep(BEAT_SECONDS)

    async def signers(self) -> None:
        """What signer processes do with sealed keys."""
        while True:
            boxes = load_boxes(self.signer_box)
            self.keys.told([key.public for key in boxes.keys])
            for name, sealed in list(self.keys.sealed.items()):
                try:
                    pem = boxes.open(sealed, dkim_bound(self.name, name))
                    parse_dkim_key(pem, name)
                except KeyringError as error:
                    self.keys.was_opened(name, sealed, str(error))
                else:
                    self.opened[name] = pem
                    self.keys.was_opened(name, sealed, "")
            await self.keys.changed()
