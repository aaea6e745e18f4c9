"""A nats-server of one's own and members over it, for the tests of the bus over NATS."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from bench.peers.nats import NatsServer
from tests.fakes.nats_house import NatsHouse, nats_house


@pytest.fixture
def nats_server(tmp_path: Path, require_peer: Callable[[str], None]) -> Iterator[NatsServer]:
    require_peer("nats")
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def nats_members(nats_server: NatsServer) -> AsyncIterator[NatsHouse]:
    async with nats_house([nats_server.address]) as house:
        yield house
