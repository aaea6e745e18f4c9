"""One supervised child over all its incarnations: its mailbox, its state, its record.

A supervisor launches it, asks it to stop, and hears by `on_change` that it became ready or ended. The child's
function runs in its own shielded cancel scope: nothing but this file's deadline (firm stop, kill) cancels it,
so neighbours in the same nursery cannot take it down. When an incarnation ends, the asks it had taken fail
with `ActorDied`; the mailbox stays, until `retire`.

    NEW -> STARTING -> RUNNING -> STOPPING -> STOPPED   (asked to, politely or firmly)
              \\-----------+--> LEFT | CRASHED           (by itself)
    any of the three ends -> STARTING (next incarnation) | DONE (for good)
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

import trio
from msgspec import Struct

from engine.runtime.clock import Clock
from engine.runtime.crash import Crash, CrashHook, describe_crash
from engine.runtime.mailbox import Mailbox
from engine.runtime.ref import Ref
from engine.runtime.spec import ChildSpec, Context, Kind, PoliteStop


class ChildState(Enum):
    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    LEFT = "left"
    CRASHED = "crashed"
    DONE = "done"


ALIVE = frozenset({ChildState.STARTING, ChildState.RUNNING, ChildState.STOPPING})


class Killed(Exception):
    """The incarnation was ended from outside (a test, an operator, a start that took too long)."""


class ChildStatistics(Struct, frozen=True):
    """One child for the panel. `below` is set for a supervisor."""

    name: str
    kind: Kind
    state: ChildState
    incarnation: int
    restarts: int
    crashes: int
    last_crash: Crash | None
    mailbox_depth: int
    mailbox_high_water: int
    mailbox_capacity: int
    mailbox_dropped: int
    below: "SupervisorStatistics | None" = None


class SupervisorStatistics(Struct, frozen=True):
    """A supervisor for the panel; `restarts_recent` counts those of the running period."""

    name: str
    strategy: str
    restarts_recent: int
    restarts_max: int
    period_seconds: float
    children: tuple[ChildStatistics, ...]


class Below(Protocol):
    """The supervisor that a child of kind SUPERVISOR runs, as far as its parent needs it."""

    def renew(self) -> None: ...
    def request_stop(self, final: bool) -> None: ...
    def retire(self) -> None: ...
    def statistics(self) -> SupervisorStatistics: ...


class Wiring(Struct, frozen=True):
    """What all children of a tree share."""

    clock: Clock
    on_crash: CrashHook
    peer: Callable[[str], Ref[Any]]


class Child:
    """See the top of the file. Owned by one supervisor; touched by its task and by the child's own."""

    __slots__ = (
        "_kill",
        "_on_change",
        "_scope",
        "_stop",
        "_wiring",
        "below",
        "crash_count",
        "error",
        "incarnation",
        "last_crash",
        "mailbox",
        "spec",
        "state",
    )

    def __init__(
        self,
        spec: ChildSpec,
        wiring: Wiring,
        on_change: Callable[["Child"], None],
        below: Below | None = None,
    ) -> None:
        self.spec = spec
        self.below = below
        self.mailbox: Mailbox[Any] = Mailbox(spec.name, spec.mailbox_capacity)
        self.state = ChildState.NEW
        self.incarnation = 0
        self.crash_count = 0
        self.last_crash: Crash | None = None
        self.error: Exception | None = None  # of the incarnation that just ended, for a give-up's cause
        self._wiring = wiring
        self._on_change = on_change
        self._kill: Killed | None = None
        self._scope: trio.CancelScope
        self._stop: trio.Event

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    @property
    def crashed(self) -> bool:
        """Its last incarnation ended by itself with an exception."""
        return self.state is ChildState.CRASHED

    def launch(self, nursery: trio.Nursery) -> None:
        """Begin an incarnation. The mailbox opens, also if an earlier life of the supervisor closed it."""
        assert not self.alive, f"{self!r} is launched twice"
        self.incarnation += 1
        self.state = ChildState.STARTING
        self.error = None
        self._kill = None
        self._scope = trio.CancelScope(shield=True)
        self._stop = trio.Event()
        self.mailbox.resume()
        if self.below is not None:
            self.below.renew()
        nursery.start_soon(self._live, name=self.spec.name)

    def ask_to_stop(self, final: bool, shutdown_seconds: float | None = None) -> None:
        """The polite word, and the moment of the firm one. `final`: it will not come back."""
        if not self.alive:
            return
        patience = self.spec.shutdown_seconds if shutdown_seconds is None else shutdown_seconds
        self.state = ChildState.STOPPING
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + patience)
        self._stop.set()
        if self.below is not None:
            self.below.request_stop(final)
        if self.spec.polite is PoliteStop.CLOSE_MAILBOX:
            if final:
                self.mailbox.close()
            else:
                self.mailbox.suspend()

    def stop_firmly(self) -> None:
        """Cancel the incarnation now; it counts as stopped."""
        if self.alive:
            self.state = ChildState.STOPPING
            self._stop.set()
            self._scope.cancel()

    def kill(self, why: str) -> None:
        """Cancel the incarnation now; it counts as a crash."""
        if self.alive:
            self._kill = Killed(f"{self.name} {why}")
            self._scope.cancel()

    def reset(self) -> None:
        """Its supervisor begins a new life: what had ended for good may be launched again."""
        assert not self.alive, f"{self!r} is reset alive"
        self.state = ChildState.NEW

    def retire(self) -> None:
        """It ended for good: the mailbox closes, every ask fails, a supervisor's children likewise."""
        assert not self.alive, f"{self!r} is retired alive"
        self.state = ChildState.DONE
        self.mailbox.retire("has ended")
        if self.below is not None:
            self.below.retire()

    def started(self, value: None = None) -> None:
        """`task_status.started()` of the running incarnation."""
        if self.state is ChildState.STARTING:
            self.state = ChildState.RUNNING
            self._on_change(self)

    def statistics(self) -> ChildStatistics:
        return ChildStatistics(
            name=self.name,
            kind=self.spec.kind,
            state=self.state,
            incarnation=self.incarnation,
            restarts=max(0, self.incarnation - 1),
            crashes=self.crash_count,
            last_crash=self.last_crash,
            mailbox_depth=len(self.mailbox),
            mailbox_high_water=self.mailbox.high_water,
            mailbox_capacity=self.mailbox.capacity,
            mailbox_dropped=self.mailbox.dropped,
            below=None if self.below is None else self.below.statistics(),
        )

    async def _live(self) -> None:
        # The scope is inside the try: it takes its own Cancelled out of a group first, and what is left
        # of that group, an ExceptionGroup of plain Exceptions, is a crash. KeyboardInterrupt and the
        # like pass through to the nursery: they end the process, not the actor.
        context: Context[Any] = Context(
            self.spec.name,
            self.mailbox,
            stop=self._stop,
            incarnation=self.incarnation,
            crash_count=self.crash_count,
            peer=self._wiring.peer,
        )
        error: Exception | None = None
        try:
            with self._scope:
                await self.spec.start(context, task_status=self)
        except Exception as caught:
            error = caught
        finally:
            if error is None and self._kill is not None and self._scope.cancelled_caught:
                error = self._kill
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        stopped = self.state is ChildState.STOPPING
        if stopped:
            self.state = ChildState.STOPPED
        else:
            self.state = ChildState.LEFT if error is None else ChildState.CRASHED
        if error is None:
            self.mailbox.fail_taken("ended with the message in hand")
            self._on_change(self)
            return
        self.error = error
        self.crash_count += 1
        self.last_crash = describe_crash(self.name, self.incarnation, error, self._wiring.clock.now())
        self.mailbox.fail_taken("crashed with the message in hand")
        self._on_change(self)
        self._wiring.on_crash(self.last_crash, error)  # last: a hook that raises finds the state settled

    def __repr__(self) -> str:
        crashes = f", {self.crash_count} crashes" if self.crash_count else ""
        last = f", last {self.last_crash.error_type}: {self.last_crash.text}" if self.last_crash else ""
        return (
            f"<Child {self.name}: {self.state.value}, incarnation {self.incarnation}{crashes}{last}, "
            f"mailbox {len(self.mailbox)}/{self.mailbox.capacity}>"
        )
