"""The child's side of the root supervisor: one word that it is ready, and an end when the lifeline closes."""

import io
import os

import trio
import trio.testing

from engine.runtime.supervised import (
    READY_VARIABLE,
    ForgivingOutput,
    begin_supervised,
    tell_ready,
    until_lifeline_closes,
)


def test_it_is_ready_once_and_the_pipe_is_closed_behind_the_word():
    reading, writing = os.pipe()
    environ = {READY_VARIABLE: str(writing)}
    tell_ready(environ)
    tell_ready(environ)
    assert os.read(reading, 100) == b"ready\n"
    assert os.read(reading, 100) == b""
    os.close(reading)


def test_nobody_to_tell_and_a_supervisor_that_died_are_no_errors():
    tell_ready({})
    tell_ready({READY_VARIABLE: "none"})
    reading, writing = os.pipe()
    os.close(reading)
    tell_ready({READY_VARIABLE: str(writing)})


async def test_the_lifeline_is_waited_for_until_it_closes_whatever_comes_on_it():
    reading, writing = os.pipe()
    os.write(writing, b"noise")
    over = trio.Event()

    async def wait() -> None:
        await until_lifeline_closes(reading)
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not over.is_set()
        os.close(writing)
        with trio.fail_after(5):
            await over.wait()
    os.close(reading)


def test_a_line_that_nobody_reads_any_more_is_dropped():
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w", buffering=1)
    output = ForgivingOutput(stream)
    print("read", file=output, flush=True)
    assert os.read(reading, 100) == b"read\n"
    os.close(reading)
    print("lost", file=output, flush=True)
    output.flush()
    assert output.fileno() == writing
    assert (output.encoding, output.isatty(), output.writable()) == ("UTF-8", False, True)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, writing)  # so that what still waits in the buffer goes somewhere
    os.close(null)
    stream.close()


def test_a_supervised_process_forgives_both_streams(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr("sys.stderr", io.StringIO())
    begin_supervised()
    import sys

    assert isinstance(sys.stdout, ForgivingOutput)
    assert isinstance(sys.stderr, ForgivingOutput)
