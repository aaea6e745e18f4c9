"""The little HTTP server: what it answers, and what every kind of bad client costs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from engine.observe.pages import ANSWER_SECONDS, CONNECTIONS_MAX, REQUEST_SECONDS, Page, Pages


async def accepted(accept: str) -> Page:
    return Page(f"accept: {accept}".encode(), "text/x-test")


async def broken(accept: str) -> Page:
    raise RuntimeError("a bug")


def pages() -> Pages:
    return Pages({"/metrics": accepted, "/broken": broken})


async def answer(request: bytes, server: Pages | None = None, *, ends: bool = False) -> bytes:
    """All octets that come back."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, server or pages(), theirs)
        await ours.send_all(request)
        if ends:
            await ours.send_eof()
        return b"".join([part async for part in ours])


async def serve(server: Pages, stream: trio.abc.Stream) -> None:
    try:
        await server.converse(stream)
    finally:
        await trio.aclose_forcefully(stream)


def status(octets: bytes) -> int:
    return int(octets.split(b" ", 2)[1])


async def test_a_page_comes_with_its_type_and_length() -> None:
    got = await answer(b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\nAccept: a\r\nAccept: b\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert status(got) == 200
    assert body == b"accept: a,b"
    assert b"text/x-test" in head
    assert b"Content-Length: 11" in head
    assert b"Connection: close" in head


async def test_head_has_no_body() -> None:
    got = await answer(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(got) == 200
    assert got.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_line", "code"),
    [
        (b"GET / HTTP/1.1", 404),
        (b"GET /metrics/../x HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 405),
        (b"DELETE /metrics HTTP/1.1", 405),
        (b"GET /metrics", 400),
        (b"EHLO there", 400),
    ],
)
async def test_anything_else_is_refused(request_line: bytes, code: int) -> None:
    assert status(await answer(request_line + b"\r\nHost: x\r\n\r\n")) == code


async def test_a_request_without_end_is_cut_off() -> None:
    assert status(await answer(b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 20_000)) == 431


async def test_a_client_that_goes_away_is_no_trouble() -> None:
    assert await answer(b"", ends=True) == b""
    assert status(await answer(b"GET /metr", ends=True)) == 400


async def test_a_page_that_cannot_be_made_is_a_500_and_a_line_in_the_log() -> None:
    with structlog.testing.capture_logs() as told:
        got = await answer(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(got) == 500
    assert b"a bug" not in got
    assert [line["event"] for line in told] == ["a page could not be made"]


async def test_a_silent_client_costs_its_time_limit(autojump_clock: MockClock) -> None:
    before = trio.current_time()
    assert status(await answer(b"GET /metrics HT")) == 408
    assert trio.current_time() - before == pytest.approx(REQUEST_SECONDS)


async def test_a_client_that_reads_nothing_costs_its_time_limit(autojump_clock: MockClock) -> None:
    class Deaf(trio.abc.Stream):
        """Takes nothing that is sent."""

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            return b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep_forever()

        async def wait_send_all_might_not_block(self) -> None:
            await trio.sleep_forever()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    before = trio.current_time()
    await pages().converse(Deaf())
    assert trio.current_time() - before == pytest.approx(ANSWER_SECONDS)


@asynccontextmanager
async def crowd(server: Pages, count: int) -> AsyncIterator[None]:
    """So many clients that say nothing."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(server.converse, memory_stream_pair()[1])
        await wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


async def test_one_too_many_is_closed_at_once(autojump_clock: MockClock) -> None:
    server = pages()
    async with crowd(server, CONNECTIONS_MAX):
        assert await answer(b"", server) == b""
        assert f"{CONNECTIONS_MAX}/{CONNECTIONS_MAX}" in repr(server)
    assert status(await answer(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", server)) == 200


@given(st.binary(max_size=200))
def test_whatever_is_sent_ends_in_an_answer_or_nothing(octets: bytes) -> None:
    async def ask() -> bytes:
        return await answer(octets, ends=True)

    got = trio.run(ask)
    assert got == b"" or status(got) in {200, 400, 404, 405, 431}


@pytest.mark.slow
async def test_a_real_socket_is_served_and_closed() -> None:
    server = pages()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.converse, listeners)
        stream = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
        async with stream:
            await stream.send_all(b"GET /metrics HTTP/1.0\r\n\r\n")
            got = b"".join([part async for part in stream])
        nursery.cancel_scope.cancel()
    assert status(got) == 200
