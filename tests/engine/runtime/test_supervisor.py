"""Ordered start and stop, restarts by strategy; on a jumping clock."""

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine.runtime.child import ChildState, Killed
from engine.runtime.spec import ChildSpec, Context, PoliteStop, Restart, Strategy, SupervisorSpec
from engine.runtime.supervisor import RESTART_PAUSE_SECONDS, SupervisorGaveUp, Tree
from tests.fakes.trees import Crashes, Stage, run_to_the_end, running_tree, until_quiet

# -- start and stop


async def test_children_start_left_to_right_and_stop_right_to_left(autojump_clock: MockClock) -> None:
    stage = Stage()
    async with running_tree(SupervisorSpec("root", stage.spec("abc"))):
        assert stage.take() == ["+a", "+b", "+c"]
    assert stage.take() == ["-c", "-b", "-a"]


async def test_a_child_starts_only_when_the_one_before_it_is_ready(autojump_clock: MockClock) -> None:
    times: dict[str, float] = {}

    async def slow(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        times[f"begin {context.name}"] = trio.current_time()
        await trio.sleep(3)
        task_status.started()
        await context.stop.wait()

    began = trio.current_time()
    async with running_tree(SupervisorSpec("root", (ChildSpec("a", slow), ChildSpec("b", slow)))):
        assert times["begin b"] - times["begin a"] == pytest.approx(3)
        assert trio.current_time() - began == pytest.approx(6)


async def test_a_polite_stop_waits_for_the_work_in_hand(autojump_clock: MockClock) -> None:
    done: list[str] = []

    async def worker(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await context.stop.wait()
        await trio.sleep(4)
        done.append(context.name)

    async with running_tree(SupervisorSpec("root", (ChildSpec("a", worker, shutdown_seconds=5),))):
        pass
    assert done == ["a"]


async def test_a_stop_becomes_firm_after_shutdown_seconds_for_that_child_only(
    autojump_clock: MockClock,
) -> None:
    ended: dict[str, str] = {}

    async def deaf(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            ended[context.name] = "firmly"
            raise

    async def polite(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await context.stop.wait()
        ended[context.name] = "politely"

    children = (
        ChildSpec("left", polite),
        ChildSpec("deaf", deaf, shutdown_seconds=7),
        ChildSpec("right", polite),
    )
    crashes = Crashes()
    async with running_tree(SupervisorSpec("root", children), on_crash=crashes):
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(7)
    assert ended == {"left": "politely", "deaf": "firmly", "right": "politely"}
    assert crashes.seen == []


async def test_cancelling_a_tree_stops_everybody_firmly_in_reverse_order(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    async def deaf(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            ended.append(context.name)

    inner = SupervisorSpec("inner", (ChildSpec("b", deaf), ChildSpec("c", deaf)))
    tree = Tree(SupervisorSpec("root", (ChildSpec("a", deaf), inner, ChildSpec("d", deaf))))
    with trio.move_on_after(10) as scope:
        await tree.run()
    assert scope.cancelled_caught
    assert ended == ["d", "c", "b", "a"]
    assert trio.current_time() == pytest.approx(14)


async def test_cancelling_during_a_polite_stop_turns_it_firm(autojump_clock: MockClock) -> None:
    async def deaf(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    tree = Tree(SupervisorSpec("root", (ChildSpec("a", deaf, shutdown_seconds=1000),)))
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: tree.run(task_status=task_status))
            tree.stop()
    assert trio.current_time() == pytest.approx(10)


async def test_signal_only_leaves_the_mailbox_open_until_the_actor_has_ended(
    autojump_clock: MockClock,
) -> None:
    got: list[Any] = []

    async def finisher(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await context.stop.wait()
        got.append(await context.mailbox.get())

    async def late(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await context.stop.wait()
        await trio.sleep(1)

    spec = SupervisorSpec("root", (ChildSpec("f", finisher, polite=PoliteStop.SIGNAL_ONLY),))
    async with trio.open_nursery() as nursery, running_tree(spec) as tree:
        ref = tree.ref("f")

        async def tell_later() -> None:
            await trio.sleep(2)
            await ref.tell("last word")

        nursery.start_soon(tell_later)
    assert got == ["last word"]
    assert ref.ended


async def test_stop_during_the_start_starts_no_more(autojump_clock: MockClock) -> None:
    stage = Stage()

    async def slow(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(5)
        task_status.started()
        await context.stop.wait()

    tree = Tree(SupervisorSpec("root", (ChildSpec("slow", slow), *stage.spec("b"))))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run)
        await trio.sleep(1)
        tree.stop()
    assert stage.events == []


async def test_stop_before_run_runs_nothing(autojump_clock: MockClock) -> None:
    stage = Stage()
    tree = Tree(SupervisorSpec("root", stage.spec("a")))
    tree.stop()
    await tree.run()
    assert stage.events == []


async def test_one_actors_own_nursery_crash_does_not_cancel_its_neighbours(autojump_clock: MockClock) -> None:
    stage = Stage()

    async def with_nursery(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        async def fail() -> None:
            await context.mailbox.get()
            raise KeyError("inside")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)
            task_status.started()

    crashes = Crashes()
    spec = SupervisorSpec("root", (ChildSpec("n", with_nursery), *stage.spec("b")))
    async with running_tree(spec, on_crash=crashes) as tree:
        await tree.ref("n").tell("go")
        await until_quiet()
        assert stage.events == ["+b"]
        assert tree.child_statistics("n").restarts == 1
    assert isinstance(crashes.errors[0], ExceptionGroup)
    assert crashes.seen[0].error_type == "KeyError"


# -- restarts


@pytest.mark.parametrize(
    ("strategy", "crashing", "events"),
    [
        (Strategy.ONE_FOR_ONE, "b", ["-b", "+b"]),
        (Strategy.REST_FOR_ONE, "a", ["-a", "-d", "-c", "-b", "+a", "+b", "+c", "+d"]),
        (Strategy.REST_FOR_ONE, "b", ["-b", "-d", "-c", "+b", "+c", "+d"]),
        (Strategy.REST_FOR_ONE, "d", ["-d", "+d"]),
        (Strategy.ONE_FOR_ALL, "b", ["-b", "-d", "-c", "-a", "+a", "+b", "+c", "+d"]),
    ],
)
async def test_a_crash_restarts_whom_the_strategy_names(
    strategy: Strategy,
    crashing: str,
    events: list[str],
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    async with running_tree(SupervisorSpec("root", stage.spec("abcd"), strategy=strategy)) as tree:
        stage.take()
        await tree.ref(crashing).tell("crash")
        await until_quiet()
        assert stage.take() == events


@pytest.mark.parametrize(
    ("restart", "word", "state", "incarnation"),
    [
        (Restart.PERMANENT, "crash", ChildState.RUNNING, 2),
        (Restart.PERMANENT, "leave", ChildState.RUNNING, 2),
        (Restart.TRANSIENT, "crash", ChildState.RUNNING, 2),
        (Restart.TRANSIENT, "leave", ChildState.DONE, 1),
        (Restart.TEMPORARY, "crash", ChildState.DONE, 1),
        (Restart.TEMPORARY, "leave", ChildState.DONE, 1),
    ],
)
async def test_who_comes_back_after_what(
    restart: Restart,
    word: str,
    state: ChildState,
    incarnation: int,
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    async with running_tree(SupervisorSpec("root", stage.spec("a", restart=restart))) as tree:
        await tree.ref("a").tell(word)
        await until_quiet()
        line = tree.child_statistics("a")
        assert (line.state, line.incarnation) == (state, incarnation)
        assert tree.ref("a").ended is (state is ChildState.DONE)


async def test_siblings_that_are_temporary_or_finished_are_not_restarted_along(
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    children = (
        *stage.spec("a"),
        *stage.spec("t", restart=Restart.TEMPORARY),
        *stage.spec("f", restart=Restart.TRANSIENT),
        *stage.spec("z", restart=Restart.TRANSIENT),
    )
    async with running_tree(SupervisorSpec("root", children, strategy=Strategy.ONE_FOR_ALL)) as tree:
        await tree.ref("f").tell("leave")
        await until_quiet()
        stage.take()
        await tree.ref("a").tell("crash")
        await until_quiet()
        assert stage.take() == ["-a", "-z", "-t", "+a", "+z"]
        assert tree.child_statistics("t").state is ChildState.DONE


async def test_two_crashes_in_one_pass_are_both_recovered(autojump_clock: MockClock) -> None:
    stage = Stage()
    spec = SupervisorSpec("root", stage.spec("abc"), strategy=Strategy.REST_FOR_ONE)
    async with running_tree(spec) as tree:
        for name in "acb":
            tree.kill(name)
        await until_quiet()
        assert all(child.state is ChildState.RUNNING for child in tree.statistics().children)
        assert [child.crashes for child in tree.statistics().children] == [1, 1, 1]


async def test_a_child_that_crashes_again_while_it_restarts_is_tried_again(autojump_clock: MockClock) -> None:
    stage = Stage()

    async def third_time_lucky(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        if context.incarnation in (2, 3):
            raise OSError("not yet")
        assert context.crash_count == (0 if context.incarnation == 1 else 3)
        await stage.actor(context, task_status)

    spec = SupervisorSpec("root", (*stage.spec("a"), ChildSpec("b", third_time_lucky), *stage.spec("c")))
    async with running_tree(spec) as tree:
        began = trio.current_time()
        await tree.ref("b").tell("crash")
        await until_quiet()
        assert tree.child_statistics("b").incarnation == 2
        while tree.child_statistics("b").state is not ChildState.RUNNING:
            await trio.sleep(0.01)
        assert tree.child_statistics("b").incarnation == 4
        assert trio.current_time() - began == pytest.approx(3 * RESTART_PAUSE_SECONDS, abs=0.02)  # 1 + 2


async def test_a_stop_does_not_wait_for_the_next_try(autojump_clock: MockClock) -> None:
    stage = Stage()
    spec = SupervisorSpec("root", (ChildSpec("a", stage.failing(starts=1)),))
    async with running_tree(spec) as tree:
        await tree.ref("a").tell("crash")
        await until_quiet()
        began = trio.current_time()
    assert trio.current_time() == began


async def test_a_crash_on_the_right_waits_for_the_one_on_the_left_that_caused_it(
    autojump_clock: MockClock,
) -> None:
    """The store dies slowly; its user on the right crashes at once, and at each start until it is back."""
    store_open = False

    async def store(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        nonlocal store_open
        store_open = True
        task_status.started()
        try:
            await context.stop.wait()
        finally:
            store_open = False
            with trio.CancelScope(shield=True):
                await trio.sleep(0.15)

    async def user(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while not context.stop.is_set():
            if not store_open:
                raise OSError("the store is closed")
            with trio.move_on_after(0.01):
                await context.stop.wait()

    children = (ChildSpec("store", store), ChildSpec("user", user))
    async with running_tree(SupervisorSpec("root", children, strategy=Strategy.REST_FOR_ONE)) as tree:
        await until_quiet()
        tree.kill("store")
        await trio.sleep(1)
        assert [child.state for child in tree.statistics().children] == [ChildState.RUNNING] * 2
        assert [child.crashes for child in tree.statistics().children] == [1, 3]


async def test_a_start_that_takes_too_long_counts_as_a_crash(autojump_clock: MockClock) -> None:
    async def never_ready(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    crashes = Crashes()
    tree = Tree(SupervisorSpec("root", (ChildSpec("a", never_ready, start_seconds=30),)), on_crash=crashes)
    error = await run_to_the_end(tree)
    assert isinstance(error, SupervisorGaveUp)
    assert isinstance(error.__cause__, Killed)
    assert str(error.__cause__) == "a was not ready within 30 s"
    assert trio.current_time() == pytest.approx(30)
