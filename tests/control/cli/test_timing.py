"""`emass queue timing`: percentiles and the slowest messages, from what the engine tells."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from control.cli import timing as command
from control.cli.timing import percentile, summary, timing
from engine.actors.timelines import STAGES


def told(*seconds: float, every: int = 64) -> dict[str, Any]:
    return {
        "every": every,
        "stages": list(STAGES),
        "messages": [
            {
                "spool_id": 64 * (index + 1),
                "domain": "a.test",
                "outcome": "delivered",
                "seconds": value,
                "stages": dict.fromkeys(STAGES, 0.0) | {"remote": value},
            }
            for index, value in enumerate(seconds)
        ],
    }


def run(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], *options: str) -> str:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "check_folder", Path)
    monkeypatch.setattr(command, "order", lambda folder, **request: asked.append(request) or answer)
    result = CliRunner().invoke(timing, ["--data", "x", *options])
    assert asked[0]["command"] == "timing"
    assert result.exception is None, result.output
    return result.output


def test_a_percentile_is_a_value_that_was_there() -> None:
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
    assert percentile([], 0.5) == 0.0


def test_the_summary_has_every_stage_and_the_whole() -> None:
    rows = {row["stage"]: row for row in summary(told(1.0, 2.0, 9.0))}
    assert list(rows) == [*STAGES, "total"]
    assert rows["remote"]["p50"] == rows["total"]["p50"] == 2.0
    assert rows["dns"]["p99"] == 0.0


def test_people_see_stages_and_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    output = run(monkeypatch, told(0.25, 2.0))
    assert "The last 2 messages" in output
    assert "128 to a.test, delivered: 2.0 s: remote 2.0 s" in output
    assert "250.0 ms" in output


@pytest.mark.parametrize(
    ("answer", "text"), [(told(every=0), "sample is 0"), (told(), "one in 64) has ended yet")]
)
def test_nothing_to_show_says_why(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], text: str) -> None:
    assert text in run(monkeypatch, answer)


def test_json_has_messages_and_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = json.loads(run(monkeypatch, told(1.0), "--json"))
    assert (len(facts["messages"]), facts["summary"][-1]["p50"]) == (1, 1.0)
