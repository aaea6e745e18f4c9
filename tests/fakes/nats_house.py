"""Members of a bus over NATS, running in one nursery, closed at the end."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.bus.nats import NatsBus
from tests.contract.bus_house import SMALL_STREAM_OCTETS, Members


class NatsHouse(Members[NatsBus]):
    """Members over some servers; `options` are theirs."""

    def __init__(self, servers: Sequence[tuple[str, int]], nursery: trio.Nursery, **options: Any) -> None:
        super().__init__(nursery)
        self.servers = servers
        self._options = options

    async def open(self, member: str, *, small_streams: bool = False, **options: Any) -> NatsBus:
        if small_streams:
            options["stream_octets_max"] = SMALL_STREAM_OCTETS
        servers = options.pop("servers", self.servers)
        return await self.start(NatsBus(servers, member, **{**self._options, **options}))


@asynccontextmanager
async def nats_house(servers: Sequence[tuple[str, int]], **options: Any) -> AsyncIterator[NatsHouse]:
    async with trio.open_nursery() as nursery:
        house = NatsHouse(servers, nursery, **options)
        try:
            yield house
        finally:
            with trio.CancelScope(shield=True):
                await house.close_all()
