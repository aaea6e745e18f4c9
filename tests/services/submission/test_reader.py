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

from services.submission.reader import BareNewline, StrictReader

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
            except (BareNewline, ConnectionResetError) as error:
                return error

        made: T | Exception = await trio_asyncio.aio_as_trio(run)()
        return made


def run(pieces: list[bytes], read: Callable[[StrictReader], Awaitable[T]]) -> T | Exception:
    return trio.run(reading, pieces, read)


async def content_and_rest(reader: StrictReader) -> tuple[bytes | None, bytes]:
    content = await reader.read_content(1_000)
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
        assert run(pieces, content_and_rest) == (None, b"QUIT\r\n")
    assert run([b"x" * 998 + b"\r\n.\r\n"], content_and_rest) == (b"x" * 998 + b"\r\n", b"")


def test_an_end_in_the_middle_is_a_lost_connection() -> None:
    assert isinstance(run([b"half a mess"], content_and_rest), ConnectionResetError)


def test_lines_end_in_crlf() -> None:
    assert run([b"EHLO a", b"\r", b"\n"], lambda reader: reader.readuntil()) == b"EHLO a\r\n"
    for line in (b"EHLO a\n", b"EH\rLO\r\n", b"\n", b"a\r\r\n"):
        assert isinstance(run([line], lambda reader: reader.readuntil()), BareNewline)
