"""One process under its actor: readiness, crashes and their pauses, wishes, and three degrees of an end."""

import io
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from control.node import process_actor as actors
from control.node.house import HouseError, NodeHouse
from control.node.kernel import birth
from control.node.log_lines import LogBook
from control.node.log_output import LogOutput
from control.node.process_actor import ProcessEnded, exit_words, process_actor
from control.node.processes import ProcessKind
from control.node.record import ProcessRecord, ProcessState
from engine.runtime.spec import ChildSpec, Restart, SupervisorSpec
from engine.runtime.supervisor import SupervisorGaveUp, Tree
from tests.fakes.node_children import GOOD, LIVE, POLITE, READY, STUBBORN, node_config, shell

pytestmark = pytest.mark.slow
SECONDS = 20.0


class Run:
    """A tree with one process in it."""

    def __init__(self, folder: Path, kind: ProcessKind, restarts_max: int = 5) -> None:
        config, path = node_config(folder)
        book = LogBook((kind.name,))
        self.output = LogOutput(book, folder, io.StringIO(), json_logs=False)
        self.house = NodeHouse(config, path, [kind], book, wall=time.time, environ={})
        self.record: ProcessRecord = self.house.records[kind.name]
        child = ChildSpec(
            kind.name,
            process_actor(self.record, self.output, dict(os.environ)),
            restart=Restart.TRANSIENT,
            mailbox_capacity=0,
        )
        spec = SupervisorSpec("node", (child,), restarts_max=restarts_max)
        self.tree = Tree(spec, on_crash=lambda crash, error: None)

    @property
    def lines(self) -> str:
        return "\n".join(self.house.logs())

    async def until(self, state: ProcessState) -> None:
        with trio.fail_after(SECONDS):
            await self.record.until(lambda: self.record.state is state)


@asynccontextmanager
async def running(folder: Path, kind: ProcessKind, restarts_max: int = 5) -> AsyncIterator[Run]:
    run = Run(folder, kind, restarts_max)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(SECONDS):
            await nursery.start(_start(run.tree))
        yield run
        run.tree.stop()


def _start(tree: Tree):
    async def start(task_status: trio.TaskStatus[None]) -> None:
        await tree.run(task_status=task_status)

    return start


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(actors, "FIRM_SECONDS", 0.2)


async def test_a_process_is_ready_when_it_says_so_and_its_lines_are_kept(tmp_path):
    async with running(tmp_path, shell("one", f"echo hello; {GOOD}")) as run:
        facts = run.record.facts
        assert facts.state is ProcessState.READY
        assert facts.pid is not None
        assert birth(facts.pid) == facts.born
        with trio.fail_after(SECONDS):
            while "one        | hello" not in run.lines:
                await trio.sleep(0.01)
    assert run.record.state is ProcessState.STOPPED
    assert run.record.pid is None


async def test_a_process_that_ends_before_it_is_ready_ends_the_node_with_its_last_word(tmp_path):
    run = Run(tmp_path, shell("one", "echo first; echo 'no such key' >&2; exit 3"))
    with pytest.raises(SupervisorGaveUp) as caught:
        await run.tree.run()
    assert "one ended: exit code 3: no such key" in str(caught.value.__cause__.exceptions[0])
    assert run.record.last_error == "no such key"


async def test_a_program_that_is_not_there_is_named(tmp_path):
    run = Run(tmp_path, ProcessKind("one", ("/nonexistent/program",)))
    with pytest.raises(SupervisorGaveUp) as caught:
        await run.tree.run()
    assert "/nonexistent/program: No such file" in str(caught.value.__cause__.exceptions[0])


async def test_a_killed_process_is_started_again(tmp_path):
    async with running(tmp_path, shell("one", GOOD)) as run:
        first = run.record.pid
        os.kill(first, 9)
        await run.until(ProcessState.CRASHED)
        await run.until(ProcessState.READY)
        assert run.record.pid != first
        assert run.record.restarts == 1
        assert run.record.last_exit == "killed by SIGKILL"
        with trio.fail_after(SECONDS):
            await run.house.restart("one")
        assert run.record.restarts == 1


async def test_too_many_crashes_end_the_node_and_pauses_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(actors, "PAUSE_SECONDS", 0.1)
    run = Run(tmp_path, shell("one", f"{READY}; sleep 0.2; exit 4"), restarts_max=2)
    began = trio.current_time()
    with pytest.raises(SupervisorGaveUp), trio.fail_after(SECONDS):
        await run.tree.run()
    assert trio.current_time() - began >= 0.1 + 0.2
    assert run.record.starts == 3
    assert run.record.last_exit == "exit code 4"


