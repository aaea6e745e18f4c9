"""One real connection actor to one model server on a jumping clock: the fast twin of `smtp_line`.

The in-memory spool grants leases and takes settles; the mailboxes of site, spooler and signers are the
test's.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
import trio

from engine.actors import connection as connection_actor
from engine.actors.connection import connection, ended
from engine.actors.feedback import Feedback
from engine.actors.holder import Holder
from engine.actors.messages import BELL, ConnectionEnded, Settle, Sign
from engine.actors.parts import Parts
from engine.config.shaping import ShapingRule
from engine.model.content import Content
from engine.model.disposition import Disposition
from engine.model.reply import TransportFailure
from engine.mta.spool.suppressions_memory import MemorySuppressions
from tests.contract.suppressions import HASHER
from tests.fakes.engine_house import SOURCE, Desk, accepted, alive, host_route, memory_parts
from tests.fakes.model_wire import ModelNetwork, ModelWire
from tests.fakes.smtp_peer import ModelPeer
from tests.fakes.trees import until_quiet

SITE = "mx.test"
PATH = f"out>{SITE}"
NAME = f"{PATH}#1"
ADDRESS = "127.0.0.1"


class Line:
    """`site`, `spooler` and `signers` are mailboxes at `desk`; `told` are dispositions by id."""

    def __init__(self, parts: Parts, network: ModelNetwork) -> None:
        self.parts = parts
        self.network = network
        self.desk = Desk()
        self.holder = Holder(NAME)
        self.told: dict[int, Disposition] = {}
        self.route = host_route(ADDRESS, 25, SITE)
        self.source = SOURCE
        self.ref = self.desk.peer("site")
        self.memory = parts.path(PATH, self.route, SOURCE, "", trio.current_time())
        self.feedback = Feedback(parts, self.memory)

    async def open(self) -> None:
        self.holder.ref = self.parts.connections.start_child(
            NAME,
            connection(self, self.holder, self.parts, self.desk.peer),
            mailbox_capacity=connection_actor.MAILBOX_CAPACITY,
            shutdown_seconds=connection_actor.SHUTDOWN_SECONDS,
            on_end=ended(self.parts, self.holder, self.ref, self.desk.peer("spooler"), lambda: None),
        )
        await until_quiet()

    @property
    def wire(self) -> ModelWire:
        return self.network.wires[-1]

    @property
    def recipients(self) -> list[str]:
        """Whom the peer took mail for."""
        return [recipient for _, recipients, _ in self.wire.peer.accepted for recipient in recipients]

    @property
    def under_way(self) -> list[str]:
        return [each.recipient for here in self.parts.under_way.values() for each in here()]

    async def send(self, recipients: Sequence[str], content: Content | None = None) -> list[int]:
        """Into the spool, and leased at once."""
        ids = await accepted(self.parts, recipients, content)
        (leases,) = await self.parts.spool.lease([ids], self.parts.clock.now())
        for lease in leases:
            assert self.holder.grant(lease)
        self.holder.answers += 1
        if self.holder.ref is not None:
            self.holder.ref.try_tell(BELL)
        await self.collect()
        return ids

    async def collect(self) -> None:
        """Apply what was told to the spooler, until nothing more is."""
        await until_quiet()
        for message in self.desk.take("spooler", Settle):
            for _, batch in message.batches:
                for item in batch:
                    assert item.spool_id not in self.told, "each envelope ends once"
                    self.told[item.spool_id] = item
            await self.parts.spool.settle(message.batches, self.parts.clock.now())

    async def sign_all(self) -> int:
        """Play the signers once."""
        slots = [slot for message in self.desk.take("signers", Sign) for slot in message.slots]
        for slot in slots:
            for index in range(len(slot.digests)):
                slot.put(index, b"s" * 128)
        await self.collect()
        return len(slots)

    async def end(self) -> ConnectionEnded:
        """Stop it; what its site hears. Nothing of it is left."""
        if NAME in self.parts.connections:
            await self.parts.connections.stop_child(NAME)
        await self.collect()
        assert self.parts.prepared_octets == 0
        assert not self.parts.under_way
        assert not self.holder.held
        (message,) = self.desk.take("site", ConnectionEnded)
        assert isinstance(message, ConnectionEnded)
        return message


@asynccontextmanager
async def model_line(
    *extensions: str,
    failure: TransportFailure | None = None,
    engine: dict[str, Any] | None = None,
    **rule: Any,
) -> AsyncIterator[Line]:
    """A connection about to be made to a peer with these extensions, or one that is not reached at all."""
    rules = (ShapingRule(**rule),) if rule else ()
    parts = memory_parts(site=rules, **(engine or {}))
    parts.suppressions = MemorySuppressions(HASHER)
    network = ModelNetwork(failure or ModelPeer(*extensions))
    parts.network = network
    with structlog.testing.capture_logs():
        async with alive(parts, "connections"):
            yield Line(parts, network)
