"""Appends to one stream in the name of one member: frames, one at a time, each exactly once.

The member's last frame lies under its own subject, and the server is told which one that has to be
(`Nats-Expected-Last-Subject-Sequence`); so a frame whose answer was lost can be sent again without being
kept twice: when it was kept, the server says that the last one is another, and we look whether it is ours.
The count goes on when the tail was dropped behind everybody's cursor, or forgotten, and when something that
is no frame lies behind it. Publishes of one stream wait for each other; different streams do not.

On trouble: BusFull before the first frame of a publish is kept, never after: then the rest waits for room.
A cancelled publish leaves the tail unknown; the next one looks.
"""

from collections.abc import Sequence

import structlog
import trio

from engine.bus.api import BusFull, is_work_queue
from engine.bus.nats_cursors import Cursors
from engine.bus.nats_frames import ENTRY_OCTETS, FRAME_OCTETS, Frame, cut, frame_of, pack_frame
from engine.bus.nats_jetstream import (
    EXPECTED_LAST,
    WRONG_LAST_SEQUENCE,
    JetStream,
    Refused,
    StreamSpec,
)
from engine.bus.nats_names import stream_subject

MESSAGE_OCTETS = 8 * 1024  # of max_payload, for subject, headers and the frame's head
FRAME_COST = 512  # what a message costs beside its data: a record's head, subject, header
ROOM_SECONDS = 2.0  # a consumer drops what it has acknowledged this soon
ROOM_LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 1.0  # between attempts for the rest of a publish that has begun

log = structlog.get_logger("bus")


class Writer:
    """This member's part of one stream."""

    def __init__(
        self, jetstream: JetStream, cursors: Cursors, stream: str, member: str, spec: StreamSpec
    ) -> None:
        self.stream = stream
        self.spec = spec
        self.published = False
        self._jetstream = jetstream
        self._cursors = cursors
        self._member = member
        self.subject = stream_subject(stream, member)
        self._lock = trio.Lock()
        self._known = False
        self._sequence = 0  # of the last entry
        self._last = 0  # JetStream's sequence of the last frame; 0 = there is none
        self._last_id = b""

    def __repr__(self) -> str:
        return f"<Writer of {self.stream}: {self._sequence}{'' if self._known else ', unsure'}>"

    async def publish(self, payloads: Sequence[bytes]) -> int:
        """Append; returns the last sequence. Raises BusFull, ValueError."""
        link = self._jetstream.link
        if not link.generation:
            await link.wait_online()  # no server has said yet how much it takes
        octets_max = link.max_payload - MESSAGE_OCTETS
        for payload in payloads:
            if len(payload) > octets_max:
                raise ValueError(
                    f"a payload has {len(payload)} octets and the server takes {octets_max}: "
                    "raise max_payload in nats-server's configuration"
                )
        async with self._lock:
            known, self._known = self._known, False
            if not known:
                await self._look()
            await self._append(payloads, min(FRAME_OCTETS, octets_max))
            self._known = True
            self.published = self.published or bool(payloads)
            return self._sequence

    async def tail(self) -> int:
        """The last sequence of this member in the stream."""
        async with self._lock:
            if not self._known:
                await self._look()
                self._known = True
            return self._sequence

    async def _append(self, payloads: Sequence[bytes], octets_max: int) -> None:
        if sum(map(len, payloads)) + ENTRY_OCTETS * len(payloads) > octets_max:
            await self._check_room(payloads)
        begun = False
        at = 0
        while at < len(payloads):
            frame = next(cut(payloads[at:], self._sequence + 1, octets_max))
            await self._keep(frame, begun=begun)
            begun = True
            at += len(frame.payloads)

    async def _keep(self, frame: Frame, *, begun: bool) -> None:
        """Have one frame kept. Afterwards the tail is this frame."""
        room_until = trio.current_time() + ROOM_SECONDS
        while True:
            packed = pack_frame(frame)
            try:
                seq = await self._jetstream.publish(
                    self.spec, self.subject, packed, {EXPECTED_LAST: str(self._last)}
                )
                break
            except Refused as refused:
                if refused.number == WRONG_LAST_SEQUENCE:
                    await self._look()
                    if self._last_id == frame.id:
                        return
                    frame = Frame(frame.id, self._sequence + 1, frame.payloads)
                elif not refused.full:
                    raise
                elif begun:
                    log.warning("the rest of a publish waits for room", stream=self.stream)
                    await trio.sleep(PATIENCE_SECONDS)
                elif trio.current_time() < room_until and await self._room_is_coming(
                    len(packed) + FRAME_COST
                ):
                    await trio.sleep(ROOM_LOOK_SECONDS)
                else:
                    self._known = True
                    raise BusFull(f"stream {self.stream}: {refused}") from refused
        self._sequence, self._last, self._last_id = frame.last, seq, frame.id

    async def _look(self) -> None:
        """Learn the tail from the server. The count never goes back while this member lives."""
        message = await self._jetstream.last(self.spec, self.subject)
        last = 0 if message is None else message.seq  # whatever lies there
        frame = None
        while message is not None and (frame := frame_of(message.data)) is None:
            log.error("an entry cannot be read and is passed over", stream=self.stream, of=self._member)
            message = await self._jetstream.preceding(self.spec, self.subject, message.seq)
        if frame is not None:
            if frame.last < self._sequence and frame.id != self._last_id:
                log.error("the bus has forgotten entries", stream=self.stream, of=self._member)
            self._sequence = max(self._sequence, frame.last)
            self._last, self._last_id = last, frame.id
            return
        self._last, self._last_id = last, b""
        if not self._sequence:  # dropped behind the cursors, if there ever was one
            cursor = await self._cursors.newest(self.stream)
            if cursor is not None:
                self._sequence = cursor.sequence(self._member)

    async def _check_room(self, payloads: Sequence[bytes]) -> None:
        """Raises BusFull when the stream's cap leaves no room for all of a large publish."""
        needed = sum(map(len, payloads)) + (ENTRY_OCTETS + FRAME_COST) * len(payloads)
        room_until = trio.current_time() + ROOM_SECONDS
        while not await self._has_room(needed):
            if trio.current_time() >= room_until or not await self._room_is_coming(needed):
                self._known = True
                raise BusFull(f"stream {self.stream} has no room for {needed} octets")
            await trio.sleep(ROOM_LOOK_SECONDS)

    async def _has_room(self, octets: int) -> bool:
        info = await self._jetstream.info(self.spec)
        return self.spec.max_bytes <= 0 or info.state.bytes + octets <= self.spec.max_bytes

    async def _room_is_coming(self, octets: int) -> bool:
        """Whether there is room by now, or the consumer of a work queue has acknowledged what lies there."""
        if await self._has_room(octets):
            return True
        if not is_work_queue(self.stream):
            return False
        info = await self._jetstream.info(self.spec)
        cursor = await self._cursors.newest(self.stream)
        return cursor is not None and info.state.last_seq >= cursor.low >= info.state.first_seq > 0
