"""A bounded mailbox: what others sent to one actor and it has not taken yet.

Owned by the supervisor, so it outlives the actor's crashes: messages that were not taken wait for the next
incarnation; those taken are gone with it, and the asks among them are failed (`fail_taken`). Three doors:
*open*; *suspended* (the actor is being stopped to come back: receivers leave, senders may go on); *closed*
(no more messages: the receiver takes what is left, then leaves).

Cheap on purpose: a deque, and a parked task only when somebody really waits. Neither side passes through
trio's scheduler while there is a message to take or room to put one, except that a receiver makes room for
the others once in MESSAGES_PER_PASS messages, so that a busy actor cannot starve the loop.
"""

from collections import deque
from typing import Any, Generic, TypeVar

import trio

from engine.runtime.answer import ActorDied, Answer

T = TypeVar("T")

CAPACITY_DEFAULT = 256  # messages are batches: 256 of them are tens of thousands of envelopes
MESSAGES_PER_PASS = (
    64  # one pass costs about 10 us here, so 64 hide it; at 100 us of work it is 6 ms of latency
)


class MailboxFull(Exception):
    """`put_nowait` found no room."""


class MailboxClosed(Exception):
    """Sender: the actor has ended or is ending. Receiver: nothing more comes for this incarnation."""


class Mailbox(Generic[T]):
    """Messages for one actor in order of arrival, at most `capacity` of them (0: born and kept closed)."""

    __slots__ = (
        "_asks",
        "_closed",
        "_high_water",
        "_queue",
        "_receivers",
        "_senders",
        "_suspended",
        "_taken",
        "_unscheduled",
        "capacity",
        "dropped",
        "name",
    )

    def __init__(self, name: str, capacity: int = CAPACITY_DEFAULT) -> None:
        assert capacity >= 0, f"mailbox {name}: capacity {capacity}"
        self.name = name
        self.capacity = capacity
        self.dropped = 0  # messages that were still here when the actor ended for good
        self._queue: deque[T] = deque()
        self._closed = capacity == 0
        self._suspended = False
        self._receivers = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()
        self._high_water = 0
        self._taken = 0
        self._unscheduled = 0
        self._asks: set[Answer[Any]] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def high_water(self) -> int:
        """The most messages that ever waited."""
        return max(self._high_water, len(self._queue))

    # -- senders

    async def put(self, message: T) -> None:
        """Wait for room, then put. Raises MailboxClosed, also when it closes while this waits."""
        while len(self._queue) >= self.capacity and not self._closed:
            await self._senders.park()
        self.put_nowait(message)

    def put_nowait(self, message: T) -> None:
        """Put or raise MailboxFull or MailboxClosed."""
        if self._closed:
            raise MailboxClosed(f"{self.name} takes no more messages")
        if len(self._queue) >= self.capacity:
            raise MailboxFull(f"{self.name} has {len(self._queue)} messages waiting")
        self._queue.append(message)
        if self._receivers:
            self._receivers.unpark()

    def track(self, answer: Answer[Any]) -> None:
        """Remember the ask whose message was put just now: it is the last one in the queue."""
        answer.sequence = self._taken + len(self._queue) - 1
        if self._asks is None:
            self._asks = set()
        self._asks.add(answer)

    def untrack(self, answer: Answer[Any]) -> None:
        if self._asks is not None:
            self._asks.discard(answer)

    # -- the receiver

    async def get(self) -> T:
        """The next message; waits for one. Raises MailboxClosed when no more comes."""
        if self._unscheduled >= MESSAGES_PER_PASS or not self._queue or self._suspended:
            await self._until_message()
        return self._take_one()

    def get_nowait(self) -> T | None:
        """The next message if one waits, else None."""
        return self._take_one() if self._queue and not self._suspended else None

    async def get_batch(self, limit: int) -> list[T]:
        """Up to `limit` messages, at least one; waits for the first, takes the rest as they lie."""
        assert limit > 0
        if self._unscheduled >= MESSAGES_PER_PASS or not self._queue or self._suspended:
            await self._until_message()
        queue = self._queue
        depth = len(queue)
        self._high_water = max(self._high_water, depth)
        if depth <= limit:
            batch = list(queue)
            queue.clear()
        else:
            batch = [queue.popleft() for _ in range(limit)]
        self._count_taken(len(batch))
        return batch

    def batches(self, limit: int) -> "Batches[T]":
        """`async for batch in mailbox.batches(64)`: ends when no more comes for this incarnation."""
        return Batches(self, limit)

    # -- the supervisor

    def close(self) -> None:
        """No more messages. The receiver takes what is left; waiting senders get MailboxClosed."""
        self._closed = True
        self._receivers.unpark_all()
        self._senders.unpark_all()

    def suspend(self) -> None:
        """Receivers leave with MailboxClosed at once; messages stay and come in, for the next incarnation."""
        self._suspended = True
        self._receivers.unpark_all()

    def resume(self) -> None:
        """Open the door to a new incarnation."""
        self._suspended = False
        self._closed = self.capacity == 0
        self._unscheduled = 0

    def fail_taken(self, why: str) -> None:
        """Fail the asks whose messages were taken: the incarnation that took them is over."""
        if self._asks:
            self._fail({answer for answer in self._asks if answer.sequence < self._taken}, why)

    def retire(self, why: str) -> None:
        """The actor has ended for good: close, drop what is left, fail every ask."""
        self.close()
        self.dropped += len(self._queue)
        self._taken += len(self._queue)
        self._queue.clear()
        if self._asks:
            self._fail(set(self._asks), why)

    # -- inside

    def _take_one(self) -> T:
        self._high_water = max(self._high_water, len(self._queue))
        message = self._queue.popleft()
        self._count_taken(1)
        return message

    def _count_taken(self, count: int) -> None:
        # The depth grows by puts only, so the high-water mark is exact when read just before each take,
        # and an ask's message is taken exactly when its sequence is below `_taken`: puts and takes
        # without asks pay nothing for either.
        self._taken += count
        self._unscheduled += count
        if self._senders:
            self._senders.unpark(count=count)

    async def _until_message(self) -> None:
        # The pass comes before the take: a cancelled receiver leaves its message in the queue.
        if self._unscheduled >= MESSAGES_PER_PASS:
            self._unscheduled = 0
            await trio.lowlevel.checkpoint()
        while True:
            if self._suspended:
                raise MailboxClosed(f"{self.name} is stopping")
            if self._queue:
                return
            if self._closed:
                raise MailboxClosed(f"{self.name} has no more messages")
            self._unscheduled = 0
            await self._receivers.park()

    def _fail(self, answers: set[Answer[Any]], why: str) -> None:
        assert self._asks is not None
        self._asks -= answers
        for answer in answers:
            answer.die(ActorDied(self.name, why))

    def __repr__(self) -> str:
        door = "closed" if self._closed else "suspended" if self._suspended else "open"
        return (
            f"<Mailbox {self.name}: {len(self._queue)}/{self.capacity}, "
            f"high water {self.high_water}, {len(self._asks or ())} asks, {door}>"
        )


class Batches(Generic[T]):
    """The async iterator of `Mailbox.batches`; a class, since nobody closes an async generator in time."""

    __slots__ = ("_limit", "_mailbox")

    def __init__(self, mailbox: Mailbox[T], limit: int) -> None:
        self._mailbox = mailbox
        self._limit = limit

    def __aiter__(self) -> "Batches[T]":
        return self

    async def __anext__(self) -> list[T]:
        try:
            return await self._mailbox.get_batch(self._limit)
        except MailboxClosed:
            raise StopAsyncIteration from None
