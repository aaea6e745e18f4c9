"""Connections that do what a test says, under a real site actor on a jumping clock.

`open_house` runs one site; spooler and scheduler are mailboxes that the test reads. `House.end` lets a
connection end as if the peer had, `House.lease` plays the spooler.
"""

from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio

from engine.actors import connection as connection_actor
from engine.actors import site as site_module
from engine.actors.holder import Holder
from engine.actors.messages import (
    BELL,
    ConnectionReady,
    Credit,
    GiveBack,
    LeaseFor,
    Note,
    Offer,
    OrderLeases,
    Want,
)
from engine.actors.parts import Parts
from engine.actors.path import path_key
from engine.actors.site import Site, site
from engine.config.shaping import ShapingRule
from engine.runtime.spec import Context
from tests.fakes.engine_house import SOURCE, Desk, a_lease, alive, host_route, memory_parts
from tests.fakes.trees import until_quiet

PATH = path_key(SOURCE, "mx.test")


class House:
    """A site with connections that only register; spooler and scheduler are mailboxes."""

    def __init__(self, parts: Parts, desk: Desk) -> None:
        self.parts = parts
        self.desk = desk
        self.holders: dict[str, Holder] = {}
        self.ref: Any = None
        self.deaf = False  # connections do not heed a stop: the peer takes its time
        self._ends: dict[str, trio.Event] = {}

    def connect(self, owner: Site, holder: Holder, parts: Parts, peer: Any) -> Any:
        async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
            self.holders[context.name] = holder
            self._ends[context.name] = trio.Event()
            task_status.started()
            try:
                async with trio.open_nursery() as nursery:

                    async def leave_at(event: trio.Event) -> None:
                        await event.wait()
                        nursery.cancel_scope.cancel()

                    if not self.deaf:
                        nursery.start_soon(leave_at, context.stop)
                    nursery.start_soon(leave_at, self._ends[context.name])
            finally:
                del self.holders[context.name]

        return start

    @property
    def names(self) -> list[str]:
        return list(self.holders)

    async def tell(self, *messages: Any) -> None:
        for message in messages:
            await self.ref.tell(message)
        await until_quiet()

    async def offer(self, count: int, *, first: int = 1, urgent: int = 0, ref: Any = None) -> None:
        """Ids from `first` on, the first `urgent` of them transactional mail, to the site or to `ref`."""
        await (ref or self.ref).tell(Offer(array("Q", range(first, first + count)), True, urgent))
        await until_quiet()

    async def ready(self, *names: str, want: int = 0) -> None:
        for name in names:
            await self.ref.tell(ConnectionReady(name))
            if want:
                await self.ref.tell(Want(name, want))
        await until_quiet()

    def orders(self) -> list[LeaseFor]:
        return [order for told in self.desk.take("spooler", OrderLeases) for order in told.orders]

    def leased(self) -> list[int]:
        """Ids that were ordered since the last look."""
        return [spool_id for order in self.orders() for spool_id in order.ids]

    def notes(self) -> list[Any]:
        """Events for the journal since the last look; orders are lost."""
        return [event for told in self.desk.take("spooler", Note) for event in told.events]

    def given_back(self) -> list[int]:
        """Ids since the last look; credits are lost."""
        return [spool_id for told in self.desk.take("scheduler", GiveBack) for spool_id in told.ids]

    def credits(self) -> list[int]:
        return [told.places for told in self.desk.take("scheduler", Credit)]

    async def end(self, name: str, trouble: Any = None, *, reached: bool = False, served: int = 0) -> None:
        """The connection ends by itself, having come so far."""
        holder = self.holders[name]
        holder.reached, holder.served, holder.trouble = reached, served, trouble
        self._ends[name].set()
        await until_quiet()

    async def lease(self, order: LeaseFor, lease_id: int) -> None:
        """Play the spooler."""
        assert order.holder.grant(a_lease(lease_id, *order.ids))
        order.holder.answers += 1
        if order.holder.ref is not None:
            order.holder.ref.try_tell(BELL)
        await until_quiet()


@asynccontextmanager
async def open_house(
    monkeypatch: pytest.MonkeyPatch,
    *,
    spooler_capacity: int = 1_000,
    unknown: bool = False,
    engine: dict[str, Any] | None = None,
    **rule: Any,
) -> AsyncIterator[House]:
    """A site over a relay of our own, which begins with all that `rule` allows.

    `unknown`: a receiver whose limits the control loop has to find.
    """
    rules = (ShapingRule(**rule),) if rule else ()
    parts, desk = memory_parts(**({"site": rules} | (engine or {}))), Desk()
    if not unknown:
        parts.static_route = lambda: host_route("127.0.0.1", 25, "mx.test")
    desk.mailbox("spooler", spooler_capacity)
    house = House(parts, desk)
    monkeypatch.setattr(connection_actor, "connection", house.connect)
    with structlog.testing.capture_logs():
        async with alive(parts, "connections", "sites"):
            house.ref = await start_site(house)
            yield house


async def start_site(house: House, name: str = "mx.test") -> Any:
    ref = house.parts.sites.start_child(
        path_key(SOURCE, name),
        site(house.parts, host_route("127.0.0.1", 25, name), SOURCE, house.desk.peer),
        mailbox_capacity=site_module.MAILBOX_CAPACITY,
        shutdown_seconds=site_module.SHUTDOWN_SECONDS,
    )
    await until_quiet()
    return ref
