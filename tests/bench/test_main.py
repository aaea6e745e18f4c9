"""`python -m bench`: lists its benchmarks, prints one JSON object or a table, and ends well."""

import json
from typing import Any

import pytest

from bench import __main__ as bench


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The facts that `bench compose` is going to tell, without measuring."""
    facts: dict[str, Any] = {"messages": 1_234_567, "sink": "own"}
    monkeypatch.setattr("bench.compose.run", lambda arguments: facts)
    return facts


def test_every_benchmark_is_listed_with_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        bench.main(["--help"])
    assert leaving.value.code == 0
    told = capsys.readouterr().out
    for name, summary in bench.BENCHMARKS.items():
        assert name in told
        assert summary.split()[0] in told


@pytest.mark.parametrize("name", list(bench.BENCHMARKS))
def test_every_benchmark_has_help_and_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        bench.main([name, "--help"])
    assert leaving.value.code == 0
    told = capsys.readouterr().out
    assert "--json" in told
    assert "--messages" in told or "--entries" in told  # how much of it


@pytest.mark.parametrize(
    "arguments", [[], ["nope"], ["engine", "--dkim", "md5"], ["spool", "--messages", "x"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        bench.main(arguments)
    assert leaving.value.code == 2
    assert "usage: python -m bench" in capsys.readouterr().err


def test_json_is_one_object_with_the_facts(
    measured: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["compose", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == measured


def test_people_get_a_table(measured: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["compose"]) == 0
    told = capsys.readouterr().out
    assert "bench compose" in told
    assert "1,234,567" in told
