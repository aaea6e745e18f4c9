"""What lies under `deploy/` works: systemd reads the unit, the samples are configurations."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from control.node.process_actor import FIRM_SECONDS
from control.node.processes import ENGINE_READY_SECONDS, ENGINE_STOP_SECONDS, STOP_SECONDS
from control.node.root import OUTLIVED_SECONDS
from engine.config import load_config

DEPLOY = Path(__file__).parents[1] / "deploy"
UNIT = DEPLOY / "emass.service"
EXPOSURE_MAX = 2.0  # of 10; systemd calls it OK up to 4
MACHINES = ("hub", "b1", "b2")


def setting(name: str) -> str:
    found = re.search(rf"(?m)^{name}=(.*)$", UNIT.read_text())
    assert found is not None, name
    return found[1]


def needs_systemd() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze absent; cure: apt install systemd")


@pytest.mark.slow
def test_systemd_reads_the_unit_without_a_complaint(tmp_path):
    needs_systemd()
    unit = tmp_path / "emass.service"
    unit.write_text(re.sub(r"/opt/emass/bin/emass", "/bin/true", UNIT.read_text()))
    ran = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    about_it = [line for line in ran.stderr.splitlines() if "emass.service" in line]
    assert about_it == []


@pytest.mark.slow
def test_the_unit_gives_away_little():
    needs_systemd()
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", UNIT], capture_output=True, text=True, check=False
    )
    exposure = re.search(r"Overall exposure level for emass.service: ([\d.]+)", ran.stdout)
    assert exposure is not None, ran.stderr
    assert float(exposure[1]) <= EXPOSURE_MAX


def test_the_unit_waits_as_long_as_the_root_does():
    assert float(setting("TimeoutStopSec")) > ENGINE_STOP_SECONDS + 2 * STOP_SECONDS + 3 * FIRM_SECONDS
    assert float(setting("TimeoutStartSec")) > ENGINE_READY_SECONDS + OUTLIVED_SECONDS
    assert setting("Type") == "notify"
    assert setting("KillMode") == "mixed"


@pytest.mark.parametrize("machine", MACHINES)
def test_each_machine_of_the_sample_has_a_file_that_loads(machine):
    config = load_config(DEPLOY / "three-machines" / machine / "emass.toml", {})
    assert config.node.name == machine
    assert str(config.bus.servers[0]) == "10.0.0.1:4222"
