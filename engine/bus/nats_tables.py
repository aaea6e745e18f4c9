"""Tables over NATS: one JetStream stream each, one message per key, the last one counts.

Creating a key is the server's doing: the message is kept only when the key's subject has none (or the
deletion that we saw), so of many creators one wins. Every row carries a random id, by which a creation
whose answer was lost is known as ours. A deletion is a row without a value, so that watches see it; the
member that deleted forgets it after the retention. A put carries its id for the server too, so that one
that is sent twice does not come back behind a later one.

A watch reads the stream on from a sequence, and its position says of which bus and when it last heard. On
trouble: see nats_jetstream; PositionLost when this is another bus or one restored from before the position,
or when the watch stood still for longer than deletions are kept.
"""

from collections import deque

import msgspec
import structlog
import trio
from msgspec import Struct

from engine.bus.api import PositionLost
from engine.bus.nats_frames import Row, new_id, pack_row, unpack_row
from engine.bus.nats_identity import Identity
from engine.bus.nats_jetstream import (
    EXPECTED_LAST,
    MESSAGE_ID,
    WRONG_LAST_SEQUENCE,
    JetStream,
    Message,
    Refused,
    StreamInfo,
    StreamSpec,
)
from engine.bus.nats_names import key_of, table_name, table_subject, table_subjects
from engine.bus.nats_reader import PULL_MESSAGES, Item, Reader, read_all
from engine.runtime.clock import Clock

UNREADABLE = Row(b"", "", None)

log = structlog.get_logger("bus")


class Tables:
    """All tables, for one member."""

    def __init__(
        self,
        jetstream: JetStream,
        identity: Identity,
        member: str,
        clock: Clock,
        *,
        retention_seconds: float,
    ) -> None:
        self.jetstream = jetstream
        self.identity = identity
        self.clock = clock
        self.retention_seconds = retention_seconds
        self._member = member
        self._deleted_in: set[str] = set()

    @staticmethod
    def spec(table: str) -> StreamSpec:
        return StreamSpec(table_name(table), table_subjects(table), one_per_subject=True)

    async def read(self, table: str, key: str) -> bytes | None:
        found = await self._row(self.spec(table), table_subject(table, key))
        return found[1].value if found else None

    async def read_all(self, table: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for item in await read_all(self.jetstream, self.spec(table)):
            row = _row_of(item)
            if row is UNREADABLE:
                continue
            if row.value is None:
                found.pop(key_of(item.subject), None)
            else:
                found[key_of(item.subject)] = row.value
        return found

    async def put(self, table: str, key: str, value: bytes) -> None:
        row = Row(new_id(), self._member, value)
        headers = {MESSAGE_ID: row.id.hex()}
        await self.jetstream.publish(self.spec(table), table_subject(table, key), pack_row(row), headers)

    async def create(self, table: str, key: str, value: bytes) -> bytes | None:
        spec, subject = self.spec(table), table_subject(table, key)
        row = Row(new_id(), self._member, value)
        expected = 0
        while not await self._keep(spec, subject, row, expected):
            expected, there = await self._row(spec, subject) or (0, None)
            if there is not None and there.id == row.id:
                return None
            if there is not None and there.value is not None:
                return there.value
        return None

    async def delete(self, table: str, key: str) -> None:
        spec, subject = self.spec(table), table_subject(table, key)
        gone = Row(new_id(), self._member, None)
        while True:
            found = await self._row(spec, subject)
            if found is None or found[1].value is None or found[1].member != self._member:
                return
            self._deleted_in.add(table)
            if await self._keep(spec, subject, gone, found[0]):
                return

    async def forget_deletions(self) -> None:
        """Drop this member's deletions that are older than the retention, of tables it deleted from."""
        before_ns = int((self.clock.now() - self.retention_seconds) * 1e9)
        for table in list(self._deleted_in):
            spec = self.spec(table)
            left = False
            for item in await read_all(self.jetstream, spec):
                row = _row_of(item)
                if row.value is None and row.member == self._member:
                    if item.kept_at_ns < before_ns:
                        left |= not await self.jetstream.purge(spec, item.seq + 1, item.subject)
                    else:
                        left = True
            if not left:
                self._deleted_in.discard(table)

    async def _keep(self, spec: StreamSpec, subject: str, row: Row, expected: int) -> bool:
        """Keep a row if the key still stands at that sequence; whether it does."""
        try:
            await self.jetstream.publish(spec, subject, pack_row(row), {EXPECTED_LAST: str(expected)})
        except Refused as refused:
            if refused.number != WRONG_LAST_SEQUENCE:
                raise
            return False
        return True

    async def _row(self, spec: StreamSpec, subject: str) -> tuple[int, Row] | None:
        message = await self.jetstream.last(spec, subject)
        return None if message is None else (message.seq, _row_of(message))


class Position(Struct, frozen=True, array_like=True):
    """How far a watch came: on which bus, to which change, and when it last heard."""

    bus: str
    seq: int
    heard_at: float


class NatsWatch:
    """The changes of one table."""

    def __init__(self, tables: Tables, table: str, after: bytes) -> None:
        self.table = table
        self._tables = tables
        self._reader = Reader(tables.jetstream, tables.spec(table), self._place, quiet=self._is_quiet)
        self._items: deque[Item] = deque()
        now = tables.clock.now()
        self._position = msgspec.msgpack.decode(after, type=Position) if after else Position("", 0, now)

    def __repr__(self) -> str:
        return f"<NatsWatch of {self.table}: at {self._position.seq}>"

    @property
    def position(self) -> bytes:
        return msgspec.msgpack.encode(self._position) if self._position.bus else b""

    def __aiter__(self) -> "NatsWatch":
        return self

    async def __anext__(self) -> tuple[str, bytes | None]:
        await trio.lowlevel.checkpoint()
        while True:
            if not self._items:
                self._items.extend(await self._reader.next(PULL_MESSAGES))
            item = self._items.popleft()
            self._position = Position(self._position.bus, item.seq, self._tables.clock.now())
            row = _row_of(item)
            if row is not UNREADABLE:  # what was known of the key holds
                return key_of(item.subject), row.value

    def _is_quiet(self) -> None:
        """Nothing has changed: the watch does not stand still, the table does."""
        self._position = Position(self._position.bus, self._position.seq, self._tables.clock.now())

    async def _place(self, info: StreamInfo) -> int:
        bus = await self._tables.identity.read()
        at, now = self._position, self._tables.clock.now()
        if at.bus:
            silent_seconds = now - at.heard_at
            if at.bus != bus or at.seq > info.state.last_seq:
                raise PositionLost(f"table {self.table} was made anew or restored since")
            if silent_seconds > self._tables.retention_seconds:
                raise PositionLost(f"table {self.table} was not watched for {silent_seconds:.0f} s")
        self._position = Position(bus, at.seq, now)
        return at.seq


def _row_of(message: Item | Message) -> Row:
    """The row of a message; UNREADABLE for what no member of ours wrote.

    A server sends its answers wherever a request says, also to the subject of a row.
    """
    try:
        key_of(message.subject)
        return unpack_row(message.data)
    except ValueError as error:
        log.error("a row cannot be read and counts as none", subject=message.subject[:200], why=str(error))
        return UNREADABLE
