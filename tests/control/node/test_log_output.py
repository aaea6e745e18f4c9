"""Where lines go: in order, to the stream and to files that are turned over; whoever adds never waits."""

import io
from pathlib import Path

import trio

from control.node import log_output
from control.node.log_lines import LogBook
from control.node.log_output import LogFile, LogOutput, RootStream


def made(folder: Path, stream: io.StringIO, *, json_logs: bool = False) -> LogOutput:
    return LogOutput(
        LogBook(("a",)),
        folder,
        stream,
        json_logs=json_logs,
        now=trio.current_time,
        wall=lambda: 1_800_000_000.0,
    )


def test_a_file_is_turned_over_by_its_size_and_the_oldest_goes(tmp_path):
    file = LogFile(tmp_path / "a.log", octets_max=10, kept=3)
    for number in range(5):
        file.write([f"line {number} of some length"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log.1", "a.log.2"]
    file.write(["x"])
    assert (tmp_path / "a.log").read_text() == "x\n"
    assert (tmp_path / "a.log.1").read_text() == "line 4 of some length\n"
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


async def test_lines_reach_stream_and_files_in_their_order(tmp_path):
    stream, said = io.StringIO(), "2027-01-15T08:00:00Z [info     ]"
    output = made(tmp_path, stream)
    output.add("a", "one")
    output.say("two")
    output.show("for the screen")
    await output.flush()
    assert stream.getvalue() == f"a          | one\nroot       | {said} two\nfor the screen\n"
    assert (tmp_path / "a.log").read_text() == "one\n"
    assert (tmp_path / "root.log").read_text() == f"{said} two\n"


async def test_json_lines_are_objects_in_both(tmp_path):
    stream = io.StringIO()
    output = made(tmp_path, stream, json_logs=True)
    output.add("a", "one")
    output.show("for the screen")
    await output.flush()
    assert stream.getvalue() == '{"process": "a", "event": "one"}\n'
    assert (tmp_path / "a.log").read_text() == stream.getvalue()


async def test_a_folder_that_takes_no_file_is_said_once_and_the_stream_goes_on(tmp_path):
    stream = io.StringIO()
    output = made(tmp_path / "absent", stream)
    for _ in range(3):
        output.add("a", "one")
        await output.flush()
    assert stream.getvalue().count("cannot be written: No such file") == 1
    assert stream.getvalue().count("a          | one") == 3


async def test_a_stream_that_is_gone_costs_nothing(tmp_path):
    stream = io.StringIO()
    stream.close()
    output = made(tmp_path, stream)
    output.add("a", "one")
    await output.flush()
    assert (tmp_path / "a.log").read_text() == "one\n"


async def test_what_nobody_can_write_in_time_is_dropped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(log_output, "WAITING_LINES_MAX", 3)
    output = made(tmp_path, io.StringIO())
    for number in range(5):
        output.add("a", str(number))
    assert output.dropped == 2
    assert len(output.book.last("a")) == 5


async def test_a_flood_is_told_of_when_it_is_over(tmp_path, autojump_clock, monkeypatch):
    stream = io.StringIO()
    output = made(tmp_path, stream)
    for number in range(6_000):
        output.add("a", str(number))
    await trio.sleep(10)
    output.add("a", "after")
    assert output.book.last("a", 2) == [
        "a          | ... 1,000 lines were dropped: too many at once",
        "a          | after",
    ]


async def test_the_root_stream_gives_whole_lines(tmp_path):
    output = made(tmp_path, io.StringIO())
    stream = RootStream(output)
    stream.write("half ")
    stream.write("a line\n")
    stream.flush()
    assert output.book.last("root") == ["root       | half a line"]
