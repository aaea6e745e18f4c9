"""Both stores' committers as one actor: first up, last down, and back after a crash."""

import trio

from engine.actors.committing import committing
from engine.bus.local import LocalBus
from engine.mta.spool.tables import open_spool_environment
from engine.runtime.child import ChildState
from engine.runtime.spec import ChildSpec, SupervisorSpec
from engine.runtime.supervisor import Tree
from engine.storage import Committer
from engine.storage.environment import Transaction
from tests.fakes.engine_house import memory_parts
from tests.fakes.spool_house import quick_folder
from tests.fakes.trees import Crashes


def put(committer: Committer, key: bytes) -> object:
    def operation(transaction: Transaction) -> None:
        committer.environment.put_meta(transaction, key, b"1")

    return committer.submit(operation)


async def test_what_was_submitted_before_a_stop_or_a_crash_is_durable() -> None:
    with quick_folder() as folder:
        environment = open_spool_environment(folder / "spool", map_octets=64 * 1024**2)
        bus = LocalBus(folder / "bus", "node")
        parts = memory_parts()
        parts.committer = Committer(environment, group_seconds=0.2)
        parts.bus = parts.cluster = bus
        crashes = Crashes()
        spec = SupervisorSpec("root", (ChildSpec("committing", committing(parts), mailbox_capacity=0),))
        tree = Tree(spec, on_crash=crashes)
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: tree.run(task_status=task_status))
            await bus.publish("events.node", [b"1"])
            before = put(parts.committer, b"before")
            tree.kill("committing")
            await trio.sleep(0.1)
            with trio.fail_after(10):
                while tree.child_statistics("committing").state is not ChildState.RUNNING:
                    await trio.sleep(0.01)
            assert crashes.names == ["committing"]
            await before  # type: ignore[misc]
            await put(parts.committer, b"after")  # type: ignore[misc]
            assert await bus.publish("events.node", [b"2"]) == 2
            last = put(parts.committer, b"last")
            tree.stop()
        await last  # type: ignore[misc]
        with environment.read() as transaction:
            for key in (b"before", b"after", b"last"):
                assert environment.get_meta(transaction, key) == b"1"
        environment.close()
        bus.close_files()


async def test_without_a_disk_there_is_the_bus_alone() -> None:
    parts = memory_parts()
    spec = SupervisorSpec("root", (ChildSpec("committing", committing(parts), mailbox_capacity=0),))
    tree = Tree(spec)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: tree.run(task_status=task_status))
        tree.stop()
