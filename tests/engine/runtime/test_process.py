"""Real child processes on the real clock: short, since each costs a Python start."""

import os
import signal
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.runtime.frames import FrameTooLarge
from engine.runtime.process import ChildProcess, ProcessDied
from engine.runtime.spec import ChildSpec, Context, SupervisorSpec
from tests.fakes.trees import Crashes, running_tree

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all

ROOT = Path(__file__).parents[3]


def child(*arguments: str, **settings: Any) -> AbstractAsyncContextManager[ChildProcess]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return ChildProcess.open(
        "tests.engine.runtime.frame_child", *arguments, environment=environment, **settings
    )


@pytest.fixture(autouse=True)
async def _time_limit() -> Any:
    with trio.fail_after(30):
        yield


async def test_frames_go_there_and_back_in_order_and_in_batches() -> None:
    async with child() as process:
        await process.send(b"one")
        assert await process.receive_many() == [b"echo one"]
        await process.send_many([b"%d" % number for number in range(200)])
        got: list[bytes] = []
        async for frame in process.frames():
            got.append(frame)
            if len(got) == 200:
                break
        assert got == [b"echo %d" % number for number in range(200)]
        assert "running, 201 sent, 201 received" in repr(process)
    assert process.returncode == 0
    assert "ended with 0" in repr(process)


async def test_closing_its_input_ends_the_frames_after_the_last_answer() -> None:
    async with child() as process:
        await process.send_many([b"a", b"silent", b"b"])
        await process.close_input()
        assert [frame async for frame in process.frames()] == [b"echo a", b"echo b"]
        with pytest.raises(ProcessDied):
            await process.send(b"late")
    assert process.returncode == 0


async def test_a_killed_process_raises_out_of_frames_and_send() -> None:
    async with child() as process:
        await process.send(b"a")
        assert await process.receive_many() == [b"echo a"]
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ProcessDied, match="return code -9") as caught:
            await anext(process.frames())
        assert caught.value.returncode == -signal.SIGKILL
        with pytest.raises(ProcessDied) as caught:
            await process.send(b"b")
        assert caught.value.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("word", "returncode"), [(b"exit", 3), (b"raise", 1)])
async def test_a_process_that_ends_unasked_is_dead(word: bytes, returncode: int) -> None:
    async with child() as process:
        await process.send(word)
        with pytest.raises(ProcessDied) as caught:
            await process.receive_many()
        assert caught.value.returncode == returncode


async def test_a_frame_torn_by_the_end_of_the_process_is_death() -> None:
    async with child("torn") as process:
        await process.close_input()
        frames = process.frames()
        assert await anext(frames) == b"whole"
        with pytest.raises(ProcessDied):
            await anext(frames)


async def test_a_hanging_process_is_killed_after_the_polite_time() -> None:
    async with child(shutdown_seconds=0.2) as process:
        await process.send_many([b"a", b"hang"])
        assert await process.receive_many() == [b"echo a"]
    assert process.returncode == -signal.SIGKILL


async def test_leaving_cancelled_kills_at_once() -> None:
    began = trio.current_time()
    with trio.CancelScope() as scope:
        async with child(shutdown_seconds=60) as process:
            await process.send(b"hang")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert process.returncode == -signal.SIGKILL
    assert trio.current_time() - began < 20


async def test_a_polite_stop_is_not_blocked_by_answers_nobody_reads() -> None:
    async with child(shutdown_seconds=20) as process:
        await process.send_many([b"huge"] * 5)
    assert process.returncode == 0


async def test_ctrl_c_and_prints_do_not_disturb_the_child() -> None:
    async with child() as process:
        await process.send_many([b"interrupt", b"print", b"stdout"])
        got: list[bytes] = []
        while len(got) < 3:
            got += await process.receive_many()
        assert got == [b"still here", b"printed", b"True"]


async def test_frames_over_the_limit_are_refused_on_both_sides() -> None:
    async with child(frame_bytes_max=1_000) as process:
        with pytest.raises(FrameTooLarge):
            await process.send(bytes(1_001))
        await process.send(b"huge")
        with pytest.raises(FrameTooLarge):
            await process.receive_many()


async def test_a_write_cancelled_half_way_makes_the_process_useless() -> None:
    async with child() as process:
        await process.send_many([b"a", b"hang"])
        assert await process.receive_many() == [b"echo a"]
        with trio.move_on_after(0.1) as scope:
            await process.send(bytes(1_000_000))
        assert scope.cancelled_caught
        with pytest.raises(ProcessDied):
            await process.receive_many()


async def test_an_actor_and_its_process_come_back_together_after_sigkill() -> None:
    pids: list[int] = []
    answered = trio.Event()

    async def actor(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        async with child() as process, trio.open_nursery() as nursery:

            async def read() -> None:
                async for frame in process.frames():
                    assert frame == b"echo hello"
                    answered.set()

            nursery.start_soon(read)
            pids.append(process.pid)
            task_status.started()
            async for batch in context.mailbox.batches(16):
                await process.send_many(batch)
            await process.close_input()

    crashes = Crashes()
    spec = SupervisorSpec("root", (ChildSpec("signer", actor),))
    async with running_tree(spec, on_crash=crashes) as tree:
        os.kill(pids[0], signal.SIGKILL)
        while len(pids) < 2:
            await trio.sleep(0.01)
        await tree.ref("signer").tell(b"hello")
        await answered.wait()
    assert [crash.error_type for crash in crashes.seen] == ["ProcessDied"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as somebody else")
async def test_a_user_that_may_not_run_it_is_an_os_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "python"
    mine.symlink_to(sys.executable)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(mine))
    with pytest.raises(PermissionError):
        async with ChildProcess.open("engine", user=(54_321, 54_321)):
            pass


async def test_descriptors_are_inherited_under_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("inherited")
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        async with child(str(descriptor), descriptors=[descriptor]) as process:
            await process.send(b"read")
            assert await process.receive_many() == [b"inherited"]
    finally:
        os.close(descriptor)
