"""What waits at a node is counted where it lies, engine or not."""

import trio

from control.node.backlog import Backlog, read_backlog
from engine.bus.local import LocalBus
from tests.fakes.node_children import node_config


async def test_before_the_first_start_nothing_is_known(tmp_path):
    config, _ = node_config(tmp_path)
    assert await read_backlog(config, 1.0) == Backlog()


async def test_chunks_that_nobody_took_are_counted_whoever_published_them(tmp_path):
    config, _ = node_config(tmp_path)
    bus = LocalBus(tmp_path / "data" / "bus", "coordinator")
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        await bus.publish("chunks.n1", [b"a", b"b"])
        await bus.publish("chunks.n1.single", [b"c"])
        await bus.publish("chunks.n2", [b"d"])
        assert (await read_backlog(config, 1.0)).chunks_pending == 3
        bus.close()
    bus.close_files()


async def test_on_a_bus_between_machines_the_coordinator_knows(tmp_path):
    config, _ = node_config(tmp_path, '[node]\nname = "n1"\n[bus]\nkind = "nats"\n')
    assert (await read_backlog(config, 1.0)).chunks_pending is None
