"""Lines end in CRLF, content ends at CRLF . CRLF, however the octets come in pieces."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import TypeVar

import pytest
import trio
import trio_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from services.submission.limits import Room
from services.submission.reader import (
    LINE_OCTETS_MAX,
    BareNewline,
    LineTooLong,
    SessionOver,
    StrictReader,
    Unread,
)

T = TypeVar("T")


async def reading(pieces: list[bytes], read: Callable[[StrictReader], Awaitable[T]]) -> T | Exception:
    """What `read` makes of octets that come in these pieces, or the exception that it raises."""
    async with trio_asyncio.open_loop() as loop:

        async def run() -> T | Exception:
            reader = StrictReader(loop)
            found = asyncio.ensure_future(read(reader))
            for piece in pieces:
                if piece:
                    reader.feed_data(piece)
                await asyncio.sleep(0)
            reader.feed_eof()
            try:
                return await found
            except (BareNewline, ConnectionResetError, LineTooLong, SessionOver) as error:
                return error

        made: T | Exception = await trio_asyncio.aio_as_trio(run)()
        return made


def run(pieces: list[bytes], read: Callable[[StrictReader], Awaitable[T]]) -> T | Exception:
    return trio.run(reading, pieces, read)


async def content_and_rest(reader: StrictReader) -> tuple[bytes | Unread, bytes]:
    content = await reader.read_content(1_000, Room(80_000).lease("ann"))
    return content, await reader.read()


TEXT = st.text("ab.\r\n", max_size=40).map(str.encode)


@settings(max_examples=60, deadline=None)
@given(TEXT, st.lists(st.integers(0, 80), max_size=6))
def test_content_comes_back_as_it_was_whatever_its_pieces(text: bytes, cuts: list[int]) -> None:
    message = text + b"\r\n"
    sent = (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\nQUIT\r\n"
    places = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    pieces = [sent[start:end] for start, end in pairwise(places)]
    assert run(pieces, content_and_rest) == (message, b"QUIT\r\n")


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n"])
def test_nothing_else_ends_content(end: bytes) -> None:
    content = (b"a" + end + b"MAIL\r\n").replace(b"\r\n.", b"\r\n")
    sent = b"a" + end + b"MAIL\r\n.\r\nNOOP\r\n"
    assert run([sent], content_and_rest) == (content, b"NOOP\r\n")


def test_an_empty_message_is_one() -> None:
    assert run([b".\r\nQUIT\r\n"], content_and_rest) == (b"", b"QUIT\r\n")


def test_what_is_too_long_is_read_to_its_end_and_thrown_away() -> None:
    sent = b"x" * 5_000 + b"\r\n.\r\nQUIT\r\n"
    for size in (1, 7, 100, 5_000, 10_000):
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)] if size > 1 else [sent]
        assert run(pieces, content_and_rest) == (Unread.TOO_LONG, b"QUIT\r\n")
    assert run([b"x" * 998 + b"\r\n.\r\n"], content_and_rest) == (b"x" * 998 + b"\r\n", b"")


def test_an_end_in_the_middle_is_a_lost_connection() -> None:
    assert isinstance(run([b"half a mess"], content_and_rest), ConnectionResetError)


def test_lines_end_in_crlf() -> None:
    assert run([b"EHLO a", b"\r", b"\n"], lambda reader: reader.readuntil()) == b"EHLO a\r\n"
    for line in (b"EHLO a\n", b"EH\rLO\r\n", b"\n", b"a\r\r\n"):
        assert isinstance(run([line], lambda reader: reader.readuntil()), BareNewline)


def test_an_answer_that_is_too_long_is_read_to_its_end() -> None:
    async def answer_and_next(reader: StrictReader) -> tuple[str, bytes]:
        with pytest.raises(LineTooLong):
            await reader.readline()
        return "too long", await reader.readline()

    for size in (LINE_OCTETS_MAX, 5_000):
        sent = [b"x" * size, b"\r\nQUIT", b"\r\n"]
        for pieces in (sent, [b"".join(sent)]):
            assert run(pieces, answer_and_next) == ("too long", b"QUIT\r\n")


def test_behind_the_end_nothing_is_read_and_nothing_kept() -> None:
    async def end_and_read(reader: StrictReader) -> bytes:
        line = await reader.readline()
        reader.end()
        reader.feed_data(b"DATA\r\n")
        assert not reader._buffer
        return line + await reader.readline()

    assert isinstance(run([b"NOOP\r\nMAIL\r\n"], end_and_read), SessionOver)


@pytest.mark.parametrize("size", [500, 1_900])
def test_a_message_without_room_is_thrown_away_and_others_keep_theirs(size: int) -> None:
    room = Room(8_000)
    other = room.lease("ann")
    assert other.take(1_900)
    text = b"x" * 400 + b"\r\n"
    sent = (text * 5)[: size - 2] + b"\r\n.\r\nQUIT\r\n"

    async def read(reader: StrictReader) -> tuple[bytes | Unread, bytes]:
        return await reader.read_content(5_000, room.lease("ann")), await reader.read()

    pieces = [sent[at : at + 100] for at in range(0, len(sent), 100)]
    assert run(pieces, read) == (Unread.NO_ROOM, b"QUIT\r\n")
    assert room.left("ann") == 100
    other.end()
    assert isinstance(run(pieces, read), tuple)
