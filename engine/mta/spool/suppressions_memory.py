"""Suppressions in memory: for tests and simulation, and an engine's parts that were given no store.

Keeps what `suppressions.Suppressions` promises by the same contract test, as far as one process can see
it; everything is gone with it.
"""

import trio

from engine.model.content import MessageClass
from engine.mta.policy.suppression import SuppressionEntry, SuppressionOrder, find_blocking, merge
from engine.mta.policy.suppression_codec import DOMAIN, AddressHasher, subscriber_key
from engine.mta.spool.suppressions import Applied

UNKEPT = AddressHasher(bytes(32))  # of hashes that leave no process


class MemorySuppressions:
    """`Suppressions` without a disk."""

    def __init__(self, hasher: AddressHasher = UNKEPT) -> None:
        self.hasher = hasher
        self.version = 0
        self._standing: dict[bytes, tuple[SuppressionEntry, ...]] = {}
        self._positions: dict[str, int] = {}
        self._closed = trio.Event()

    def __repr__(self) -> str:
        return f"<MemorySuppressions: {len(self._standing):,} keys, version {self.version}>"

    def blocked(
        self,
        recipient: str,
        domain: str,
        subscriber: int,
        workspace: str,
        list_id: str,
        message_class: MessageClass,
    ) -> SuppressionEntry | None:
        if not self._standing:
            return None
        keys = [DOMAIN + domain.encode(), self.hasher.key_of(recipient)]
        if subscriber and workspace:
            keys.append(subscriber_key(workspace, subscriber))
        every = (entry for key in keys for entry in self.standing(key))
        return find_blocking(every, workspace, list_id, message_class)

    def standing(self, key: bytes) -> tuple[SuppressionEntry, ...]:
        return self._standing.get(key, ())

    def keys(self) -> int:
        return len(self._standing)

    def positions(self) -> dict[str, int]:
        return dict(self._positions)

    async def apply(self, order: SuppressionOrder) -> Applied:
        await trio.lowlevel.checkpoint()
        changed = added = removed = 0
        for key in order.keys:
            before = self._standing.get(key, ())
            after = merge(before, order)
            changed += after is not before
            added += not before and bool(after)
            removed += bool(before) and not after
            if after:
                self._standing[key] = after
            else:
                self._standing.pop(key, None)
        if changed:
            self.version += 1
        return Applied(changed, added, removed)

    async def reached(self, writer: str, sequence: int) -> None:
        await trio.lowlevel.checkpoint()
        self._positions[writer] = sequence

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._closed = trio.Event()
        task_status.started()
        await self._closed.wait()

    def close(self) -> None:
        self._closed.set()
