"""The sections of `bench scale`: each runs, says what it promises, and common runs happen once."""

import pytest

from bench.simulation.model import Scenario
from bench.simulation.runs import SECTIONS, Plan, Runner

PROMISED = {
    *("label", "broadcasters", "messages", "finished", "given_up", "may_double", "seconds", "seconds_99"),
    *("report_seconds", "optimum_seconds", "bound_by", "efficiency", "messages_per_second", "attempts"),
    *("refused_share", "chunks", "moved_chunks", "steps", "cpu_seconds"),
}
TINY = Plan(messages=2_000, counts=(1, 2), base=2)


@pytest.mark.parametrize("name", ["broadcasters", "engines", "slow"])
def test_a_section_tells_what_it_promises(name):
    for row in SECTIONS[name][1](Runner(TINY)):
        facts = row.facts()
        assert facts.keys() >= PROMISED
        assert facts["finished"] == 2_000
        assert 0 < facts["efficiency"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_runs(name):
    rows = list(SECTIONS[name][1](Runner(Plan(messages=20_000, counts=(1, 3), base=4))))
    assert len({row.label for row in rows}) == len(rows) >= 2
    assert all(0 < row.efficiency <= 1 for row in rows)


def test_a_scenario_that_sections_have_in_common_runs_once():
    runner = Runner(TINY)
    scenario: Scenario = TINY.scenario(limits=0)
    first, again = runner.run("one", scenario), runner.run("other", scenario)
    assert first.outcome is again.outcome
    assert (first.label, again.label) == ("one", "other")
