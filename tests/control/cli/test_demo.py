"""`emass demo`: it needs nothing, its report adds up, and it leaves nothing behind."""

import os
from pathlib import Path

import pytest

from bench.world.demo import demo_world
from control.cli.__main__ import run
from control.cli.demo import LETTER
from tests.fakes.campaigns import PROMISED, adds_up, emass


@pytest.mark.slow
async def test_a_small_demo_ends_as_its_world_foretells(tmp_path: Path) -> None:
    ran = await emass("demo", "--once", "--json", "--messages", "300", folder=tmp_path, TMPDIR=str(tmp_path))
    assert ran.code == 0, ran.err
    facts = ran.facts
    assert list(facts)[: len(PROMISED)] == PROMISED
    assert adds_up(facts)
    world = demo_world(1)
    expected = world.expected(person.email for person in world.addresses(300, 1))
    assert facts["accepted"] == 300
    assert {state: facts[state] for state in expected.final} == expected.final
    assert {d["domain"]: d["accepted"] for d in facts["domains"]} == {
        domain: sum(states.values()) for domain, states in expected.domains.items()
    }
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--messages", "0"], "emass: Invalid value for '--messages'"),
        (["--messages", "many"], "emass: Invalid value for '--messages'"),
        (["--data", "x"], "emass: No such option"),
    ],
)
def test_wrong_options_are_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo", *arguments]) == 2
    assert capsys.readouterr().err.startswith(line)


def test_the_letter_can_be_unsubscribed_from() -> None:
    assert "{{ unsubscribe_url }}" in LETTER
