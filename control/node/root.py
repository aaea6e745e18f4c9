"""The root supervisor of a node: one command that runs every process of this machine.

`run_node` holds the data folder, waits for processes that outlived an earlier root, and runs a supervision
tree with an actor per process: left starts first, each when the one before it is ready; stopping goes the
other way round. Each process has its own supervisor in the tree, so that a crash touches no sibling (the bus
keeps what crosses between them), with 5 restarts in 60 s; one more, or a process that cannot start at all,
ends the node with the last error: whoever restarts services then decides.

Signals: SIGTERM and SIGINT stop politely, a second one in a hurry, a third kills; SIGQUIT is the second at
once; SIGHUP reads the configuration anew. A root that is killed leaves children whose lifelines close: they
end by themselves, and the next root waits for them. Touches: processes, signals, `data/run`, `data/log`.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import structlog
import trio

from control.node.house import NodeHouse
from control.node.kernel import is_alive
from control.node.log_lines import LogBook
from control.node.log_output import LogOutput, RootStream
from control.node.notify import Notifier
from control.node.process_actor import FIRM_SECONDS, process_actor
from control.node.processes import PERIOD_SECONDS, RESTARTS_MAX, ProcessKind, child_environment
from control.node.record import ProcessFacts, ProcessState
from control.node.reload import ReloadRefused, other_tables, reload
from control.node.run_folder import ReloadFacts, RootState, RunFolder, outlived
from engine.config import Config
from engine.observe.logs import configure_logs
from engine.runtime.crash import Crash, leaf_of, log_crash
from engine.runtime.spec import ChildSpec, Restart, SupervisorSpec
from engine.runtime.supervisor import SupervisorGaveUp, Tree

LOG_FOLDER = "log"
OUTLIVED_SECONDS = 100.0  # an engine's polite end and some more; then they are killed
LOOK_SECONDS = 0.1
TELL_SECONDS = 2.0  # what is told is at most so old
START_MARGIN_SECONDS = 60.0  # the longest pause after crashes, and some

Extras = Callable[[NodeHouse], Sequence[ChildSpec]]

log = structlog.get_logger("root")


class NodeFailed(Exception):
    """The node could not start, or one of its processes crashed too often. The message is the last error."""


def no_extras(house: NodeHouse) -> Sequence[ChildSpec]:
    """A node without actors of its own beside its processes."""
    return ()


def run_node(
    config: Config,
    path: Path,
    kinds: Sequence[ProcessKind],
    *,
    stream: TextIO,
    environ: Mapping[str, str],
    json_logs: bool = False,
    extras: Extras = no_extras,
    on_ready: Callable[[NodeHouse], str] | None = None,
) -> None:
    """Run until it is stopped. Raises RootRuns, NodeFailed, OSError."""
    data = Path(config.node.data)
    folder = RunFolder(data)
    folder.hold()
    try:
        (data / LOG_FOLDER).mkdir(mode=0o700, exist_ok=True)
        book = LogBook(tuple(kind.name for kind in kinds))
        output = LogOutput(book, data / LOG_FOLDER, stream, json_logs=json_logs)
        configure_logs("info", environ=environ, stream=RootStream(output), as_json=json_logs)  # type: ignore[arg-type]
        house = NodeHouse(config, path, kinds, book, wall=time.time, environ=environ)
        root = Root(house, folder, output, Notifier(environ), child_environment(environ, json_logs=json_logs))
        trio.run(root.run, extras, on_ready)
    finally:
        folder.release()


class Root:
    """One life of a node."""

    def __init__(
        self,
        house: NodeHouse,
        folder: RunFolder,
        output: LogOutput,
        notifier: Notifier,
        environment: Mapping[str, str],
    ) -> None:
        self.house = house
        self.state = "starting"
        self.error = ""
        self._folder = folder
        self._output = output
        self._notifier = notifier
        self._environment = environment
        self._reload = ReloadFacts()
        self._others = other_tables(house)
        self._stops = 0
        self._reading = trio.Lock()
        self._untold = ""

    def __repr__(self) -> str:
        return f"<Root {self.state}: {self.house!r}>"

    async def run(
        self, extras: Extras = no_extras, on_ready: Callable[[NodeHouse], str] | None = None
    ) -> None:
        """Start everything, watch, stop everything. Raises NodeFailed."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._output.run)
            try:
                await self._wait_for_outlived()
                for record in self.house.records.values():
                    record.observe(self.tell)
                await self._run_tree(extras, on_ready)
            finally:
                self.tell()
                self._notifier.close()
                await self._output.flush()
                nursery.cancel_scope.cancel()
        if self.error:
            raise NodeFailed(self.error)

    def tell(self) -> None:
        """Write down how everything is."""
        house = self.house
        state = RootState(
            node=house.name,
            pid=os.getpid(),
            incarnation=house.incarnation,
            config=str(house.config_path),
            started_at=house.started_at,
            state=self.state,
            at=house.wall(),
            error=self.error,
            processes=house.processes(),
            reload=self._reload,
        )
        try:
            self._folder.write(state)
            self._untold = ""
        except OSError as error:  # nothing here may cost more than an old status
            if not self._untold:
                self._untold = f"the state cannot be written down: {error.strerror}"
                self._output.say(self._untold, "error")

    async def _run_tree(self, extras: Extras, on_ready: Callable[[NodeHouse], str] | None) -> None:
        tree = Tree(self._spec(extras(self.house)), on_crash=self._on_crash)
        with trio.open_signal_receiver(
            signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP
        ) as signals:
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()
                nursery.start_soon(self._heed, signals, tree, scope, nursery)
                nursery.start_soon(self._notifier.watch)
                nursery.start_soon(self._tell_again)
                nursery.start_soon(self._heed_refusal, tree)
                nursery.start_soon(self._say_ready, tree, on_ready)
                self.tell()
                with scope:
                    try:
                        await tree.run()
                    except SupervisorGaveUp as error:
                        self.error = self.error or last_error(error)
                self.state = "failed" if self.error else "stopped"
                nursery.cancel_scope.cancel()

    def _spec(self, extras: Sequence[ChildSpec]) -> SupervisorSpec:
        lives = tuple(self._life(name) for name in self.house.records)
        beside = (SupervisorSpec("beside", tuple(extras)),) if extras else ()
        return SupervisorSpec("node", (*lives, *beside), restarts_max=0, period_seconds=PERIOD_SECONDS)

    def _life(self, name: str) -> SupervisorSpec:
        """A supervisor with one child: limits are each process's own."""
        record = self.house.records[name]
        kind = record.kind
        child = ChildSpec(
            name,
            process_actor(record, self._output, self._environment),
            restart=Restart.TRANSIENT,
            shutdown_seconds=kind.stop_seconds + 2 * FIRM_SECONDS,
            start_seconds=kind.ready_seconds + START_MARGIN_SECONDS,
            mailbox_capacity=0,
        )
        return SupervisorSpec(
            f"{name} supervisor", (child,), restarts_max=RESTARTS_MAX, period_seconds=PERIOD_SECONDS
        )

    async def _say_ready(self, tree: Tree, on_ready: Callable[[NodeHouse], str] | None) -> None:
        records = self.house.records.values()
        for record in records:
            await record.until(lambda each=record: each.state is ProcessState.READY or not each.wanted)  # type: ignore[misc]
        if self._stops == 0:
            self.state = "running"
            self.tell()
            names = ", ".join(record.kind.name for record in records)
            self._notifier.ready(f"{self.house.name}: {names}")
            if on_ready is not None:
                self._output.show(on_ready(self.house))

    async def _tell_again(self) -> None:
        while True:
            await trio.sleep(TELL_SECONDS)  # last errors come without a change of state
            self.tell()

    async def _heed_refusal(self, tree: Tree) -> None:
        await self.house.refusal.wait()
        self.error = self.error or self.house.refused
        self._output.say(f"the node ends: {self.error}", "critical")
        self.state = "stopping"
        self.tell()
        tree.stop()

    # --- signals ---------------------------------------------------------------------------------------

    async def _heed(self, signals: Any, tree: Tree, scope: trio.CancelScope, nursery: trio.Nursery) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                nursery.start_soon(self._read_anew)
                continue
            self._stops += 2 if number == signal.SIGQUIT and self._stops == 0 else 1
            self.state = "stopping"
            self.tell()
            if self._stops == 1:
                self._notifier.stopping("stopping politely")
                self._output.say("stopping: open transactions finish (once more: in a hurry)")
                tree.stop()
            elif self._stops == 2:
                self._notifier.stopping("stopping in a hurry")
                self._output.say(
                    "stopping in a hurry: nobody is waited for (once more: everything is killed)"
                )
                self.house.hurry()
                tree.stop()
            else:
                self._output.say("killing what is left")
                scope.cancel()

    async def _read_anew(self) -> None:
        """A reload, which never stops the node."""
        async with self._reading:
            if self.state == "running":  # else the manager would take the end of it for a start
                self._notifier.reloading(time.monotonic())
            number = self._reload.number + 1
            try:
                done = await reload(self.house, self._others)
                self._reload = ReloadFacts(number, self.house.wall(), done.done, "", done.warnings)
                self._output.say(f"reload: {done.done}")
            except ReloadRefused as refused:
                self._reload = ReloadFacts(number, self.house.wall(), "", str(refused))
                self._output.say(f"the configuration was not taken over: {refused}", "error")
            self.tell()
            if self.state == "running":
                self._notifier.ready()

    # --- those of an earlier life ----------------------------------------------------------------------

    async def _wait_for_outlived(self) -> None:
        """Wait until those that outlived an earlier root have ended; then kill them."""
        left = outlived(self._folder.read())
        if not left:
            return
        self._output.say(f"waiting for the end of {names_of(left)}, which outlived an earlier emass up")
        with trio.move_on_after(OUTLIVED_SECONDS):
            while left:
                await trio.sleep(LOOK_SECONDS)
                left = tuple(each for each in left if each.pid and is_alive(each.pid, each.born))
        for each in left:
            assert each.pid is not None
            self._output.say(f"{each.name} (pid {each.pid}) does not end and is killed")
            os.kill(each.pid, signal.SIGKILL)

    def _on_crash(self, crash: Crash, error: Exception) -> None:
        record = self.house.records.get(crash.name)
        if record is not None:
            count = len(record.crashes)
            again = record.was_ready and count <= RESTARTS_MAX
            more = f"; it is started again ({count} of {RESTARTS_MAX} times)" if again else ""
            self._output.say(f"{crash.text}{more}", "error")
            self._notifier.status(f"{crash.text}{more}")
        elif isinstance(leaf_of(error), SupervisorGaveUp):
            self.error = self.error or last_error(error)
            self._output.say(f"the node ends: {self.error}", "critical")
            self.state = "stopping"
            self.tell()
        else:
            log_crash(crash, error)


def last_error(error: BaseException) -> str:
    """What lies behind a supervisor that gave up."""
    error = leaf_of(error)
    while isinstance(error, SupervisorGaveUp) and error.__cause__ is not None:
        error = leaf_of(error.__cause__)
    return str(error)


def names_of(processes: Sequence[ProcessFacts]) -> str:
    return ", ".join(f"{each.name} (pid {each.pid})" for each in processes)
