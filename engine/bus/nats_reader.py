"""Reads a JetStream stream from some sequence on, in order, each message once, for as long as somebody asks.

A throw-away consumer of the server (in memory, no acknowledgements) sends what is pulled, a bounded amount
at a time, so a slow caller costs the server nothing and us at most one pull's octets. While it has nothing
it says so each second. Silence, a lost connection, a consumer that is gone or a message that was skipped
all mean the same: make another consumer behind the last message that arrived. Who owns the reader says
where to begin (`place`), each time, because the stream may have been replaced meanwhile.

Touches: one inlet of the link. On trouble: it waits and goes on; what `place` raises comes out of `next`.
"""

from collections import deque
from collections.abc import Awaitable, Callable

import trio
from msgspec import Struct

from engine.bus.nats_client import Received
from engine.bus.nats_jetstream import STREAM_NOT_FOUND, JetStream, Refused, StreamInfo, StreamSpec
from engine.bus.nats_link import Away, Inlet

PULL_MESSAGES = 256
PULL_OCTETS = 16 * 1024**2  # the same as a receive of the local bus
PULL_SECONDS = 20.0
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 4.0  # three heartbeats missed; a server of a cluster that died took its consumers along
FORGET_SECONDS = 60.0  # the server drops a consumer that nobody asks for so long
RETRY_SECONDS = 0.2
LOOK_SECONDS = 1.0

HEARTBEAT_STATUS = "100"
PULL_OVER = ("404", "408")
OCTETS_OVER = "MaxBytes"
_ACK_TOKENS = 9  # $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<of consumer>.<time>.<pending>


class Item(Struct, frozen=True):
    """A message as it was read: its sequence, how many lie behind it, and when it was kept.

    `data` is empty, so neither frame nor row, for what lies in a stream under a subject that is not its own.
    """

    subject: str
    seq: int
    pending: int
    kept_at_ns: int
    data: bytes


