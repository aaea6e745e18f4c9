"""What is known of one process of this node, over all its lives: facts that others read, wishes they set.

A record belongs to the house and outlives its actor's crashes. The actor (`process_actor`) writes the facts;
who wants the process started, stopped or begun anew sets the wish, and waits until the facts follow. Whoever
waits is woken by each change. Touches nothing.

    WAITING -> STARTING -> READY -> STOPPING -> STOPPED   (asked to, or it came to its own end)
       ^          \\---------+--> CRASHED                  (unasked)
       \\------------------------------/                   (its supervisor starts it again)
"""

from collections.abc import Callable
from enum import Enum

import trio
from msgspec import Struct

from control.node.processes import ProcessKind

ERROR_CHARS_MAX = 500


class ProcessState(Enum):
    WAITING = "waiting"  # for its turn, or for the pause after a crash
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CRASHED = "crashed"


class ProcessFacts(Struct, frozen=True):
    """One process for `emass status`. Times are wall seconds, `since` that of the state."""

    name: str
    state: ProcessState
    pid: int | None
    born: int | None  # ticks of the kernel's clock: with the pid, whom it names
    since: float
    restarts: int
    last_exit: str
    last_error: str


class ProcessRecord:
    """One process. Shared by its actor and the house, in one loop."""

    def __init__(self, kind: ProcessKind, wall: Callable[[], float]) -> None:
        self.kind = kind
        self.state = ProcessState.WAITING
        self.pid: int | None = None
        self.born: int | None = None
        self.since = wall()
        self.starts = 0
        self.restarts = 0
        self.was_ready = False  # once: from then on a crash is answered by a restart
        self.last_exit = ""
        self.last_error = ""
        self.crashes: list[float] = []  # of late, monotonic
        self.wanted = True  # to run
        self.turn = 0  # one more for each wish to begin anew
        self.hurried = False  # nobody waits for a polite end any more
        self._wall = wall
        self._bell = trio.Event()
        self._observers: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        pid = f" pid {self.pid}" if self.pid else ""
        last = f", last {self.last_exit}" if self.last_exit else ""
        return f"<Process {self.kind.name}{pid}: {self.state.value}, {self.restarts} restarts{last}>"

    @property
    def facts(self) -> ProcessFacts:
        return ProcessFacts(
            self.kind.name,
            self.state,
            self.pid,
            self.born,
            self.since,
            self.restarts,
            self.last_exit,
            self.last_error[:ERROR_CHARS_MAX],
        )

    def become(self, state: ProcessState) -> None:
        """The actor's word."""
        if state is not self.state:
            self.state, self.since = state, self._wall()
        self.ring()

    def ring(self) -> None:
        """Something changed: wake who waits."""
        bell, self._bell = self._bell, trio.Event()
        bell.set()
        for observer in self._observers:
            observer()

    def observe(self, observer: Callable[[], None]) -> None:
        """Have `observer` called at each change."""
        self._observers.append(observer)

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait until it has; it is asked after each change."""
        while not happened():
            await self._bell.wait()
        await trio.lowlevel.checkpoint()
