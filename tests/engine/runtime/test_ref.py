"""Tell and ask across crashes, stops and cancellations."""

from typing import Any

import pytest
import trio
import trio.testing

from engine.runtime.answer import ActorDied, Answer
from engine.runtime.mailbox import Mailbox
from engine.runtime.ref import Ref
from engine.runtime.spec import ChildSpec, Context, Restart, Strategy, SupervisorSpec
from tests.fakes.trees import Crashes, running_actor, running_tree

Message = tuple[str, Answer[Any] | None]


def asking(word: str) -> Any:
    return lambda answer: (word, answer)


async def servant(context: Context[Message], task_status: trio.TaskStatus[None]) -> None:
    """Does what the word says."""
    task_status.started()
    async for batch in context.mailbox.batches(1):
        for word, answer in batch:
            if word == "crash":
                raise ValueError("told to crash")
            if word == "leave":
                return
            if word == "sleep":
                await trio.sleep(10)
            if answer is not None and word == "fail":
                answer.fail(KeyError(word))
            elif answer is not None and word != "ignore":
                answer.set((word, context.incarnation))


async def test_ask_brings_the_answer() -> None:
    async with running_actor(servant) as ref:
        assert await ref.ask(asking("hello")) == ("hello", 1)
        with pytest.raises(KeyError):
            await ref.ask(asking("fail"))


async def test_ask_raises_when_the_actor_crashes_with_the_message_in_hand() -> None:
    async with running_actor(servant) as ref:
        with pytest.raises(ActorDied, match="crashed with the message in hand"):
            await ref.ask(asking("crash"))
        assert await ref.ask(asking("again")) == ("again", 2)


async def test_a_message_not_yet_taken_is_answered_by_the_next_incarnation() -> None:
    async with running_actor(servant) as ref:
        answers: list[Any] = []

        async def ask(word: str) -> None:
            answers.append(await ref.ask(asking(word)))

        async with trio.open_nursery() as nursery:
            await ref.tell(("crash", None))
            nursery.start_soon(ask, "one")
            nursery.start_soon(ask, "two")
        assert sorted(answers) == [("one", 2), ("two", 2)]


async def test_an_ask_ignored_by_an_earlier_message_fails_with_the_later_crash() -> None:
    async with running_actor(servant) as ref, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(ActorDied):
                await ref.ask(asking("ignore"))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await ref.tell(("crash", None))


async def test_ask_raises_when_the_actor_ends_for_good_with_it_in_the_mailbox() -> None:
    async with running_actor(servant, restart=Restart.TRANSIENT) as ref, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(ActorDied, match="has ended"):
                await ref.ask(asking("late"))

        await ref.tell(("leave", None))
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ActorDied):
            await ref.ask(asking("too late"))
        with pytest.raises(ActorDied):
            await ref.tell(("too late", None))
        assert not ref.try_tell(("too late", None))
        assert ref.ended


async def test_ask_raises_when_the_actor_is_stopped_with_it_in_the_mailbox(
    autojump_clock: trio.abc.Clock,
) -> None:
    raised: list[str] = []
    async with trio.open_nursery() as nursery, running_actor(servant) as ref:

        async def ask(word: str) -> None:
            with pytest.raises(ActorDied) as caught:
                await ref.ask(asking(word))
            raised.append(f"{word} {caught.value}")

        await ref.tell(("sleep", None))  # longer than the firm stop
        nursery.start_soon(ask, "waiting")
        await trio.testing.wait_all_tasks_blocked()
    assert raised == ["waiting actor has ended"]


async def test_a_politely_stopped_actor_still_answers_what_waits(autojump_clock: trio.abc.Clock) -> None:
    answers: list[Any] = []
    async with trio.open_nursery() as nursery, running_actor(servant) as ref:

        async def ask() -> None:
            answers.append(await ref.ask(asking("last")))

        nursery.start_soon(ask)
        await trio.sleep(0)
    assert answers == [("last", 1)]


async def test_a_cancelled_ask_is_abandoned_and_hurts_nobody(autojump_clock: trio.abc.Clock) -> None:
    crashes = Crashes()
    async with running_actor(servant, on_crash=crashes) as ref:
        with trio.move_on_after(1):
            await ref.ask(asking("sleep"))
        await trio.sleep(20)
        assert await ref.ask(asking("next")) == ("next", 1)
    assert crashes.seen == []


async def test_an_ask_cancelled_while_the_mailbox_is_full_leaves_no_message() -> None:
    mailbox: Mailbox[Any] = Mailbox("full", 1)
    ref: Ref[Any] = Ref(mailbox)
    assert ref.try_tell("first")
    assert not ref.try_tell("second")
    with trio.CancelScope() as scope:
        scope.cancel()
        await ref.ask(asking("third"))
    assert await mailbox.get_batch(9) == ["first"]
    assert "0 asks" in repr(mailbox)
    assert repr(ref) == "<Ref full>"


async def test_messages_survive_a_crash_and_a_restart_for_a_sibling() -> None:
    got: dict[str, list[int]] = {"left": [], "right": []}

    async def collect(context: Context[int], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async for batch in context.mailbox.batches(1):
            got[context.name] += batch
            if batch == [-1]:
                raise ValueError("poison")

    spec = SupervisorSpec(
        "root",
        (ChildSpec("left", collect), ChildSpec("right", collect)),
        strategy=Strategy.ONE_FOR_ALL,
    )
    async with running_tree(spec) as tree:
        for number in (1, -1, 2, 3):
            await tree.ref("left").tell(number)
        for number in range(5):
            await tree.ref("right").tell(number)
        await trio.testing.wait_all_tasks_blocked()
    assert got == {"left": [1, -1, 2, 3], "right": [0, 1, 2, 3, 4]}


async def test_an_answer_may_be_given_later_by_another_task_of_the_actor(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def patient(context: Context[Message], task_status: trio.TaskStatus[None]) -> None:
        async def later(answer: Answer[Any]) -> None:
            await trio.sleep(5)
            answer.set("later")

        async with trio.open_nursery() as nursery:
            task_status.started()
            async for batch in context.mailbox.batches(8):
                for _, answer in batch:
                    assert answer is not None
                    nursery.start_soon(later, answer)

    async with running_actor(patient) as ref:
        assert await ref.ask(asking("x")) == "later"
