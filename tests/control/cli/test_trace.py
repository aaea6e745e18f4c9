"""`emass queue trace`: what was heard is printed as it comes, and the trace is ended in any case."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from control.cli import trace as command
from control.cli.trace import trace

LINES = [[1, 0.0, "-", "connected"], [1, 0.1, "<", "220 mx.test"], [1, 0.2, ">", "EHLO us.test"]]


def run(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any], *options: str
) -> tuple[Result, list[dict[str, Any]]]:
    asked: list[dict[str, Any]] = []

    def ask(folder: Path, **request: Any) -> Any:
        asked.append(request)
        return answers.pop(0) if request["command"] == "trace-read" else {}

    def order(folder: Path, **request: Any) -> Any:
        asked.append(request)
        return {"trace": 7}

    monkeypatch.setattr(command, "check_folder", Path)
    monkeypatch.setattr(command, "ask", ask)
    monkeypatch.setattr(command, "order", order)
    monkeypatch.setattr(command, "LOOK_SECONDS", 0.0)
    return CliRunner().invoke(trace, ["--data", "x", *options], standalone_mode=False), asked


def read(lines: list[Any], *, more: bool, dropped: int = 0) -> dict[str, Any]:
    return {"lines": lines, "more": more, "dropped": dropped}


def test_lines_are_shown_until_the_sessions_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        read(LINES[:1], more=True),
        read([], more=True),
        read(LINES[1:], more=True),
        read([], more=False),
    ]
    result, asked = run(monkeypatch, answers, "--site", "mx.test", "--sessions", "2")
    assert result.return_value == 0
    assert [line.split(maxsplit=2)[2] for line in result.output.splitlines()] == [
        "- connected",
        "< 220 mx.test",
        "> EHLO us.test",
    ]
    assert asked[0]["asked"]["site"] == "mx.test"
    assert asked[0]["asked"]["sessions"] == 2
    assert asked[-1] == {"command": "trace-stop", "number": 7}


def test_json_has_one_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = run(monkeypatch, [read(LINES[1:2], more=False)], "--json")
    assert json.loads(result.output) == {"session": 1, "seconds": 0.1, "way": "<", "text": "220 mx.test"}


def test_nothing_heard_says_so_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = run(monkeypatch, [read([], more=False)])
    assert result.return_value == 1
    assert "no session that matches" in result.output


def test_lines_that_were_lost_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = run(monkeypatch, [read(LINES, more=False, dropped=12)])
    assert "12 lines" in result.output


@pytest.mark.parametrize("engine_stops", [True, False])
def test_the_trace_is_ended_whatever_happens(monkeypatch: pytest.MonkeyPatch, engine_stops: bool) -> None:
    def interrupted(folder: Path, number: int, until: float, as_json: bool) -> int:
        raise KeyboardInterrupt

    if not engine_stops:
        monkeypatch.setattr(command, "_follow", interrupted)
    result, asked = run(monkeypatch, [None])
    assert asked[-1]["command"] == "trace-stop"
    assert (result.exception is not None) == engine_stops


def test_a_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked = run(monkeypatch, [], "--for", "soon")
    assert "--for" in str(result.exception)
    assert asked == []
