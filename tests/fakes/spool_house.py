"""A spool with the world around it, for the contract tests: both kinds can crash and be damaged.

`crash()` is a kill -9: the next incarnation sees what was durable at that moment and nothing else. For
LMDB that is a copy of its data file, opened in a folder of its own; the first incarnation is closed
only afterwards, so that nothing which closing does can help.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import trio

from engine.keyring import RowKeyring
from engine.mta.spool.api import Spool
from engine.mta.spool.lmdb import LmdbSpool
from engine.mta.spool.memory import MemorySpool
from engine.mta.spool.tables import open_spool_environment
from engine.storage import Committer, Environment

MASTER = bytes(range(32))
MAP_OCTETS = 64 * 1024**2
MEMORY_DISK = Path("/dev/shm")


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder where an fsync costs nothing: these tests ask what is written, `test_disk_order` asks when."""
    place = MEMORY_DISK if MEMORY_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="emass-test-", dir=place) as folder:
        yield Path(folder)


class SpoolHouse(Protocol):
    spool: Spool

    async def crash(self) -> None: ...

    async def damage(self, spool_id: int, change: Callable[[bytes], bytes]) -> None:
        """Overwrite an envelope's record, as a bad disk would."""
        ...


class MemoryHouse:
    def __init__(self) -> None:
        self.spool = MemorySpool()

    async def crash(self) -> None:
        self.spool = self.spool.reopened()

    async def damage(self, spool_id: int, change: Callable[[bytes], bytes]) -> None:
        self.spool.disk.records[spool_id] = change(self.spool.disk.records[spool_id])


class LmdbHouse:
    """Its folders are `spool-1`, `spool-2`, ...: one for each incarnation."""

    spool: LmdbSpool
    environment: Environment
    committer: Committer

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self._folder = folder
        self._nursery = nursery
        self._incarnation = 1
        self._stopped: trio.Event

    @property
    def path(self) -> Path:
        return self._folder / f"spool-{self._incarnation}"

    async def open(self) -> None:
        self.environment = open_spool_environment(self.path, map_octets=MAP_OCTETS)
        self.committer = Committer(self.environment, group_seconds=0.0)
        self._stopped = trio.Event()
        await self._nursery.start(self._run)
        keyring = RowKeyring(self._folder / "rows.keys", MASTER)
        self.spool = LmdbSpool(self.environment, self.committer, keyring, producer="node-1")

    async def crash(self) -> None:
        before = self.path
        self._incarnation += 1
        self.path.mkdir()
        shutil.copy(before / "data.mdb", self.path / "data.mdb")
        await self.close()
        shutil.rmtree(before)
        await self.open()

    async def close(self) -> None:
        self.committer.close()
        await self._stopped.wait()
        self.environment.close()

    async def damage(self, spool_id: int, change: Callable[[bytes], bytes]) -> None:
        envelopes = self.environment.databases["envelopes"]
        key = spool_id.to_bytes(8, "big")
        await self.committer.submit(
            lambda transaction: transaction.put(key, change(transaction.get(key, db=envelopes)), db=envelopes)
        )

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        stopped = self._stopped
        try:
            await self.committer.run(task_status)
        finally:
            stopped.set()


@asynccontextmanager
async def lmdb_house(folder: Path) -> AsyncIterator[LmdbHouse]:
    async with trio.open_nursery() as nursery:
        house = LmdbHouse(folder, nursery)
        await house.open()
        yield house
        await house.close()
