"""The hub's key office: seals DKIM keys and token keys to each node, and seals them anew when that is due.

Every node tells in the row `<node>/keys` of table `status` what can be sealed to and what it has. The office
compares that with what should be there: the hub's own DKIM keys for everybody, the ring that the master key
and its plan make, and whatever a job has sealed for its broadcasters. A copy of each DKIM key is kept on the
bus (table `dkim`, which operators alone read) sealed to the office's own box key, so that a node whose box
key was replaced gets it again although the job that brought it is over. What is as it should be is not
touched, so a pass may run at any time, twice at once, or be killed.

Touches: the bus as an operator, the hub's keys folder (reads; makes `office.box`). Raises KeyringError when
the hub's own keys cannot be used; what is wrong with one node is a line of the pass's report.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import Struct

from engine.bus.api import Bus
from engine.config import Config
from engine.keyring import KeyringError, load_dkim_key, load_master_key, parse_dkim_key, read_secret
from engine.model.decoding import decoded
from engine.sealing import (
    RING_ROW,
    Boxes,
    SealingError,
    create_box,
    dkim_bound,
    dkim_table,
    key_id,
    load_boxes,
    seal,
    sealed_to,
    tokens_bound,
    tokens_table,
)
from engine.token_ring import KINDS_BY_ROLE, TokenPlan, encode_ring, load_plan, ring_for

OFFICE_BOX = "office.box"  # in the hub's keys folder
COPIES_TABLE = "dkim"
CONFIG_TABLE, OFFICE_ROW = "config", "office_public"  # where others learn what copies are sealed to
SENDING = frozenset({"hub", "broadcaster"})
TAKEN = b""  # in place of a key that was taken away: only who wrote a row may delete it
NODES_TABLE, STATUS_TABLE = "nodes", "status"


class _Registered(Struct, frozen=True):
    """What of a row of table `nodes` concerns keys."""

    role: str
    signer_public: str = ""
    box_public: str = ""
    retired_at: float | None = None


class _Told(Struct, frozen=True):
    """The row `<node>/keys` of table `status`. Any node may write anything there."""

    signer_public: str = ""
    box_public: str = ""
    serial: int = 0
    ids: tuple[int, ...] = ()
    dkim: dict[str, str] = {}
    files: tuple[str, ...] = ()
    trouble: dict[str, str] = {}


class _Engine(Struct, frozen=True):
    """What of the row `<node>/engine` is looked at."""

    beat: int = 0


class NodeKeys(Struct, frozen=True):
    """What a node can be given, and has, by its own word and by the registry's."""

    node: str
    role: str
    signer_public: bytes = b""
    box_public: bytes = b""
    serial: int = 0  # of its ring
    ids: tuple[int, ...] = ()
    dkim: Mapping[str, str] = {}  # name -> id of the box key under which it was opened, in hex
    files: tuple[str, ...] = ()  # names that its own configuration has files for
    trouble: Mapping[str, str] = {}
    beat: int = 0  # of its engine


# --- for jobs and commands ---------------------------------------------------------------------------------


async def seal_dkim_keys(bus: Bus, nodes: Mapping[str, bytes], keys: Mapping[str, Path]) -> None:
    """Seal private keys to the signers of nodes (name -> public half), and leave the office its copies.

    Raises KeyringError for a file that is no DKIM key, or a public half that is none.
    """
    pems = {}
    for name, path in keys.items():
        load_dkim_key(path)
        pems[name] = read_secret(path)
    for node, public in nodes.items():
        for name, pem in pems.items():
            await bus.put(dkim_table(node), name, seal(public, pem, dkim_bound(node, name)))
    office = await bus.read(CONFIG_TABLE, OFFICE_ROW)
    if office is not None:
        for name, pem in pems.items():
            await bus.put(COPIES_TABLE, name, seal(office, pem, _copy_bound(name)))


async def take_dkim_key(bus: Bus, nodes: Collection[str], name: str) -> None:
    """Have these nodes sign with that key no more, and forget the office's copy."""
    for node in nodes:
        if await bus.read(dkim_table(node), name):
            await bus.put(dkim_table(node), name, TAKEN)
    if await bus.read(COPIES_TABLE, name):
        await bus.put(COPIES_TABLE, name, TAKEN)


async def read_nodes(bus: Bus) -> dict[str, NodeKeys]:
    """Every node that belongs to the cluster, by name."""
    return nodes_of(await bus.read_all(NODES_TABLE), await bus.read_all(STATUS_TABLE))


def nodes_of(nodes: Mapping[str, bytes], status: Mapping[str, bytes]) -> dict[str, NodeKeys]:
    """As `read_nodes`, from the rows of the two tables. A row that does not decode says nothing."""
    found = {}
    for name, row in nodes.items():
        record = decoded(row, _Registered)
        if record is None or record.retired_at is not None:
            continue
        told = decoded(status.get(f"{name}/keys"), _Told) or _Told()
        engine = decoded(status.get(f"{name}/engine"), _Engine) or _Engine()
        found[name] = NodeKeys(
            node=name,
            role=record.role,
            signer_public=_public(told.signer_public or record.signer_public),
            box_public=_public(told.box_public or record.box_public),
            serial=told.serial,
            ids=told.ids,
            dkim=told.dkim,
            files=told.files,
            trouble=told.trouble,
            beat=engine.beat,
        )
    return found


