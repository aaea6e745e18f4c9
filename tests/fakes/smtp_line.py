"""One real connection actor to one receiver of `bench.world` on the real clock.

The in-memory spool grants leases and takes settles; the mailboxes of site, spooler and signers are the
test's. `Line.send` leases envelopes to the connection, `Line.settled` waits until so many have an end.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
import trio

from bench.world.manners import PLAIN, Manners
from bench.world.records import Accepted
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from bench.world.world import World, open_world
from engine.actors import connection as connection_actor
from engine.actors.connection import connection, ended
from engine.actors.feedback import Feedback
from engine.actors.holder import Holder
from engine.actors.messages import BELL, ConnectionEnded, Settle, Sign
from engine.actors.parts import Parts
from engine.config.shaping import ShapingRule
from engine.model.content import Content
from engine.model.disposition import Disposition
from engine.model.egress import MxHost
from engine.mta.net.mx import Route
from tests.fakes.engine_house import SOURCE, Desk, accepted, alive, letter, memory_parts, until

PATH = "out>mx.plain.test"
NAME = f"{PATH}#1"
DEAD = "127.83.250.250"  # an address of the world's network where nobody listens


class Line:
    """`site`, `spooler` and `signers` are mailboxes at `desk`."""

    def __init__(self, parts: Parts, world: World, received: list[Accepted], route: Route) -> None:
        self.parts = parts
        self.world = world
        self.received = received
        self.desk = Desk()
        self.holder = Holder(NAME)
        self.told: list[Disposition] = []
        self.rings = 0
        self.route = route
        self.source = SOURCE
        self.ref = self.desk.peer("site")
        self.places_left = 0  # how often the connection's place was given up
        self.memory = parts.path(PATH, route, SOURCE, "", trio.current_time())
        self.feedback = Feedback(parts, self.memory)

    def open(self) -> None:
        self.holder.ref = self.parts.connections.start_child(
            NAME,
            connection(self, self.holder, self.parts, self.desk.peer),
            mailbox_capacity=connection_actor.MAILBOX_CAPACITY,
            shutdown_seconds=connection_actor.SHUTDOWN_SECONDS,
            on_end=ended(self.parts, self.holder, self.ref, self.desk.peer("spooler"), self.leave),
        )

    def leave(self) -> None:
        self.places_left += 1

    async def send(
        self, recipients: Sequence[str], content: Content | None = None, *, expires_at: float = 4e9
    ) -> list[int]:
        """Into the spool, and leased at once."""
        ids = await accepted(self.parts, recipients, content, expires_at=expires_at)
        (leases,) = await self.parts.spool.lease([ids], self.parts.clock.now())
        for lease in leases:
            assert self.holder.grant(lease)
        self.holder.answers += 1
        if self.holder.ref is not None:
            self.holder.ref.try_tell(BELL)
        return ids

    async def collect(self) -> None:
        """Apply what was told to the spooler."""
        for message in self.desk.take("spooler", Settle):
            for _, batch in message.batches:
                self.told += batch
            await self.parts.spool.settle(message.batches, self.parts.clock.now())

    async def settled(self, count: int) -> dict[int, Disposition]:
        with trio.fail_after(20):
            while len(self.told) < count:
                await self.collect()
                await trio.sleep(0.01)
        assert len({item.spool_id for item in self.told}) == len(self.told), "each envelope ends once"
        return {item.spool_id: item for item in self.told}

    async def end(self) -> ConnectionEnded:
        """Wait for its end; what the site hears of it."""
        await until(lambda: NAME not in self.parts.connections)
        await self.collect()
        assert self.parts.prepared_octets == 0
        assert not self.parts.unsettled
        assert self.places_left == 1
        (message,) = self.desk.take("site", ConnectionEnded)
        return message

    async def sign_all(self, *, signature: bytes = b"s" * 128) -> int:
        """Play the signers once."""
        slots = [slot for message in self.desk.take("signers", Sign) for slot in message.slots]
        for slot in slots:
            for index in range(len(slot.digests)):
                slot.put(index, signature)
        return len(slots)

    @property
    def recipients(self) -> list[str]:
        return [message.recipient for message in self.received]


@asynccontextmanager
async def open_line(
    manners: Manners = PLAIN, *, dead_hosts: int = 0, engine: dict[str, Any] | None = None, **rule: Any
) -> AsyncIterator[Line]:
    """A receiver with these manners, `dead_hosts` preferred to it, and a connection about to be made."""
    site = Site((Host("mx.plain.test"),), {"plain.test": 1})
    spec = WorldSpec(name="line", providers=(ProviderSpec("plain", (site,), manners),))
    received: list[Accepted] = []
    async with open_world(spec, accepted=received) as world:
        address = spec.addresses_of_hosts["mx.plain.test"]
        dead = tuple(MxHost(f"dead{n}.plain.test", (DEAD,), n, world.smtp_port) for n in range(dead_hosts))
        alive_one = MxHost("mx.plain.test", (address,), 10, world.smtp_port)
        route = Route("mx.plain.test", (*dead, alive_one), 3600.0)
        rules = (ShapingRule(**rule),) if rule else ()
        parts = memory_parts(site=rules, **(engine or {}))
        await parts.spool.put_content(letter(), 0.0)
        with structlog.testing.capture_logs():
            async with alive(parts, "connections"):
                line = Line(parts, world, received, route)
                line.open()
                yield line
