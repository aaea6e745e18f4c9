"""The model beside a measured run: it makes that run's world anew, and tells both."""

import pytest
from rich.console import Console

from bench.simulation.check import check, check_table, world_seconds
from bench.world.mix import KINDS, real_list
from bench.world.optimum import allowed_per_second
from bench.world_report import FIRMS, group_of

MESSAGES, SECONDS = 4_000, 20.0


def measured() -> dict:
    """As `bench world --json` prints it; the finish is invented."""
    spec = real_list(MESSAGES, SECONDS)
    rows = {}
    for each in spec.providers:
        group = group_of(each.name)
        limit = None if group == FIRMS else round(allowed_per_second(each.manners), 2)
        rows[group] = {"limit_per_second": limit, "finish_seconds": 25.0}
    return {
        "messages": MESSAGES,
        "seconds": 25.0,
        "optimum_seconds": SECONDS,
        "rate_refused_share": 0.001,
        "cpu_us_per_message": 500.0,
        "providers": rows,
    }


def test_the_length_of_the_run_is_read_off_its_largest_limit():
    assert world_seconds(measured()) == pytest.approx(SECONDS, rel=0.01)


def test_both_runs_are_told_for_every_provider_and_are_of_one_size():
    facts = check(measured())
    assert facts["model"]["finish_seconds"].keys() == facts["measured"]["finish_seconds"].keys()
    assert {kind.name for kind in KINDS} < facts["model"]["finish_seconds"].keys()
    assert SECONDS <= facts["model"]["seconds"] < 4 * SECONDS
    assert facts["difference"] == pytest.approx(facts["model"]["seconds"] / 25.0 - 1, abs=1e-3)
    console = Console(width=100)
    with console.capture() as told:
        console.print(check_table(facts))
    assert "firms (small sites)" in told.get()
