"""Lines of processes: cut where they end, escaped, bounded; and the last ones of each."""

import json

from hypothesis import given
from hypothesis import strategies as st

from control.node.log_lines import (
    CUT_MARK,
    LINE_OCTETS_MAX,
    LineCutter,
    LineRate,
    LogBook,
    as_json,
    prefixed,
    tells_error,
)


def cut(*pieces: bytes) -> list[str]:
    cutter = LineCutter()
    lines = [line for piece in pieces for line in cutter.feed(piece)]
    return lines + cutter.finish()


def test_a_line_may_come_in_pieces_and_several_in_one():
    assert cut(b"one\ntw", b"o\n", b"\n", b"three") == ["one", "two", "three"]


def test_what_moves_a_cursor_is_escaped():
    assert cut(b"a\x1b[2Jb\x00\xff\r\n") == ["a\\x1b[2Jb\\x00\N{REPLACEMENT CHARACTER}"]


def test_a_line_without_end_is_cut_and_costs_no_more():
    cutter = LineCutter()
    for _ in range(100):
        assert cutter.feed(b"x" * 1000) == []
    assert cutter.feed(b"\nnext\n") == ["x" * LINE_OCTETS_MAX + CUT_MARK, "next"]


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_octets_become_the_same_printable_lines_however_they_are_cut(pieces):
    lines = cut(*pieces)
    assert lines == cut(b"".join(pieces))
    assert all(line.isprintable() and line for line in lines)


def test_a_flood_of_lines_is_thinned_and_counted():
    rate = LineRate(per_second=10, burst=5)
    assert [rate.allows(0.0) for _ in range(8)] == [True] * 5 + [False] * 3
    assert rate.allows(0.1)
    assert rate.take_dropped() == 3
    assert rate.take_dropped() == 0


def test_the_last_lines_of_one_or_all_come_in_their_order():
    book = LogBook(("a", "b"), kept=3)
    for number in range(4):
        book.add("a", f"a{number}")
        book.add("b", f"b{number}")
    book.add("root", "r")
    assert book.last("a") == [prefixed("a", f"a{number}") for number in (1, 2, 3)]
    assert book.last(count=3) == [prefixed("a", "a3"), prefixed("b", "b3"), prefixed("root", "r")]
    assert book.last(count=0) == []


def test_the_last_line_is_that_of_this_life():
    book = LogBook(("a",))
    book.add("a", "before")
    mark = book.mark()
    assert book.last_line("a", mark) == ""
    book.add("a", "after")
    assert book.last_line("a", mark) == "after"


def test_a_json_line_names_its_process_and_any_other_becomes_an_event():
    assert json.loads(as_json("a", '{"event": "x", "level": "info"}')) == {
        "process": "a",
        "event": "x",
        "level": "info",
    }
    assert json.loads(as_json("a", "[1]")) == {"process": "a", "event": "[1]"}
    deep = '{"x":' * 100_000
    assert json.loads(as_json("a", deep)) == {"process": "a", "event": deep}


def test_errors_are_known_in_both_formats():
    assert tells_error("2026-11-24T14:55:43Z [error    ] actor crashed")
    assert tells_error('{"level": "critical", "event": "x"}')
    assert not tells_error("2026-11-24T14:55:43Z [info     ] no error here")
    assert not tells_error('{"level": "info"}')
    assert not tells_error("{not json")
    assert not tells_error('{"x":' * 100_000)
