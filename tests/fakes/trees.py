"""Supervision trees for tests: run one for the length of a block on trio's (jumping) clock."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from engine.runtime.clock import TrioClock
from engine.runtime.crash import Crash
from engine.runtime.ref import Ref
from engine.runtime.spec import ChildSpec, Context, Kind, Restart, Strategy, SupervisorSpec
from engine.runtime.supervisor import Tree


class Crashes:
    """A crash hook that remembers instead of logging."""

    def __init__(self) -> None:
        self.seen: list[Crash] = []
        self.errors: list[Exception] = []

    def __call__(self, crash: Crash, error: Exception) -> None:
        self.seen.append(crash)
        self.errors.append(error)

    @property
    def names(self) -> list[str]:
        return [crash.name for crash in self.seen]


@asynccontextmanager
async def running_tree(
    spec: SupervisorSpec, *, on_crash: Callable[[Crash, Exception], None] | None = None
) -> AsyncIterator[Tree]:
    """Start the tree, yield it, stop it politely."""
    tree = Tree(spec, clock=TrioClock(), on_crash=on_crash or Crashes())
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: tree.run(task_status=task_status))
        yield tree
        tree.stop()


@asynccontextmanager
async def running_actor(
    start: Any,
    *,
    name: str = "actor",
    mailbox_capacity: int = 64,
    peers: Mapping[str, Any] | None = None,
    restart: Restart = Restart.PERMANENT,
    on_crash: Callable[[Crash, Exception], None] | None = None,
) -> AsyncIterator[Ref[Any]]:
    """Run one actor under a supervisor, with other `start` functions as its peers to the left of it."""
    children = [ChildSpec(peer, peer_start, kind=Kind.WORKER) for peer, peer_start in (peers or {}).items()]
    children.append(ChildSpec(name, start, restart=restart, mailbox_capacity=mailbox_capacity))
    async with running_tree(SupervisorSpec("root", tuple(children)), on_crash=on_crash) as tree:
        yield tree.ref(name)


def context_for(mailbox: Any) -> Context[Any]:
    """A Context for calling a start function by hand."""
    return Context(mailbox.name, mailbox, stop=trio.Event())


class Stage:
    """Start functions that write what happens into one list."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def take(self) -> list[str]:
        events, self.events = self.events, []
        return events

    async def actor(self, context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        """Obeys the words in its mailbox."""
        self.events.append(f"+{context.name}")
        task_status.started()
        try:
            async for batch in context.mailbox.batches(1):
                match batch[0]:
                    case "crash":
                        raise ValueError(f"{context.name} told to crash")
                    case "leave":
                        return
                    case word:
                        self.events.append(f"{context.name}:{word}")
        finally:
            self.events.append(f"-{context.name}")

    def spec(self, names: str, **settings: Any) -> tuple[ChildSpec, ...]:
        return tuple(ChildSpec(name, self.actor, **settings) for name in names)

    def failing(self, *, starts: int = 0) -> Callable[..., Any]:
        """An actor whose first `starts` incarnations start; every later one crashes before it is ready."""

        async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
            if context.incarnation > starts:
                self.events.append(f"!{context.name}")
                raise OSError(f"{context.name} cannot start")
            await self.actor(context, task_status)

        return start


async def until_quiet() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def run_to_the_end(tree: Tree) -> Exception | None:
    """Run until it ends by itself; the one exception it ended with."""
    try:
        await tree.run()
    except Exception as error:
        return error
    return None


def nested(stage: Stage, **inner: Any) -> SupervisorSpec:
    """a, (b, c), d: rest_for_one above, `inner`'s settings below."""
    below = SupervisorSpec("inner", stage.spec("bc"), **inner)
    return SupervisorSpec("root", (*stage.spec("a"), below, *stage.spec("d")), strategy=Strategy.REST_FOR_ONE)
