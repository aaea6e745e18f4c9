"""`emass status` says how a node is, from what its root wrote down and from what the kernel knows."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from control.cli.__main__ import run
from control.cli.status import gather, show
from control.node.kernel import birth
from control.node.record import ProcessFacts, ProcessState
from control.node.run_folder import RootState, RunFolder
from tests.fakes.node_children import node_config


def write(folder: Path, *processes: ProcessFacts, state: str = "running", error: str = "") -> None:
    run_folder = RunFolder(folder / "data")
    run_folder.path.mkdir(parents=True, exist_ok=True)
    run_folder.write(
        RootState("n1", os.getpid(), "ab", "/e", 100.0, state, 100.0, error=error, processes=processes)
    )


def process(state: ProcessState, pid: int | None = None, **facts) -> ProcessFacts:
    born = None if pid is None else birth(pid)
    told = {"restarts": 0, "last_exit": "", "last_error": ""} | facts
    return ProcessFacts("engine", state, pid, born, 100.0, **told)


def shown(facts) -> str:
    out = io.StringIO()
    show(facts, Console(file=out, width=120), 160.0)
    return out.getvalue()


@pytest.fixture
def held(tmp_path):
    folder = RunFolder(tmp_path / "data")
    folder.hold()
    yield folder
    folder.release()


def test_a_node_that_never_ran_says_so(tmp_path, capsys):
    _, config = node_config(tmp_path)
    assert run(["status", "--config", str(config)]) == 1
    assert "Node n1: never started" in capsys.readouterr().out


def test_a_running_node_has_states_memory_and_exit_code_0(tmp_path, held, capsys):
    _, config = node_config(tmp_path)
    write(tmp_path, process(ProcessState.READY, os.getpid()))
    assert run(["status", "--config", str(config), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "running"
    assert told["processes"][0]["memory_bytes"] > 1_000_000
    text = shown(told)
    assert "Node n1: running, pid" in text
    assert "engine    ready" in text


def test_a_crashed_process_is_told_with_its_last_word_and_exit_code_1(tmp_path, held, capsys):
    _, config = node_config(tmp_path)
    crashed = process(ProcessState.CRASHED, restarts=2, last_exit="exit code 1", last_error="no \x1b[2J room")
    write(tmp_path, crashed)
    assert run(["status", "--config", str(config)]) == 1
    assert "engine: last exit code 1; no \\x1b[2J room" in capsys.readouterr().out


def test_a_dead_root_is_said_and_who_outlived_it(tmp_path):
    config, _ = node_config(tmp_path)
    write(tmp_path, process(ProcessState.READY, os.getpid()))
    told = gather(config)
    assert told["state"] == "dead"
    assert told["orphans"] == [{"name": "engine", "pid": os.getpid()}]
    assert told["processes"][0]["state"] == "outlived"
    assert f"engine (pid {os.getpid()}) outlived its root" in shown(told)


def test_a_node_that_failed_says_why(tmp_path):
    config, _ = node_config(tmp_path)
    write(tmp_path, process(ProcessState.CRASHED), state="failed", error="engine ended: exit code 1: no")
    told = gather(config)
    assert told["state"] == "failed"
    assert "last error: engine ended: exit code 1: no" in shown(told)


def test_what_waits_is_shown_where_it_is_known(tmp_path):
    config, _ = node_config(tmp_path)
    told = gather(config)
    backlog = {"queued": 1_234, "held": 2, "on_the_wire": 5, "chunks_pending": 3}
    told["backlog"] |= backlog | {"closed": "another has this name", "draining": True}
    told["bus"] = {"kind": "nats", "reachable": False}
    text = shown(told)
    for words in (
        "1,234 messages, 5 on the wire (2 more",
        "3 chunks",
        "Draining",
        "another has this name",
        "no server",
    ):
        assert words in text


def test_a_bus_that_nobody_serves_is_not_reachable(tmp_path):
    config, _ = node_config(
        tmp_path, '[node]\nname = "n1"\n[bus]\nkind = "nats"\nservers = ["127.0.0.1:1"]\n'
    )
    assert gather(config)["bus"] == {"kind": "nats", "reachable": False}
