"""Temporary children by the thousand."""

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine.runtime.answer import ActorDied
from engine.runtime.child import ChildState, Killed
from engine.runtime.dynamic import ChildExists, DynamicSupervisor, NotRunning, TooManyChildren
from engine.runtime.spec import Context, SupervisorSpec
from tests.fakes.trees import Crashes, running_tree, until_quiet


async def worker(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    async for batch in context.mailbox.batches(8):
        for message in batch:
            if message == "crash":
                raise ValueError("told to crash")
            if message == "leave":
                return
            if callable(message):
                message()


async def deaf(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
    await trio.sleep_forever()


def pool(children_max: int = 10, **settings: Any) -> DynamicSupervisor:
    settings.setdefault("on_crash", Crashes())
    return DynamicSupervisor("pool", children_max=children_max, **settings)


def tree_of(dynamic: DynamicSupervisor) -> SupervisorSpec:
    return SupervisorSpec("root", (dynamic.spec(),))


async def test_a_child_is_told_and_ends_and_its_observer_hears_it() -> None:
    dynamic = pool()
    ends: list[tuple[str, Exception | None]] = []
    async with running_tree(tree_of(dynamic)):
        for name, word in (("a", "leave"), ("b", "crash")):
            ref = dynamic.start_child(name, worker, on_end=lambda name, error: ends.append((name, error)))
            await ref.tell(word)
        assert len(dynamic) == 2
        await until_quiet()
        assert len(dynamic) == 0
        assert ref.ended
    by_name = dict(ends)
    assert by_name["a"] is None
    assert isinstance(by_name["b"], ValueError)
    assert (dynamic.started_count, dynamic.crash_count) == (2, 1)


async def test_a_crash_takes_no_other_child_and_fails_the_asks_it_held() -> None:
    dynamic = pool()
    async with running_tree(tree_of(dynamic)):
        first = dynamic.start_child("first", worker)
        dynamic.start_child("second", worker)
        await first.tell("crash")
        with pytest.raises(ActorDied):
            await first.ask(lambda answer: ("never", answer))
        await until_quiet()
        assert "second" in dynamic
        assert dynamic.ref("second") is not None
        assert dynamic.ref("first") is None


async def test_limits_and_names_are_kept() -> None:
    dynamic = pool(children_max=2)
    with pytest.raises(NotRunning):
        dynamic.start_child("a", worker)
    async with running_tree(tree_of(dynamic)) as tree:
        dynamic.start_child("a", worker)
        with pytest.raises(ChildExists):
            dynamic.start_child("a", worker)
        dynamic.start_child("b", worker)
        with pytest.raises(TooManyChildren):
            dynamic.start_child("c", worker)
        await dynamic.stop_child("a")
        dynamic.start_child("c", worker)
        assert tree.ref("pool").ended
    with pytest.raises(NotRunning):
        dynamic.start_child("d", worker)


async def test_one_child_is_stopped_politely_then_firmly(autojump_clock: MockClock) -> None:
    dynamic = pool()
    async with running_tree(tree_of(dynamic)):
        dynamic.start_child("polite", worker, shutdown_seconds=9)
        dynamic.start_child("deaf", deaf, shutdown_seconds=9)
        began = trio.current_time()
        await dynamic.stop_child("polite")
        assert trio.current_time() == began
        await dynamic.stop_child("deaf")
        assert trio.current_time() - began == pytest.approx(9)
        await dynamic.stop_child("nobody")
        dynamic.ask_child_to_stop("nobody")


async def test_all_are_stopped_in_parallel_within_the_limit(autojump_clock: MockClock) -> None:
    dynamic = pool(shutdown_seconds=4)
    ends: list[str] = []
    async with running_tree(tree_of(dynamic)):
        for number in range(10):
            dynamic.start_child(
                str(number), deaf, shutdown_seconds=60, on_end=lambda name, error: ends.append(name)
            )
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(4)
    assert len(ends) == 10


async def test_a_firm_stop_of_all_waits_for_nobody_and_starts_nobody(autojump_clock: MockClock) -> None:
    dynamic = pool()
    ends: list[tuple[str, Exception | None]] = []
    async with running_tree(tree_of(dynamic)):
        for name in ("a", "b"):
            dynamic.start_child(name, deaf, on_end=lambda name, error: ends.append((name, error)))
        await until_quiet()
        started = trio.current_time()
        dynamic.stop_all_firmly()
        with pytest.raises(NotRunning):
            dynamic.start_child("c", deaf)
        await until_quiet()
        assert sorted(ends) == [("a", None), ("b", None)]
        assert trio.current_time() - started < 0.01


async def test_a_stopping_supervisor_starts_nobody(autojump_clock: MockClock) -> None:
    dynamic = pool()
    refusals: list[Exception] = []

    def again(name: str, error: Exception | None) -> None:
        try:
            dynamic.start_child("again", worker)
        except NotRunning as refusal:
            refusals.append(refusal)

    async with running_tree(tree_of(dynamic)):
        dynamic.start_child("a", worker, on_end=again)
        await until_quiet()
    assert len(refusals) == 1


async def test_the_handle_outlives_a_restart_of_the_supervisor() -> None:
    dynamic = pool()
    ends: list[str] = []
    async with running_tree(tree_of(dynamic)) as tree:
        dynamic.start_child("a", deaf, on_end=lambda name, error: ends.append(name))
        await until_quiet()
        tree.kill("pool")
        await until_quiet()
        assert ends == ["a"]
        assert len(dynamic) == 0
        dynamic.start_child("a", worker)
        assert tree.child_statistics("pool").restarts == 1


async def test_an_observer_that_raises_crashes_the_supervisor(autojump_clock: MockClock) -> None:
    dynamic = pool()
    crashes = Crashes()

    def broken(name: str, error: Exception | None) -> None:
        raise RuntimeError("observer's bug")

    async with running_tree(tree_of(dynamic), on_crash=crashes):
        ref = dynamic.start_child("a", worker, on_end=broken)
        dynamic.start_child("b", worker)
        await ref.tell("leave")
        await until_quiet()
        assert crashes.names == ["pool"]
        assert crashes.seen[0].text == "observer's bug"
        assert len(dynamic) == 0
        dynamic.start_child("c", worker)


async def test_children_find_the_tree_s_peers_and_can_be_killed() -> None:
    dynamic = pool()
    ends: list[Exception | None] = []

    async def curious(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        assert context.peer("pool").name == "pool"
        await trio.sleep_forever()

    async with running_tree(tree_of(dynamic)):
        dynamic.start_child("a", curious, on_end=lambda name, error: ends.append(error))
        await until_quiet()
        dynamic.kill("a")
        await until_quiet()
    assert isinstance(ends[0], Killed)


@pytest.mark.slow
async def test_two_thousand_live_at_once_and_all_answer_and_end() -> None:
    dynamic = pool(children_max=2_000)
    answered = 0
    ends = 0

    def answer() -> None:
        nonlocal answered
        answered += 1

    def ended(name: str, error: Exception | None) -> None:
        nonlocal ends
        ends += 1

    async with running_tree(tree_of(dynamic)):
        refs = [dynamic.start_child(f"c{number}", worker, on_end=ended) for number in range(2_000)]
        for ref in refs:
            await ref.tell(answer)
        await until_quiet()
        assert (answered, len(dynamic)) == (2_000, 2_000)
        assert all(line.state is ChildState.RUNNING for line in dynamic.statistics())
        assert repr(dynamic) == (
            "<DynamicSupervisor pool: running, 2000/2000 children, 2000 started, 0 crashed>"
        )
    assert ends == 2_000
    assert repr(dynamic).startswith("<DynamicSupervisor pool: down, 0/2000")
