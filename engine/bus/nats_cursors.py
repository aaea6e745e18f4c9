"""How far each consumer has come: one row of the table `cursors` on the bus itself for each of its streams.

    <consumer>/<stream>/  ->  `low`, and of each writer the last sequence acknowledged, and the day

Not JetStream's own acknowledgements: a consumer that never acknowledges (a report) must read on for ever,
and one that does moves a cursor per writer. `low` is JetStream's sequence up to which everything, of all
writers, is acknowledged: reading begins behind it, and what may be dropped is below the lowest of all
consumers. A row without writers only says that the consumer exists. A writer that was not heard for longer
than entries are kept leaves the row, so that rows stay small while many short-lived members publish.

All of it works with the right to read single messages; who follows a stream needs no other right on this
table. On trouble: see nats_jetstream; a row that cannot be read counts as a consumer at the beginning, for
whom nothing is dropped.
"""

from typing import Annotated

import msgspec
import structlog
from msgspec import Meta, Struct

from engine.bus.nats_frames import Row, new_id, pack_row, unpack_row
from engine.bus.nats_jetstream import JetStream, Message, StreamSpec
from engine.bus.nats_names import dec, enc, table_name, table_subject, table_subjects
from engine.model.decoding import UNDECODABLE

CURSORS_TABLE = "cursors"
CURSORS_SPEC = StreamSpec(table_name(CURSORS_TABLE), table_subjects(CURSORS_TABLE), one_per_subject=True)
DAY_SECONDS = 86_400
KEPT_DAYS = 14  # twice as long as facts are kept

Count = Annotated[int, Meta(ge=0, le=2**62)]  # more is nobody's count, and the next one must fit 64 bits

log = structlog.get_logger("bus")


class Cursor(Struct, frozen=True, array_like=True):
    """One consumer's place in one stream."""

    low: Count = 0
    writers: dict[str, tuple[Count, Count]] = {}

    def sequence(self, writer: str) -> int:
        """The last of the writer's entries that is acknowledged."""
        return self.writers.get(writer, (0, 0))[0]

    def moved(self, writer: str, sequence: int, low: int, day: int) -> "Cursor":
        """The cursor once that is acknowledged, too."""
        kept = {name: value for name, value in self.writers.items() if value[1] >= day - KEPT_DAYS}
        kept[writer] = sequence, day
        return Cursor(low, kept)


class Cursors:
    """The rows, read and written for one member."""

    def __init__(self, jetstream: JetStream, member: str) -> None:
        self._jetstream = jetstream
        self._member = member

    async def register(self, stream: str, consumer: str) -> None:
        """Say that the consumer exists; durable on return."""
        if await self._jetstream.last(CURSORS_SPEC, _subject(stream, consumer)) is None:
            await self.write(stream, consumer, Cursor())

    async def write(self, stream: str, consumer: str, cursor: Cursor) -> None:
        row = Row(new_id(), self._member, msgspec.msgpack.encode(cursor))
        await self._jetstream.publish(CURSORS_SPEC, _subject(stream, consumer), pack_row(row))

    async def read(self, stream: str, consumer: str) -> Cursor:
        """The cursor of a consumer; at the beginning when there is none."""
        message = await self._jetstream.last(CURSORS_SPEC, _subject(stream, consumer))
        return (_cursor_of(message) if message else None) or Cursor()

    async def newest(self, stream: str) -> Cursor | None:
        """The cursor that moved last, of any consumer of the stream; None when it has none."""
        message = await self._jetstream.last(CURSORS_SPEC, _subjects(stream))
        while message is not None and (cursor := _cursor_of(message)) is None:
            message = await self._jetstream.preceding(CURSORS_SPEC, _subjects(stream), message.seq)
        return None if message is None else cursor

    async def of_all(self, stream: str) -> dict[str, Cursor]:
        """Every consumer's cursor."""
        found: dict[str, Cursor] = {}
        message = await self._jetstream.following(CURSORS_SPEC, _subjects(stream), 1)
        while message is not None:
            try:
                found[dec(message.subject.split(".")[3])] = _cursor_of(message) or Cursor()
            except ValueError:
                log.error("a cursor of nobody is passed over", subject=message.subject[:200])
            message = await self._jetstream.following(CURSORS_SPEC, _subjects(stream), message.seq + 1)
        return found


def _subject(stream: str, consumer: str) -> str:
    return table_subject(CURSORS_TABLE, f"{consumer}/{stream}/")


def _subjects(stream: str) -> str:
    """The rows of all consumers of a stream."""
    return f"emass.t.{CURSORS_TABLE}.*.{enc(stream)}.{enc('')}"


def _cursor_of(message: Message) -> Cursor | None:
    """The cursor of a row; None for what no member of ours wrote.

    A server sends its answers wherever a request says, also to the subject of a row.
    """
    try:
        value = unpack_row(message.data).value
        return msgspec.msgpack.decode(value, type=Cursor) if value else Cursor()
    except (ValueError, *UNDECODABLE) as error:
        log.error("a cursor cannot be read", subject=message.subject[:200], why=str(error))
        return None
