"""Pins, resets and lifts: what is sent to the engine, what is printed, and what is refused before that."""

from pathlib import Path
from typing import Any

import pytest

from control.cli import adaptation
from control.cli.__main__ import run

PATH = "out>mx.x.test"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "data.mdb").touch()
    monkeypatch.chdir(tmp_path)
    requests: list[dict[str, Any]] = []

    def order(folder: Path, **request: Any) -> dict[str, Any]:
        requests.append(request)
        return {"done": "it is done\x1b[2J"}

    monkeypatch.setattr(adaptation, "order", order)
    monkeypatch.setattr(adaptation, "author", lambda: "ann")
    return requests


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (
            ["pin", PATH, "connections=3", "--for", "2h"],
            {"command": "pin", "path": PATH, "knob": "connections", "value": 3.0, "seconds": 7_200.0},
        ),
        (
            ["pin", PATH, "rate=120/min"],
            {"command": "pin", "path": PATH, "knob": "rate", "value": 2.0, "seconds": None},
        ),
        (["unpin", PATH], {"command": "unpin", "path": PATH, "knob": ""}),
        (["unpin", PATH, "rate"], {"command": "unpin", "path": PATH, "knob": "rate"}),
        (["reset", PATH], {"command": "reset", "path": PATH}),
        (["lift", "lamp"], {"command": "lift", "path": "lamp", "subject": "", "subject_value": ""}),
        (
            ["lift", "lamp", "campaign", "7"],
            {"command": "lift", "path": "lamp", "subject": "campaign", "subject_value": "7"},
        ),
    ],
)
def test_an_act_is_one_request_with_author_and_reason(
    words: list[str],
    request_: dict[str, Any],
    asked: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["queue", *words, "--reason", "agreed", "--data", "."]) == 0
    assert asked == [request_ | {"author": "ann", "reason": "agreed"}]
    assert capsys.readouterr().out == "it is done\\x1b[2J\n"


def test_as_json(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "reset", PATH, "--reason", "agreed", "--data", ".", "--json"]) == 0
    assert capsys.readouterr().out == '{"done": "it is done\\u001b[2J"}\n'


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["pin", PATH, "connections=0"], "write connections=3 or rate=100/min"),
        (["pin", PATH, "burst=3"], "write connections=3 or rate=100/min"),
        (["pin", PATH, "rate=fast"], "is no rate"),
        (["pin", PATH, "rate=100/min", "--for", "ever"], "--for ever: is no duration"),
        (["lift", "lamp", "campaign"], "what is held is named as"),
        (["lift", "lamp", "person", "7"], "what is held is named as"),
        (["lift", "lamp", "campaign", "spring"], "a campaign is named by its number"),
        (["unpin", PATH, "burst"], "burst"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_engine_is_asked(
    words: list[str], error: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["queue", *words, "--reason", "agreed", "--data", "."]) == 2
    assert error in capsys.readouterr().err
    assert asked == []


def test_no_act_without_a_reason(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "reset", PATH, "--data", "."]) == 2
    assert "--reason" in capsys.readouterr().err
