"""Makes durable what all sessions of a worker hand in: whatever came meanwhile goes in one publish.

One call of the bus costs a commit, or a round trip; while it is under way others gather for the next. The
entries of one message stay together, so that it is taken for all its recipients or for none. Touches: the
bus. On trouble: BusFull goes to everybody whose entries were in that publish (nothing of it was kept); a
bus that is away lets them wait, and their sessions answer for themselves. What was handed in when a session
gave up may still become durable: its client then sends it again, and it goes twice rather than not at all.
"""

from collections import deque
from collections.abc import Callable, Sequence

import structlog
import trio

from engine.bus.api import PUBLISH_OCTETS_MAX, Bus, BusFull
from engine.storage import StorageError

GROUP_OCTETS_MAX = PUBLISH_OCTETS_MAX // 2
WAITING_OCTETS_MAX = 128 * 1024 * 1024  # of messages that wait for the bus; over it clients are told to wait
LOOK_SECONDS = 0.25  # for those who have waited too long

log = structlog.get_logger("submission")

Done = Callable[[Exception | None], None]


class NotDurable(Exception):
    """The bus did not answer in time: nobody knows whether the entries are kept."""


class Handed:
    """One message's entries, and whom to tell."""

    __slots__ = ("deadline", "done", "entries", "octets")

    def __init__(self, entries: Sequence[bytes], octets: int, done: Done, deadline: float) -> None:
        self.entries = entries
        self.octets = octets
        self.done: Done | None = done
        self.deadline = deadline

    def __repr__(self) -> str:
        return f"<Handed {len(self.entries)} entries, {'open' if self.done else 'told'}>"

    def tell(self, trouble: Exception | None) -> None:
        """Once; what comes later is nobody's business."""
        done, self.done = self.done, None
        if done is not None:
            done(trouble)


class Publisher:
    """Of one worker, for one stream. `durable_seconds`: how long anybody waits."""

    def __init__(self, bus: Bus, stream: str, durable_seconds: float) -> None:
        self._bus = bus
        self._stream = stream
        self._durable_seconds = durable_seconds
        self._waiting: deque[Handed] = deque()
        self._under_way: list[Handed] = []
        self._octets = 0
        self._bell = trio.Event()
        self.published = 0
        self.groups = 0

    def __repr__(self) -> str:
        return (
            f"<Publisher {self._stream}: {len(self._waiting)} wait, {self.published} in {self.groups} groups>"
        )

    def hand_in(self, entries: Sequence[bytes], done: Done) -> None:
        """Publish them together; `done` hears of it once.

        None when durable, BusFull when not kept, NotDurable when it is not known.
        """
        octets = sum(map(len, entries))
        assert octets <= GROUP_OCTETS_MAX, "one message's entries fit one publish"
        if self._octets + octets > WAITING_OCTETS_MAX:
            done(BusFull("too much waits for the bus"))
            return
        self._octets += octets
        deadline = trio.current_time() + self._durable_seconds
        self._waiting.append(Handed(entries, octets, done, deadline))
        self._bell.set()

    async def run(self) -> None:
        """For life: publish what waits, a group at a time, and let nobody wait too long."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while True:
                await self._bell.wait()
                self._bell = trio.Event()
                while self._waiting:
                    self._under_way = self._next_group()
                    await self._publish(self._under_way)
                    self._under_way = []

    def _next_group(self) -> list[Handed]:
        group: list[Handed] = []
        octets = 0
        while self._waiting and (not group or octets + self._waiting[0].octets <= GROUP_OCTETS_MAX):
            group.append(self._waiting.popleft())
            octets += group[-1].octets
        return group

    async def _publish(self, group: list[Handed]) -> None:
        trouble: Exception | None = None
        try:
            await self._bus.publish(self._stream, [entry for handed in group for entry in handed.entries])
        except (BusFull, StorageError) as error:
            log.warning("messages could not be kept", messages=len(group), why=str(error))
            trouble = error
        self.groups += 1
        for handed in group:
            self._octets -= handed.octets
            self.published += trouble is None
            handed.tell(trouble)

    async def _watch(self) -> None:
        """Deadlines come in the order of their messages, so it looks at the first ones only."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = trio.current_time()
            for handed in self._under_way:
                if handed.deadline <= now:
                    handed.tell(NotDurable("the bus did not answer in time"))
            while self._waiting and self._waiting[0].deadline <= now:
                handed = self._waiting.popleft()
                self._octets -= handed.octets
                handed.tell(BusFull("the bus was busy with others for too long"))
