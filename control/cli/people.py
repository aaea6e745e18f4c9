"""Reads the recipients of a CSV file as a stream: a `Person` or a `Refused` for every record.

Memory is flat but for the digests that find doubled addresses (23 octets each). A record that
cannot be used (no address, an invalid or doubled one, cells that do not fit the columns, a quote
that is never closed, NUL bytes, overlong fields) is refused with the physical line it begins on,
and the rest goes on; after a broken quote reading starts again on the next line. Two passes over the
same file give the same records in the same order, which is what `--resume` builds on.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from operator import itemgetter

from msgspec import Struct

from control.cli.csv_source import CsvSource
from control.cli.digest_set import DIGEST_OCTETS, DigestSet
from control.cli.errors import InputError
from engine.model.address import AddressError, canonical_v1, parse_address

FIELD_CHARS_MAX = 32_767  # what a cell of Excel holds; a longer one is an unclosed quote or an attack
RECORD_CHARS_MAX = 100_000  # x 4 octets of UTF-8 still leaves room in a chunk of 512 KB
BUFFER_OCTETS = 256 * 1024
ADDRESS_SHOWN_MAX = 320  # characters of a refused address that the verdict repeats


class Person(Struct, frozen=True, array_like=True, gc=False):
    """One usable record: `record` numbers all records from 1, refused ones too; `row` as asked for."""

    line: int
    record: int
    recipient: str
    row: tuple[str, ...]
    domain: str


class Refused(Struct, frozen=True, array_like=True, gc=False):
    """One record that is not used: the line it begins on, its address as written, why."""

    line: int
    address: str
    reason: str


class _BrokenRecord(Exception):
    """Leaves the csv reader when a record grows beyond RECORD_CHARS_MAX."""


class People:
    """The records of a CSV source; iterate once. Counts what it has seen.

    `fields` are the template names whose cells make up each row, in that order; default: all of the
    source's. Iterating raises InputError if the file cannot be read as `source` says any more, and at
    the end if it held no usable address.
    """

    def __init__(
        self, source: CsvSource, fields: Sequence[str] | None = None, *, doubles: bool = False
    ) -> None:
        """With `doubles` an address may stand there more than once; then memory is flat."""
        self.source = source
        self.accepted = self.refused = 0
        places = {column.field: column.index for column in source.columns}
        wanted = source.fields if fields is None else fields
        self._pick = _make_picker([places[field] for field in wanted])
        self._seen = DigestSet()
        self._doubles = doubles
        self._octets_read: Callable[[], int] = lambda: 0
        # The lines of the record that is being read, and those to be read again after a broken one.
        self._line = source.header_lines
        self._pending: list[str] = []
        self._again: list[str] = []
        self._suspect = False

    @property
    def total_estimate(self) -> int:
        """About how many records the file has, from what was read of its octets; for progress bars."""
        seen, octets = self.accepted + self.refused, self._octets_read()
        return seen if octets == 0 else max(seen, round(seen * self.source.size / octets))

    def __iter__(self) -> Iterator[Person | Refused]:
        path = self.source.path
        try:
            with path.open("rb", buffering=0) as raw:
                if path.stat().st_size != self.source.size:
                    raise InputError(f"{path}: has changed since it was looked at")
                self._octets_read = raw.tell
                buffered = io.BufferedReader(raw, BUFFER_OCTETS)
                with io.TextIOWrapper(buffered, encoding=self.source.encoding, newline="") as text:
                    for _ in range(self.source.header_lines):
                        text.readline()
                    yield from self._read(text)
                    self._octets_read = lambda: self.source.size
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: changed while it was read") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        if self.accepted == 0:
            what = (
                f"none of its {self.refused} addresses can be used" if self.refused else "holds no addresses"
            )
            raise InputError(f"{path}: {what}")

    def _read(self, text: io.TextIOWrapper) -> Iterator[Person | Refused]:
        while True:
            reader = csv.reader(self._lines(text), delimiter=self.source.delimiter, strict=True)
            try:
                yield from self._judge_all(reader)
                return
            except (csv.Error, _BrokenRecord) as error:
                # Only the first line is given up: what an unclosed quote swallowed is read again.
                first = self._line - len(self._pending) + 1
                self._again.extend(reversed(self._pending[1:]))
                self._line = first
                self._pending.clear()
                self._suspect = False
                self.refused += 1
                yield Refused(first, "", f"is not CSV: {_explain(error)}")

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        """Physical lines for the csv reader, counted, with what makes them suspect noted."""
        pending = self._pending
        chars = 0
        read = iter(partial(text.readline, RECORD_CHARS_MAX + 1), "")
        while True:
            if self._again:
                line = self._again.pop()
            else:
                line = next(read, "")
                if not line:
                    return
                if len(line) > RECORD_CHARS_MAX and not line.endswith("\n"):
                    _skip_line(text)
            self._line += 1
            pending.append(line)
            if len(line) > FIELD_CHARS_MAX or "\0" in line:
                self._suspect = True
            chars = len(line) if len(pending) == 1 else chars + len(line)
            if chars > RECORD_CHARS_MAX:
                raise _BrokenRecord
            yield line

    def _judge_all(self, reader: Iterator[list[str]]) -> Iterator[Person | Refused]:
        """The loop over all records: what it does is measured in tenths of a microsecond."""
        pending, pick, is_new = self._pending, self._pick, self._seen.add
        width, place = len(self.source.columns), self.source.address.index
        accepted, doubles = self.accepted, self._doubles
        for cells in reader:
            line = self._line - len(pending) + 1
            pending.clear()
            if len(cells) != width or self._suspect:
                if not any(map(str.strip, cells)):
                    continue
                if reason := self._find_flaw(cells):
                    self.refused += 1
                    yield Refused(line, _cell(cells, place), reason)
                    continue
            written = cells[place].strip()
            try:
                address = parse_address(written)
            except AddressError as error:
                if not written and not any(map(str.strip, cells)):
                    continue
                self.refused += 1
                reason = f"address {error}" if written else "address is missing"
                yield Refused(line, written[:ADDRESS_SHOWN_MAX], reason)
                continue
            domain = address.domain
            recipient = f"{address.local}@{domain}"
            # For ASCII, lower case is what canonical_v1 comes to (NFC changes nothing there).
            canonical = recipient.lower().encode() if recipient.isascii() else canonical_v1(address)
            if not doubles and not is_new(blake2b(canonical, digest_size=DIGEST_OCTETS).digest()):
                self.refused += 1
                yield Refused(
                    line, written[:ADDRESS_SHOWN_MAX], "address is doubled: it stands further up, too"
                )
                continue
            self.accepted = accepted = accepted + 1
            yield Person(line, accepted + self.refused, recipient, pick(cells), domain)

    def _find_flaw(self, cells: list[str]) -> str:
        """Why a record is refused for its form; short ones are filled up in place. Empty = it is fine."""
        width = len(self.source.columns)
        if self._suspect:
            self._suspect = False
            if any("\0" in cell for cell in cells):
                return "holds a NUL byte"
            if any(len(cell) > FIELD_CHARS_MAX for cell in cells):
                return f"holds a field of more than {FIELD_CHARS_MAX} characters"
        if len(cells) > width and any(map(str.strip, cells[width:])):
            # Most likely a delimiter inside an unquoted value: every cell behind it is in the wrong column.
            return f"has {len(cells)} cells, the header line has {width}"
        cells += [""] * (width - len(cells))
        return ""


def _make_picker(places: list[int]) -> Callable[[list[str]], tuple[str, ...]]:
    if not places:
        return lambda cells: ()
    if len(places) == 1:
        only = places[0]
        return lambda cells: (cells[only],)
    pick: Callable[[list[str]], tuple[str, ...]] = itemgetter(*places)
    return pick


def _skip_line(text: io.TextIOWrapper) -> None:
    while (part := text.readline(RECORD_CHARS_MAX)) and not part.endswith(("\n", "\r")):
        pass


def _explain(error: Exception) -> str:
    message = str(error)
    if isinstance(error, _BrokenRecord):
        return f"longer than {RECORD_CHARS_MAX} characters, or a quote is not closed"
    if "end of data" in message:
        return "a quote is not closed before the end of the file"
    if "expected after" in message:
        return "text follows a closing quote"
    return message


def _cell(cells: list[str], place: int) -> str:
    return cells[place].strip()[:ADDRESS_SHOWN_MAX] if place < len(cells) else ""
