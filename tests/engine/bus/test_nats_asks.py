"""Questions are repeated until somebody answers, and answered once."""

import pytest
import trio

from bench.peers.nats import NatsServer
from engine.bus import nats_asks
from engine.bus.api import NoAnswer
from engine.bus.nats import NatsBus
from engine.bus.nats_asks import Heard
from tests.fakes.nats_house import NatsHouse

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 20.0
SUBJECT = "emass.q.engine=2Ea"


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
        node.link.send(SUBJECT, octets, node.link.new_inbox())
    with trio.move_on_after(0.2) as scope:
        await questions.receive(1)
    assert scope.cancelled_caught


def question(ask_id: int, payload: bytes, left_ms: int = 60_000) -> bytes:
    return b"\1" + ask_id.to_bytes(16, "big") + left_ms.to_bytes(4, "big") + payload


async def listen(bus: NatsBus) -> None:
    """Until the server knows that this member hears the questions."""
    bus._asks.subject("engine.a")
    await bus.bus_id()


async def heard(bus: NatsBus, count: int) -> list[Heard]:
    """The questions that a member keeps, once there are so many."""
    kept = bus._asks.subject("engine.a").questions
    with trio.fail_after(PATIENCE_SECONDS):
        while len(kept) < count:
            await trio.sleep(0.01)
    await trio.sleep(0.1)
    return list(kept.values())


async def test_an_answer_goes_to_an_inbox_of_the_bus_and_nowhere_else(nats_members: NatsHouse) -> None:
    node, asker = await nats_members.open("a"), await nats_members.open("control")
    await listen(node)
    generation = node.link.generation
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, node, 1, [])
        for reply in ("", "emass.t.config.bus", "$JS.API.STREAM.DELETE.t-config"):
            asker.link.send(SUBJECT, question(1, b"junk"), reply)
        assert await asker.ask("engine.a", b"show", PATIENCE_SECONDS) == b"re: show"
    assert len(await heard(node, 1)) == 1
    asker.link.send(SUBJECT, question(2, b"again"), asker.link.new_inbox())
    await heard(node, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, node, 1, [])
    asker.link.send(SUBJECT, question(2, b"again"))  # of a known one
    assert await heard(node, 2)
    assert node.link.generation == generation


async def test_no_deadline_is_further_than_the_cap(nats_members: NatsHouse) -> None:
    node = await nats_members.open("a")
    await listen(node)
    node.link.send(SUBJECT, question(1, b"x", 2**32 - 1), node.link.new_inbox())
    [kept] = await heard(node, 1)
    assert kept.deadline <= trio.current_time() + nats_asks.DEADLINE_SECONDS_MAX


async def test_questions_are_heard_up_to_so_many_octets_that_nobody_answered(
    nats_members: NatsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_asks, "QUESTIONS_OCTETS_MAX", 1_000)
    node = await nats_members.open("a")
    questions = node.serve("engine.a")
    await listen(node)
    for number in range(4):
        node.link.send(SUBJECT, question(number, bytes(400)), node.link.new_inbox())
    kept = await heard(node, 2)
    assert [len(each.payload) for each in kept] == [400, 400]
    for each in await questions.receive(2):
        await each.answer(b"done")
        assert each.payload == bytes(400)  # who was asked still has it
    assert [each.payload for each in kept] == [b"", b""]
    node.link.send(SUBJECT, question(5, bytes(1_000)), node.link.new_inbox())
    assert len(await heard(node, 3)) == 3


async def test_a_question_left_unanswered_comes_to_the_next_server_whatever_its_place_in_memory(
    nats_members: NatsHouse,
) -> None:
    node = await nats_members.open("a")
    await listen(node)
    node.link.send(SUBJECT, question(1, b"x"), node.link.new_inbox())
    await heard(node, 1)
    for _ in range(20):
        with trio.fail_after(PATIENCE_SECONDS):
            assert len(await node.serve("engine.a").receive(1)) == 1
