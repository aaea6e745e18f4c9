"""Follows the keys that this node is given while it runs: sealed DKIM keys, and its ring of token keys.

From the cluster's bus, tables `dkim.<node>` and `tokens.<node>`: what is sealed to the signers goes to
`parts.dkim_keys` unopened, what is sealed to the node is opened here and put into force. Both are kept on
this machine, too (ciphertext on the node's own bus, the ring in its file), so that an engine starts and
sends while the bus is away. From files: a node with a master key follows the plan of token ids beside it,
and any node sees that a box key was replaced, has the signers read it, and destroys the former one when
everything has come sealed to the new one. What is wrong with a key is said once in the log and stands in
the row `<node>/keys` of table `status` until it is right; the key before it stays in use.

Touches: both buses, the files of the keys folder but for the signers' box. On crash: all is read anew.
"""

import json
import os
from pathlib import Path
from typing import Any

import structlog
import trio

from engine.actors.parts import Parts
from engine.bus.api import BusFull, PositionLost
from engine.keyring import TOKEN_KINDS, KeyringError
from engine.runtime.spec import Context, Start
from engine.sealing import (
    NODE_BOX,
    RING_ROW,
    Boxes,
    SealingError,
    create_box,
    dkim_table,
    drop_former,
    former_of,
    key_id,
    load_boxes,
    sealed_to,
    tokens_bound,
    tokens_table,
)
from engine.storage import StorageError
from engine.token_ring import PLAN_FILE, TokenRing, decode_ring, load_ring, save_ring

LOOK_SECONDS = 2.0  # between two looks at the files: three `stat`s
TELL_SECONDS = 30.0  # the row of table `status` is written anew, should the bus have forgotten it
CHANGES_SECONDS = 0.25  # between two looks for changes to tell
AGAIN_SECONDS = 5.0  # after trouble with a bus
SEALED_TABLE = "sealed"  # on the node's own bus: DKIM keys as they came
STATUS_TABLE = "status"

log = structlog.get_logger("keys")


def key_keeper(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        keeper = KeyKeeper(parts)
        keeper.remember()
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.follow_files)
            if parts.cluster is not parts.bus:
                nursery.start_soon(keeper.follow_dkim)
                nursery.start_soon(keeper.follow_tokens)
                nursery.start_soon(keeper.tell)
            await context.stop.wait()
            nursery.cancel_scope.cancel()

    return start


