"""The supervisor of a static tree: starts left to right, brings back what crashed, stops right to left.

One task per supervisor decides and acts, one end at a time; children ring its bell when they become ready
or end. Raw nurseries cancel everybody at once when one task fails, which is why this exists: children run
shielded, and only their supervisor stops them, in order. Touches: its children, no mail, no socket.

Trouble: a child that crashes at the very first start, or more often than the spec allows, makes the
supervisor stop the others (in reverse, politely) and raise `SupervisorGaveUp`, whose cause is the last crash;
above it, that is one more child's crash. `Tree.stop` is the polite stop of everything. Cancelling `Tree.run`
is the firm one: every child is cancelled, still in reverse order and one at a time.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import trio

from engine.runtime.child import Child, ChildState, ChildStatistics, SupervisorStatistics, Wiring
from engine.runtime.clock import Clock, SystemClock
from engine.runtime.crash import CrashHook, log_crash
from engine.runtime.ref import Ref
from engine.runtime.restart import Intensity, affected, comes_back
from engine.runtime.spec import ChildSpec, Context, Kind, Restart, Strategy, SupervisorSpec

RESTART_PAUSE_SECONDS = 0.1  # doubled each time: five tries take 3 s


class SupervisorGaveUp(Exception):
    """Too many restarts, or a crash at the first start. `__cause__`: the last crash, None if it just left."""


class Tree:
    """A whole supervision tree. Its Refs work, and its mailboxes fill, before it runs."""

    def __init__(
        self, spec: SupervisorSpec, *, clock: Clock | None = None, on_crash: CrashHook = log_crash
    ) -> None:
        """Raises ValueError when two children share a name."""
        self._by_name: dict[str, Child] = {}
        wiring = Wiring(clock=clock or SystemClock(), on_crash=on_crash, peer=self.ref)
        self._root = Supervisor(spec, wiring)
        for child in self._root.all_children():
            if child.name in self._by_name:
                raise ValueError(f"two children of the tree are named {child.name}")
            self._by_name[child.name] = child

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop`; started when every child is. Raises SupervisorGaveUp. Cancelling stops firmly."""
        try:
            await self._root.run(task_status)
        finally:
            self._root.retire()

    def stop(self) -> None:
        """Ask for the polite stop; `run` returns when it is done."""
        self._root.request_stop(final=True)

    def ref(self, name: str) -> Ref[Any]:
        """The Ref of a static child anywhere in the tree. Raises LookupError."""
        return Ref(self._child(name).mailbox)

    def kill(self, name: str, why: str = "was killed on purpose") -> None:
        """Let a child crash with `Killed`: for tests and drills."""
        self._child(name).kill(why)

    def statistics(self) -> SupervisorStatistics:
        return self._root.statistics()

    def child_statistics(self, name: str) -> ChildStatistics:
        """One child's line. Raises LookupError."""
        return self._child(name).statistics()

    def _child(self, name: str) -> Child:
        try:
            return self._by_name[name]
        except KeyError:
            raise LookupError(f"no actor named {name} in the tree {self._root.spec.name}") from None

    def __repr__(self) -> str:
        return f"<Tree {self._root!r}>"


