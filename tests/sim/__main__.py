"""`python -m tests.sim --seed 7 --verbose`: one run, each moment of it.
`python -m tests.sim --seeds 0..10000 --jobs 2`: look for seeds that fail; each is told in words.
"""

import argparse
import sys
import time
from collections import Counter

from tests.sim.checks import check
from tests.sim.judge import judge_all
from tests.sim.run import run_seed

PROGRESS_SEEDS = 200


def one(seed: int, verbose: bool) -> int:
    """The scenario, what happened (with `verbose` each moment), the findings."""
    evidence = run_seed(seed, print if verbose else None)
    print(evidence.scenario.in_words())
    print(f"faults: {dict(evidence.witness.faults)}")
    print(f"{len(evidence.witness.receipts)} messages at receivers, {evidence.seconds:.1f} virtual seconds")
    print(f"transcript {evidence.transcript}")
    findings = check(evidence)
    for finding in findings:
        print(f"FINDING: {finding}")
    return 1 if findings else 0


def many(seeds: range, jobs: int) -> int:
    """Failing seeds as they come, and sums at the end."""
    began, failed, total, worst_excess = time.monotonic(), 0, 0, 0
    sums: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for result in judge_all(seeds, jobs):
        total += 1
        faults.update(result.faults)
        for name in ("messages", "receipts", "steps", "restarts"):
            sums[name] += getattr(result, name)
        worst_excess = max(worst_excess, result.rate_excess)
        if result.findings:
            failed += 1
            print(result, flush=True)
        if total % PROGRESS_SEEDS == 0:
            spent = time.monotonic() - began
            print(f"{total} of {len(seeds)} seeds, {failed} failed, {spent / total:.3f} s each", flush=True)
    spent = time.monotonic() - began
    print(f"{total} seeds in {spent:.0f} s ({spent / max(1, total):.3f} s each): {failed} failed")
    print(f"  {dict(sums)}, most ahead of a rate: {worst_excess} messages")
    print(f"  faults: {dict(faults.most_common())}")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="one run")
    parser.add_argument("--verbose", action="store_true", help="with --seed: every moment of it")
    parser.add_argument(
        "--seeds", default="0..300", metavar="FROM..TO", help="many runs; TO is not among them"
    )
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return one(arguments.seed, arguments.verbose)
    first, _, last = arguments.seeds.partition("..")
    return many(range(int(first), int(last)), arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
