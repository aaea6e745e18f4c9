"""Streams over NATS: one JetStream stream each, read from cursors of our own, dropped behind them.

A stream is made when somebody first uses it: on disk, refusing new entries at its cap; facts age out, work
never does. Who drops: the one consumer of a work queue drops what it has acknowledged; a member drops its
own facts (`events.<member>`) behind the slowest consumer that is known; other facts stay until they are
old. Who may not drop leaves it.

Sequences are per writer and stream, from 1 and without gaps, also when the tail was dropped. On another bus
(its server's store was lost), or when the stream is no longer the one that was read (its store was restored
from before), it is read again from the cursor there, with a line in the log. On trouble: see
nats_jetstream; ValueError for an acknowledgement of what was not given out.
"""

from collections import deque

import structlog
import trio
from msgspec import Struct

from engine.bus.api import Delivery, is_work_queue
from engine.bus.nats_cursors import DAY_SECONDS, Cursor, Cursors
from engine.bus.nats_frames import frame_of, unpack_frame
from engine.bus.nats_identity import Identity
from engine.bus.nats_jetstream import JetStream, StreamInfo, StreamSpec
from engine.bus.nats_names import stream_name, stream_subjects, writer_of
from engine.bus.nats_reader import Item, Reader
from engine.bus.nats_writer import Writer
from engine.runtime.clock import Clock

RECEIVE_OCTETS_MAX = 16 * 1024**2  # of payload at a time, the first entry excepted
OPEN_FRAMES_MAX = 10_000  # not acknowledged, of one subscription; beyond, neighbours count as one
DROP_SHARE = 8  # what was acknowledged is dropped once it is an eighth of the cap, else by housekeeping

log = structlog.get_logger("bus")


class Streams:
    """All streams of one member."""

    def __init__(
        self,
        jetstream: JetStream,
        identity: Identity,
        member: str,
        clock: Clock,
        *,
        stream_octets_max: int,
        retention_seconds: float,
    ) -> None:
        self.jetstream = jetstream
        self.clock = clock
        self.identity = identity
        self.cursors = Cursors(jetstream, member)
        self._member = member
        self._octets_max = stream_octets_max
        self._retention_seconds = retention_seconds
        self._writers: dict[str, Writer] = {}

    def spec(self, stream: str) -> StreamSpec:
        return StreamSpec(
            stream_name(stream),
            stream_subjects(stream),
            max_bytes=self._octets_max,
            max_age_seconds=0.0 if is_work_queue(stream) else self._retention_seconds,
        )

    def writer(self, stream: str) -> Writer:
        writer = self._writers.get(stream)
        if writer is None:
            spec = self.spec(stream)
            writer = self._writers[stream] = Writer(self.jetstream, self.cursors, stream, self._member, spec)
        return writer

    async def pending(self, stream: str, consumer: str) -> int:
        """As `Bus.pending`."""
        writer = self.writer(stream)
        last = await writer.tail()
        cursor = await self.cursors.read(stream, consumer)
        reached = min(cursor.sequence(self._member), last)
        if reached < last:
            frame = None
            oldest = await self.jetstream.following(writer.spec, writer.subject, 1)
            while oldest is not None and (frame := frame_of(oldest.data)) is None:
                oldest = await self.jetstream.following(writer.spec, writer.subject, oldest.seq + 1)
            reached = max(reached, last if frame is None else frame.first - 1)
        return last - reached

    async def trim(self) -> None:
        """Drop this member's own facts behind the slowest consumer."""
        for stream, writer in list(self._writers.items()):
            if writer.published and not is_work_queue(stream) and stream.endswith(f".{self._member}"):
                state = (await self.jetstream.info(writer.spec)).state
                cursors = (await self.cursors.of_all(stream)).values()
                lows = [cursor.low if cursor.low <= state.last_seq else 0 for cursor in cursors]
                low = min(lows, default=0)
                if state.messages and low >= state.first_seq:
                    await self.jetstream.purge(writer.spec, low + 1)


class OpenFrame(Struct):
    """A frame whose entries are not all acknowledged."""

    seq: int
    writer: str
    last: int


