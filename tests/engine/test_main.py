"""`python -m engine` serves until it is told to stop, and says in one line why it cannot."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "engine", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
def test_sigterm_stops_it_politely(tmp_path):
    config = tmp_path / "emass.toml"
    config.write_text('[node]\nname = "n1"\n')
    process = start(str(config))
    spool = tmp_path / "data" / "spool" / "data.mdb"
    deadline = time.monotonic() + 30
    while not (tmp_path / "data" / "bus" / "n1" / "data.mdb").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert spool.exists()


@pytest.mark.slow
def test_a_wrong_configuration_is_one_line_and_exit_code_2(tmp_path):
    config = tmp_path / "emass.toml"
    config.write_text("[engine]\nsmtp_prot = 25\n")
    process = start(str(config))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "smtp_prot" in errors


@pytest.mark.slow
def test_supervised_it_says_that_it_is_ready_and_ends_when_its_lifeline_closes(tmp_path):
    config = tmp_path / "emass.toml"
    config.write_text('[node]\nname = "n1"\n')
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", "--supervised", str(config)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EMASS_READY_FD": str(writing)},
        pass_fds=(writing,),
    )
    os.close(writing)
    assert os.read(reading, 100) == b"ready\n"
    assert os.read(reading, 100) == b""
    os.close(reading)
    assert process.stderr is not None
    process.stderr.close()  # its supervisor was killed: nobody reads its lines
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=30) == 0
