"""The keeper of keys: what comes sealed is kept and handed on, what is wrong is named and changes nothing."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors.dkim_keys import DkimKeys
from engine.actors.keys import SEALED_TABLE, key_keeper
from engine.actors.parts import Parts
from engine.keyring import create_master_key, load_master_key
from engine.sealing import (
    NODE_BOX,
    create_box,
    dkim_bound,
    dkim_table,
    former_of,
    load_boxes,
    rotate_box,
    seal,
    tokens_bound,
    tokens_table,
)
from engine.token_ring import (
    FIRST_PLAN,
    TokenRing,
    encode_ring,
    load_ring,
    ring_for,
    save_plan,
    save_ring,
    with_new_id,
    with_start,
)
from tests.fakes.engine_house import memory_parts, until
from tests.fakes.memory_bus import MemoryBus
from tests.fakes.trees import running_actor

MASTER = bytes(range(32))
NEXT = with_new_id(FIRST_PLAN, 1_000.0, early=True)


class Node:
    """The parts of a node that joined, with a bus of its own, its boxes and a ring."""

    def __init__(self, folder: Path, cluster: MemoryBus | None = None) -> None:
        self.folder = folder
        self.box = folder / NODE_BOX
        self.signer_box = folder / "signer.box"
        if not self.box.exists():
            create_box(self.box)
            create_box(self.signer_box)
            save_ring(folder / "ring.json", ring_for(MASTER))
        self.parts: Parts = memory_parts()
        config = self.parts.config
        self.parts.config = replace(config, keys=replace(config.keys, folder=str(folder)))
        self.parts.dkim_keys = self.keys = DkimKeys(box=str(self.signer_box))
        self.cluster = cluster or MemoryBus("hub")
        self.parts.cluster = self.cluster

    def ring(self, plan: Any = NEXT, master: bytes = MASTER, **seal_to: Any) -> bytes:
        return self.sealed_ring(ring_for(master, plan=plan), **seal_to)

    def sealed_ring(self, ring: TokenRing, *, public: bytes = b"", node: str = "node") -> bytes:
        return seal(public or load_boxes(self.box).public, encode_ring(ring), tokens_bound(node))

    async def give_ring(self, sealed: bytes) -> None:
        await self.cluster.put(tokens_table("node"), "ring", sealed)
        self.cluster.ring()

    async def give_key(self, name: str, sealed: bytes | None) -> None:
        if sealed is None:
            await self.cluster.delete(dkim_table("node"), name)
        else:
            await self.cluster.put(dkim_table("node"), name, sealed)
        self.cluster.ring()

    def dkim(self, name: str) -> bytes:
        return seal(load_boxes(self.signer_box).public, b"pem of " + name.encode(), dkim_bound("node", name))

    @property
    def told(self) -> dict[str, Any]:
        row = self.cluster.tables.get("status", {}).get("node/keys")
        facts: dict[str, Any] = json.loads(row) if row else {}
        return facts


def flipped(sealed: bytes) -> bytes:
    return sealed[:-1] + bytes((sealed[-1] ^ 1,))


@asynccontextmanager
async def at_work(folder: Path, cluster: MemoryBus | None = None) -> AsyncIterator[Node]:
    node = Node(folder, cluster)
    async with running_actor(key_keeper(node.parts)):
        yield node


# --- DKIM keys ---------------------------------------------------------------------------------------------


async def test_sealed_keys_are_handed_on_unopened_and_kept_here(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with at_work(tmp_path) as node:
        await node.give_key("news", node.dkim("news"))
        await until(lambda: node.keys.sealed == node.cluster.items(dkim_table("node")))
        await until(lambda: node.parts.bus.items(SEALED_TABLE) == node.keys.sealed)
        await node.give_key("news", None)
        await until(lambda: not node.keys.sealed and not node.parts.bus.items(SEALED_TABLE))


async def test_an_engine_that_starts_without_its_bus_has_its_keys(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    node = Node(tmp_path)
    await node.parts.bus.put(SEALED_TABLE, "news", node.dkim("news"))
    node.cluster.closed.set()  # nothing is heard from it

    async def never(table: str) -> dict[str, bytes]:
        await trio.sleep_forever()
        raise AssertionError

    node.cluster.read_all = never  # type: ignore[method-assign]
    node.cluster.watch = lambda table, after=b"": SilentWatch()  # type: ignore[assignment,return-value]
    async with running_actor(key_keeper(node.parts)):
        assert list(node.keys.sealed) == ["news"]
        assert node.parts.tokens.current == 0


class SilentWatch:
    def __aiter__(self) -> "SilentWatch":
        return self

    async def __anext__(self) -> Any:
        await trio.sleep_forever()


async def test_keys_that_went_meanwhile_go_but_an_empty_table_takes_none(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    node = Node(tmp_path)
    for name in ("old", "news"):
        await node.parts.bus.put(SEALED_TABLE, name, node.dkim(name))
    async with running_actor(key_keeper(node.parts)):
        await trio.sleep(10)
        assert set(node.keys.sealed) == {"old", "news"}
    await node.give_key("news", node.dkim("news"))
    async with running_actor(key_keeper(node.parts)):
        await until(lambda: set(node.keys.sealed) == {"news"})


# --- token keys --------------------------------------------------------------------------------------------


async def test_a_new_ring_is_put_into_force_and_written_down(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with at_work(tmp_path) as node:
        assert sorted(node.parts.tokens.keys) == [0]
        await node.give_ring(node.ring())
        await until(lambda: sorted(node.parts.tokens.keys) == [0, 1])
        assert node.parts.tokens.current == 0
        await node.give_ring(node.ring(with_start(NEXT, 2_000.0)))
        await until(lambda: node.parts.tokens.current == 1)
        assert load_ring(tmp_path).current == 1
        await until(lambda: node.told.get("ids") == [0, 1] and node.told["current"] == 1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda node: node.ring(node="b"), "sealed for something else"),
        (lambda node: flipped(node.ring()), "damaged"),
        (lambda node: node.ring(public=create_box(node.folder / "foreign")), "is not here"),
        (lambda node: node.ring(master=bytes(32)), "another master key"),
        (lambda node: node.sealed_ring(ring_for(MASTER, "ucs", NEXT)), "lacks kinds"),
        (lambda node: b"octets", "no sealed value"),
    ],
)
async def test_a_ring_that_cannot_be_used_is_named_and_the_one_before_it_signs_on(
    change: Any, why: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with at_work(tmp_path) as node:
        await node.give_ring(change(node))
        await until(lambda: why in node.told.get("trouble", {}).get("tokens", ""))
        assert sorted(node.parts.tokens.keys) == [0]
        await node.give_ring(node.ring())
        await until(lambda: node.told["trouble"] == {})
        assert sorted(node.parts.tokens.keys) == [0, 1]


async def test_an_older_ring_never_replaces_a_newer_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with at_work(tmp_path) as node:
        await node.give_ring(node.ring(with_start(NEXT, 2_000.0)))
        await until(lambda: node.parts.tokens.current == 1)
        await node.give_ring(node.ring(FIRST_PLAN))
        await trio.sleep(5)
        assert node.parts.tokens.current == 1


async def test_a_node_with_a_master_key_follows_the_plan_beside_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    create_master_key(tmp_path / "master.key")
    master = load_master_key(tmp_path / "master.key")
    parts = memory_parts()
    parts.config = replace(parts.config, keys=replace(parts.config.keys, folder=str(tmp_path)))
    async with running_actor(key_keeper(parts)):
        assert parts.tokens.keys == ring_for(master).keys
        (tmp_path / "token-ids.json").write_text("{")
        await trio.sleep(5)
        assert sorted(parts.tokens.keys) == [0]
        save_plan(tmp_path, with_start(NEXT, 2_000.0))
        await until(lambda: parts.tokens.current == 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["master.key", "token-ids.json"]


# --- box keys ----------------------------------------------------------------------------------------------


async def test_a_replaced_node_box_is_told_and_the_former_goes_when_the_ring_came_anew(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with at_work(tmp_path) as node:
        await node.give_ring(node.ring())
        await until(lambda: sorted(node.parts.tokens.keys) == [0, 1])
        public = rotate_box(node.box)
        await until(lambda: node.told["box_public"] == public.hex())
        await trio.sleep(10)
        assert former_of(node.box).exists(), "the ring is still sealed to the former key"
        await node.give_ring(node.ring(with_start(NEXT, 2_000.0)))
        await until(lambda: not former_of(node.box).exists())
        assert node.parts.tokens.current == 1


async def test_a_replaced_signer_box_goes_when_every_key_opened_under_the_new_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with at_work(tmp_path) as node:
        keys, old = node.keys, load_boxes(node.signer_box).public
        keys.told([old])
        for name in ("news", "shop"):
            await node.give_key(name, node.dkim(name))
        await until(lambda: len(keys.sealed) == 2)
        for name, sealed in keys.sealed.items():
            keys.was_opened(name, sealed, "")
        public = rotate_box(node.signer_box)
        await until(lambda: keys.generation == 1)
        keys.told([public, old])
        await until(lambda: node.told["signer_public"] == public.hex())
        assert node.parts.membership.signer_public == public.hex()
        await node.give_key("news", node.dkim("news"))
        await trio.sleep(10)
        assert former_of(node.signer_box).exists()
        await node.give_key("shop", node.dkim("shop"))
        await trio.sleep(10)
        assert former_of(node.signer_box).exists(), "nobody has opened them yet"
        for name, sealed in keys.sealed.items():
            keys.was_opened(name, sealed, "")
        await until(lambda: not former_of(node.signer_box).exists())
        assert keys.generation == 2
        await until(lambda: set(node.told["dkim"]) == {"news", "shop"})


async def test_an_engine_alone_tells_nobody_and_makes_no_box(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    create_master_key(tmp_path / "master.key")
    parts = memory_parts()
    parts.config = replace(parts.config, keys=replace(parts.config.keys, folder=str(tmp_path)))
    async with running_actor(key_keeper(parts)):
        await trio.sleep(60)
    assert parts.bus.items("status") == {}
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]
