"""`bench world`, tiny: the promised figures for both runs, and a chart of each."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench.world_run import CONFIG, fixed_rule
from engine.config import load_config

PROMISED = {
    *("messages", "seconds", "optimum_seconds", "ratio", "attempts", "rate_refused_share"),
    *("connection_refusals", "blocks", "providers", "protocol_errors"),
}


@pytest.mark.slow
def test_a_tiny_run_tells_every_promised_figure_of_both_runs(tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "world", "--json", "--messages", "400", "--seconds", "1"),
            *("--patience", "2", "--chart", str(tmp_path / "world.svg")),
        ],
        check=False,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.returncode == 0, ran.stderr.decode()
    facts = json.loads(ran.stdout)
    for one in (facts, facts["fixed"]):
        assert one.keys() >= PROMISED
        assert one["messages"] == 400
        assert one["delivered"] + one["bounced"] == one["finished"] <= 400
        assert one["protocol_errors"] == 0
        assert one["attempts"] >= one["delivered"] > 50
        assert {"googol", "outlike", "firms"} <= one["providers"].keys()
    for name in ("world.svg", "world-fixed.svg"):
        ElementTree.parse(tmp_path / name)


def test_the_fixed_limits_are_a_configuration_that_this_engine_reads(tmp_path: Path) -> None:
    path = tmp_path / "emass.toml"
    path.write_text(CONFIG.format(smtp_port=2525, resolver="127.0.0.1:5353") + fixed_rule())
    config = load_config(path, {})
    assert config.engine.smtp_port == 2525
    assert len(config.engine.site) == 1
