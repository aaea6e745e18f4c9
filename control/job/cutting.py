"""Cuts the list into chunks of the size that is wanted at the moment, or as the ledger says they were.

The same list gives the same chunks when it is cut at the same places, so the ledger keeps those and not the
chunks. A chunk that would be larger than the bus takes gets fewer people, and the others come next. A list
that does not have the people which the ledger tells of is a CutError: nothing is guessed.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec
from msgspec import Struct

from control.cli.people import Person, Refused
from engine.model.envelope import CHUNK_BYTES_MAX, Chunk, ChunkEntry

NUMBER_DIGITS_MAX = 9  # a thousand million chunks; ids come from others, and int() refuses long texts
_FRAME_OCTETS = 256  # id, campaign, expiry and lengths around the entries, generously

_measure = msgspec.msgpack.Encoder()


class CutError(Exception):
    """The list is not the one that the ledger was written over."""


class Cut(Struct, frozen=True):
    """One chunk, and the places in the list that it came from."""

    chunk: Chunk
    records: tuple[int, ...]

    @property
    def first(self) -> int:
        return self.records[0]

    @property
    def last(self) -> int:
        return self.records[-1]


class Cutter:
    """Reads the list once. Every `Refused` goes to `refuse`."""

    def __init__(
        self,
        people: Iterable[Person | Refused],
        *,
        job: str,
        campaign: int,
        expires_at: float,
        refuse: Callable[[Refused], object] = lambda _: None,
    ) -> None:
        self.people = 0  # in chunks so far
        self._people: Iterator[Person | Refused] = iter(people)
        self._job = job
        self._campaign = campaign
        self._expires_at = expires_at
        self._refuse = refuse
        self._ahead: list[ChunkEntry] = []
        self._number = 0

    def next(self, size: int) -> Cut | None:
        """The next chunk, of at most `size` people; None at the end of the list."""
        assert size > 0
        self._fill(size)
        count = min(size, len(self._ahead))
        while count > 1 and not _fits(self._ahead[:count]):
            count = (count + 1) // 2
        return self._make(count) if count else None

    def again(self, first: int, last: int, count: int) -> Cut:
        """A chunk as it was cut before. Raises CutError."""
        self._fill(count)
        if len(self._ahead) >= count:
            cut = self._make(count)
            if (cut.first, cut.last) == (first, last):
                return cut
        raise CutError(f"the list has not the {count} people in its lines that chunk {self._number} had")

    def _fill(self, size: int) -> None:
        while len(self._ahead) < size:
            person = next(self._people, None)
            if person is None:
                return
            if type(person) is Refused:  # isinstance costs five times as much on Structs
                self._refuse(person)
                continue
            assert type(person) is Person
            self._ahead.append(ChunkEntry(person.record, person.recipient, person.row))

    def _make(self, count: int) -> Cut:
        entries = tuple(self._ahead[:count])
        del self._ahead[:count]
        self._number += 1
        self.people += count
        chunk = Chunk(chunk_id(self._job, self._number), self._campaign, self._expires_at, entries)
        return Cut(chunk, tuple(entry.subscriber for entry in entries))


def chunk_id(job: str, number: int) -> str:
    return f"{job}-{number:06d}"


def chunk_number(job: str, chunk: str) -> int | None:
    """The number of a chunk of this job; None for any other chunk, also for another spelling of ours."""
    head, _, digits = chunk.rpartition("-")
    if head != job or len(digits) > NUMBER_DIGITS_MAX or not digits.isdecimal():
        return None
    number = int(digits)
    return number if chunk == chunk_id(job, number) else None


def _fits(entries: list[ChunkEntry]) -> bool:
    return len(_measure.encode(entries)) <= CHUNK_BYTES_MAX - _FRAME_OCTETS
