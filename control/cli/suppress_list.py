"""Reads a list of addresses or hashes for `emass suppress import`, and puts their keys in order.

A file is read as a stream: a CSV file with a column of addresses, else one address or hash a line. What is
neither is refused with its line. The keys go into 256 piles by their first octet, so that what is written
afterwards lies together in the store: random order would rewrite each page hundreds of times. Piles are
small buffers and nameless files that end with the process. Raises InputError when a file cannot be read,
CliError when a pile cannot be written.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from msgspec import Struct

from control.cli.csv_source import inspect_csv
from control.cli.errors import CliError, InputError
from control.cli.people import ADDRESS_SHOWN_MAX, People, Refused
from control.cli.suppress_export import HASHES_TITLE
from control.cli.verdicts import VerdictFile
from engine.model.address import AddressError, parse_address
from engine.mta.policy.suppression import ORDER_KEYS_MAX, SuppressionError
from engine.mta.policy.suppression_codec import ADDRESS, HASH_OCTETS, AddressHasher, hash_key

LINE_OCTETS_MAX = 4_096  # no address is longer than 254; the rest of such a line is skipped
PILE_OCTETS = 256 * 1024  # of each pile in memory: 64 MB in all
LOOK_ROWS = 5_000  # rows between looks at the clock

Show = Callable[[str, float], None]  # what is done, and which share of it


class Tally(Struct):
    """Rows that were read, those that gave a key, and how many of these were hashes already."""

    rows: int = 0
    keys: int = 0
    hashes: int = 0


class Piles:
    """Address keys by their first octet, in memory and then in nameless files; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.keys = 0  # that were cut, doubled ones once
        self._folder = folder
        self._memory = [bytearray() for _ in range(256)]
        self._files: list[IO[bytes] | None] = [None] * 256

    def add(self, key: bytes) -> None:
        pile = self._memory[key[1]]
        pile += key[1:]
        if len(pile) >= PILE_OCTETS:
            self._spill(key[1])

    def cut(self) -> Iterator[tuple[bytes, ...]]:
        """All keys, in order, in portions for one order each."""
        for number in range(256):
            octets = bytes(self._memory[number])
            file = self._files[number]
            if file is not None:
                file.seek(0)
                octets += file.read()
            places = range(0, len(octets), HASH_OCTETS)
            keys = sorted({ADDRESS + octets[place : place + HASH_OCTETS] for place in places})
            self.keys += len(keys)
            for start in range(0, len(keys), ORDER_KEYS_MAX):
                yield tuple(keys[start : start + ORDER_KEYS_MAX])

    def _spill(self, number: int) -> None:
        try:
            file = self._files[number]
            if file is None:
                file = self._files[number] = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            file.write(self._memory[number])
        except OSError as error:
            raise CliError(f"{self._folder}: cannot be written: {error.strerror}") from error
        self._memory[number].clear()

    def __enter__(self) -> "Piles":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            if file is not None:
                file.close()


def read_into(
    piles: Piles, path: Path, column: str | None, hasher: AddressHasher, verdicts: VerdictFile, show: Show
) -> Tally:
    """Read the whole file. Raises InputError when it cannot be read at all, or holds nothing usable."""
    rows = _csv_rows(path, column) if path.suffix.lower() == ".csv" else _lines(path, column, hasher)
    size = max(1, path.stat().st_size) if path.exists() else 1
    tally = Tally()
    key_of, add = hasher.key_of, piles.add
    for recipient, refused, octets in rows:
        tally.rows += 1
        if refused is None:
            add(key_of(recipient))
            tally.keys += 1
        elif (key := _as_hash(refused.address)) is not None:
            add(key)
            tally.keys += 1
            tally.hashes += 1
        else:
            verdicts.write(refused)
        if tally.rows % LOOK_ROWS == 0:
            show(f"reading {path.name}: {tally.rows:,} lines", octets / size)
    if tally.keys == 0:
        raise InputError(f"{path}: holds no address and no hash that can be used")
    return tally


Row = tuple[str, Refused | None, int]  # an address, or why it is none; octets read so far


def _csv_rows(path: Path, column: str | None) -> Iterator[Row]:
    source = inspect_csv(path, address_column=column)
    people = People(source, (), doubles=True)
    total = max(1, source.size)
    hashes = False
    try:
        for number, item in enumerate(people):
            octets = (
                number * total // max(1, people.total_estimate) if number % LOOK_ROWS == LOOK_ROWS - 1 else 0
            )
            if isinstance(item, Refused):
                hashes = hashes or _as_hash(item.address) is not None
                yield "", item, octets
            else:
                yield item.recipient, None, octets
    except InputError:
        if not hashes:  # with hashes alone there is no address, and yet all is well
            raise


def _lines(path: Path, column: str | None, hasher: AddressHasher) -> Iterator[Row]:
    if column is not None:
        raise InputError(f"{path}: only a CSV file (FILE.csv) has columns")
    octets = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_OCTETS_MAX), b""), 1):
                octets += len(line)
                if len(line) == LINE_OCTETS_MAX and not line.endswith(b"\n"):
                    octets += _skip_line(file)
                    yield "", Refused(number, "", "is too long for an address"), octets
                    continue
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError:
                    yield "", Refused(number, "", "is not UTF-8"), octets
                    continue
                if not text:
                    continue
                if text.startswith("# "):
                    _check_title(path, text, hasher)
                    continue
                try:
                    yield str(parse_address(text)), None, octets
                except AddressError as error:
                    yield "", Refused(number, text[:ADDRESS_SHOWN_MAX], f"address {error}"), octets
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _check_title(path: Path, text: str, hasher: AddressHasher) -> None:
    if text.startswith(HASHES_TITLE) and text.removeprefix(HASHES_TITLE) != hasher.check.hex():
        raise InputError(f"{path}: its hashes were made under another master key and would find nobody here")


def _skip_line(file: IO[bytes]) -> int:
    skipped = 0
    while part := file.readline(LINE_OCTETS_MAX):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _as_hash(text: str) -> bytes | None:
    try:
        return hash_key(text)
    except SuppressionError:
        return None
