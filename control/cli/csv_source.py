"""Looks at a CSV file once, before anything is sent: its hash, encoding, delimiter and columns.

One pass over the octets gives SHA-256 and the encoding: a byte order mark, else UTF-16 by its
zeros, else UTF-8, else Windows-1252. A file that is mostly UTF-8 with a broken octet is an error
that names the line, never quietly read as Windows-1252: every umlaut in it would be mailed
wrong. The delimiter is the one of `,` `;` and tab that gives a column of addresses. Memory is flat.
"""

import codecs
import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from control.cli.columns import Column, find_address_column, name_columns
from control.cli.errors import InputError

BLOCK_OCTETS = 1024 * 1024
SAMPLE_CHARS = 64 * 1024  # what the delimiter is judged by
SAMPLE_RECORDS = 50
DELIMITERS = ",;\t"

# Files that people take for CSV. The octets they begin with, and what to tell.
_NO_CSV = (
    (b"PK\x03\x04", "is an Excel or OpenDocument workbook (or a zip file); save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook; save it as CSV"),
    (b"\x1f\x8b", "is compressed; unpack it first"),
    (b"%PDF", "is a PDF file, not CSV"),
    (b"\xff\xfe\x00\x00", "is UTF-32; save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "is UTF-32; save it as UTF-8"),
)


class CsvSource(Struct, frozen=True):
    """What a CSV file is, as found at one time. `header_lines` = physical lines before the first record."""

    path: Path
    size: int  # octets
    sha256: str
    encoding: str
    delimiter: str
    header_lines: int
    columns: tuple[Column, ...]
    address: Column

    @property
    def fields(self) -> tuple[str, ...]:
        """What templates may use: every column but the address (that one is always `email`)."""
        return tuple(column.field for column in self.columns if column is not self.address)


def inspect_csv(path: Path, *, address_column: str | None = None) -> CsvSource:
    """Look at the file. Raises InputError, naming file and place, for whatever cannot be read as a list."""
    size, sha256, encoding = _scan(path)
    with path.open(encoding=encoding, newline="") as file:
        sample = file.read(SAMPLE_CHARS)
    if not sample.strip():
        raise InputError(f"{path}: is empty")
    skipped, body = _skip_blank_lines(sample)
    delimiter, body, told = _read_told_delimiter(body)
    if not delimiter:
        delimiter = max(DELIMITERS, key=lambda candidate: _score(body, candidate))
    header, header_lines = _read_header(body, delimiter)
    columns = name_columns(header, f"{path} line {skipped + told + 1}")
    return CsvSource(
        path=path,
        size=size,
        sha256=sha256,
        encoding=encoding,
        delimiter=delimiter,
        header_lines=skipped + told + header_lines,
        columns=columns,
        address=find_address_column(columns, f"{path} line {skipped + told + 1}", address_column),
    )


# --- octets -----------------------------------------------------------------------------------------------


def _scan(path: Path) -> tuple[int, str, str]:
    """Size, SHA-256 and encoding."""
    digest = hashlib.sha256()
    size, broken, encoding = 0, False, ""
    decoder: codecs.IncrementalDecoder | None = None
    for block in _read_blocks(path):
        if decoder is None:
            encoding = _guess_encoding(block, path)
            decoder = codecs.getincrementaldecoder(encoding)()
        size += len(block)
        digest.update(block)
        try:
            if not broken:
                decoder.decode(block)
        except UnicodeDecodeError:
            broken = True
    if decoder is None:
        raise InputError(f"{path}: is empty")
    try:
        if not broken:
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        broken = True
    if broken:
        encoding = _judge_broken(path, encoding)
    return size, digest.hexdigest(), encoding


def _read_blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_OCTETS):
                yield block
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _guess_encoding(start: bytes, path: Path) -> str:
    for magic, problem in _NO_CSV:
        if start.startswith(magic):
            raise InputError(f"{path}: {problem}")
    if start.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    sample = start[:4096]
    zeros_even, zeros_odd = sample[::2].count(0), sample[1::2].count(0)
    if zeros_even + zeros_odd > len(sample) // 4:  # a header in Latin letters has a zero in every pair
        return "utf-16-le" if zeros_odd > zeros_even else "utf-16-be"
    return "utf-8"


def _judge_broken(path: Path, encoding: str) -> str:
    """The file is not what it seemed: Windows-1252 if that fits better, else an error with the line."""
    if encoding != "utf-8":
        raise InputError(f"{path} line {_first_broken_line(path, encoding)}: is not {encoding.upper()}")
    good = bad = line = 0
    bad_line = 0
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    for block in _read_blocks(path):
        for text in decoder.decode(block).splitlines(keepends=True):
            escaped = [char for char in text if "\udc80" <= char <= "\udcff"]
            good += sum(char > "\x7f" for char in text) - len(escaped)
            bad += len(escaped)
            if escaped and not bad_line:
                bad_line = line + 1
            line += text.endswith(("\n", "\r"))
    bad_line = bad_line or line + 1  # a sequence cut off by the end of the file
    if good >= max(bad, 1):
        raise InputError(
            f"{path} line {bad_line}: is not UTF-8, though other lines are; mend or convert the file"
        )
    if undefined := _first_broken_line(path, "cp1252"):
        raise InputError(f"{path} line {undefined}: is neither UTF-8 nor Windows-1252; save it as UTF-8")
    return "cp1252"


def _first_broken_line(path: Path, encoding: str) -> int:
    """The line with the first octets that the encoding does not know; 0 = there are none."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    try:
        for block in _read_blocks(path):
            line += decoder.decode(block).count("\n")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return line + error.object[: error.start].decode(encoding, "replace").count("\n")
    return 0


# --- text -------------------------------------------------------------------------------------------------


def _skip_blank_lines(sample: str) -> tuple[int, str]:
    count = start = 0
    for line in io.StringIO(sample, newline=""):
        if line.strip():
            break
        count += 1
        start += len(line)
    return count, sample[start:]


def _read_told_delimiter(body: str) -> tuple[str, str, int]:
    """Spreadsheets may write `sep=;` above the header: (delimiter or "", the rest, lines taken)."""
    first, _, rest = body.partition("\n")
    told = first.strip("\r\ufeff ")
    if told.lower().startswith("sep=") and len(told) == 5 and told[4] in DELIMITERS:
        return told[4], rest, 1
    return "", body, 0


def _score(body: str, delimiter: str) -> tuple[bool, int, int]:
    """How much a delimiter looks right: finds an address column; records as wide as the header; width."""
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter)
    try:
        header = next(reader)
        wide = sum(
            len(record) == len(header) > 1 for record, _ in zip(reader, range(SAMPLE_RECORDS), strict=False)
        )
    except csv.Error:
        return False, 0, 0
    try:
        find_address_column(name_columns(header, ""), "")
    except InputError:
        return False, wide, len(header)
    return True, wide, len(header)


def _read_header(body: str, delimiter: str) -> tuple[list[str], int]:
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter)
    try:
        header = next(reader)
    except csv.Error:
        header = []
    return header, reader.line_num
