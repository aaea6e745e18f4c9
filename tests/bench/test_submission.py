"""`bench submission`: waits from clients' times and events, and a tiny run of all of it."""

import json
import subprocess
import sys

import pytest

from bench.submission import wait_facts
from bench.submission_load import Handed
from engine.model.single import message_number


def test_a_wait_runs_from_the_last_octet_and_goes_on_for_who_is_not_delivered() -> None:
    handed = [Handed("a", 10.0, 10.25), Handed("b", 11.0, 11.5)]
    facts = wait_facts(handed, {message_number("a.0"): 10.75}, now=31.0)
    assert (facts["transactional"], facts["transactional_delivered"]) == (2, 1)
    assert (facts["accept_p50_seconds"], facts["accept_p99_seconds"]) == (0.25, 0.5)
    assert (facts["transactional_p50_seconds"], facts["transactional_max_seconds"]) == (0.75, 20.0)


@pytest.mark.slow
def test_a_tiny_run_tells_every_promised_figure() -> None:
    words = "--messages 40 --clients 4 --bulk 200 --transactional 20 --seconds 1 --sink python --json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "submission", *words.split()],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    for way in ("reused", "pipelined", "one_each"):
        assert facts[f"{way}_per_second"] > 0
        assert facts[f"{way}_worker_cpu_us"] > 0
    assert facts["transactional_delivered"] == facts["transactional"] == 20
    assert 0 < facts["transactional_p50_seconds"] <= facts["transactional_p99_seconds"]
