"""The guard of a program of others: it ends with its lifeline, hands signals on, leaves nobody alive."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control.node import guard
from control.node.kernel import birth

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 20.0

pytestmark = pytest.mark.slow


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[[str], "tuple[subprocess.Popen[bytes], int]"]]:
    """Runs a script under a guard; the guard and the pid of the script's shell."""
    made: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> "tuple[subprocess.Popen[bytes], int]":
        pid_file = tmp_path / f"pid{len(made)}"
        command = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; {script}"
        argv = [sys.executable, "-m", "control.node.guard", "/bin/sh", "-c", command]
        made.append(subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE))
        until(pid_file.exists)
        return made[-1], int(pid_file.read_text())

    yield start
    for each in made:
        each.kill()
        each.wait()
        assert each.stdin is not None
        each.stdin.close()


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


FOR_EVER = "while :; do sleep 0.02; done"


def test_a_lifeline_that_closes_ends_the_program_politely(guarded):
    process, pid = guarded(f"trap 'exit 9' TERM; {FOR_EVER}")
    process.stdin.close()
    assert process.wait(SECONDS) == 9
    assert birth(pid) is None


def test_a_killed_guard_takes_the_program_along(guarded):
    process, pid = guarded(f"trap '' TERM; {FOR_EVER}")
    process.kill()
    process.wait(SECONDS)
    until(lambda: birth(pid) is None)


def test_signals_are_handed_on(guarded, tmp_path):
    process, _ = guarded(f"trap 'echo > {tmp_path}/hup' HUP; {FOR_EVER}")
    process.send_signal(signal.SIGHUP)
    until((tmp_path / "hup").exists)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == -signal.SIGTERM


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("kill -11 $$", -11)])
def test_it_ends_as_the_program_did(guarded, script, code):
    process, _ = guarded(script)
    assert process.wait(SECONDS) == code


def test_a_program_that_is_not_there_is_one_line(capfd):
    assert guard.main(["/nonexistent/program"]) == 127
    assert (
        capfd.readouterr().err
        == "guard: /nonexistent/program: cannot be started: No such file or directory\n"
    )
    assert guard.main([]) == 2