def missing(nodes: Collection[NodeKeys], names: Collection[str]) -> list[str]:
    """What nodes that send have not told yet of DKIM keys that they should have, a line each."""
    lines = []
    for node in nodes:
        current = key_id(node.signer_public).hex()
        for name in names:
            if node.role in SENDING and name not in node.files and node.dkim.get(name) != current:
                why = node.trouble.get(f"dkim {name}", "its signers have not opened it yet")
                lines.append(f"{node.node}: {name}: {why}")
    return lines


# --- the office --------------------------------------------------------------------------------------------


class KeyOffice:
    """The office of one hub. `work` may be called as often as somebody likes."""

    def __init__(self, config: Config, bus: Bus) -> None:
        self._folder = Path(config.keys.folder)
        self._files = {key.name: self._folder / key.file for key in config.keys.dkim}
        self._master = self._folder / config.keys.master
        self._hub = config.node.name
        self._bus = bus
        self._boxes: Boxes | None = None
        self._sealed_rings: dict[str, tuple[bytes, int]] = {}  # node -> box and serial, by this office

    def __repr__(self) -> str:
        return f"<KeyOffice of {self._hub}: {len(self._files)} DKIM keys>"

    async def work(self, nodes: Collection[NodeKeys]) -> list[str]:
        """One pass over these nodes; what could not be done, a line each. Raises KeyringError."""
        await self._open()
        master, plan = load_master_key(self._master), load_plan(self._folder)
        pems, changed = await self._own_keys()
        problems = []
        for node in nodes:
            try:
                await self._seal_dkim(node, pems, changed)
            except KeyringError as error:
                problems.append(f"{node.node}: {error}")
            try:
                await self._seal_ring(node, master, plan)
            except KeyringError as error:
                problems.append(f"{node.node}: {error}")
        for name in changed:  # last: who dies before this does it all again
            await self._put_copy(name, pems[name])
        return problems

    async def _open(self) -> None:
        if self._boxes is None:
            path = self._folder / OFFICE_BOX
            if not path.exists():
                create_box(path)
            self._boxes = load_boxes(path)
        if await self._bus.read(CONFIG_TABLE, OFFICE_ROW) != self._boxes.public:
            await self._bus.put(CONFIG_TABLE, OFFICE_ROW, self._boxes.public)

    async def _own_keys(self) -> tuple[dict[str, bytes], set[str]]:
        """The hub's own DKIM keys, and the names of those that are others than in the copies."""
        pems, changed = {}, set()
        for name, path in self._files.items():
            pems[name] = read_secret(path)
            parse_dkim_key(pems[name], str(path))
            if await self._copy(name) != pems[name]:
                changed.add(name)
        return pems, changed

    async def _seal_dkim(self, node: NodeKeys, pems: Mapping[str, bytes], changed: Collection[str]) -> None:
        table = dkim_table(node.node)
        there = await self._bus.read_all(table)
        own = [name for name in pems if name not in node.files]
        lost = []
        for name in dict.fromkeys([*own, *(name for name, sealed in there.items() if sealed != TAKEN)]):
            fine = name not in changed and f"dkim {name}" not in node.trouble
            if name in there and fine and _opener(there[name]) == key_id(node.signer_public):
                continue
            pem = pems.get(name) or await self._copy(name)
            if pem is None:
                lost.append(name)
                continue
            if not node.signer_public:
                raise KeyringError("its signers have told no key that DKIM keys could be sealed to")
            sealed = seal(node.signer_public, pem, dkim_bound(node.node, name))
            await self._bus.put(table, name, sealed)
        if lost:
            raise KeyringError(
                f"there is no copy to seal anew of the DKIM keys {', '.join(lost)}:"
                " start the job again that brought them"
            )

    async def _seal_ring(self, node: NodeKeys, master: bytes, plan: TokenPlan) -> None:
        """Rings have no name on the outside: one that this office did not seal is sealed once more."""
        if node.node == self._hub or node.role not in KINDS_BY_ROLE:  # the hub derives its own
            return
        if not node.box_public:
            raise KeyringError("it has told no key that its token keys could be sealed to")
        if self._sealed_rings.get(node.node) == (node.box_public, plan.serial):
            return
        there = await self._bus.read(tokens_table(node.node), RING_ROW)
        known = there is not None and _opener(there) == key_id(node.box_public)
        if not known or node.serial != plan.serial or "tokens" in node.trouble:
            ring = encode_ring(ring_for(master, KINDS_BY_ROLE[node.role], plan))
            sealed = seal(node.box_public, ring, tokens_bound(node.node))
            await self._bus.put(tokens_table(node.node), RING_ROW, sealed)
        self._sealed_rings[node.node] = (node.box_public, plan.serial)

    async def _copy(self, name: str) -> bytes | None:
        """The private key that was left with the office under that name. None too when it does not open."""
        assert self._boxes is not None
        sealed = await self._bus.read(COPIES_TABLE, name)
        try:
            return None if sealed is None else self._boxes.open(sealed, _copy_bound(name))
        except SealingError:
            return None

    async def _put_copy(self, name: str, pem: bytes) -> None:
        assert self._boxes is not None
        await self._bus.put(COPIES_TABLE, name, seal(self._boxes.public, pem, _copy_bound(name)))


def _copy_bound(name: str) -> bytes:
    return f"dkim copy/{name}".encode()


def _opener(sealed: bytes) -> bytes:
    try:
        return sealed_to(sealed)
    except SealingError:
        return b""


def _public(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
