"""The parent of several workers: one actor for each process, started by exec, brought back when it dies.

The workers share their ports through the kernel, so the parent touches no client. A worker's standard input
is its lifeline: closed, it stops politely, and a parent that was killed leaves no orphan. It tells by a
pipe that it takes connections. Raises SupervisorGaveUp when workers die too often.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from engine.runtime.spec import ChildSpec, Context, Start, Strategy, SupervisorSpec
from engine.runtime.supervised import READY_VARIABLE, SUPERVISED
from engine.runtime.supervisor import Tree

MODULE = "services.submission"
RESTARTS_MAX = 10
PERIOD_SECONDS = 60.0
START_SECONDS = 30.0
STOP_SECONDS = 20.0  # its own limit for messages in hand is 10 s


class WorkerDied(Exception):
    """A worker ended that nobody had told to."""


async def run_workers(
    path: Path | None,
    count: int,
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run workers 1 to `count` until `stop`; started when all take connections."""
    children = tuple(
        ChildSpec(
            f"worker-{number}",
            _worker(path, number),
            mailbox_capacity=0,
            start_seconds=START_SECONDS,
            shutdown_seconds=STOP_SECONDS + 5.0,
        )
        for number in range(1, count + 1)
    )
    tree = Tree(
        SupervisorSpec(
            MODULE, children, Strategy.ONE_FOR_ONE, restarts_max=RESTARTS_MAX, period_seconds=PERIOD_SECONDS
        )
    )
    async with trio.open_nursery() as nursery:

        async def heed() -> None:
            await stop.wait()
            tree.stop()

        nursery.start_soon(heed)
        await tree.run(task_status=task_status)
        nursery.cancel_scope.cancel()


def _worker(path: Path | None, number: int) -> Start:
    words = [sys.executable, "-m", MODULE, SUPERVISED, "--worker", str(number)]
    words += [str(path)] if path is not None else []

    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        ready, told = os.pipe()
        try:
            process = await trio.lowlevel.open_process(
                words,
                stdin=subprocess.PIPE,
                env={**os.environ, READY_VARIABLE: str(told)},
                pass_fds=(told,),
                process_group=0,  # Ctrl-C at a terminal is for the parent, which stops its children
            )
        finally:
            os.close(told)
        try:
            async with trio.lowlevel.FdStream(ready) as pipe:
                if not await pipe.receive_some(64):
                    raise WorkerDied(f"worker {number} ended before it was ready")
            task_status.started()
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    code = await process.wait()
                    raise WorkerDied(f"worker {number} ended with return code {code}")

                nursery.start_soon(watch)
                await context.stop.wait()
                nursery.cancel_scope.cancel()
            assert process.stdin is not None
            await process.stdin.aclose()
            with trio.move_on_after(STOP_SECONDS):
                await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    return start