class KeyKeeper:
    """One incarnation."""

    def __init__(self, parts: Parts) -> None:
        table = parts.config.keys
        self._parts = parts
        self._node = parts.config.node.name
        self._alone = parts.cluster is parts.bus
        self._folder = Path(table.folder)
        self._master = table.master
        self._ring_path = self._folder / table.ring
        self._box = self._folder / NODE_BOX
        self._signer_box = Path(parts.dkim_keys.box) if parts.dkim_keys.box else None
        self._has_master = (self._folder / table.master).exists()
        self._boxes: Boxes | None = None
        self._ring: TokenRing | None = None
        self._sealed_ring = b""  # the last that came
        self._trouble: dict[str, str] = {}  # of token keys and files
        self._looks: dict[Path, object] = {}

    def __repr__(self) -> str:
        return f"<KeyKeeper of {self._node}: {self._ring!r}, {self._parts.dkim_keys!r}>"

    def remember(self) -> None:
        """Put into force what this machine has. Raises KeyringError when its own files cannot be used."""
        if self._has_master or self._ring_path.exists():
            self._use(load_ring(self._folder, self._master, self._ring_path.name))
        if self._alone:
            self._differs(self._folder / PLAN_FILE)
            return
        if os.geteuid() == 0 and self._parts.dkim_keys.user is None:
            log.info(
                "signer processes run as root: there is no such user of their own",
                signer_user=self._parts.config.keys.signer_user,
            )
        if not self._box.exists():
            create_box(self._box)
        self._boxes = load_boxes(self._box)
        for name, sealed in self._parts.bus.items(SEALED_TABLE).items():
            self._parts.dkim_keys.put(name, sealed)
        for path in (self._folder / PLAN_FILE, self._box, self._signer_box):
            if path is not None:
                self._differs(path)

    # --- DKIM keys -------------------------------------------------------------------------------------

    async def follow_dkim(self) -> None:
        """For life: hand on what is sealed to the signers, and keep it on this machine."""
        parts, table = self._parts, dkim_table(self._node)
        while True:
            try:
                there = await parts.cluster.read_all(table)
                # A table without any row may be that of a bus that has forgotten: keys stay as they are.
                for name in set(parts.dkim_keys.sealed) - set(there) if there else ():
                    await self._take_dkim(name, None)
                async for name, sealed in parts.cluster.watch(table):
                    await self._take_dkim(name, sealed or None)  # empty: the hub has taken it away
            except (PositionLost, BusFull, StorageError) as error:
                log.warning("sealed keys are read anew", why=str(error))
                await trio.sleep(AGAIN_SECONDS)

    async def _take_dkim(self, name: str, sealed: bytes | None) -> None:
        keys = self._parts.dkim_keys
        if sealed is None:
            keys.remove(name)
            await self._parts.bus.delete(SEALED_TABLE, name)
        elif keys.sealed.get(name) != sealed:
            keys.put(name, sealed)
            await self._parts.bus.put(SEALED_TABLE, name, sealed)

    # --- token keys ------------------------------------------------------------------------------------

    async def follow_tokens(self) -> None:
        """For life: open the ring that comes, keep it and put it into force. A master key needs none."""
        while not self._has_master:
            try:
                async for name, sealed in self._parts.cluster.watch(tokens_table(self._node)):
                    if name == RING_ROW and sealed is not None:
                        self._sealed_ring = sealed
                        self._take_ring()
            except (PositionLost, BusFull, StorageError) as error:
                log.warning("the ring of token keys is read anew", why=str(error))
                await trio.sleep(AGAIN_SECONDS)

    def _take_ring(self) -> None:
        assert self._boxes is not None
        try:
            bound = tokens_bound(self._node)
            ring = decode_ring(self._boxes.open(self._sealed_ring, bound), "the sealed ring")
            if problem := self._ring_problem(ring):
                raise KeyringError(problem)
            if self._ring is None or ring.serial > self._ring.serial:
                save_ring(self._ring_path, ring)
                self._use(ring)
        except KeyringError as error:
            self._say("tokens", str(error))
        else:
            self._say("tokens", "")

    def _ring_problem(self, ring: TokenRing) -> str:
        if any(set(kinds) != set(TOKEN_KINDS) for kinds in ring.keys.values()):
            return "the sealed ring lacks kinds of tokens that a broadcaster makes"
        if self._ring is None:
            return ""
        if ring.suppression != self._ring.suppression:
            return "the sealed ring was made under another master key: no suppression would be found by it"
        return ""

    def _use(self, ring: TokenRing) -> None:
        if ring != self._ring:
            self._parts.use_ring(ring)
            if self._ring is not None:
                log.info("new token keys are in force", ids=sorted(ring.keys), current=ring.current)
            self._ring = ring

    # --- files -----------------------------------------------------------------------------------------

    async def follow_files(self) -> None:
        """For life: look at what an operator changes on this machine."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            try:
                self._look()
            except KeyringError as error:
                self._say("files", str(error))
            else:
                self._say("files", "")

    def _look(self) -> None:
        if self._has_master and self._differs(self._folder / PLAN_FILE):
            ring = load_ring(self._folder, self._master)
            if self._ring is None or ring.serial > self._ring.serial:
                self._use(ring)
        if self._alone:
            return
        if self._differs(self._box):
            self._boxes = load_boxes(self._box)
            if self._sealed_ring:
                self._take_ring()
        if self._signer_box is not None and self._differs(self._signer_box):
            self._parts.dkim_keys.renew()
        self._drop_former_boxes()

    def _drop_former_boxes(self) -> None:
        keys = self._parts.dkim_keys
        if self._signer_box is not None and len(keys.publics) > 1 and not keys.trouble:
            current = key_id(keys.publics[0])
            anew = all(_opener(sealed) == current for sealed in keys.sealed.values())
            if anew and keys.opened == keys.sealed and former_of(self._signer_box).exists():
                drop_former(self._signer_box)
                keys.renew()
                log.info("the signers' former box key is destroyed: all keys are sealed to the new one")
        assert self._boxes is not None
        if len(self._boxes.keys) > 1 and (
            self._has_master or _opener(self._sealed_ring) == self._boxes.keys[0].id
        ):
            drop_former(self._box)
            self._boxes = load_boxes(self._box)
            log.info("the node's former box key is destroyed: its ring is sealed to the new one")

    def _differs(self, path: Path) -> bool:
        """Whether a file is another than at the last look."""
        try:
            facts = path.stat()
            look: object = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        except OSError:
            look = None
        before = self._looks.get(path)
        self._looks[path] = look
        return look != before

    # --- telling ---------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What the hub has to know of this node's keys. No secret is in it."""
        keys = self._parts.dkim_keys
        return {
            "signer_public": keys.publics[0].hex() if keys.publics else "",
            "box_public": self._boxes.public.hex() if self._boxes else "",
            "serial": self._ring.serial if self._ring else 0,
            "ids": sorted(self._ring.keys) if self._ring else [],
            "current": self._ring.current if self._ring else 0,
            "dkim": {name: _opener(sealed).hex() for name, sealed in sorted(keys.opened.items())},
            "files": sorted(keys.files),
            "trouble": {**self._trouble, **{f"dkim {name}": why for name, why in keys.trouble.items()}},
        }

    async def tell(self) -> None:
        """For life: write the row whenever it changes, and now and then."""
        parts = self._parts
        while True:
            told = self.facts()
            parts.membership.signer_public = str(told["signer_public"])
            row = json.dumps({**told, "at": parts.clock.now()}).encode()
            try:
                await parts.cluster.put(STATUS_TABLE, f"{self._node}/keys", row)
            except (BusFull, StorageError) as error:
                log.warning("the state of keys could not be told", why=str(error))
            with trio.move_on_after(TELL_SECONDS):
                await trio.sleep(CHANGES_SECONDS)
                while self.facts() == told:  # noqa: ASYNC110 - what it is made of rings no common bell
                    await trio.sleep(CHANGES_SECONDS)

    def _say(self, what: str, problem: str) -> None:
        if problem and self._trouble.get(what) != problem:
            log.error("a key cannot be used", what=what, why=problem)
        self._trouble.pop(what, None)
        if problem:
            self._trouble[what] = problem


def _opener(sealed: bytes) -> bytes:
    try:
        return sealed_to(sealed)
    except SealingError:
        return b""
