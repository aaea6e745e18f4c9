"""`emass up` with a real engine: it comes up, is seen, reads its file anew, and stops."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control.cli import up
from control.cli.__main__ import run
from control.cli.errors import InputError
from control.node.run_folder import RunFolder, outlived
from tests.fakes.node_children import node_config

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 60.0

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Runs `emass up` over `tmp_path/emass.toml`."""
    made: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-m", "control", "up", "--config", str(tmp_path / "emass.toml"), *options]
        made.append(
            subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        return made[-1]

    yield begin
    folder = RunFolder(tmp_path / "data")
    for each in made:
        each.kill()
        each.wait()
        assert each.stdout is not None
        each.stdout.close()
    for left in outlived(folder.read()):
        os.kill(left.pid, signal.SIGKILL)


def status(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    code = run(["status", "--config", str(config), "--json"])
    return code, json.loads(capsys.readouterr().out)


def until_running(config: Path, process: "subprocess.Popen[str]") -> None:
    folder = RunFolder(config.parent / "data")
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        state = folder.read()
        if state is not None and state.pid == process.pid and state.state == "running":
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("it did not come up")


@pytest.mark.slow
def test_one_command_brings_a_node_up_and_another_stops_it(start, tmp_path, capsys):
    _, config = node_config(tmp_path)
    process = start()
    until_running(config, process)

    code, told = status(config, capsys)
    assert code == 0
    assert told["state"] == "running"
    assert told["pid"] == process.pid
    (engine,) = told["processes"]
    assert (engine["name"], engine["state"], engine["restarts"]) == ("engine", "ready", 0)
    assert engine["memory_bytes"] > 10_000_000
    assert told["backlog"]["queued"] == 0
    assert told["backlog"]["chunks_pending"] == 0
    assert told["bus"] == {"kind": "local", "reachable": True}

    assert run(["up", "--config", str(config)]) == 1
    assert f"it runs already, as pid {process.pid}" in capsys.readouterr().err

    with config.open("a") as file:
        file.write('[[engine.site]]\nmx = "mx.x.test"\nconnections = 2\n')
    assert run(["reload", "--config", str(config)]) == 0
    with config.open("a") as file:
        file.write("[limits]\nspool_map = '1 GB'\n")
    assert run(["reload", "--config", str(config)]) == 2
    assert "[limits] spool_map: cannot change while the node runs" in capsys.readouterr().err

    assert run(["stop", "--config", str(config)]) == 0
    assert "n1 is stopped." in capsys.readouterr().out
    output = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, output
    assert "Node n1 is up: engine (pid " in output
    assert run(["stop", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "n1 does not run.\n"
    code, told = status(config, capsys)
    assert (code, told["state"], told["processes"][0]["state"]) == (1, "stopped", "stopped")


@pytest.mark.slow
def test_a_drained_engine_stays_stopped_and_the_node_goes_on(start, tmp_path, capsys):
    _, config = node_config(tmp_path)
    process = start()
    until_running(config, process)
    assert run(["queue", "drain", "--data", str(tmp_path / "data"), "--reason", "moving"]) == 0
    folder = RunFolder(tmp_path / "data")
    deadline = time.monotonic() + SECONDS
    while folder.read().processes[0].pid is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    capsys.readouterr()
    code, told = status(config, capsys)
    assert (code, told["state"], told["processes"][0]["state"]) == (0, "running", "stopped")
    assert told["processes"][0]["restarts"] == 0


@pytest.mark.slow
def test_an_engine_that_cannot_start_ends_the_node_with_its_own_words(start, tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "master.key").write_text("no key\n")
    (tmp_path / "keys" / "master.key").chmod(0o600)
    node_config(tmp_path)
    process = start("--json-logs")
    output = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("emass: engine ended: exit code 1: engine: ")
    assert "master.key" in last
    assert all(json.loads(line)["process"] for line in output.strip().splitlines()[:-1])


def test_without_a_file_it_says_what_writes_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    with pytest.raises(InputError, match="emass init"):
        up.config_file(None)


def test_a_node_that_runs_nothing_is_refused(tmp_path, capsys):
    _, config = node_config(tmp_path, '[node]\nname = "n1"\nruns = []\n')
    assert run(["up", "--config", str(config)]) == 2
    assert "[node] runs names no process" in capsys.readouterr().err


@pytest.mark.slow
def test_a_firm_stop_hurries_the_engine(start, tmp_path, capsys):
    _, config = node_config(tmp_path)
    process = start()
    until_running(config, process)
    assert run(["stop", "--firm", "--config", str(config)]) == 0
    output = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, output
    assert "in a hurry" in output
    assert "engine stopped (exit code 0)" in output
