"""`bench fairness`: waits from events, shares against weights, and a tiny run of all of it."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.fairness import BULK, TRANSACTIONAL, Waits, config_text, percentile, share_facts
from engine.config import load_config
from engine.model.event import ChunkAccepted, Delivered, EventBatch


def batch(at: float, *events: ChunkAccepted | Delivered) -> EventBatch:
    return EventBatch("bench", "e", 1, at, "bench", events)


def delivered(campaign: int, subscriber: int) -> Delivered:
    return Delivered(campaign, subscriber, 1, "a.test", 1, "", "", "", "", "s", "ip1", "mx", "", 0.1)


def test_a_wait_runs_from_acceptance_to_delivery_and_goes_on_for_who_is_not_delivered() -> None:
    waits = Waits()
    waits.submitted = {0: 9.5, 1: 10.0, 2: 10.0}
    waits.add(batch(10.0, ChunkAccepted(TRANSACTIONAL, "0", 1), ChunkAccepted(BULK, "bulk-1-0", 5_000)))
    waits.add(batch(11.0, ChunkAccepted(TRANSACTIONAL, "1", 1), ChunkAccepted(TRANSACTIONAL, "2", 1)))
    waits.add(batch(11.25, delivered(TRANSACTIONAL, 0), delivered(TRANSACTIONAL, 1), delivered(BULK, 2)))
    facts = waits.facts(now=31.0)
    assert (facts["transactional"], facts["transactional_delivered"]) == (3, 2)
    assert facts["transactional_p50_seconds"] == 1.25
    assert facts["transactional_max_seconds"] == 20.0
    assert facts["transactional_from_submit_p50_seconds"] == 1.75


@pytest.mark.parametrize(("share", "value"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)])
def test_a_percentile_is_a_value_that_was_seen(share: float, value: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], share) == value
    assert percentile([], share) == 0.0
    assert percentile([7.0], share) == 7.0


def test_the_error_of_shares_is_relative_to_what_was_promised() -> None:
    assert share_facts({"maple": 25, "oak": 75})["share_error"] == 0.0
    assert share_facts({"maple": 30, "oak": 70})["share_error"] == 0.2
    assert share_facts({"maple": 0, "oak": 0})["share_error"] == 1.0


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rate", [0, 50])
def test_this_engine_reads_the_configuration(weighted: bool, rate: int, tmp_path: Path) -> None:
    path = tmp_path / "emass.toml"
    path.write_text(config_text(argparse.Namespace(connections=4, rate=rate), weighted=weighted))
    [rule] = load_config(path, {}).engine.site
    assert (rule.rate is None) == (rate == 0)


@pytest.mark.slow
def test_a_tiny_run_tells_every_promised_figure() -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "fairness", "--json", "--sink", "python", "--bulk", "4000"),
            *("--transactional", "20", "--seconds", "1", "--rate", "500"),
        ],
        check=False,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.returncode == 0, ran.stderr.decode()
    facts = json.loads(ran.stdout)
    assert facts["transactional"] == 20
    assert facts["transactional_p99_seconds"] >= facts["transactional_p50_seconds"] > 0
    assert set(facts["shares"]) == {"maple", "oak"}
    assert sum(facts["shares"].values()) == pytest.approx(1.0, abs=0.01)
    assert facts["share_error"] >= 0
