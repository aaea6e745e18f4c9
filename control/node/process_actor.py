"""The actor of one process: starts it, hears it, brings it to an end, and dies with it.

A process that ends unasked is the actor's crash, which the supervision tree answers: it starts the actor
again, and the actor the process, after a pause that doubles with each crash of the last minute. What an
operator wishes (`record.wanted`, `record.turn`) is done here without a crash. Children are started by exec in
process groups of their own, so that Ctrl-C at a terminal reaches the root alone, which ends them in order.

The end of a process: SIGTERM, and its lifeline closes; SIGINT when its time is over or somebody is in a hurry
(another signal, since two alike may arrive as one); SIGKILL ten seconds later. Cancelled (a firm stop of the
tree) it is killed at once. Either way it is gone and reaped when the actor is. Touches: processes, pipes; the
record and the log, which outlive it.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import trio

from control.node.kernel import birth
from control.node.log_lines import LineCutter, tells_error
from control.node.log_output import LogOutput
from control.node.processes import PERIOD_SECONDS, PROBE_SECONDS
from control.node.record import ProcessRecord, ProcessState
from engine.runtime.spec import Context, Start
from engine.runtime.supervised import READY_VARIABLE

FIRM_SECONDS = 10.0  # from SIGINT to SIGKILL
PAUSE_SECONDS = 0.5  # before the first restart; doubled for each crash of the last minute
TAIL_SECONDS = 0.5  # for the last lines: a grandchild may hold the pipe open
READ_OCTETS = 65_536


class ProcessEnded(Exception):
    """A process ended unasked. The text says how, and its last word."""


def process_actor(record: ProcessRecord, output: LogOutput, environment: Mapping[str, str]) -> Start:
    """Runs one process for as long as it is wanted."""

    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            actor = ProcessActor(record, output, environment, context.stop.is_set, task_status.started)

            async def heed_stop() -> None:
                await context.stop.wait()
                record.ring()

            nursery.start_soon(heed_stop)
            await actor.live()
            nursery.cancel_scope.cancel()

    return start


class ProcessActor:
    """One incarnation."""

    def __init__(
        self,
        record: ProcessRecord,
        output: LogOutput,
        environment: Mapping[str, str],
        stopping: Callable[[], bool],
        started: Callable[[], None],
    ) -> None:
        self._record = record
        self._name = record.kind.name
        self._output = output
        self._environment = environment
        self._stopping = stopping
        self._started = started
        self._turn = record.turn
        self._again = record.state is ProcessState.CRASHED  # an earlier incarnation's end

    def __repr__(self) -> str:
        return f"<ProcessActor of {self._record!r}>"

    async def live(self) -> None:
        """Run the process again and again, until the tree stops. Raises ProcessEnded."""
        record = self._record
        while not self._stopping():
            if not record.wanted:
                record.become(ProcessState.STOPPED)
                self._started()  # a process that is stopped on purpose holds up nobody
                await record.until(lambda: record.wanted or self._stopping())
                continue
            if self._again:
                await self._pause()
            if record.wanted and not self._stopping():
                await self._run_once()
        record.become(ProcessState.STOPPED)

    async def _pause(self) -> None:
        """After a crash: a process that cannot run now may be able to later."""
        record, now = self._record, trio.current_time()
        record.become(ProcessState.WAITING)
        record.crashes = [at for at in record.crashes if at > now - PERIOD_SECONDS]
        turn = record.turn
        with trio.move_on_after(PAUSE_SECONDS * 2 ** max(0, len(record.crashes) - 1)):
            await record.until(lambda: not record.wanted or record.turn != turn or self._stopping())

    async def _run_once(self) -> None:
        """One life of the process. Raises ProcessEnded."""
        record = self._record
        self._turn = record.turn
        mark = self._output.book.mark()
        record.starts += 1
        record.restarts += self._again
        self._again = False
        process, ready = await self._spawn()
        record.pid, record.born = process.pid, birth(process.pid)
        record.become(ProcessState.STARTING)
        heard = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear, process, heard)
                nursery.start_soon(self._ring_at_end, process)
                nursery.start_soon(self._become_ready, process, ready)
                await record.until(lambda: process.returncode is not None or self._is_unwanted())
                asked = process.returncode is None
                if asked:
                    await self._stop(process)
                with trio.move_on_after(TAIL_SECONDS):
                    await heard.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                await close_pipes(process)
            if ready is not None:
                os.close(ready)
            record.pid = record.born = None
        assert process.returncode is not None
        self._judge(process.returncode, asked, mark)

    def _judge(self, code: int, asked: bool, mark: int) -> None:
        """What its end means."""
        record = self._record
        record.last_exit = exit_words(code)
        if asked:
            record.become(ProcessState.STOPPED)
            self._output.say(f"{self._name} stopped ({record.last_exit})")
            return
        if code == 0 and record.kind.ends_by_itself:
            record.wanted = False
            self._output.say(f"{self._name} came to its end and stays stopped")
            return
        said = self._output.book.last_line(self._name, mark) if code > 0 else ""
        record.last_error = said or record.last_error  # who was killed had no time for a last word
        self._crash(f"{self._name} ended: {record.last_exit}{f': {said}' if said else ''}")

    def _crash(self, text: str, cause: Exception | None = None) -> NoReturn:
        self._record.crashes.append(trio.current_time())
        self._record.become(ProcessState.CRASHED)
        raise ProcessEnded(text) from cause

    def _is_unwanted(self) -> bool:
        record = self._record
        return self._stopping() or not record.wanted or record.turn != self._turn

    async def _spawn(self) -> "tuple[trio.Process, int | None]":
        """The process, and our end of the pipe that it says "ready" on."""
        kind = self._record.kind
        environment = dict(self._environment)
        ready: int | None = None
        theirs: tuple[int, ...] = ()
        if kind.probe is None:
            ready, writing = os.pipe()
            theirs = (writing,)
            environment[READY_VARIABLE] = str(writing)
        try:
            process = await trio.lowlevel.open_process(
                list(kind.argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
                pass_fds=theirs,
            )
        except OSError as error:
            if ready is not None:
                os.close(ready)
            self._record.last_exit = "could not be started"
            self._record.last_error = f"{kind.argv[0]}: {error.strerror}"
            self._crash(f"{self._name} could not be started: {self._record.last_error}", error)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        return process, ready

    async def _ring_at_end(self, process: trio.Process) -> None:
        await process.wait()
        self._record.ring()

    async def _hear(self, process: trio.Process, heard: trio.Event) -> None:
        assert process.stdout is not None
        cutter = LineCutter()
        try:
            while piece := await process.stdout.receive_some(READ_OCTETS):
                for line in cutter.feed(bytes(piece)):
                    self._take(line)
        except trio.BrokenResourceError:
            pass
        for line in cutter.finish():
            self._take(line)
        heard.set()

    def _take(self, line: str) -> None:
        self._output.add(self._name, line)
        if tells_error(line):
            self._record.last_error = line

    async def _become_ready(self, process: trio.Process, ready: int | None) -> None:
        kind = self._record.kind
        with trio.move_on_after(kind.ready_seconds) as patience:
            if ready is not None:
                said = await hears_ready(ready)
            else:
                said = await self._probed()
            if said and process.returncode is None and self._record.state is ProcessState.STARTING:
                self._record.was_ready = True
                self._record.become(ProcessState.READY)
                self._started()
        if patience.cancelled_caught and process.returncode is None:
            self._output.say(f"{self._name} was not ready within {kind.ready_seconds:g} s and is killed")
            process.kill()

    async def _probed(self) -> bool:
        probe = self._record.kind.probe
        assert probe is not None
        while True:
            if await probe():
                return True
            await trio.sleep(PROBE_SECONDS)

    async def _stop(self, process: trio.Process) -> None:
        """Politely, then firmly; it is gone on return."""
        record = self._record
        record.become(ProcessState.STOPPING)
        process.send_signal(signal.SIGTERM)
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.move_on_after(record.kind.stop_seconds):
            await record.until(lambda: process.returncode is not None or record.hurried)
        if process.returncode is None:
            self._output.say(f"{self._name} is told to end at once")
            process.send_signal(signal.SIGINT)
            with trio.move_on_after(FIRM_SECONDS):
                await process.wait()
        if process.returncode is None:
            self._output.say(f"{self._name} does not end and is killed")
            process.kill()
            await process.wait()


async def hears_ready(descriptor: int) -> bool:
    """Whether the word comes; False when the other end closes without it."""
    async with trio.lowlevel.FdStream(os.dup(descriptor)) as stream:
        try:
            return b"ready" in await stream.receive_some(64)
        except trio.BrokenResourceError:
            return False


async def close_pipes(process: trio.Process) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            await pipe.aclose()


def exit_words(code: int) -> str:
    """A return code as `subprocess` has it, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
