"""The one place that opens LMDB: environments, their committer, watermarks, version stamps."""

from engine.storage.committer import Committer, Pending
from engine.storage.environment import Environment, StorageError, StorageFull
from engine.storage.space import Space, SpaceLevel

__all__ = [
    "Committer",
    "Environment",
    "Pending",
    "Space",
    "SpaceLevel",
    "StorageError",
    "StorageFull",
]
