"""Which bus this is: a random text in table `config`, kept when the bus was new.

A server whose store was lost or put aside looks like the one before in everything but this. Read once for
each connection, since no bus becomes another under a connection. Who finds none and may not write it waits
until an operator has. On trouble: see nats_jetstream.
"""

import trio

from engine.bus.nats_frames import Row, new_id, pack_row, unpack_row
from engine.bus.nats_jetstream import EXPECTED_LAST, WRONG_LAST_SEQUENCE, JetStream, Refused, StreamSpec
from engine.bus.nats_names import table_name, table_subject, table_subjects

CONFIG_TABLE = "config"
BUS_KEY = "bus"
MAKE_SECONDS = 2.0  # who may not write it gets no answer

_SPEC = StreamSpec(table_name(CONFIG_TABLE), table_subjects(CONFIG_TABLE), one_per_subject=True)
_SUBJECT = table_subject(CONFIG_TABLE, BUS_KEY)


class Identity:
    """The id of the bus behind one link."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream
        self._generation = 0
        self._id = ""

    def __repr__(self) -> str:
        return f"<Identity {self._id or 'not known yet'}>"

    async def read(self) -> str:
        """The id; made if there is none."""
        link = self._jetstream.link
        while not self._id or self._generation != link.generation:
            generation = link.generation
            message = await self._jetstream.last(_SPEC, _SUBJECT)
            value = unpack_row(message.data).value if message is not None else None
            if value:
                self._id, self._generation = value.decode(errors="replace"), generation
                break
            with trio.move_on_after(MAKE_SECONDS):
                await self._make()
        return self._id

    async def _make(self) -> None:
        row = Row(new_id(), self._jetstream.link.member, new_id().hex().encode())
        try:
            await self._jetstream.publish(_SPEC, _SUBJECT, pack_row(row), {EXPECTED_LAST: "0"})
        except Refused as refused:
            if refused.number != WRONG_LAST_SEQUENCE:  # else another was first
                raise
