"""Random crashes, kills, asks and tells against random trees; what must hold whatever happens.

Every told message is taken at most once, in order, none skipped; with time to recover, all are taken;
every ask ends, with its answer or with ActorDied; at the end all children are done.
"""

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.runtime.answer import ActorDied
from engine.runtime.child import ChildState
from engine.runtime.spec import ChildSpec, Context, Restart, Strategy, SupervisorSpec
from engine.runtime.supervisor import SupervisorGaveUp, Tree
from tests.fakes.trees import Crashes

NAMES = "abcdef"
STRATEGIES = st.sampled_from(Strategy)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["tell", "tell", "ask", "ask", "crash", "kill", "wait"]), st.sampled_from(NAMES)
    ),
    max_size=40,
)


class World:
    """The actors' notebook."""

    def __init__(self) -> None:
        self.taken: dict[str, list[int]] = {name: [] for name in NAMES}
        self.asks_open = 0

    async def actor(self, context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(0.1)
        task_status.started()
        async for batch in context.mailbox.batches(3):
            self.taken[context.name] += [message[1] for message in batch]
            for word, _, answer in batch:
                await trio.sleep(0.01)
                if word == "crash":
                    raise ValueError("told to crash")
                if answer is not None:
                    answer.set(context.name)

    async def ask(self, tree: Tree, name: str, number: int) -> None:
        self.asks_open += 1
        try:
            assert await tree.ref(name).ask(lambda answer: ("ask", number, answer)) == name
        except ActorDied:
            pass
        finally:
            self.asks_open -= 1


async def play(
    outer: Strategy, inner: Strategy, steps: list[tuple[str, str]], restarts_max: int, settle_seconds: float
) -> None:
    world = World()
    child = {name: ChildSpec(name, world.actor, mailbox_capacity=100) for name in NAMES}
    below = SupervisorSpec("below", (child["c"], child["d"]), inner, restarts_max=restarts_max)
    temporary = ChildSpec("f", world.actor, restart=Restart.TEMPORARY, mailbox_capacity=100)
    spec = SupervisorSpec("root", (child["a"], child["b"], below, child["e"], temporary), outer, restarts_max)
    tree = Tree(spec, on_crash=Crashes())
    put: dict[str, list[int]] = {name: [] for name in NAMES}
    gave_up: list[SupervisorGaveUp] = []

    async def run() -> None:
        try:
            await tree.run()
        except SupervisorGaveUp as error:
            gave_up.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(1)
        for number, (step, name) in enumerate(steps):
            match step:
                case "tell" | "crash":
                    if tree.ref(name).try_tell((step, number, None)):
                        put[name].append(number)
                case "ask":
                    nursery.start_soon(world.ask, tree, name, number)
                    await trio.sleep(0)
                case "kill":
                    tree.kill(name)
                case "wait":
                    await trio.sleep(0.015)
        await trio.sleep(settle_seconds)
        tree.stop()
    # The nursery is over: the tree ended within its limits and every ask came back.
    assert world.asks_open == 0
    assert all(error.__cause__ is not None for error in gave_up)
    for name in NAMES:
        line = tree.child_statistics(name)
        assert line.state is ChildState.DONE
        assert line.mailbox_depth == 0
        told = [number for number in world.taken[name] if steps[number][0] != "ask"]
        assert told == put[name][: len(told)], "taken once and in order, none skipped"
        if settle_seconds > 1 and not gave_up and name != "f":
            assert len(told) == len(put[name]), "no restart loses what was not taken"


@pytest.mark.slow
@settings(max_examples=60)
@given(STRATEGIES, STRATEGIES, STEPS, st.integers(0, 50), st.sampled_from([0.0, 0.02, 60.0]))
def test_whatever_crashes_messages_stay_in_order_and_every_ask_ends(
    outer: Strategy, inner: Strategy, steps: list[tuple[str, str]], restarts_max: int, settle_seconds: float
) -> None:
    trio.run(play, outer, inner, steps, restarts_max, settle_seconds, clock=MockClock(autojump_threshold=0))
