"""Room on the disk and in the map: two watermarks and a ballast file.

Below watermark 1 intake is refused; below watermark 2 leasing stops while every outstanding settle
and event still fits. The ballast is a file of zeros that is given back to the file system when
watermark 2 is crossed, so that the last settles have room. Pages that were freed inside the file count
as room on the disk, since LMDB writes them again. The decision is a plain function of the measured octets;
only `Space` touches the disk.
"""

import os
from enum import IntEnum
from pathlib import Path

from engine.storage.environment import Environment

REFUSE_OCTETS = 2 * 1024**3  # 1,000,000 envelopes take 0.2 GB; room for ten such chunks' worth of settles
STOP_OCTETS = 512 * 1024**2
BALLAST_OCTETS = 64 * 1024**2  # settles of a full active set (20,000 x 1.1 KB) three times over


class SpaceLevel(IntEnum):
    OPEN = 0
    REFUSE_INTAKE = 1
    STOP_LEASING = 2


def space_level(free_octets: int, refuse_octets: int, stop_octets: int) -> SpaceLevel:
    """The level for so many octets that can still be written."""
    if free_octets < stop_octets:
        return SpaceLevel.STOP_LEASING
    if free_octets < refuse_octets:
        return SpaceLevel.REFUSE_INTAKE
    return SpaceLevel.OPEN


class Space:
    """Watches one environment's room. `measure()` is cheap (a system call and a look at ten page counts)."""

    def __init__(
        self,
        environment: Environment,
        *,
        refuse_octets: int = REFUSE_OCTETS,
        stop_octets: int = STOP_OCTETS,
        ballast_octets: int = BALLAST_OCTETS,
    ) -> None:
        assert stop_octets <= refuse_octets
        self.level = SpaceLevel.OPEN
        self.free_octets = 0
        self._environment = environment
        self._refuse = refuse_octets
        self._stop = stop_octets
        self._ballast_octets = ballast_octets
        self._ballast = environment.path / "ballast"

    def __repr__(self) -> str:
        return f"<Space {self._environment.path}: {self.free_octets >> 20} MiB free, {self.level.name}>"

    def measure(self) -> SpaceLevel:
        """Look at the disk and the map, keep or free the ballast, return the level.

        Raises StorageError when the store's files are gone.
        """
        self._environment.check_files()
        disk = os.statvfs(self._environment.path)
        used = self._environment.used_octets()
        freed = max(0, self._environment.file_octets() - used)
        on_disk = disk.f_bavail * disk.f_frsize + freed
        in_map = self._environment.map_octets() - used
        self.free_octets = min(on_disk, in_map)
        self.level = space_level(self.free_octets, self._refuse, self._stop)
        if self.level is SpaceLevel.STOP_LEASING:
            self._ballast.unlink(missing_ok=True)
        elif self.level is SpaceLevel.OPEN and self._ballast_octets and not self._ballast.exists():
            self._lay_ballast()
        return self.level

    def _lay_ballast(self) -> None:
        temporary: Path = self._ballast.with_suffix(".new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._ballast_octets)
            finally:
                os.close(descriptor)
            temporary.replace(self._ballast)
        except OSError:
            temporary.unlink(missing_ok=True)
