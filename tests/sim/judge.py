"""Seeds one after the other, or in several processes: each run checked and told in a few numbers."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from msgspec import Struct

from tests.sim.checks import check, rate_excess
from tests.sim.run import run_seed

SEEDS_PER_PIECE = 20


class Result(Struct, frozen=True):
    """One seed's run, small enough to cross a pipe."""

    seed: int
    findings: tuple[str, ...]
    transcript: str = ""
    virtual_seconds: float = 0.0
    real_seconds: float = 0.0
    messages: int = 0
    receipts: int = 0
    steps: int = 0
    restarts: int = 0
    rate_excess: int = 0
    faults: dict[str, int] = {}

    def __str__(self) -> str:
        lines = [f"seed {self.seed} fails; again with: python -m tests.sim --seed {self.seed} --verbose"]
        return "\n  ".join([*lines, *self.findings[:5]])


def judge(seed: int) -> Result:
    """Live through a seed and check it. What the run itself raises is a finding."""
    began = time.perf_counter()
    try:
        evidence = run_seed(seed)
        findings = tuple(check(evidence))
    except Exception as error:
        return Result(seed, (f"the run broke: {type(error).__name__}: {error}",))
    witness = evidence.witness
    return Result(
        seed,
        findings,
        evidence.transcript,
        evidence.seconds,
        time.perf_counter() - began,
        evidence.scenario.messages,
        len(witness.receipts),
        evidence.steps,
        len(witness.starts) - 1,
        max((rate_excess(evidence, *path) for path in witness.mails), default=0),
        dict(witness.faults),
    )


def judge_all(seeds: Sequence[int], jobs: int) -> Iterator[Result]:
    """Results in the order of the seeds."""
    if jobs == 1:
        yield from map(judge, seeds)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(judge, seeds, chunksize=SEEDS_PER_PIECE)
