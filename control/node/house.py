"""A node's processes in one hand: what they are, how they are, and what may be done to them.

The root supervisor makes the house and runs an actor per process; whoever acts for an operator (signals, the
agent that other machines talk to) holds the house. `start`, `stop` and `restart` return when it is done, and
raise `HouseError` with a line for the operator when it cannot be. A process that an operator stopped stays
stopped until it is started, whatever else happens, but not over a new `emass up`. Touches: the records of
the processes; the engine, which it asks over the node's own bus.
"""

import os
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from control.node.engine_line import ask_engine
from control.node.kernel import family, is_alive, private_octets
from control.node.log_lines import LogBook
from control.node.processes import ProcessKind
from control.node.record import ProcessFacts, ProcessRecord, ProcessState
from engine.config import Config

DRAIN_SECONDS = 600.0  # as `emass queue drain`
ENGINE_SECONDS = 10.0  # a commit may be behind its answer
INCARNATION_OCTETS = 8


class HouseError(Exception):
    """It cannot be done; the message says why, and what would."""


class NodeHouse:
    """The processes of this node, for the root's life."""

    def __init__(
        self,
        config: Config,
        config_path: Path,
        kinds: Sequence[ProcessKind],
        logs: LogBook,
        *,
        wall: Callable[[], float],
        environ: Mapping[str, str],
    ) -> None:
        self.config = config  # as it holds now: a reload sets it anew
        self.config_path = config_path
        self.environ = environ
        self.log_book = logs
        self.incarnation = secrets.token_hex(INCARNATION_OCTETS)  # random, one per `emass up`
        self.started_at = wall()
        self.wall = wall
        self.refused = ""  # why this node must not run
        self.refusal = trio.Event()
        self.records = {kind.name: ProcessRecord(kind, wall) for kind in kinds}

    def __repr__(self) -> str:
        return f"<NodeHouse {self.name} {self.incarnation}: {list(self.records.values())!r}>"

    @property
    def name(self) -> str:
        return self.config.node.name

    @property
    def data(self) -> Path:
        return Path(self.config.node.data)

    def processes(self) -> tuple[ProcessFacts, ...]:
        """How they are, in the order of their start."""
        return tuple(record.facts for record in self.records.values())

    def memory(self) -> dict[str, int]:
        """Private memory of each process that runs, with all that descend from it; octets."""
        running = {name: record.pid for name, record in self.records.items() if record.pid is not None}
        return {name: sum(map(private_octets, family([pid]))) for name, pid in running.items()}

    async def start(self, name: str) -> None:
        """Start a process that is stopped; returns when it is ready. One that runs is left alone."""
        record = self._record(name)
        before = record.starts
        record.wanted = True
        record.ring()
        await self._until_ready(record, before, anew=False)

    async def stop(self, name: str) -> None:
        """Stop a process politely; returns when it is gone."""
        record = self._record(name)
        record.wanted = False
        record.ring()
        await record.until(lambda: record.state is ProcessState.STOPPED or record.wanted)
        if record.wanted:
            raise HouseError(f"{name} was started again meanwhile")

    async def restart(self, name: str) -> None:
        """Stop a process politely and start it; returns when it is ready. It counts as no crash."""
        record = self._record(name)
        before = record.starts
        record.wanted = True
        record.turn += 1
        record.ring()
        await self._until_ready(record, before, anew=True)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process that runs: SIGHUP has a nats-server read its configuration anew."""
        record = self._record(name)
        if record.pid is None or not is_alive(record.pid, record.born):
            raise HouseError(f"{name} does not run")
        os.kill(record.pid, number)

    def logs(self, name: str = "", count: int = 100) -> list[str]:
        """The last lines of one process, or of all and the root, oldest first; each begins with its name."""
        if name and name not in self.log_book.names:
            raise HouseError(
                f"no process is called {name[:40]!r}; there are: {', '.join(self.log_book.names)}"
            )
        return self.log_book.last(name, count)

    async def drain(self, reason: str, author: str = "", seconds: float = DRAIN_SECONDS) -> dict[str, Any]:
        """Have the engine take nothing new, send what it has, and end; it stays stopped then.

        Returns its answer at once: `done`, `left`, `seconds_left`.
        """
        return await self.ask_engine(
            {"command": "drain", "reason": reason, "author": author, "seconds": seconds}
        )

    async def ask_engine(self, request: dict[str, Any], seconds: float = ENGINE_SECONDS) -> dict[str, Any]:
        """The answer of this node's engine. Raises HouseError: its refusal, or that none runs."""
        answer = await ask_engine(self.data, self.name, request, seconds)
        if answer is None:
            raise HouseError(f"the engine of {self.name} does not answer (emass status shows its state)")
        if "error" in answer:
            raise HouseError(str(answer["error"]))
        return answer

    def refuse(self, why: str) -> None:
        """This node must not run: it ends, politely and with that as its last error."""
        self.refused = self.refused or why
        self.refusal.set()

    def hurry(self) -> None:
        """Wait for no polite end any more, neither of those that stop now nor of those that will."""
        for record in self.records.values():
            record.hurried = True
            record.ring()

    def _record(self, name: str) -> ProcessRecord:
        record = self.records.get(name)
        if record is None:
            raise HouseError(f"no process is called {name[:40]!r}; there are: {', '.join(self.records)}")
        return record

    async def _until_ready(self, record: ProcessRecord, before: int, *, anew: bool) -> None:
        """Until it is ready (in a later life than `before`); HouseError when it does not come to that."""

        def settled() -> bool:
            later = record.starts > before
            ready = record.state is ProcessState.READY and (later or not anew)
            return ready or not record.wanted or (later and record.state is ProcessState.CRASHED)

        await record.until(settled)
        if not record.wanted:
            raise HouseError(f"{record.kind.name} was stopped meanwhile")
        if record.state is ProcessState.CRASHED:
            raise HouseError(f"{record.kind.name} did not start: {record.last_error or record.last_exit}")
