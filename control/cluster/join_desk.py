"""The hub's desk: takes machines in by their codes, and keeps the bus in step with who belongs to it.

It answers the question `join` of whoever holds a code, and `desk` of nodes that are in (the hub's time; a new
key in place of an old one). Each change goes into the registry first, durably; then the nats-server is told,
then the bus: the table `nodes`, the streams and tables of a new node (nobody else may make them), its sealed
keys. What was not done, because somebody died in between (the command line changes the registry, too), is
done at the next start, and once a minute: a node that was shut out stays out whoever is killed.

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
from msgspec import Struct

from control.cluster.authority import CERTIFICATE_FILE
from control.cluster.join_words import (
    SKEW_MAX_SECONDS,
    JoinAnswer,
    decode_request,
    encode_answer,
    skew_words,
)
from control.cluster.nats_server import reload_nats, write_nats_config
from control.cluster.node_seeds import drop_words
from control.cluster.registry import (
    KeyNotTaken,
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
from engine.bus.api import Bus, BusFull, Question
from engine.bus.nkeys import verified
from engine.config import Config
from engine.keyring import KeyringError, load_master_key
from engine.model.decoding import UNDECODABLE
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


class _Asked(Struct, frozen=True):
    """A node's question. `said` is what its agent has signed; `newest` the keys that it holds, by process."""

    command: str = ""
    node: str = ""
    said: str = ""
    signature: str = ""
    newest: dict[str, str] = {}


class Desk:
    """The desk of one hub, for the life of its root process."""

    def __init__(self, config: Config, bus: Bus, wall: Callable[[], float]) -> None:
        self._config = config
        self._data = Path(config.node.data)
        self._bus = bus
        self._wall = wall
        self._changed = trio.Event()
        self._told: tuple[int, int] | None = None  # which file of configuration the server was told to read

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
        registry = self._change(lambda before: joined(before, code, applicant, now))
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
            asked = msgspec.json.decode(payload, type=_Asked)
            match asked.command:
                case "time":
                    told: dict[str, Any] = {}
                case "new-key" | "drop-old-keys":
                    told = self._change_keys(asked)
                case _:
                    told = {"error": "the desk does not know this question"}
        except KeyNotTaken as error:  # the hub does not know that key: whoever made it may throw it away
            told = {"error": str(error), "refused": True}
        except (ValueError, RegistryError, *UNDECODABLE) as error:
            told = {"error": str(error)}
        except OSError as error:
            told = {"error": f"the hub cannot write its registry: {error.strerror}"}
        return msgspec.json.encode({"at": now, **told})

    def _change_keys(self, asked: _Asked) -> dict[str, Any]:
        """A key of a node's process: a second one, or the newest alone. Signed with its agent's key."""
        node, said = asked.node, asked.said
        signature = bytes.fromhex(asked.signature)
        record = known_node(load_registry(self._data), node)
        if not any(verified(key, said.encode(), signature) for key in record.keys["agent"]):
            raise RegistryError(f"this is not signed with a key of {node}")
        drops = said == drop_words(node, asked.newest)
        if drops is not (asked.command == "drop-old-keys"):
            raise RegistryError("what is signed does not say what is asked")
        if drops:
            self._change(lambda before: with_newest_keys(before, node, asked.newest))
        else:
            process, _, public = said.partition(" ")
            self._change(lambda before: with_key(before, node, process, public))
        log.info("the keys of a node have changed", node=node, what=asked.command)
        return {"done": True}

    # --- the bus and its server ----------------------------------------------------------------------------

    def _change(self, change: Callable[[Registry], Registry]) -> Registry:
        """Change the registry, and have the server and the bus follow. Raises RegistryError, OSError."""
        registry = self._follow(change)
        self._changed.set()
        return registry

    def _follow(
        self, change: Callable[[Registry], Registry] = lambda registry: registry, *, waits: bool = True
    ) -> Registry:
        """Have the server read what the registry says, if that is not what it was told to read last."""
        files: list[Path] = []
        registry = changing(
            self._data,
            change,
            then=lambda after: files.append(write_nats_config(self._config, after, self._wall())),
            waits=waits,
        )
        facts = files[0].stat()
        written = facts.st_ino, facts.st_mtime_ns
        if written != self._told and reload_nats(self._data):
            self._told = written
        return registry

    async def _mirror(self) -> None:
        """Have the server and the bus know what the registry says, whoever changed it and then died."""
        while True:
            self._changed = trio.Event()
            try:
                # A command that was stopped in the middle may have the lock for long.
                await mirror(self._bus, self._follow(waits=False))
            except RegistryError as error:
                log.error("the registry cannot be read", why=str(error))
            except BlockingIOError:
                log.warning("a command is changing the registry just now: looked at again in a minute")
            except OSError as error:
                log.error("the nats-server's configuration cannot be written", why=str(error))
            except BusFull as error:
                log.error("the bus could not be told who belongs to the cluster", why=str(error))
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
