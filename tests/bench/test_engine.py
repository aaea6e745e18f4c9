"""`bench engine`, tiny: the promised figures are there, whatever is signed, queued or delayed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.engine import _steady

PROMISED = ["messages", "message_bytes", "domains", "dkim", "sink", "cores", "durability", "seconds"]
PROMISED += ["messages_per_second", "cpu_us_per_message", "rss_mb", "rss_file_mb"]
NO_COMPILER = not any(map(shutil.which, ("cc", "gcc", "clang")))


def measure(folder: Path, *arguments: str, messages_at_least: bool = False) -> dict[str, Any]:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "engine", "--json", "--folder", str(folder)),
            *("--messages", "500", "--domains", "20", "--connections", "5", *arguments),
        ],
        check=False,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.returncode == 0, ran.stderr.decode()
    facts: dict[str, Any] = json.loads(ran.stdout)
    assert set(PROMISED) <= facts.keys()
    sent = facts["messages"]
    assert sent >= 500 if messages_at_least else sent == 500
    assert facts["domains"] == 20
    assert 0 < facts["seconds"] < 60
    assert facts["messages_per_second"] == pytest.approx(sent / facts["seconds"], rel=0.1)
    assert facts["cpu_us_per_message"] > 0
    assert list(folder.iterdir()) == []
    return facts


@pytest.mark.slow
@pytest.mark.parametrize("dkim", ["off", "ed25519"])
def test_a_tiny_run_tells_every_promised_figure(dkim: str, tmp_path: Path) -> None:
    facts = measure(tmp_path, "--sink", "python", "--dkim", dkim)
    assert (facts["dkim"], facts["sink"]) == (dkim, "python")
    assert 9_000 < facts["message_bytes"] < 12_000


@pytest.mark.slow
def test_queueing_first_tells_what_acceptance_costs(tmp_path: Path) -> None:
    facts = measure(
        tmp_path, "--sink", "python", "--queue-first", "--fsync-ms", "2", "--message-bytes", "4000"
    )
    assert 0 < facts["accept_seconds"] < facts["seconds"]
    assert facts["rss_mb_queued"] > 0
    assert "+2 ms" in facts["durability"]
    assert 3_000 < facts["message_bytes"] < 6_000


@pytest.mark.slow
def test_a_deep_queue_is_not_sent_to_its_end(tmp_path: Path) -> None:
    facts = measure(tmp_path, "--sink", "python", "--queued", "20000", messages_at_least=True)
    assert facts["queued"] == 20_000
    assert 500 <= facts["messages"] < 20_000


@pytest.mark.slow
@pytest.mark.skipif(NO_COMPILER, reason="no C compiler; cure: install gcc")
def test_a_long_line_tells_messages_per_connection_and_round_trip(tmp_path: Path) -> None:
    facts = measure(tmp_path, "--rtt-ms", "5", "--chunking")
    assert facts["sink"] == "own"
    assert facts["messages_per_connection_rtt"] >= 0


@pytest.mark.parametrize(
    ("marks", "rate"),
    [
        ([(0.0, 0), (1.0, 100), (2.0, 200), (3.0, 300), (13.0, 400), (14.0, 1000)], 200 / 11.0),
        ([(0.0, 0), (1.0, 1000)], 0.0),
    ],
)
def test_the_steady_rate_leaves_out_start_and_tail(marks: list[tuple[float, int]], rate: float) -> None:
    assert _steady(marks) == rate