class NatsSubscription:
    """One consumer's reading of one stream, over all writers."""

    def __init__(self, streams: Streams, stream: str, consumer: str) -> None:
        self.stream = stream
        self.consumer = consumer
        self._streams = streams
        self._spec = streams.spec(stream)
        self._reader = Reader(streams.jetstream, self._spec, self._place)
        self._registered = False
        self._bus = ""  # the id of the bus that was read so far
        self._through = 0  # JetStream's sequence of the last frame that was taken apart
        self._through_id = b""
        self._entries: deque[Delivery] = deque()
        self._cursor = Cursor()
        self._given: dict[str, int] = {}
        self._former: dict[str, int] = {}  # given out of a stream that was replaced since
        self._open: deque[OpenFrame] = deque()
        self._wanted: dict[str, int] = {}
        self._lock = trio.Lock()
        self._octets_max = self._spec.max_bytes
        self._freed = 0  # octets acknowledged since the last drop
        self._droppable = 0
        self._dropped = 0

    def __repr__(self) -> str:
        positions = ", ".join(f"{writer} {position}" for writer, position in self._given.items())
        return f"<NatsSubscription {self.consumer} of {self.stream}: {positions or 'nothing yet'}>"

    def close(self) -> None:
        """Let go of the server's side; a later `receive` begins again."""
        self._reader.detach()

    async def receive(self, limit: int) -> list[Delivery]:
        assert limit > 0
        await trio.lowlevel.checkpoint()
        if not self._registered:
            await self._streams.cursors.register(self.stream, self.consumer)
            self._registered = True
        while not self._entries:
            for item in await self._reader.next(limit):
                self._take_apart(item)
        found: list[Delivery] = []
        octets = 0
        while self._entries and len(found) < limit:
            octets += len(self._entries[0].payload)
            if found and octets > RECEIVE_OCTETS_MAX:
                break
            delivery = self._entries.popleft()
            self._given[delivery.writer] = delivery.sequence
            found.append(delivery)
        return found

    async def acknowledge(self, delivery: Delivery) -> None:
        writer = delivery.writer
        if delivery.stream != self.stream or delivery.sequence > self._given.get(writer, 0):
            if delivery.stream == self.stream and delivery.sequence <= self._former.get(writer, 0):
                await trio.lowlevel.checkpoint()
                return
            raise ValueError(f"{delivery.stream} {delivery.sequence} of {writer} was not given out here")
        self._freed += len(delivery.payload)
        self._wanted[writer] = max(self._wanted.get(writer, 0), delivery.sequence)
        async with self._lock:
            bus, wanted = self._bus, self._wanted.get(writer, 0)
            if self._cursor.sequence(writer) >= wanted:
                return  # another's acknowledgement, a moment ago, covered it
            day = int(self._streams.clock.now()) // DAY_SECONDS
            cursor = self._cursor.moved(writer, wanted, self._low(writer, wanted), day)
            await self._streams.cursors.write(self.stream, self.consumer, cursor)
            if self._bus != bus:
                return  # replaced meanwhile
            self._cursor = cursor
            while self._open and self._is_done(self._open[0]):
                self._open.popleft()
            self._droppable = cursor.low
            if self._freed >= self._octets_max // DROP_SHARE:
                await self.drop()

    def _low(self, writer: str, sequence: int) -> int:
        """Up to where everything is acknowledged once that is."""
        for frame in self._open:
            if not ((frame.writer == writer and frame.last <= sequence) or self._is_done(frame)):
                return frame.seq - 1
        return self._through

    def _is_done(self, frame: OpenFrame) -> bool:
        return frame.last <= self._cursor.sequence(frame.writer)

    async def drop(self) -> None:
        """Drop what this consumer acknowledged of a work queue: as its only one, nobody else wants it."""
        low = self._droppable
        if is_work_queue(self.stream) and low > self._dropped:
            self._freed = 0
            if await self._streams.jetstream.purge(self._spec, low + 1):
                self._dropped = low

    async def _place(self, info: StreamInfo) -> int:
        """Where to read on: behind what was read, or at the cursor."""
        bus = await self._streams.identity.read()
        if self._bus == bus and await self._is_as_read(info):
            return self._through
        if self._bus:
            log.error("a stream was replaced and is read again", stream=self.stream, consumer=self.consumer)
        cursor = await self._streams.cursors.read(self.stream, self.consumer)
        self._cursor = cursor if cursor.low <= info.state.last_seq else Cursor()
        self._bus, self._octets_max = bus, info.config.max_bytes
        self._droppable = self._dropped = 0
        self._former |= self._given
        self._given, self._wanted = {}, {}
        self._open.clear()
        self._entries.clear()
        self._through, self._through_id = self._cursor.low, b""
        return self._through

    async def _is_as_read(self, info: StreamInfo) -> bool:
        """Whether the stream still is the one whose messages were read, and not an older state of it."""
        if self._through > info.state.last_seq:
            return False
        if not self._through_id:
            return True
        message = await self._streams.jetstream.at(self._spec, self._through)
        if message is None:
            return True
        frame = frame_of(message.data)
        return frame is not None and frame.id == self._through_id

    def _take_apart(self, item: Item) -> None:
        self._through, self._through_id = item.seq, b""
        try:
            frame = unpack_frame(item.data)
            writer = writer_of(item.subject)
            self._through_id = frame.id
        except ValueError as error:
            log.error("an entry cannot be read and is passed over", stream=self.stream, why=str(error))
            return
        reached = self._cursor.sequence(writer)
        if frame.last <= reached:
            if not self._open:
                self._droppable = item.seq
            return
        open_frames = self._open
        if len(open_frames) >= OPEN_FRAMES_MAX and open_frames[-1].writer == writer:
            open_frames[-1].last = frame.last
        else:
            open_frames.append(OpenFrame(item.seq, writer, frame.last))
        for sequence, payload in enumerate(frame.payloads, start=frame.first):
            if sequence > reached:
                self._entries.append(Delivery(self.stream, writer, sequence, payload))
