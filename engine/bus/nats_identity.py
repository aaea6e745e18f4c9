"""Which bus this is: a random text in table `config`, kept when the bus was new.

A server whose store was lost or put aside looks like the one before in everything but this. Read once for
each connection, since no bus becomes another under a connection. Who finds none and may not write it waits
until an operator has. A row that cannot be read is none: the bus gets another text, and is read as a new one.
On trouble: see nats_jetstream.
"""

import structlog
import trio

from engine.bus.nats_frames import Row, new_id, pack_row, unpack_row
from engine.bus.nats_jetstream import (
    EXPECTED_LAST,
    WRONG_LAST_SEQUENCE,
    JetStream,
    Message,
    Refused,
    StreamSpec,
)
from engine.bus.nats_names import table_name, table_subject, table_subjects

CONFIG_TABLE = "config"
BUS_KEY = "bus"
MAKE_SECONDS = 2.0  # who may not write it gets no answer

_SPEC = StreamSpec(table_name(CONFIG_TABLE), table_subjects(CONFIG_TABLE), one_per_subject=True)
_SUBJECT = table_subject(CONFIG_TABLE, BUS_KEY)

log = structlog.get_logger("bus")


class Identity:
    """The id of the bus behind one link."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream
        self._generation = 0
        self._id = ""
        self._unreadable = 0  # the sequence of what was complained of

    def __repr__(self) -> str:
        return f"<Identity {self._id or 'not known yet'}>"

    async def read(self) -> str:
        """The id; made if there is none."""
        link = self._jetstream.link
        while not self._id or self._generation != link.generation:
            generation = link.generation
            message = await self._jetstream.last(_SPEC, _SUBJECT)
            value = self._value_of(message) if message is not None else None
            if value:
                self._id, self._generation = value.decode(errors="replace"), generation
                break
            with trio.move_on_after(MAKE_SECONDS):
                await self._make(0 if message is None else message.seq)
        return self._id

    def _value_of(self, message: Message) -> bytes | None:
        try:
            return unpack_row(message.data).value
        except ValueError as error:  # a server sends its answers wherever a request says, also here
            if self._unreadable != message.seq:
                self._unreadable = message.seq
                log.error("the bus's id cannot be read and is made anew", why=str(error))
            return None

    async def _make(self, expected: int) -> None:
        """Make it, in place of the row with that sequence (0 = none)."""
        row = Row(new_id(), self._jetstream.link.member, new_id().hex().encode())
        try:
            await self._jetstream.publish(_SPEC, _SUBJECT, pack_row(row), {EXPECTED_LAST: str(expected)})
        except Refused as refused:
            if refused.number != WRONG_LAST_SEQUENCE:  # else another was first
                raise
