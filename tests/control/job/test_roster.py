"""Who lives is told by changes of rows and our own clock; a bus that was away has killed nobody."""

import json
from typing import Any

import pytest

from control.job.roster import (
    INTERVAL_SECONDS_MAX,
    LIVE_INTERVALS,
    LIVE_SECONDS,
    Roster,
    Speed,
    decode_status,
)


def row(beat: int, **more: Any) -> bytes:
    return json.dumps({"node": "a", "beat": beat, "at": 1e12, "news": [1]} | more).encode()


def test_a_row_that_was_there_before_tells_nothing_until_it_changes() -> None:
    roster = Roster()
    assert roster.hear("a/engine", row(1), 100.0) == "a"
    assert roster.live(100.0) == []
    roster.hear("a/engine", row(1), 101.0)  # heard again, the same
    assert roster.live(101.0) == []
    roster.hear("a/engine", row(2), 102.0)
    assert roster.live(102.0) == ["a"]
    assert roster.live(102.0 + LIVE_SECONDS + 0.1) == []
    assert roster.silent_seconds("a", 105.0) == 3.0
    assert roster.names() == ["a"]


def test_remote_clocks_mean_nothing() -> None:
    roster = Roster()
    for beat, at in enumerate((5e9, 0.0, -3.0)):
        roster.hear("a/engine", row(beat, at=at), float(beat))
    assert roster.is_open("a", 3.0)


def test_other_processes_and_damaged_rows_are_no_broadcasters() -> None:
    roster = Roster()
    for key, value in (("a/agent", row(1)), ("engine", row(1)), ("a/engine", b"{"), ("a/engine", b"[]")):
        assert roster.hear(key, value, 0.0) is None
    assert roster.names() == []
    assert decode_status(b'{"draining": "perhaps"}') is None
    assert decode_status(b'{"epoch": "\xff"}') is None
    assert decode_status(b'{"epoch": ' + b"[" * 100_000) is None


@pytest.mark.parametrize("name", ["a b", "a/b", "\x1b[2J", "x" * 64, ".a", ""])
def test_what_no_stream_could_be_named_after_is_no_broadcaster(name: str) -> None:
    roster = Roster()
    assert roster.hear(f"{name}/engine", row(1), 0.0) is None
    assert roster.names() == []


def test_who_says_that_it_comes_once_a_year_lives_no_longer_than_others() -> None:
    roster = Roster()
    for beat in (1, 2):
        roster.hear("a/engine", row(beat, interval=1e9), float(beat))
    assert roster.is_live("a", LIVE_INTERVALS * INTERVAL_SECONDS_MAX)
    assert not roster.is_live("a", 10 + LIVE_INTERVALS * INTERVAL_SECONDS_MAX)


def test_who_drains_or_is_closed_lives_and_takes_nothing() -> None:
    roster = Roster()
    roster.hear("a/engine", row(1), 0.0)
    roster.hear("a/engine", row(2, draining=True), 1.0)
    assert roster.is_live("a", 1.0)
    assert not roster.is_open("a", 1.0)
    roster.hear("a/engine", row(3, closures={"twin": "another is called a"}), 2.0)
    assert not roster.is_open("a", 2.0)
    roster.hear("a/engine", row(4), 3.0)
    assert roster.is_open("a", 3.0)


def test_a_row_that_is_removed_is_nobody() -> None:
    roster = Roster()
    roster.hear("a/engine", row(1), 0.0)
    roster.hear("a/engine", row(2), 0.5)
    assert roster.hear("a/engine", None, 1.0) == "a"
    assert not roster.is_live("a", 1.0)
    assert roster.status("a") is None


def test_after_the_bus_was_away_everybody_gets_their_time_anew() -> None:
    roster = Roster()
    for name in ("a", "b", "c"):
        roster.hear(f"{name}/engine", row(1), 0.0)
    roster.hear("a/engine", row(2), 1.0)
    roster.hear("b/engine", row(2), 1.0)
    assert roster.live(60.0) == []
    roster.hear("a/engine", row(3), 60.0)
    assert roster.live(60.0) == ["a", "b"]
    roster.hear("a/engine", row(4), 65.0)
    roster.hear("a/engine", row(5), 70.1)
    assert roster.live(70.1) == ["a"]


def test_a_slow_interval_gives_more_time() -> None:
    roster = Roster()
    roster.hear("a/engine", row(1, interval=30), 0.0)
    roster.hear("a/engine", row(2, interval=30), 30.0)
    assert roster.is_live("a", 150.0)
    assert not roster.is_live("a", 181.0)


def test_speed_is_what_was_done_while_there_was_work() -> None:
    speed = Speed()
    speed.add(0, 0, 0.0)
    speed.add(0, 100, 10.0)
    assert speed.per_second is None, "it has only waited"
    for second in range(11, 40):
        speed.add((second - 10) * 50, 1_000, float(second))
    assert speed.per_second is not None
    assert 45 < speed.per_second < 51
    before = speed.per_second
    speed.add(29 * 50, 0, 100.0)  # nothing to do
    assert speed.per_second == before
    speed.add(29 * 50 + 100, 0, 101.0)
    assert speed.per_second > before
    speed.add(29 * 50 + 100, 0, 101.0)  # no time has passed
    assert "Speed" in repr(speed)
