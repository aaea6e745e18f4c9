"""Members of a bus over NATS, running in one nursery, closed at the end."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.bus.api import Bus
from engine.bus.nats import NatsBus
from tests.contract.bus_house import SMALL_STREAM_OCTETS


class NatsHouse:
    """Members over some servers; `options` are theirs."""

    def __init__(self, servers: Sequence[tuple[str, int]], nursery: trio.Nursery, **options: Any) -> None:
        self.servers = servers
        self._nursery = nursery
        self._options = options
        self._stopped: dict[NatsBus, trio.Event] = {}

    async def open(self, member: str, *, small_streams: bool = False, **options: Any) -> NatsBus:
        if small_streams:
            options["stream_octets_max"] = SMALL_STREAM_OCTETS
        servers = options.pop("servers", self.servers)
        bus = NatsBus(servers, member, **{**self._options, **options})
        self._stopped[bus] = trio.Event()
        await self._nursery.start(self._run, bus)
        return bus

    async def close(self, bus: Bus) -> None:
        assert isinstance(bus, NatsBus)
        bus.close()
        await self._stopped.pop(bus).wait()

    async def close_all(self) -> None:
        for bus in list(self._stopped):
            await self.close(bus)

    async def _run(self, bus: NatsBus, task_status: trio.TaskStatus[None]) -> None:
        stopped = self._stopped[bus]
        try:
            await bus.run(task_status)
        finally:
            stopped.set()


@asynccontextmanager
async def nats_house(servers: Sequence[tuple[str, int]], **options: Any) -> AsyncIterator[NatsHouse]:
    async with trio.open_nursery() as nursery:
        house = NatsHouse(servers, nursery, **options)
        try:
            yield house
        finally:
            with trio.CancelScope(shield=True):
                await house.close_all()