async def test_a_process_that_may_end_by_itself_stays_stopped_then_and_can_be_started(tmp_path):
    mark = tmp_path / "mark"
    script = f"{READY}; test -e {mark} && exec {LIVE}; echo > {mark}; exit 0"
    async with running(tmp_path, shell("one", script, ends_by_itself=True)) as run:
        await run.until(ProcessState.STOPPED)
        assert not run.record.wanted
        assert run.record.restarts == 0
        with trio.fail_after(SECONDS):
            await run.house.start("one")
        assert run.record.state is ProcessState.READY


async def test_stop_start_and_restart_are_done_when_they_return_and_are_no_crashes(tmp_path):
    async with running(tmp_path, shell("one", GOOD)) as run:
        with trio.fail_after(SECONDS):
            first = run.record.pid
            await run.house.stop("one")
            assert run.record.pid is None
            await run.house.stop("one")
            await run.house.start("one")
            second = run.record.pid
            await run.house.start("one")
            assert run.record.pid == second
            await run.house.restart("one")
            assert run.record.pid not in (first, second)
        assert run.record.restarts == 0
        assert run.record.crashes == []


async def test_a_start_that_fails_says_why(tmp_path):
    mark = tmp_path / "mark"
    script = f"test -e {mark} && echo 'it is broken' && exit 5; {GOOD}"
    async with running(tmp_path, shell("one", script)) as run:
        with trio.fail_after(SECONDS):
            await run.house.stop("one")
            mark.touch()
            with pytest.raises(HouseError, match="did not start: it is broken"):
                await run.house.start("one")
            mark.unlink()
            await run.until(ProcessState.READY)


async def test_an_unknown_name_is_refused_with_those_there_are(tmp_path):
    async with running(tmp_path, shell("one", GOOD)) as run:
        with pytest.raises(HouseError, match="there are: one"):
            await run.house.stop("two")
        with pytest.raises(HouseError, match="there are: root, one"):
            run.house.logs("two")


async def test_a_polite_end_is_waited_for(tmp_path):
    async with running(tmp_path, shell("one", POLITE)) as run:
        pass
    assert run.record.last_exit == "exit code 7"
    assert "bye" in run.lines


async def test_who_does_not_end_in_time_is_killed(tmp_path):
    async with running(tmp_path, shell("one", STUBBORN, stop_seconds=0.2)) as run:
        pid = run.record.pid
    assert run.record.last_exit == "killed by SIGKILL"
    assert birth(pid) is None


async def test_in_a_hurry_nobody_is_waited_for(tmp_path):
    async with running(tmp_path, shell("one", STUBBORN, stop_seconds=1_000.0)) as run:
        run.tree.stop()
        await run.until(ProcessState.STOPPING)
        run.house.hurry()
    assert run.record.last_exit == "killed by SIGKILL"


async def test_cancelling_the_tree_kills_at_once(tmp_path):
    run = Run(tmp_path, shell("one", STUBBORN, stop_seconds=1_000.0))
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(_start(run.tree))
            pid = run.record.pid
            nursery.cancel_scope.cancel()
    assert birth(pid) is None


async def test_who_is_not_ready_in_time_is_killed(tmp_path):
    run = Run(tmp_path, shell("one", LIVE, ready_seconds=0.2))
    with pytest.raises(SupervisorGaveUp), trio.fail_after(SECONDS):
        await run.tree.run()
    assert "was not ready within 0.2 s" in run.lines


async def test_a_probe_is_asked_until_it_says_yes(tmp_path):
    answers = iter([False, False, True])

    async def probe() -> bool:
        return next(answers)

    async with running(tmp_path, shell("one", LIVE, probe=probe)) as run:
        assert run.record.state is ProcessState.READY


async def test_the_line_of_an_error_is_kept_while_it_runs(tmp_path):
    script = f"echo '2026-01-01 [error    ] it hurts'; echo fine; {GOOD}"
    async with running(tmp_path, shell("one", script)) as run:
        with trio.fail_after(SECONDS):
            while not run.record.last_error:
                await trio.sleep(0.01)
        assert run.record.last_error == "2026-01-01 [error    ] it hurts"


def test_exits_in_words():
    assert exit_words(0) == "exit code 0"
    assert exit_words(-9) == "killed by SIGKILL"
    assert exit_words(-250) == "killed by signal 250"
    assert issubclass(ProcessEnded, Exception)
