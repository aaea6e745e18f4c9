"""What the contract of the buses needs: members of one bus, and waiting for what is expected.

A house opens running members and closes them again. Tests wait for what they expect, never for a time to
pass.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import trio

from engine.bus.api import Bus, Delivery, Subscription, Watch

AnyBus = TypeVar("AnyBus", bound=Bus)

PATIENCE_SECONDS = 10.0  # a busy machine is slow; a bus that hangs must not hang the suite
SMALL_STREAM_OCTETS = 20_000


class BusHouse(Protocol):
    async def open(self, member: str, *, small_streams: bool = False) -> Bus:
        """A running member; with `small_streams` its streams are full at SMALL_STREAM_OCTETS."""
        ...

    async def close(self, bus: Bus) -> None:
        """Close a member politely; it may be opened again."""
        ...


class Members(Generic[AnyBus]):
    """Running members in one nursery, each closed politely."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._stopped: dict[AnyBus, trio.Event] = {}

    async def start(self, bus: AnyBus) -> AnyBus:
        self._stopped[bus] = trio.Event()
        await self._nursery.start(self._run, bus)
        return bus

    async def close(self, bus: Bus) -> None:
        stopped = next(event for each, event in self._stopped.items() if each is bus)
        bus.close()
        await stopped.wait()
        self._stopped = {each: event for each, event in self._stopped.items() if each is not bus}

    async def close_all(self) -> None:
        for bus in list(self._stopped):
            await self.close(bus)

    async def _run(self, bus: AnyBus, task_status: trio.TaskStatus[None]) -> None:
        stopped = self._stopped[bus]
        try:
            await bus.run(task_status)
        finally:
            stopped.set()


async def take(subscription: Subscription, count: int) -> list[Delivery]:
    """The next `count` entries, however many each receive gives."""
    found: list[Delivery] = []
    with trio.fail_after(PATIENCE_SECONDS):
        while len(found) < count:
            found += await subscription.receive(count - len(found))
    return found


async def nothing_more(subscription: Subscription) -> None:
    with trio.move_on_after(0.15) as scope:
        await subscription.receive(1)
    assert scope.cancelled_caught


async def changes(watch: Watch, count: int) -> list[tuple[str, bytes | None]]:
    with trio.fail_after(PATIENCE_SECONDS):
        return [await anext(watch) for _ in range(count)]


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not holds():
            await trio.sleep(0.01)


async def until_pending(bus: Bus, stream: str, consumer: str, count: int) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while await bus.pending(stream, consumer) != count:
            await trio.sleep(0.01)


async def until_all(bus: Bus, table: str, values: dict[str, bytes]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while await bus.read_all(table) != values:
            await trio.sleep(0.01)


def payloads(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.payload for delivery in deliveries]
