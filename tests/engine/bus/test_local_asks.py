"""What questions leave behind: nothing, once they are answered or over their time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from engine.bus.api import NoAnswer
from engine.bus.local_asks import LocalQuestions, ask, expired
from engine.bus.local_store import Store
from engine.runtime.clock import SystemClock


class Desk:
    """One member on a clock that the test moves; it asks and answers itself."""

    def __init__(self, root: Path) -> None:
        self.now = 1_800_000_000.0
        clock = SystemClock(wall=lambda: self.now, monotonic=lambda: self.now)
        self.store = Store(root, "node-1", clock, map_octets=1024**2, group_seconds=0.0, poll_seconds=0.005)

    def questions(self) -> LocalQuestions:
        return LocalQuestions(self.store, "engine.node-1")

    def count(self, database: str) -> int:
        with self.store.own.read() as transaction:
            return int(transaction.stat(self.store.own.databases[database])["entries"])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(desk.store.run)
        yield desk
        desk.store.close()
    desk.store.members.close()


async def test_a_question_goes_with_its_answer_and_the_answer_with_its_deadline(desk: Desk) -> None:
    async def serve() -> None:
        [question] = await desk.questions().receive(9)
        await question.answer(b"first")
        await question.answer(b"second")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        assert await ask(desk.store, "engine.node-1", b"show", 5.0) == b"first"
    await desk.store.committer.flush()
    assert desk.count("asks") == 0
    assert desk.count("answers") == 1
    assert expired(desk.store) is None
    desk.now += 6.0
    sweep = expired(desk.store)
    assert sweep is not None
    assert await desk.store.durable(sweep) == 1
    assert desk.count("answers") == 0


async def test_a_question_without_an_answer_is_taken_back(desk: Desk) -> None:
    with pytest.raises(NoAnswer):
        await ask(desk.store, "engine.node-1", b"show", 0.02)
    await desk.store.committer.flush()
    assert desk.count("asks") == 0


async def test_an_unanswered_question_comes_to_the_next_server_but_not_twice_to_one(desk: Desk) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, desk.store, "engine.node-1", b"show", 5.0)
        first = desk.questions()
        assert len(await first.receive(9)) == 1
        with trio.move_on_after(0.05) as scope:
            await first.receive(9)
        assert scope.cancelled_caught
        [question] = await desk.questions().receive(9)
        await question.answer(b"x")


async def test_an_answer_after_the_deadline_has_no_effect(desk: Desk) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, desk.store, "engine.node-1", b"show", 5.0)
        [question] = await desk.questions().receive(9)
        desk.now += 5.0
        await question.answer(b"late")
        assert desk.count("answers") == 0
        nursery.cancel_scope.cancel()
