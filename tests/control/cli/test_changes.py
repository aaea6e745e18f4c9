"""Changes in lines, and a replay beside what happened: the same signals, the same loop, the same moves."""

import io
from typing import Any

import msgspec
from rich.console import Console

from control.cli import changes as command
from control.cli.changes import side_by_side
from engine.config.shaping import ShapingRule
from engine.config.tables import Config, EngineTable
from engine.config.units import CountRange, RateRange
from engine.mta.policy.governor import Change, Governor
from engine.mta.policy.shaping import Shaping, shaping_rules


def shaping(**rule: Any) -> Shaping:
    return shaping_rules(Config(engine=EngineTable(site=(ShapingRule(**rule),)))).path("out", "mx", ["mx"])


def a_story() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A loop that grew and was refused once: its signals and its changes, as the engine tells them."""
    governor = Governor(CountRange(1, 20), None, 100.0)
    found: list[Change] = []
    for tick in range(1, 20):
        now = 100.0 + tick / 2
        governor.delivered(now, 40, 2.0)
        if tick == 12:
            governor.rate_limited(now, rule="rate", text="450 slower, \x1b[31mplease")
        governor.tick(now, busy=True, open_connections=governor.connections)
        found += governor.take_changes()
    signals = msgspec.to_builtins(governor.signals)
    told = {
        "path": "out>mx",
        "start_connections": 2,
        "start_per_second": 20.0,
        "connections": "20",
        "rate": None,
        "signals": signals,
    }
    where = {"author": "", "path": "out>mx", "provider": "mx"}
    happened = [msgspec.to_builtins(one) | where for one in found]
    return told, happened


def test_within_the_same_bounds_the_replay_is_what_happened() -> None:
    told, happened = a_story()
    rows = side_by_side(told, happened, shaping(connections=CountRange(1, 20)))["changes"]
    assert len(rows) == len(happened) > 5
    for row in rows:
        assert (row["happened"]["before"], row["happened"]["after"]) == (
            row["would"]["before"],
            row["would"]["after"],
        )


def test_within_other_bounds_it_is_what_would_have_happened() -> None:
    told, happened = a_story()
    narrow = shaping(connections=CountRange(1, 3))
    facts = side_by_side(told, happened, narrow)
    assert facts["bounds_now"] == {"connections": "3", "rate": None}
    moved = [row for row in facts["changes"] if row["knob"] == "connections"]
    assert max(row["would"]["after"] for row in moved if row["would"]) == 3
    assert any(row["would"] is None for row in moved)
    limited = side_by_side(told, happened, shaping(rate=RateRange.parse("1/s..10/s")))["changes"]
    assert max(row["would"]["after"] for row in limited if row["would"] and row["knob"] == "rate") <= 10


def test_without_signals_there_is_nothing_to_replay() -> None:
    told, _ = a_story()
    assert side_by_side(told | {"signals": []}, [], shaping())["changes"] == []


def printed(show: Any) -> str:
    stream = io.StringIO()
    show(Console(file=stream, width=100))
    return stream.getvalue()


def test_changes_are_lines_with_reason_and_author_and_nobody_s_escapes() -> None:
    _, happened = a_story()
    happened[0]["author"] = "ann"
    rest = {"at": 1.0, "path": "", "provider": "lamp", "knob": "rest", "before": None, "after": 900.0}
    rest |= {"reason": "listed", "author": ""}
    text = printed(lambda console: command._print_changes([*happened, rest], console))
    assert "(by ann)" in text
    assert "\\x1b[31mplease" in text
    assert "\x1b" not in text
    assert "lamp  rest none -> 15 min" in text
    read = rest | {"provider": "", "knob": "reload", "after": None, "author": "ann"}
    text = printed(lambda console: command._print_changes([read], console))
    assert "everywhere  reload (by ann)" in text
    empty = printed(lambda console: command._print_changes([], console))
    assert empty == "Nothing was changed since the engine started.\n"


def test_a_replay_is_a_table() -> None:
    told, happened = a_story()
    facts = side_by_side(told, happened, shaping(connections=CountRange(1, 3)))
    text = printed(lambda console: command._print_replay(facts, console, 2))
    assert "replayed within connections 3, rate without limit" in text
    assert "before these (--limit)" in text
