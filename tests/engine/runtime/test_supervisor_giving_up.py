"""Too many crashes, and supervisors below supervisors; on a jumping clock."""

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine.runtime.child import ChildState, Killed
from engine.runtime.spec import ChildSpec, Context, Kind, Restart, Strategy, SupervisorSpec
from engine.runtime.supervisor import SupervisorGaveUp, Tree
from tests.fakes.trees import Crashes, Stage, nested, run_to_the_end, running_tree, until_quiet

# -- giving up


async def test_too_many_restarts_stop_the_others_in_reverse_and_carry_the_cause(
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    tree = Tree(SupervisorSpec("root", stage.spec("abc"), restarts_max=2), on_crash=Crashes())
    result: list[Exception | None] = []

    async def run() -> None:
        result.append(await run_to_the_end(tree))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await until_quiet()
        for _ in range(3):
            stage.take()
            await tree.ref("b").tell("crash")
            await until_quiet()
    assert stage.events == ["-b", "-c", "-a"]
    (error,) = result
    assert isinstance(error, SupervisorGaveUp)
    assert isinstance(error.__cause__, ValueError)
    assert str(error.__cause__) == "b told to crash"
    assert tree.ref("a").ended


async def test_restarts_spread_over_time_are_not_too_many(autojump_clock: MockClock) -> None:
    stage = Stage()
    spec = SupervisorSpec("root", stage.spec("a"), restarts_max=1, period_seconds=60)
    async with running_tree(spec) as tree:
        for _ in range(10):
            await tree.ref("a").tell("crash")
            await trio.sleep(61)
        assert tree.child_statistics("a").restarts == 10


async def test_a_crash_at_the_first_start_gives_up_at_once_and_stops_what_had_started(
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    spec = SupervisorSpec("root", (*stage.spec("ab"), ChildSpec("x", stage.failing()), *stage.spec("c")))
    error = await run_to_the_end(Tree(spec, on_crash=Crashes()))
    assert isinstance(error, SupervisorGaveUp)
    assert str(error) == "root: x did not start"
    assert isinstance(error.__cause__, OSError)
    assert stage.events == ["+a", "+b", "!x", "-b", "-a"]


async def test_a_temporary_child_that_does_not_start_is_left_out(autojump_clock: MockClock) -> None:
    stage = Stage()
    children = (ChildSpec("x", stage.failing(), restart=Restart.TEMPORARY), *stage.spec("ab"))
    async with running_tree(SupervisorSpec("root", children)) as tree:
        assert stage.events == ["!x", "+a", "+b"]
        assert tree.child_statistics("x").state is ChildState.DONE


async def test_a_child_that_never_starts_again_exhausts_the_intensity(autojump_clock: MockClock) -> None:
    stage = Stage()
    spec = SupervisorSpec("root", (ChildSpec("x", stage.failing(starts=1)),), restarts_max=3)
    crashes = Crashes()
    tree = Tree(spec, on_crash=crashes)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            assert isinstance(await run_to_the_end(tree), SupervisorGaveUp)

        nursery.start_soon(run)
        await until_quiet()
        await tree.ref("x").tell("crash")
    assert len(crashes.seen) == 4


# -- nested


async def test_a_nested_supervisor_starts_and_stops_in_its_place(autojump_clock: MockClock) -> None:
    stage = Stage()
    async with running_tree(nested(stage)) as tree:
        assert stage.take() == ["+a", "+b", "+c", "+d"]
        assert tree.child_statistics("inner").kind is Kind.SUPERVISOR
    assert stage.take() == ["-d", "-c", "-b", "-a"]


async def test_a_crash_below_stays_below(autojump_clock: MockClock) -> None:
    stage = Stage()
    async with running_tree(nested(stage)) as tree:
        stage.take()
        await tree.ref("b").tell("crash")
        await until_quiet()
        assert stage.take() == ["-b", "+b"]


async def test_a_nested_give_up_is_one_crash_above_and_messages_survive_it(autojump_clock: MockClock) -> None:
    stage = Stage()
    crashes = Crashes()
    async with running_tree(nested(stage, restarts_max=0), on_crash=crashes) as tree:
        stage.take()
        tree.kill("b")
        await tree.ref("c").tell("kept")
        await until_quiet()
        events = stage.take()
        assert [event for event in events if event != "c:kept"] == [
            *["-b", "-c"],
            *["-d", "+b", "+c", "+d"],
        ]
        assert events.count("c:kept") == 1
        line = tree.child_statistics("inner")
        assert (line.restarts, line.crashes) == (1, 1)
        assert line.last_crash is not None
        assert line.last_crash.error_type == "SupervisorGaveUp"
    assert crashes.names == ["b", "inner"]


async def test_a_nested_give_up_too_often_ends_the_tree_with_the_chain_of_causes(
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    below = SupervisorSpec("inner", (ChildSpec("x", stage.failing(starts=1)),), restarts_max=0)
    tree = Tree(SupervisorSpec("root", (below,), restarts_max=0), on_crash=Crashes())
    result: list[Exception | None] = []

    async def run() -> None:
        result.append(await run_to_the_end(tree))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await until_quiet()
        tree.kill("x")
    (error,) = result
    assert isinstance(error, SupervisorGaveUp)
    assert isinstance(error.__cause__, SupervisorGaveUp)
    assert isinstance(error.__cause__.__cause__, Killed)


async def test_a_finished_child_of_a_restarted_supervisor_starts_afresh(autojump_clock: MockClock) -> None:
    stage = Stage()
    inner = SupervisorSpec("inner", (*stage.spec("t", restart=Restart.TRANSIENT), *stage.spec("b")))
    spec = SupervisorSpec("root", (*stage.spec("a"), inner), strategy=Strategy.ONE_FOR_ALL)
    async with running_tree(spec) as tree:
        await tree.ref("t").tell("leave")
        await until_quiet()
        assert tree.ref("t").ended
        tree.kill("a")
        await until_quiet()
        assert tree.child_statistics("t").state is ChildState.RUNNING
        await tree.ref("t").tell("hello")
        await until_quiet()
        assert "t:hello" in stage.events


async def test_a_stop_that_meets_a_nested_give_up_is_not_taken_for_the_next_life(
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    inner = SupervisorSpec("inner", stage.spec("b"), restarts_max=0)
    spec = SupervisorSpec("root", (*stage.spec("a"), inner), Strategy.ONE_FOR_ALL, restarts_max=1_000)
    async with running_tree(spec) as tree:
        for passes in range(100):
            tree.kill("b")
            for _ in range(passes % 10):
                await trio.lowlevel.checkpoint()
            tree.kill("a")
            await until_quiet()
        assert stage.events.count("+b") == tree.child_statistics("inner").incarnation


async def test_a_nested_supervisor_with_a_time_limit_is_stopped_firmly(autojump_clock: MockClock) -> None:
    async def deaf(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    children = (ChildSpec("a", deaf, shutdown_seconds=100), ChildSpec("b", deaf, shutdown_seconds=100))
    inner = SupervisorSpec("inner", children, shutdown_seconds=10)
    async with running_tree(SupervisorSpec("root", (inner,))):
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(10)
