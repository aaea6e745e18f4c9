"""One child's record over its incarnations, without a supervisor."""

from typing import Any

import pytest
import trio
import trio.testing

from engine.runtime.child import Child, ChildState, Wiring
from engine.runtime.clock import TrioClock
from engine.runtime.spec import ChildSpec, Context, no_peer
from tests.fakes.trees import Crashes


class Watched:
    """A child whose changes of state are noted."""

    def __init__(self, start: Any, **settings: Any) -> None:
        self.states: list[ChildState] = []
        self.crashes = Crashes()
        wiring = Wiring(clock=TrioClock(), on_crash=self.crashes, peer=no_peer)
        self.child = Child(ChildSpec("c", start, **settings), wiring, self._note)

    def _note(self, child: Child) -> None:
        self.states.append(child.state)


async def obedient(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    message = await context.mailbox.get()
    if message == "crash":
        raise ValueError("told to crash")


async def deaf(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


@pytest.mark.parametrize(("message", "ends"), [("leave", ChildState.LEFT), ("crash", ChildState.CRASHED)])
async def test_a_child_is_ready_then_ends(message: str, ends: ChildState) -> None:
    watched = Watched(obedient)
    async with trio.open_nursery() as nursery:
        watched.child.launch(nursery)
        assert watched.child.state is ChildState.STARTING
        await trio.testing.wait_all_tasks_blocked()
        watched.child.mailbox.put_nowait(message)
    assert watched.states == [ChildState.RUNNING, ends]
    assert watched.child.crashed is (ends is ChildState.CRASHED)


async def test_stopped_before_its_first_step_it_never_runs() -> None:
    watched = Watched(deaf)
    async with trio.open_nursery() as nursery:
        watched.child.launch(nursery)
        watched.child.stop_firmly()
    assert watched.child.state is ChildState.STOPPED


async def test_a_kill_counts_as_a_crash_and_a_firm_stop_does_not() -> None:
    watched = Watched(deaf)
    async with trio.open_nursery() as nursery:
        watched.child.launch(nursery)
        await trio.testing.wait_all_tasks_blocked()
        watched.child.kill("was killed")
    assert watched.child.state is ChildState.CRASHED
    assert watched.crashes.seen[0].error_type == "Killed"
    async with trio.open_nursery() as nursery:
        watched.child.launch(nursery)
        await trio.testing.wait_all_tasks_blocked()
        watched.child.stop_firmly()
    assert watched.child.state is ChildState.STOPPED
    assert watched.child.crash_count == 1


async def test_the_error_is_kept_until_the_next_launch_only() -> None:
    watched = Watched(obedient)
    async with trio.open_nursery() as nursery:
        watched.child.mailbox.put_nowait("crash")
        watched.child.launch(nursery)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(watched.child.error, ValueError)
        watched.child.launch(nursery)
        assert watched.child.error is None
        assert watched.child.last_crash is not None
        watched.child.mailbox.put_nowait("leave")


async def test_a_living_child_is_neither_launched_twice_nor_retired() -> None:
    watched = Watched(deaf)
    async with trio.open_nursery() as nursery:
        watched.child.launch(nursery)
        with pytest.raises(AssertionError):
            watched.child.launch(nursery)
        with pytest.raises(AssertionError):
            watched.child.retire()
        with pytest.raises(AssertionError):
            watched.child.reset()
        watched.child.stop_firmly()


async def test_an_ended_child_ignores_every_word() -> None:
    watched = Watched(obedient)
    watched.child.ask_to_stop(final=True)
    watched.child.kill("x")
    watched.child.stop_firmly()
    assert watched.child.state is ChildState.NEW
    assert not watched.child.mailbox.closed


async def test_repr_names_state_and_last_crash() -> None:
    watched = Watched(obedient, mailbox_capacity=8)
    assert repr(watched.child) == "<Child c: new, incarnation 0, mailbox 0/8>"
    async with trio.open_nursery() as nursery:
        watched.child.mailbox.put_nowait("crash")
        watched.child.launch(nursery)
    assert repr(watched.child) == (
        "<Child c: crashed, incarnation 1, 1 crashes, last ValueError: told to crash, mailbox 0/8>"
    )