class Supervisor:
    """One supervisor of a tree, over all its incarnations (a nested one is restarted by its parent)."""

    def __init__(self, spec: SupervisorSpec, wiring: Wiring) -> None:
        self.spec = spec
        self.children = tuple(self._build(child, wiring) for child in spec.children)
        self._intensity = Intensity(spec.restarts_max, spec.period_seconds)
        self._bell = trio.Event()
        self._ended: deque[Child] = deque()
        self._stop_asked = False
        self._stop_final = False
        self._nursery: trio.Nursery

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start, watch, stop. Returns after `request_stop`; raises SupervisorGaveUp."""
        self._intensity = Intensity(self.spec.restarts_max, self.spec.period_seconds)
        self._ended.clear()
        gave_up: SupervisorGaveUp | None = None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await self._first_start()
                task_status.started()
                await self._watch()
                await self._stop(self.children)
            except SupervisorGaveUp as error:
                gave_up = error
                await self._stop(self.children)
            finally:
                # Cancelled on the way: whoever is still alive is stopped firmly. Else this finds nobody.
                with trio.CancelScope(shield=True):
                    await self._stop(self.children, firmly=True)
        if gave_up is not None:
            raise gave_up  # outside the nursery, which would wrap it into a group

    def renew(self) -> None:
        """The parent launches it anew. A stop that met its last life's end, asked or not, is over with it."""
        self._stop_asked = self._stop_final = False

    def request_stop(self, final: bool) -> None:
        """Ask for the polite stop. `final`: nobody starts this supervisor again."""
        self._stop_asked = True
        self._stop_final = self._stop_final or final
        self._bell.set()

    def retire(self) -> None:
        """It will not run again: all mailboxes close, all asks fail."""
        for child in self.children:
            child.retire()

    def all_children(self) -> list[Child]:
        """The static children of this supervisor and of those below it."""
        found: list[Child] = []
        for child in self.children:
            found.append(child)
            if isinstance(child.below, Supervisor):
                found += child.below.all_children()
        return found

    def statistics(self) -> SupervisorStatistics:
        """To be called within trio (it reads the time)."""
        return SupervisorStatistics(
            name=self.spec.name,
            strategy=self.spec.strategy.value,
            restarts_recent=self._intensity.recent(trio.current_time()),
            restarts_max=self.spec.restarts_max,
            period_seconds=self.spec.period_seconds,
            children=tuple(child.statistics() for child in self.children),
        )

    # -- starting

    async def _first_start(self) -> None:
        for child in self.children:
            child.reset()
        remaining: Sequence[Child] = self.children
        while failed := await self._start(remaining):
            if failed.spec.restart is not Restart.TEMPORARY:
                raise SupervisorGaveUp(f"{self.spec.name}: {failed.name} did not start") from failed.error
            failed.retire()
            remaining = remaining[remaining.index(failed) + 1 :]

    async def _start(self, children: Sequence[Child]) -> Child | None:
        """Launch in order, each when the one before it is ready. Returns one that crashed before, or None."""
        for child in children:
            if self._stop_asked:
                break
            if child.state is ChildState.DONE:
                continue
            child.launch(self._nursery)
            with trio.move_on_after(child.spec.start_seconds) as patience:
                await self._ready(child)
            if patience.cancelled_caught:
                child.kill(f"was not ready within {child.spec.start_seconds:g} s")
                await self._gone(child)
            if child.crashed:
                return child
        return None

    async def _ready(self, child: Child) -> None:
        await self._until(lambda: child.state is not ChildState.STARTING or self._stop_asked)

    async def _gone(self, child: Child) -> None:
        await self._until(lambda: not child.alive)

    # -- watching

    async def _watch(self) -> None:
        while True:
            await self._until(lambda: self._stop_asked or bool(self._ended))
            if self._stop_asked:
                return
            child = self._ended.popleft()
            if child.state in (ChildState.LEFT, ChildState.CRASHED):  # else a sibling's restart was faster
                await self._recover(child)

    async def _recover(self, child: Child) -> None:
        """Bring `child` back with all that the strategy takes along; again, if that crashes at its start.

        Each further try waits longer: what a start needs (a store, a file, a port) may be back by then.
        """
        failed: Child | None = child
        pause_seconds = RESTART_PAUSE_SECONDS
        while failed is not None and not self._stop_asked:
            if not comes_back(failed.spec.restart, failed.crashed):
                failed.retire()
                return
            if not self._intensity.allow(trio.current_time()):
                raise SupervisorGaveUp(
                    f"{self.spec.name}: {failed.name} ended, and more than {self.spec.restarts_max} "
                    f"restarts in {self.spec.period_seconds:g} s are too many"
                ) from failed.error
            index = self._leftmost(failed)
            taken = [self.children[i] for i in affected(self.spec.strategy, index, len(self.children))]
            await self._stop(taken)
            for sibling in taken:
                if not returns_with_siblings(sibling):
                    sibling.retire()
            failed = await self._start(taken)
            if failed is not None:
                with trio.move_on_after(pause_seconds):
                    await self._until(lambda: self._stop_asked)
                pause_seconds *= 2

    def _leftmost(self, failed: Child) -> int:
        """The place of `failed`, or of one left of it that has ended, too, and takes it along.

        A crash on the left often shows on the right first, which cannot start before the left one is back.
        """
        index = self.children.index(failed)
        if self.spec.strategy is Strategy.ONE_FOR_ONE:
            return index
        for place, child in enumerate(self.children[:index]):
            ended = child.state in (ChildState.LEFT, ChildState.CRASHED)
            if ended and comes_back(child.spec.restart, child.crashed):
                return place
        return index

    # -- stopping

    async def _stop(self, children: Sequence[Child], *, firmly: bool = False) -> None:
        """Stop from right to left, each when the one right of it has ended."""
        for child in reversed(children):
            if firmly:
                child.stop_firmly()
            else:
                child.ask_to_stop(self._stop_final)
            await self._gone(child)
            if self._stop_final:
                child.retire()

    # -- inside

    def _build(self, spec: ChildSpec | SupervisorSpec, wiring: Wiring) -> Child:
        if isinstance(spec, ChildSpec):
            return Child(spec, wiring, self._changed)
        below = Supervisor(spec, wiring)

        async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
            await below.run(task_status)

        as_child = ChildSpec(
            name=spec.name,
            start=start,
            restart=spec.restart,
            shutdown_seconds=spec.shutdown_seconds,
            start_seconds=float("inf"),  # bounded by its children's own limits
            mailbox_capacity=0,
            kind=Kind.SUPERVISOR,
        )
        return Child(as_child, wiring, self._changed, below)

    def _changed(self, child: Child) -> None:
        if child.state in (ChildState.LEFT, ChildState.CRASHED):
            self._ended.append(child)
        self._bell.set()

    async def _until(self, happened: Callable[[], bool]) -> None:
        while not happened():
            self._bell = trio.Event()
            await self._bell.wait()

    def __repr__(self) -> str:
        alive = sum(child.alive for child in self.children)
        return (
            f"<Supervisor {self.spec.name}: {self.spec.strategy.value}, {alive}/{len(self.children)} alive>"
        )


def returns_with_siblings(child: Child) -> bool:
    """Whether a child that was stopped for a sibling's sake, or had ended by itself, is started again."""
    if child.state is ChildState.STOPPED:
        return child.spec.restart is not Restart.TEMPORARY
    return child.state is not ChildState.DONE and comes_back(child.spec.restart, child.crashed)
