"""Questions are repeated until somebody answers, and answered once."""

import pytest
import trio

from bench.peers.nats import NatsServer
from engine.bus.api import NoAnswer
from engine.bus.nats import NatsBus
from tests.fakes.nats_house import NatsHouse

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 20.0


async def answer(bus: NatsBus, count: int, heard: list[bytes], delay_seconds: float = 0.0) -> None:
    """Serve `count` questions."""
    questions = bus.serve("engine.a")
    for _ in range(count):
        for question in await questions.receive(1):
            heard.append(question.payload)
            await trio.sleep(delay_seconds)
            await question.answer(b"re: " + question.payload)


async def test_a_server_that_starts_late_is_asked_again(nats_members: NatsHouse) -> None:
    node, asker = await nats_members.open("a"), await nats_members.open("control")
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:

        async def start_late() -> None:
            await trio.sleep(0.3)
            await answer(node, 1, heard)

        nursery.start_soon(start_late)
        assert await asker.ask("engine.a", b"show", PATIENCE_SECONDS) == b"re: show"
    assert heard == [b"show"]


async def test_a_slow_answer_is_waited_for_and_the_question_given_once(nats_members: NatsHouse) -> None:
    node, asker = await nats_members.open("a"), await nats_members.open("control")
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, node, 1, heard, 2.5)
        assert await asker.ask("engine.a", b"show", PATIENCE_SECONDS) == b"re: show"
    questions = node.serve("engine.a")
    with trio.move_on_after(0.2):
        heard += [question.payload for question in await questions.receive(1)]
    assert heard == [b"show"]


async def test_a_question_survives_its_server_and_the_bus(
    nats_members: NatsHouse, nats_server: NatsServer
) -> None:
    node, asker = await nats_members.open("a"), await nats_members.open("control")
    left = node.serve("engine.a")
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:

        async def trouble() -> None:
            await left.receive(1)  # and dies of it
            nats_server.kill()
            await trio.to_thread.run_sync(nats_server.start)
            await answer(node, 1, heard)

        nursery.start_soon(trouble)
        assert await asker.ask("engine.a", b"show", PATIENCE_SECONDS) == b"re: show"


async def test_two_servers_of_a_subject_share_its_questions(nats_members: NatsHouse) -> None:
    nodes = [await nats_members.open("a"), await nats_members.open("b")]
    asker = await nats_members.open("control")
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(answer, node, 1_000, heard)
        for number in range(30):
            payload = b"%d" % number
            assert await asker.ask("engine.a", payload, PATIENCE_SECONDS) == b"re: " + payload
        nursery.cancel_scope.cancel()
    assert sorted(heard) == sorted(b"%d" % number for number in range(30))


async def test_an_answer_after_the_deadline_or_a_second_one_has_no_effect(nats_members: NatsHouse) -> None:
    node, asker = await nats_members.open("a"), await nats_members.open("control")
    questions = node.serve("engine.a")
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            with pytest.raises(NoAnswer):
                await asker.ask("engine.a", b"late", 0.3)

        nursery.start_soon(give_up)
        [question] = await questions.receive(1)
    await question.answer(b"too late")
    async with trio.open_nursery() as nursery:

        async def answer_twice() -> None:
            [question] = await questions.receive(1)
            await question.answer(b"first")
            await question.answer(b"second")

        nursery.start_soon(answer_twice)
        assert await asker.ask("engine.a", b"now", PATIENCE_SECONDS) == b"first"


async def test_what_is_no_question_is_not_given_out(nats_members: NatsHouse) -> None:
    node = await nats_members.open("a")
    questions = node.serve("engine.a")
    with trio.move_on_after(0.1):
        await questions.receive(1)
    for octets in (b"", b"\2" + bytes(20) + b"x", b"short"):
        node.link.send("emass.q.engine=2Ea", octets)
    with trio.move_on_after(0.2) as scope:
        await questions.receive(1)
    assert scope.cancelled_caught
