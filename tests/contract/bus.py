"""What every bus promises: the same tests run on each implementation, with real stores and real time.

A test module subclasses `BusContract` and gives it a fixture `house`: it opens running members of one
bus and closes them again. Tables and blobs are in `bus_tables`, what the tests need in `bus_house`.
"""

from collections.abc import Awaitable, Callable

import pytest
import trio

from engine.bus.api import NAME_OCTETS_MAX, PAYLOAD_OCTETS_MAX, Bus, BusFull, Delivery, NoAnswer, Question
from tests.contract.bus_house import PATIENCE_SECONDS, BusHouse, nothing_more, payloads, take, until_pending
from tests.contract.bus_tables import TablesContract


class BusContract(TablesContract):
    async def test_entries_arrive_in_order_with_their_writer_and_sequence(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        assert await bus.publish("events.node-1", [b"a"]) == 1
        assert await bus.publish("events.node-1", [b"b", b"", b"c"]) == 4
        found = await take(bus.subscribe("events.node-1", "reports"), 4)
        assert found == [
            Delivery("events.node-1", "node-1", sequence, payload)
            for sequence, payload in enumerate([b"a", b"b", b"", b"c"], start=1)
        ]

    async def test_publishing_nothing_changes_nothing(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        assert await bus.publish("events.node-1", []) == 0
        assert await bus.publish("events.node-1", [b"a"]) == 1
        assert await bus.publish("events.node-1", []) == 1

    async def test_publishes_of_several_tasks_keep_each_ones_order(self, house: BusHouse) -> None:
        bus = await house.open("node-1")

        async def publish(name: bytes) -> None:
            for number in range(10):
                await bus.publish("events.node-1", [b"%s%d" % (name, number), b"%s%d+" % (name, number)])

        async with trio.open_nursery() as nursery:
            for name in (b"x", b"y", b"z"):
                nursery.start_soon(publish, name)
        found = payloads(await take(bus.subscribe("events.node-1", "reports"), 60))
        for name in (b"x", b"y", b"z"):
            mine = [payload for payload in found if payload.startswith(name)]
            assert mine == [b"%s%d%s" % (name, number, plus) for number in range(10) for plus in (b"", b"+")]

    async def test_a_waiting_consumer_hears_of_other_members(self, house: BusHouse) -> None:
        reader = await house.open("control")
        first, second = await house.open("node-1"), await house.open("node-2")
        subscription = reader.subscribe("suppressions", "control")
        found: list[Delivery] = []

        async def read() -> None:
            found.extend(await take(subscription, 4))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await first.publish("suppressions", [b"a", b"b"])
            await second.publish("suppressions", [b"c", b"d"])
        assert payloads([delivery for delivery in found if delivery.writer == "node-1"]) == [b"a", b"b"]
        assert payloads([delivery for delivery in found if delivery.writer == "node-2"]) == [b"c", b"d"]

    async def test_a_limit_bounds_what_comes_at_once(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        await bus.publish("events.node-1", [b"a", b"b", b"c"])
        subscription = bus.subscribe("events.node-1", "reports")
        assert payloads(await subscription.receive(2)) == [b"a", b"b"]
        assert payloads(await subscription.receive(2)) == [b"c"]
        await nothing_more(subscription)

    async def test_streams_with_a_common_beginning_are_apart(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        await bus.publish("chunks.node-1.single", [b"single"])
        await bus.publish("chunks.node-1", [b"bulk"])
        assert payloads(await take(bus.subscribe("chunks.node-1", "intake"), 1)) == [b"bulk"]
        assert payloads(await take(bus.subscribe("chunks.node-1.single", "intake"), 1)) == [b"single"]

    async def test_a_consumer_goes_on_at_its_cursor_after_a_restart(self, house: BusHouse) -> None:
        writer = await house.open("control")
        reader = await house.open("node-1")
        await writer.publish("chunks.node-1", [b"a", b"b", b"c", b"d"])
        subscription = reader.subscribe("chunks.node-1", "intake")
        found = await take(subscription, 4)
        await subscription.acknowledge(found[1])
        await house.close(reader)
        await house.close(writer)
        reader = await house.open("node-1")
        assert payloads(await take(reader.subscribe("chunks.node-1", "intake"), 2)) == [b"c", b"d"]
        writer = await house.open("control")
        assert await writer.publish("chunks.node-1", [b"e"]) == 5

    async def test_what_was_not_acknowledged_comes_again_to_the_next_subscription(
        self, house: BusHouse
    ) -> None:
        bus = await house.open("node-1")
        await bus.publish("chunks.node-1", [b"a", b"b"])
        subscription = bus.subscribe("chunks.node-1", "intake")
        found = await take(subscription, 2)
        await nothing_more(subscription)
        await subscription.acknowledge(found[0])
        assert payloads(await take(bus.subscribe("chunks.node-1", "intake"), 1)) == [b"b"]

    async def test_acknowledging_an_older_entry_does_not_move_the_cursor_back(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        await bus.publish("chunks.node-1", [b"a", b"b", b"c"])
        subscription = bus.subscribe("chunks.node-1", "intake")
        found = await take(subscription, 3)
        await subscription.acknowledge(found[1])
        await subscription.acknowledge(found[0])
        assert payloads(await take(bus.subscribe("chunks.node-1", "intake"), 1)) == [b"c"]

    async def test_an_entry_that_was_not_given_out_cannot_be_acknowledged(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        await bus.publish("chunks.node-1", [b"a"])
        subscription = bus.subscribe("chunks.node-1", "intake")
        with pytest.raises(ValueError, match="not given out"):
            await subscription.acknowledge(Delivery("chunks.node-1", "node-1", 1, b"a"))
        [delivery] = await take(subscription, 1)
        with pytest.raises(ValueError, match="not given out"):
            await subscription.acknowledge(Delivery("chunks.other", "node-1", 1, b"a"))
        await subscription.acknowledge(delivery)

    async def test_two_consumers_of_events_each_see_everything(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        reports, hooks = (bus.subscribe("events.node-1", name) for name in ("reports", "webhooks"))
        await bus.publish("events.node-1", [b"a", b"b"])
        found = await take(reports, 2)
        await reports.acknowledge(found[-1])
        await until_pending(bus, "events.node-1", "reports", 0)
        assert await bus.pending("events.node-1", "webhooks") == 2
        assert payloads(await take(hooks, 2)) == [b"a", b"b"]

    async def test_the_backlog_counts_what_was_published_here_and_not_acknowledged(
        self, house: BusHouse
    ) -> None:
        writer, reader = await house.open("control"), await house.open("node-1")
        assert await writer.pending("chunks.node-1", "intake") == 0
        await writer.publish("chunks.node-1", [b"a", b"b", b"c"])
        assert await writer.pending("chunks.node-1", "intake") == 3
        assert await reader.pending("chunks.node-1", "intake") == 0
        subscription = reader.subscribe("chunks.node-1", "intake")
        found = await take(subscription, 3)
        assert await writer.pending("chunks.node-1", "intake") == 3
        await subscription.acknowledge(found[1])
        await until_pending(writer, "chunks.node-1", "intake", 1)
        await subscription.acknowledge(found[2])
        await until_pending(writer, "chunks.node-1", "intake", 0)

    async def test_a_full_stream_refuses_and_keeps_nothing(self, house: BusHouse) -> None:
        bus = await house.open("node-1", small_streams=True)
        await bus.publish("chunks.node-1", [b"a" * 10_000])
        with pytest.raises(BusFull):
            await bus.publish("chunks.node-1", [b"b" * 15_000])
        assert await bus.publish("chunks.node-1", [b"c"]) == 2
        assert await bus.publish("chunks.node-2", [b"d" * 10_000]) == 1
        found = await take(bus.subscribe("chunks.node-1", "intake"), 2)
        assert [payload[:1] for payload in payloads(found)] == [b"a", b"c"]

    async def test_a_work_queue_has_room_again_once_its_consumer_acknowledged(self, house: BusHouse) -> None:
        writer = await house.open("control", small_streams=True)
        reader = await house.open("node-1")
        subscription = reader.subscribe("chunks.node-1", "intake")
        for number in range(5):
            payload = b"%d" % number * 12_000
            assert await writer.publish("chunks.node-1", [payload]) == number + 1
            with pytest.raises(BusFull):
                await writer.publish("chunks.node-1", [payload])
            [delivery] = await take(subscription, 1)
            assert delivery.payload == payload
            await subscription.acknowledge(delivery)
            await until_pending(writer, "chunks.node-1", "intake", 0)

    @pytest.mark.parametrize("name", ["", "a b", "../x", ".hidden", "a/b", "x" * (NAME_OCTETS_MAX + 1)])
    async def test_odd_names_are_refused(self, house: BusHouse, name: str) -> None:
        bus = await house.open("node-1")
        with pytest.raises(ValueError, match="no name"):
            await bus.publish(name, [b"a"])
        with pytest.raises(ValueError, match="no name"):
            bus.subscribe("events.node-1", name)
        with pytest.raises(ValueError, match="no name"):
            await bus.read(name, "key")
        with pytest.raises(ValueError, match="no name"):
            bus.serve(name)

    async def test_too_large_payloads_are_refused(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        with pytest.raises(ValueError, match="octets"):
            await bus.publish("events.node-1", [bytes(PAYLOAD_OCTETS_MAX + 1)])
        with pytest.raises(ValueError, match="octets"):
            await bus.publish("events.node-1", [bytes(PAYLOAD_OCTETS_MAX)] * 17)
        assert await bus.publish("events.node-1", [bytes(PAYLOAD_OCTETS_MAX)]) == 1

    async def test_a_question_gets_its_answer_from_another_member(self, house: BusHouse) -> None:
        node, asker = await house.open("node-1"), await house.open("control")
        questions = node.serve("engine.node-1")

        async def serve() -> None:
            for question in await questions.receive(16):
                await question.answer(b"re: " + question.payload)

        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                assert await asker.ask("engine.node-1", b"show", PATIENCE_SECONDS) == b"re: show"

    async def test_each_of_many_askers_gets_its_own_answer(self, house: BusHouse) -> None:
        node, asker = await house.open("node-1"), await house.open("control")
        questions = node.serve("engine.node-1")
        answers: dict[bytes, bytes] = {}

        async def serve() -> None:
            while True:
                for question in await questions.receive(4):
                    await question.answer(question.payload * 2)

        async def ask(payload: bytes) -> None:
            answers[payload] = await asker.ask("engine.node-1", payload, PATIENCE_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with trio.open_nursery() as asking:
                for number in range(12):
                    asking.start_soon(ask, b"%02d" % number)
            nursery.cancel_scope.cancel()
        assert answers == {b"%02d" % number: b"%02d" % number * 2 for number in range(12)}

    async def test_nobody_there_is_no_answer(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        with pytest.raises(NoAnswer, match=r"engine\.away"):
            await bus.ask("engine.away", b"show", 0.05)

    async def test_a_question_over_its_deadline_is_not_given_out(self, house: BusHouse) -> None:
        node, asker = await house.open("node-1"), await house.open("control")
        with pytest.raises(NoAnswer):
            await asker.ask("engine.node-1", b"late", 0.05)
        questions = node.serve("engine.node-1")
        received: list[Question] = []

        async def serve() -> None:
            received.extend(await questions.receive(16))
            await received[0].answer(b"here")

        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                assert await asker.ask("engine.node-1", b"in time", PATIENCE_SECONDS) == b"here"
        assert [question.payload for question in received] == [b"in time"]

    @pytest.mark.parametrize(
        "waiting",
        [
            lambda bus: bus.subscribe("events.node-1", "reports").receive(1),
            lambda bus: anext(bus.watch("campaigns")),
            lambda bus: bus.serve("engine.node-1").receive(1),
        ],
    )
    async def test_closing_ends_those_who_wait(
        self, house: BusHouse, waiting: Callable[[Bus], Awaitable[object]]
    ) -> None:
        bus = await house.open("node-1")

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await waiting(bus)

        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(0.05)
                await house.close(bus)
