"""A tree's names, statistics and hooks; on a jumping clock."""

import math
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine.runtime.child import ChildState
from engine.runtime.clock import EPOCH_SECONDS, TrioClock
from engine.runtime.crash import leaves_of
from engine.runtime.spec import ChildSpec, Context, SupervisorSpec
from engine.runtime.supervisor import Tree
from tests.fakes.trees import Crashes, Stage, nested, running_tree, until_quiet

# -- names, statistics, hooks


async def test_refs_work_before_the_tree_runs(autojump_clock: MockClock) -> None:
    stage = Stage()
    tree = Tree(nested(stage), clock=TrioClock())
    assert tree.ref("c").try_tell("early")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run)
        await until_quiet()
        assert "c:early" in stage.events
        tree.stop()
    with pytest.raises(LookupError, match="nobody"):
        tree.ref("nobody")


def test_two_children_of_one_name_are_refused_anywhere_in_the_tree() -> None:
    stage = Stage()
    inner = SupervisorSpec("inner", stage.spec("a"))
    with pytest.raises(ValueError, match="two children of the tree are named a"):
        Tree(SupervisorSpec("root", (*stage.spec("a"), inner)))


async def test_a_child_finds_its_peers_by_name(autojump_clock: MockClock) -> None:
    stage = Stage()

    async def caller(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        await context.peer("a").tell("from caller")
        task_status.started()
        await context.stop.wait()

    async with running_tree(SupervisorSpec("root", (*stage.spec("a"), ChildSpec("caller", caller)))):
        await until_quiet()
    assert "a:from caller" in stage.events


async def test_statistics_and_repr_tell_the_truth(autojump_clock: MockClock) -> None:
    stage = Stage()
    async with running_tree(nested(stage)) as tree:
        await trio.sleep(100)
        await tree.ref("c").tell("crash")
        await until_quiet()
        root = tree.statistics()
        assert [child.name for child in root.children] == ["a", "inner", "d"]
        inner = root.children[1].below
        assert inner is not None
        assert (inner.strategy, inner.restarts_recent) == ("one_for_one", 1)
        c = inner.children[1]
        assert (c.restarts, c.crashes, c.state, c.mailbox_high_water) == (1, 1, ChildState.RUNNING, 1)
        assert c.last_crash is not None
        assert c.last_crash.text == "c told to crash"
        assert c.last_crash.when == pytest.approx(EPOCH_SECONDS + 100)
        await trio.sleep(100)
        again = tree.statistics().children[1].below
        assert again is not None
        assert again.restarts_recent == 0
        assert repr(tree) == "<Tree <Supervisor root: rest_for_one, 3/3 alive>>"


async def test_the_crash_hook_gets_the_traceback(autojump_clock: MockClock) -> None:
    stage = Stage()
    crashes = Crashes()
    async with running_tree(SupervisorSpec("root", stage.spec("a")), on_crash=crashes) as tree:
        await tree.ref("a").tell("crash")
        await until_quiet()
    assert crashes.names == ["a"]
    assert crashes.errors[0].__traceback__ is not None


async def test_a_crash_during_the_stop_is_recorded_and_stops_nobody_else(autojump_clock: MockClock) -> None:
    stage = Stage()

    async def clumsy(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await context.stop.wait()
        raise ValueError("fell over")

    crashes = Crashes()
    spec = SupervisorSpec("root", (*stage.spec("a"), ChildSpec("x", clumsy)))
    async with running_tree(spec, on_crash=crashes):
        pass
    assert crashes.names == ["x"]
    assert stage.events == ["+a", "-a"]


async def test_a_keyboard_interrupt_in_a_child_ends_the_tree(autojump_clock: MockClock) -> None:
    async def interrupted(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise KeyboardInterrupt

    stage = Stage()
    spec = SupervisorSpec("root", (*stage.spec("a"), ChildSpec("x", interrupted)))
    with pytest.raises(BaseExceptionGroup) as caught:
        await Tree(spec).run()
    assert isinstance(leaves_of(caught.value)[0], KeyboardInterrupt)
    assert stage.events == ["+a", "-a"]


def test_an_unlimited_shutdown_is_the_default_of_supervisors_only() -> None:
    assert SupervisorSpec("s", ()).shutdown_seconds == math.inf
