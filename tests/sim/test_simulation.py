"""The whole engine, by seed: the same seed is the same run, and no seed loses, doubles or overruns anything.

A few seeds run with the fast tests, 300 with the long ones, and as many as the soak profile says (SIM_SEEDS
says another number). A seed that fails prints how to watch it; see `tests/sim/__main__.py`.
"""

import os
import subprocess
import sys

import pytest

from tests.sim.judge import judge, judge_all
from tests.sim.run import run_seed

PIECES = 10
SEEDS = int(
    os.environ.get("SIM_SEEDS") or (10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 300)
)


def failures(seeds: range, jobs: int = 1) -> str:
    return "\n".join(str(result) for result in judge_all(seeds, jobs) if result.findings)


@pytest.mark.slow
def test_a_seed_is_the_same_run_twice_and_another_seed_is_another_run() -> None:
    first, again, other = run_seed(20), run_seed(20), run_seed(27)
    assert (first.transcript, first.steps) == (again.transcript, again.steps)
    assert first.transcript != other.transcript


@pytest.mark.parametrize("seed", [23, 44])
def test_a_few_seeds_hold(seed: int) -> None:
    assert not judge(seed).findings


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_some_more_seeds_hold(seed: int) -> None:
    assert not judge(seed).findings


@pytest.mark.slow
def test_a_seed_is_the_same_run_in_every_process() -> None:
    """Whatever order sets of strings have there."""

    def transcript(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", "5"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return next(line for line in done.stdout.splitlines() if line.startswith("transcript"))

    assert transcript("1") == transcript("2")


@pytest.mark.long
@pytest.mark.parametrize("piece", range(PIECES))
def test_many_seeds_hold(piece: int) -> None:
    seeds = range(SEEDS * piece // PIECES, SEEDS * (piece + 1) // PIECES)
    found = failures(seeds, jobs=min(2, os.cpu_count() or 1))
    assert not found, found
