"""A bus in memory with puppets on it, for the commands of a cluster: on a jumping clock, in no time.

`puppets_on` has the command's module open that bus whatever place is named.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import ModuleType

import pytest
import trio

from control.cli.cluster_bus import BusPlace
from tests.fakes.broadcaster_puppet import Puppet
from tests.fakes.memory_bus import MemoryBus

PLACE = BusPlace(folder="/in/memory")


@asynccontextmanager
async def puppets_on(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, names: Sequence[str]
) -> AsyncIterator[tuple[MemoryBus, dict[str, Puppet]]]:
    """The bus, and a living puppet for each name."""
    bus = MemoryBus("operator")

    @asynccontextmanager
    async def opened(place: BusPlace, member: str = "") -> AsyncIterator[MemoryBus]:
        assert place == PLACE
        yield bus

    for way in ("on_bus", "as_writer"):
        monkeypatch.setattr(module, way, opened, raising=False)
    puppets = {name: Puppet(bus, name) for name in names}
    async with trio.open_nursery() as nursery:
        for puppet in puppets.values():
            nursery.start_soon(puppet.run)
        yield bus, puppets
        nursery.cancel_scope.cancel()
