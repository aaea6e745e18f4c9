"""The hub's desk: takes machines in by their codes, and keeps the bus in step with who belongs to it.

It answers the question `join` of whoever holds a code, and `desk` of nodes that are in (the hub's time; a new
key in place of an old one). Each change goes into the registry first, durably; then the nats-server is told,
then the bus: the table `nodes`, the streams and tables of a new node (nobody else may make them), its sealed
keys. What was not done, because somebody died in between, is done at the next start, and once a minute.

Touches: the registry's file, the nats-server's configuration and a signal to it, the keys folder (reads), the
bus as an operator. On crash: the question comes again; a machine that asks twice with the same keys gets the
same answer.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec
import structlog
import trio

from control.cluster.authority import CERTIFICATE_FILE
from control.cluster.join_words import (
    SKEW_MAX_SECONDS,
    JoinAnswer,
    decode_request,
    encode_answer,
    skew_words,
)
from control.cluster.nats_server import reload_nats, write_nats_config
from control.cluster.registry import (
    NodeRecord,
    Registry,
    RegistryError,
    joined,
    known_node,
    with_key,
    with_newest_keys,
)
from control.cluster.registry_file import changing, load_registry
from control.cluster.roles import DESK_SUBJECT, JOIN_SUBJECT, streams_of, tables_of
from engine.bus.api import Bus, Question
from engine.bus.nkeys import verified
from engine.config import Config
from engine.keyring import KeyringError, load_master_key
from engine.sealing import seal, tokens_bound
from engine.token_ring import KINDS_BY_ROLE, encode_ring, load_plan, ring_for


@runtime_checkable
class Preparing(Protocol):
    """A bus on which streams and tables are made by operators alone."""

    async def prepare(self, streams: Iterable[str], tables: Iterable[str]) -> None: ...


NODES_TABLE = "nodes"
QUESTIONS_MAX = 16  # at a time
MIRROR_SECONDS = 60.0  # a minute after a command changed the registry the bus knows it at the latest

log = structlog.get_logger("desk")


class Desk:
    """The desk of one hub, for the life of its root process."""

    def __init__(self, config: Config, bus: Bus, wall: Callable[[], float]) -> None:
        self._config = config
        self._data = Path(config.node.data)
        self._bus = bus
        self._wall = wall
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<Desk of {self._config.node.name}>"

    async def run(self) -> None:
        """For life."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._mirror)
            nursery.start_soon(self._serve, JOIN_SUBJECT, self.answer_join)
            nursery.start_soon(self._serve, DESK_SUBJECT, self.answer_node)

    async def _serve(self, subject: str, answer: Callable[[bytes], bytes]) -> None:
        questions = self._bus.serve(subject)
        while True:
            for question in await questions.receive(QUESTIONS_MAX):
                await self._answer(question, answer)

    async def _answer(self, question: Question, answer: Callable[[bytes], bytes]) -> None:
        await question.answer(answer(question.payload))

    # --- those who want to come in -------------------------------------------------------------------------

    def answer_join(self, payload: bytes) -> bytes:
        """The desk's word to who holds a code."""
        now = self._wall()
        try:
            return encode_answer(self._join(payload, now))
        except (ValueError, RegistryError, KeyringError) as error:
            log.warning("a machine was not taken in", why=str(error))
            return encode_answer(JoinAnswer(now, error=str(error)))
        except OSError as error:
            log.error("the registry cannot be written", why=str(error))
            return encode_answer(JoinAnswer(now, error=f"the hub cannot write who joins: {error.strerror}"))

    def _join(self, payload: bytes, now: float) -> JoinAnswer:
        code, request = decode_request(payload)
        applicant = request.applicant
        skew = request.at - now
        if abs(skew) > SKEW_MAX_SECONDS:  # before the code is used up: it can be used again
            raise RegistryError(
                f"this machine's clock is {skew_words(skew)} the hub's: set it (NTP), then join again"
                " with the same code"
            )
        registry = changing(self._data, lambda before: joined(before, code, applicant, now))
        self._let_in(registry)
        record = registry.nodes[applicant.node]
        log.info("a machine has joined", node=record.name, role=record.role.value, software=request.software)
        return JoinAnswer(
            now,
            node=record.name,
            role=record.role.value,
            cluster=registry.cluster,
            hub=registry.hub,
            servers=tuple(map(str, self._config.bus.servers)),
            replicas=self._config.bus.replicas,
            certificate=(Path(self._config.keys.folder) / CERTIFICATE_FILE).read_bytes(),
            ring=sealed_ring(self._config, record),
        )

    # --- those who are in ----------------------------------------------------------------------------------

    def answer_node(self, payload: bytes) -> bytes:
        """The desk's word to a node of the cluster."""
        now = self._wall()
        try:
            asked = msgspec.json.decode(payload, type=dict[str, Any])
            match asked.get("command"):
                case "time":
                    told: dict[str, Any] = {}
                case "new-key" | "drop-old-keys":
                    told = self._change_keys(asked)
                case _:
                    told = {"error": "the desk does not know this question"}
        except (RegistryError, ValueError, msgspec.MsgspecError) as error:
            told = {"error": str(error)}
        except OSError as error:
            told = {"error": f"the hub cannot write its registry: {error.strerror}"}
        return msgspec.json.encode({"at": now, **told})

    def _change_keys(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A key of a node's process: a second one, or the newest alone. Signed with its agent's key."""
        node, said = str(asked.get("node")), str(asked.get("said"))
        signature = bytes.fromhex(str(asked.get("signature")))
        record = known_node(load_registry(self._data), node)
        if not any(verified(key, said.encode(), signature) for key in record.keys["agent"]):
            raise RegistryError(f"this is not signed with a key of {node}")
        drops = said == f"drop-old-keys of {node}"
        if drops is not (asked["command"] == "drop-old-keys"):
            raise RegistryError("what is signed does not say what is asked")
        if drops:
            self._let_in(changing(self._data, lambda before: with_newest_keys(before, node)))
        else:
            process, _, public = said.partition(" ")
            self._let_in(changing(self._data, lambda before: with_key(before, node, process, public)))
        log.info("the keys of a node have changed", node=node, what=asked["command"])
        return {"done": True}

    # --- the bus and its server ----------------------------------------------------------------------------

    def _let_in(self, registry: Registry) -> None:
        write_nats_config(self._config, registry, self._wall())
        reload_nats(self._data)
        self._changed.set()

    async def _mirror(self) -> None:
        """Have the bus know what the registry says."""
        while True:
            self._changed = trio.Event()
            try:
                await mirror(self._bus, load_registry(self._data))
            except RegistryError as error:
                log.error("the registry cannot be read", why=str(error))
            with trio.move_on_after(MIRROR_SECONDS):
                await self._changed.wait()


async def mirror(bus: Bus, registry: Registry) -> None:
    """Have the bus know the nodes: their streams and tables, and who they are in the table `nodes`."""
    if isinstance(bus, Preparing):
        for record in registry.nodes.values():
            if record.active:
                await bus.prepare(streams_of(record.name), tables_of(record.name))
    there = await bus.read_all(NODES_TABLE)
    for record in registry.nodes.values():
        row = msgspec.json.encode(record)
        if there.get(record.name) != row:
            await bus.put(NODES_TABLE, record.name, row)


def sealed_ring(config: Config, record: NodeRecord) -> bytes:
    """The token keys that a node needs, sealed to its box key. Raises KeyringError."""
    folder = Path(config.keys.folder)
    ring = ring_for(
        load_master_key(folder / config.keys.master), KINDS_BY_ROLE[record.role.value], load_plan(folder)
    )
    return seal(bytes.fromhex(record.box_public), encode_ring(ring), tokens_bound(record.name))
