"""A disk and a bus that survive their process, with commits that take time and may be lost or fail.

`SimSpool` puts a group commit before the in-memory spool: a write is applied when its group's sync is
over, in order, and its Pending is done then. When the power goes, the group that is being synced is kept
as a whole or not at all, and what waits behind it is gone. Whatever `MemorySpool` promises to be durable
later (it returns a Pending) goes that way; everything else is a read of what is durable.
"""

import random
from collections.abc import Callable
from typing import Any

import trio

from engine.bus.api import BusFull
from engine.mta.spool.api import SpoolError
from engine.mta.spool.memory import Disk, MemorySpool
from engine.storage import Pending, StorageError
from tests.fakes.memory_bus import MemoryBus
from tests.sim.clock import JumpingClock
from tests.sim.faults import InjectedBug
from tests.sim.scenario import DiskManners
from tests.sim.witness import Witness

WRITES = frozenset(
    name
    for name, member in vars(MemorySpool).items()
    if not name.startswith("_") and "Pending" in str(getattr(member, "__annotations__", {}).get("return"))
)
TOLD_TO_FAIL = "the disk was told to fail"


class SimSpool:
    """One incarnation over a `Disk`. Is its own committer."""

    def __init__(
        self, disk: Disk, manners: DiskManners, clock: JumpingClock, dice: random.Random, witness: Witness
    ) -> None:
        self.memory = MemorySpool(producer="node", disk=disk)
        self.producer = self.memory.producer
        self.epoch = self.memory.epoch
        self._manners = manners
        self._clock = clock
        self._dice = dice
        self._witness = witness
        self._waiting: list[tuple[Callable[[], Any], Pending[Any]]] = []
        self._syncing: list[tuple[Callable[[], Any], Pending[Any]]] = []
        self._bell = trio.Event()
        self._closing = False
        self._running = False
        self._busy = False  # something of ours stands in the agenda
        self._dead = False
        self.buggy = False  # the next write raises
        for name in WRITES:
            setattr(self, name, self._write(name))

    def __repr__(self) -> str:
        return f"<SimSpool {self.memory!r}, {len(self._waiting)} waiting>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    def _write(self, name: str) -> Callable[..., Pending[Any]]:
        method = getattr(self.memory, name)

        def write(*arguments: Any, **named: Any) -> Pending[Any]:
            if name == "accept" and arguments[0].campaign not in self.memory.disk.contents:
                raise SpoolError("the campaign has no content")
            if self.buggy and not self._dead:
                self.buggy = False
                self._witness.fault("bug in the spool", name)
                raise InjectedBug("the spool was told to raise")
            pending: Pending[Any] = Pending()
            if not self._dead:
                self._waiting.append((lambda: method(*arguments, **named), pending))
                self._go_on()
            return pending

        return write

    # --- its committer -----------------------------------------------------------------------------------

    @property
    def environment(self) -> "SimSpool":
        return self

    def check_readers(self) -> None:
        """Nobody else reads."""

    def close(self) -> None:
        self._closing = True
        self._go_on()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The disk works while this runs; the clock's agenda does the waiting."""
        self._closing, self._running, self._bell = False, True, trio.Event()
        task_status.started()
        try:
            self._go_on()
            while not self._closing or self._waiting or self._syncing:
                await self._bell.wait()
                self._bell = trio.Event()
        finally:
            self._running = False

    def _go_on(self) -> None:
        """Begin what comes next: a group, once it is open for a moment, or the sync that was interrupted."""
        if self._running and not self._busy:
            if self._syncing:
                self._later(self._dice.uniform(*self._manners.sync_seconds), self._apply)
            elif self._waiting:
                self._later(self._manners.group_seconds, self._sync)
            elif self._closing:
                self._bell.set()

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        def done() -> None:
            self._busy = False
            if self._running and not self._dead:
                step()
                self._go_on()

        self._busy = True
        self._clock.at(trio.current_time() + seconds, done)

    def _sync(self) -> None:
        self._syncing, self._waiting = self._waiting, []

    def _apply(self) -> None:
        group, self._syncing = self._syncing, []
        if self._dice.random() < self._manners.failing:
            self._witness.fault("commit failed", len(group))
            for _, pending in group:
                pending.fail(StorageError(TOLD_TO_FAIL))
            return
        for operation, pending in group:
            try:
                done: Pending[Any] = operation()
            except SpoolError as error:
                pending.fail(error)
                continue
            if done.error is not None:
                pending.fail(done.error)
            else:
                pending.resolve(done.result())

    def lose_power(self) -> None:
        """The process is gone: what is synced right now is kept or not; nobody hears of it."""
        self._dead = True
        kept = self._dice.random() < 0.5
        self._witness.note("power lost", len(self._syncing), "kept" if kept else "lost", len(self._waiting))
        if kept:
            for operation, _ in self._syncing:
                try:
                    operation()
                except SpoolError:
                    continue
        self._syncing, self._waiting = [], []


class BusStore:
    """What of a bus survives, and who is connected to it."""

    def __init__(self) -> None:
        self.streams: dict[str, list[bytes]] = {}
        self.cursors: dict[tuple[str, str], int] = {}
        self.tables: dict[str, dict[str, bytes]] = {}
        self.buses: list[SimBus] = []


class SimBus(MemoryBus):
    """A connection to the store. Publishes take time, and are sometimes refused."""

    def __init__(
        self, member: str, store: BusStore, dice: random.Random, *, refusing: float, witness: Witness
    ) -> None:
        super().__init__(member)
        self.streams, self.cursors, self.tables = store.streams, store.cursors, store.tables
        self._store = store
        self._dice = dice
        self._refusing = refusing
        self._witness = witness
        self._dead = False
        store.buses.append(self)

    def lose_power(self) -> None:
        self._dead = True
        self._store.buses.remove(self)

    def ring(self) -> None:
        for bus in self._store.buses:
            MemoryBus.ring(bus)

    async def publish(self, stream: str, payloads: Any) -> int:
        await trio.sleep(self._dice.uniform(0.0, 0.01))
        await self._alive()
        if self._dice.random() < self._refusing:
            self._witness.fault("bus full", stream)
            raise BusFull("told to refuse")
        last = await super().publish(stream, payloads)
        await trio.sleep(self._dice.uniform(0.0, 0.01))  # durable, and not told yet
        return last

    async def create(self, table: str, key: str, value: bytes) -> bytes | None:
        await self._alive()
        return await super().create(table, key, value)

    async def _alive(self) -> None:
        if self._dead:
            await trio.sleep_forever()
