"""`bench spool`, tiny: every figure is there and possible."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_tiny_run_tells_every_figure(tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "spool", "--json", "--folder", str(tmp_path)),
            *("--messages", "6000", "--domains", "40", "--settle", "2000"),
        ],
        check=False,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.returncode == 0, ran.stderr.decode()
    facts = json.loads(ran.stdout)
    assert (facts["messages"], facts["domains"]) == (6000, 40)
    assert "fdatasync" in facts["durability"]
    for name in (
        *("cores", "accept_seconds", "accept_per_second", "rss_mb", "commit_ms", "commit_ms_max"),
        *("settle_ordered_us", "settle_ordered_cpu_us", "settle_random_us", "settle_random_cpu_us"),
    ):
        assert facts[name] > 0, name
    assert facts["rebuild_seconds"] >= 0
    assert facts["python"]
    assert list(tmp_path.iterdir()) == []
