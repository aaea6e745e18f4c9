"""What the parts of one local bus share: the members, the committer, the clock, and a bell.

Streams, tables and questions wait for news on a *topic* of the bell. News of this process ring their
topic when they are durable, on every bus of the process over the same folder; news of other processes
are found by looking at each member's last transaction every 50 ms, which rings everything. A waiter
looks again and may find nothing. Between looking and waiting nothing may be awaited, else news is missed.

On trouble: a full disk or map is BusFull where something was to be kept. A member that cannot be read is
passed over with a log line, once; it is looked at again when it changes. After `close`, waiters end with
trio.ClosedResourceError.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from engine.bus.api import BusFull
from engine.bus.local_members import Member, Members
from engine.runtime.clock import Clock
from engine.storage import Committer, Pending, StorageError, StorageFull
from engine.storage.committer import Operation

T = TypeVar("T")

log = structlog.get_logger("bus")

_running: list["Store"] = []


class Store:
    """One member's environment at work, and its view of the others."""

    def __init__(
        self,
        root: Path,
        member: str,
        clock: Clock,
        *,
        map_octets: int,
        group_seconds: float,
        poll_seconds: float,
    ) -> None:
        self.members = Members(root, member, map_octets)
        self.own = self.members.own
        self.clock = clock
        self.closed = trio.Event()
        self._group_seconds = group_seconds
        self._poll_seconds = poll_seconds
        self.committer = self._new_committer()
        self._waiting: dict[str, trio.Event] = {}
        self._seen: dict[str, tuple[bytes, int]] = {}
        self._unreadable: set[str] = set()
        self._token: trio.lowlevel.TrioToken | None = None

    async def durable(self, operation: Operation[T], *topics: str) -> T:
        """Submit, wait until it is durable, ring the topics."""
        pending = self.committer.submit(operation)

        def ring(done: Pending[T]) -> None:
            if done.error is None:
                for topic in topics:
                    self.ring_all_buses(topic)

        pending.then(ring)  # and not after the wait: its caller may be cancelled, the news is durable
        try:
            return await pending
        except StorageFull as error:
            raise BusFull(str(error)) from error

    async def wait(self, topic: str) -> None:
        """Until something happened that may concern the topic."""
        if self.closed.is_set():
            raise trio.ClosedResourceError(f"the bus of {self.own.name} is closed")
        await self._waiting.setdefault(topic, trio.Event()).wait()

    def ring(self, topic: str) -> None:
        event = self._waiting.pop(topic, None)
        if event is not None:
            event.set()

    def forget(self, topic: str) -> None:
        """Nobody will wait for this topic again."""
        self._waiting.pop(topic, None)

    def ring_everything(self) -> None:
        for topic in list(self._waiting):
            self.ring(topic)

    def ring_all_buses(self, topic: str) -> None:
        """Ring on every bus of this process and loop over the same folder."""
        self.ring(topic)
        for store in _running:
            if store is not self and store.members.root == self.members.root and store._token is self._token:
                store.ring(topic)

    def readable(self) -> Iterator[Member]:
        """This member, then the others that can be read."""
        for member in self.members.everyone():
            try:
                _ = member.environment
            except StorageError as error:
                if member.name not in self._unreadable and member.exists():
                    self._unreadable.add(member.name)
                    log.error("a member of the bus cannot be read", member=member.name, why=str(error))
                continue
            yield member

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Commit and poll until closed. May run again after a crash, over the same environment."""
        if self.committer.failed is not None and not self.closed.is_set():
            self.committer = self._new_committer()
        self._token = trio.lowlevel.current_trio_token()
        _running.append(self)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.committer.run)
                nursery.start_soon(self._poll)
                task_status.started()
                await self.closed.wait()
        finally:
            _running.remove(self)

    def close(self) -> None:
        self.closed.set()
        self.committer.close()
        self.ring_everything()

    async def _poll(self) -> None:
        while not self.closed.is_set():
            self.look_at_others()
            with trio.move_on_after(self._poll_seconds):
                await self.closed.wait()

    def look_at_others(self) -> bool:
        """Ring everything if another member came, went or committed since the last look; whether so."""
        changed = self.members.refresh()
        seen: dict[str, tuple[bytes, int]] = {}
        for member in self.readable():
            if member is not self.own:
                seen[member.name] = (member.epoch, member.last_visible())
        if seen != self._seen:
            self._seen, changed = seen, True
            self._unreadable &= {member.name for member in self.members.everyone()}
        if changed:
            self.ring_everything()
        return changed

    def _new_committer(self) -> Committer:
        return Committer(self.own.environment, group_seconds=self._group_seconds)
