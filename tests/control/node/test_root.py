"""The root supervisor as a process: order, signals, refusals, and what happens when it is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from control.node.kernel import birth, is_alive
from control.node.record import ProcessFacts, ProcessState
from control.node.root import NodeFailed, Root, last_error, names_of
from control.node.run_folder import RootState, RunFolder, outlived
from engine.runtime.supervisor import SupervisorGaveUp
from tests.fakes.node_children import GOOD, LIVE, POLITE, READY, STUBBORN

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 30.0

pytestmark = pytest.mark.slow


class Node:
    """A root in a process of its own."""

    def __init__(self, folder: Path, *scripts: str, **environment: str) -> None:
        self.folder = RunFolder(folder / "data")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.node_children", str(folder), *scripts],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )

    def state(self) -> RootState | None:
        state = self.folder.read()
        return state if state is not None and state.pid == self.process.pid else None

    def until(self, happened: Callable[[RootState], bool]) -> RootState:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            state = self.state()
            if state is not None and happened(state):
                return state
            assert self.process.poll() is None or (state and happened(state)), self.output()
            time.sleep(0.02)
        raise AssertionError(self.state())

    def running(self) -> RootState:
        return self.until(lambda state: state.state == "running")

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def output(self) -> str:
        return self.process.communicate(timeout=SECONDS)[0]

    def pid(self, name: str) -> int | None:
        state = self.state()
        assert state is not None
        return next(each.pid for each in state.processes if each.name == name)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(*scripts: str, **environment: str) -> Node:
        made.append(Node(tmp_path, *scripts, **environment))
        return made[-1]

    yield make
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()
        assert each.process.stdout is not None
        each.process.stdout.close()
        for left in outlived(each.folder.read()):
            if left.pid is not None:
                os.kill(left.pid, signal.SIGKILL)


def test_processes_start_from_left_to_right_and_stop_from_right_to_left(node, tmp_path):
    say = f"{tmp_path}/order"
    script = "trap 'echo -{0} >> {1}; exit 0' TERM; echo +{0} >> {1}; {2}; while :; do sleep 0.02; done"
    one = node(*(f"{name}={script.format(name, say, READY)}" for name in "abc"))
    one.running()
    one.tell(signal.SIGTERM)
    output = one.output()
    assert one.process.returncode == 0, output
    assert Path(say).read_text().split() == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert one.folder.read().state == "stopped"
    assert one.folder.holder() is None


def test_lines_come_with_the_name_of_their_process_and_into_its_file(node, tmp_path):
    one = node(f"a=printf 'hello\\033[31m\\n'; {GOOD}")
    one.running()
    one.tell(signal.SIGTERM)
    assert "a          | hello\\x1b[31m\n" in one.output()
    assert (tmp_path / "data" / "log" / "a.log").read_text() == "hello\\x1b[31m\n"


def test_a_second_root_over_the_same_folder_is_refused_with_the_pid(node):
    first = node(f"a={GOOD}")
    first.running()
    second = node(f"a={GOOD}")
    assert f"it runs already, as pid {first.process.pid}" in second.output()
    assert second.process.returncode != 0
    assert first.state().state == "running"


def test_a_killed_child_comes_back_and_its_siblings_do_not_notice(node):
    one = node(f"a={GOOD}", f"b={GOOD}")
    one.running()
    first, other = one.pid("a"), one.pid("b")
    os.kill(first, signal.SIGKILL)
    state = one.until(lambda state: state.processes[0].restarts == 1 and state.processes[0].pid is not None)
    assert state.processes[0].last_exit == "killed by SIGKILL"
    assert one.pid("b") == other


def test_a_killed_root_leaves_nobody_and_the_next_one_starts_cleanly(node):
    first = node(f"a={GOOD}", f"b={GOOD}")
    state = first.running()
    first.process.kill()
    second = node(f"a={GOOD}", f"b={GOOD}")
    second.running()
    assert not any(is_alive(each.pid, each.born) for each in state.processes)


def test_the_next_root_waits_for_who_outlived_the_killed_one(node, tmp_path):
    go, log = tmp_path / "go", tmp_path / "data" / "log" / "root.log"
    slow = f"{READY}; {LIVE}; while ! test -e {go}; do sleep 0.02; done; echo over >> {tmp_path}/order"
    first = node(f"a={slow}")
    first.running()
    first.process.kill()
    second = node(f"a=echo new >> {tmp_path}/order; {GOOD}")
    deadline = time.monotonic() + SECONDS
    while not (log.exists() and "waiting for the end of a (pid" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    go.touch()
    second.running()
    assert (tmp_path / "order").read_text().split() == ["over", "new"]


def test_a_crash_loop_ends_the_node_with_the_last_error_and_stops_the_others(node):
    one = node(f"a={POLITE}", "b=echo 'b has no luck'; exit 3")
    output = one.output()
    assert one.process.returncode == 1, output
    assert "NodeFailed: b ended: exit code 3: b has no luck" in output
    state = one.folder.read()
    assert state.state == "failed"
    assert "b has no luck" in state.error
    assert state.processes[0].last_exit == "exit code 7"


def test_a_stop_in_a_hurry_and_a_kill_do_not_wait(node):
    one = node(f"a={STUBBORN}")
    one.running()
    pid = one.pid("a")
    for _ in range(3):
        one.tell(signal.SIGINT)
        time.sleep(0.2)
    assert "killing what is left" in one.output()
    assert birth(pid) is None


def test_a_reload_that_changes_what_cannot_change_is_refused_by_key(node, tmp_path):
    one = node(f"a={GOOD}")
    one.running()
    (tmp_path / "emass.toml").write_text('[node]\nname = "n1"\n[engine]\nsmtp_port = 26\n')
    one.tell(signal.SIGHUP)
    state = one.until(lambda state: state.reload.number == 1)
    assert "[engine] smtp_port: cannot change while the node runs" in state.reload.error
    (tmp_path / "emass.toml").write_text(
        '[node]\nname = "n1"\n[[engine.site]]\nmx = "x.test"\nconnections = 2\n'
    )
    one.tell(signal.SIGHUP)
    state = one.until(lambda state: state.reload.number == 2)
    assert state.reload.error == ""
    assert state.state == "running"


def test_the_last_error_is_found_behind_those_who_gave_up():
    inner = SupervisorGaveUp("inner")
    inner.__cause__ = ExceptionGroup("", [ValueError("it")])
    outer = SupervisorGaveUp("outer")
    outer.__cause__ = inner
    assert last_error(outer) == "it"
    assert issubclass(NodeFailed, Exception)
    assert Root.__doc__


def test_names_come_with_their_pids():
    facts = ProcessFacts("a", ProcessState.READY, 7, 1, 0.0, 0, "", "")
    assert names_of([facts, facts]) == "a (pid 7), a (pid 7)"


async def test_systemd_hears_ready_alive_reload_and_stopping(node, tmp_path):
    path = tmp_path / "notify"
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as manager:
        await manager.bind(str(path))
        one = node(f"a=env > {tmp_path}/env; {GOOD}", NOTIFY_SOCKET=str(path), WATCHDOG_USEC="300000")
        said: list[str] = []
        with trio.fail_after(SECONDS):
            for wanted in ("READY=1", "WATCHDOG=1", "RELOADING=1", "READY=1", "STOPPING=1"):
                if wanted == "RELOADING=1":
                    one.tell(signal.SIGHUP)
                if wanted == "STOPPING=1":
                    one.tell(signal.SIGTERM)
                while True:
                    said = (await manager.recv(4096)).decode().splitlines()
                    if wanted in said:
                        break
        await trio.to_thread.run_sync(one.output)
    assert "STATUS=stopping politely" in said
    assert "NOTIFY_SOCKET" not in (tmp_path / "env").read_text()