class Reader:
    """One reading of one stream."""

    def __init__(
        self,
        jetstream: JetStream,
        spec: StreamSpec,
        place: Callable[[StreamInfo], Awaitable[int]],
        *,
        subjects: str = "",
        pull_messages: int = PULL_MESSAGES,
        quiet: Callable[[], None] | None = None,
    ) -> None:
        """`place` is told how the stream stands and returns the sequence behind which to begin.

        `quiet` is called each few seconds while `next` waits and the server says that nothing new is there.
        """
        self.spec = spec
        self.position = 0  # the last sequence that arrived
        self.heard_at = -1.0  # trio's time of the last sign of life while attached; -1 = never
        self._jetstream = jetstream
        self._link = jetstream.link
        self._place = place
        self._subjects = subjects
        self._own = spec.subjects.rstrip("*>")
        self._pull_messages = pull_messages
        self._quiet = quiet
        self._arrived: deque[Item] = deque()
        self._news = trio.Event()
        self._inlet: Inlet | None = None
        self._consumer = ""
        self._generation = 0
        self._delivered = 0  # by this consumer
        self._wanted = 0  # messages that the pull under way may still bring
        self.pending_at_start = 0

    def __repr__(self) -> str:
        return f"<Reader of {self.spec.name}: at {self.position}, {len(self._arrived)} waiting>"

    async def next(self, limit: int) -> list[Item]:
        """Wait for at least one message; up to `limit`."""
        await trio.lowlevel.checkpoint()
        while not self._arrived:
            self._link.check_open()
            if self._inlet is None or self._generation != self._link.generation:
                if self._inlet is not None and self._generation == 0:
                    await trio.sleep(RETRY_SECONDS)  # whatever ended it may not be over
                await self.attach()
            if self._arrived:
                break
            if self._wanted <= 0:
                self._pull()
            if not await self._hear():
                self.detach()
        return [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]

    async def attach(self) -> None:
        """Begin, or begin again, behind `position` or wherever `place` says."""
        while True:
            self.detach()
            await self._link.wait_online()
            generation = self._link.generation
            start = await self._place(await self._jetstream.info(self.spec))
            config = {
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": start + 1,
                "ack_policy": "none",
                "mem_storage": True,
                "num_replicas": 1,
                "inactive_threshold": int(FORGET_SECONDS * 1e9),
            }
            if self._subjects:
                config["filter_subject"] = self._subjects
            try:
                made = await self._jetstream.make_consumer(self.spec, config)
            except (Away, Refused) as error:
                if isinstance(error, Refused) and error.number == STREAM_NOT_FOUND:
                    self._jetstream.forget(self.spec)
                await trio.sleep(RETRY_SECONDS)
                continue
            self.position = start
            self.pending_at_start = made.num_pending
            self._consumer, self._generation, self._delivered, self._wanted = made.name, generation, 0, 0
            self._inlet = self._link.open_inlet(self._link.new_inbox(), self._on_message)
            self.heard_at = trio.current_time()
            return

    def detach(self) -> None:
        """Let go of the consumer; what has arrived stays. The next call begins again."""
        if self._inlet is not None:
            self._link.close_inlet(self._inlet)
            self._jetstream.drop_consumer(self.spec, self._consumer)
            self._inlet = None

    def _pull(self) -> None:
        assert self._inlet is not None
        self._wanted = self._pull_messages
        self.heard_at = trio.current_time()
        request = {
            "batch": self._pull_messages,
            "max_bytes": PULL_OCTETS,
            "expires": int(PULL_SECONDS * 1e9),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9),
        }
        self._jetstream.pull(self.spec, self._consumer, self._inlet.subject, request)

    async def _hear(self) -> bool:
        """Wait for news; whether the consumer is still good."""
        self._news = trio.Event()
        while True:
            heard_at = self.heard_at
            with trio.move_on_at(heard_at + SILENCE_SECONDS):
                await self._news.wait()
                return True
            if self.heard_at == heard_at:
                return False
            if self._quiet is not None:
                self._quiet()

    def _on_message(self, message: Received) -> None:
        """Runs in the link's loop."""
        self.heard_at = trio.current_time()
        if message.reply:  # one that is kept, whatever its headers say: somebody may have had it sent there
            self._take(message)
        elif message.status == HEARTBEAT_STATUS:
            return
        else:  # the pull is over: its time, its octets, or its consumer
            self._wanted = 0
            if message.status not in PULL_OVER and OCTETS_OVER not in message.headers.get("Description", ""):
                self._generation = 0
        self._news.set()

    def _take(self, message: Received) -> None:
        tokens = message.reply.split(".")
        if tokens[:2] != ["$JS", "ACK"] or len(tokens) < _ACK_TOKENS:
            return
        # Newer servers put the domain and the account's hash before the stream.
        deliveries = 4 if len(tokens) == _ACK_TOKENS else 6
        seq, delivered, kept_at_ns, pending = map(int, tokens[deliveries + 1 : deliveries + 5])
        if delivered != self._delivered + 1 or self._generation == 0:
            self._generation = 0  # one was lost between the server and us
            return
        self._delivered = delivered
        self._wanted -= 1
        self.position = seq
        # A member may have the server send what it reads into any stream. It lies there under the subject
        # that it had, not under one of this stream's: it is no word of those who may write here.
        own = message.subject.startswith(self._own)
        self._arrived.append(Item(message.subject, seq, pending, kept_at_ns, message.data if own else b""))


async def read_all(jetstream: JetStream, spec: StreamSpec, subjects: str = "") -> list[Item]:
    """Every message that a stream keeps, of those subjects; none when it is not there."""
    if await jetstream.look(spec) is None:
        return []
    position = end = 0

    async def place(info: StreamInfo) -> int:
        nonlocal end
        end = end or info.state.last_seq
        return position

    async def is_whole() -> bool:
        """Whether nothing of what was there can be behind what has come; rows may have moved there."""
        nonlocal end
        info = await jetstream.info(spec)
        end = info.state.last_seq
        return position >= end or (not subjects and len(seen) >= info.state.messages)

    reader = Reader(jetstream, spec, place, subjects=subjects)
    found: list[Item] = []
    seen: set[str] = set()
    try:
        await reader.attach()
        while reader.pending_at_start:
            with trio.move_on_after(LOOK_SECONDS) as late:
                items = await reader.next(PULL_MESSAGES)
                found += items
                seen.update(item.subject for item in items)
                position = items[-1].seq
            if late.cancelled_caught:
                if await jetstream.following(spec, subjects or spec.subjects, position + 1) is None:
                    break  # what was there was dropped meanwhile
            # The server's count alone does not do: of a table that changes meanwhile it may never be 0.
            elif not found[-1].pending or (position >= end and await is_whole()):
                break
    finally:
        reader.detach()
    return found
