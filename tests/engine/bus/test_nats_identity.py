"""A bus is known by a text that was kept when it was new."""

import pytest
import trio

from bench.peers.nats import NatsServer
from engine.bus.nats_identity import Identity
from engine.bus.nats_jetstream import JetStream
from tests.fakes.nats_house import NatsHouse

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 20.0


async def test_everybody_reads_the_same_id_whoever_made_it(nats_members: NatsHouse) -> None:
    buses = [await nats_members.open(name) for name in ("a", "b", "c")]
    found: list[str] = []

    async def read(number: int) -> None:
        found.append(await buses[number].bus_id())

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(read, number)
    assert len(set(found)) == 1
    assert await buses[0].read("config", "bus") == found[0].encode()


async def test_a_server_over_another_store_is_another_bus(
    nats_members: NatsHouse, nats_server: NatsServer
) -> None:
    bus = await nats_members.open("a")
    identity = Identity(JetStream(bus.link))
    before = await identity.read()
    nats_server.kill()
    await trio.to_thread.run_sync(nats_server.start)
    assert await bus.read("config", "bus") == before.encode()
    assert await identity.read() == before
    nats_server.kill()
    nats_server.wipe()
    await trio.to_thread.run_sync(nats_server.start)
    await bus.read("config", "bus")
    assert await identity.read() != before
    assert before not in repr(identity)


async def test_a_row_that_cannot_be_read_is_made_anew_for_everybody(nats_members: NatsHouse) -> None:
    bus, other = await nats_members.open("a"), await nats_members.open("b")
    spec = bus._tables.spec("config")
    for octets in (b'{"type":"io.nats.jetstream.api.v1.account_info_response"}', b""):
        await bus._jetstream.publish(spec, "emass.t.config.bus", octets)
        with trio.fail_after(PATIENCE_SECONDS):
            made = await Identity(bus._jetstream).read()
            assert await Identity(other._jetstream).read() == made
        assert await other.read("config", "bus") == made.encode()
