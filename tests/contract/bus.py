"""What every bus promises: the same tests run on each implementation, with real stores and real time.

A test module subclasses `BusContract` and gives it a fixture `house`: it opens running members of one
bus and closes them again. Tests wait for what they expect, never for a time to pass.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest
import trio

from engine.bus.api import (
    NAME_OCTETS_MAX,
    PAYLOAD_OCTETS_MAX,
    Bus,
    BusFull,
    Delivery,
    NoAnswer,
    Question,
    Subscription,
    Watch,
)

PATIENCE_SECONDS = 10.0  # a busy machine is slow; a bus that hangs must not hang the suite
SMALL_STREAM_OCTETS = 20_000


class BusHouse(Protocol):
    async def open(self, member: str, *, small_streams: bool = False) -> Bus:
        """A running member; with `small_streams` its streams are full at SMALL_STREAM_OCTETS."""
        ...

    async def close(self, bus: Bus) -> None:
        """Close a member politely; it may be opened again."""
        ...


async def take(subscription: Subscription, count: int) -> list[Delivery]:
    """The next `count` entries, however many each receive gives."""
    found: list[Delivery] = []
    with trio.fail_after(PATIENCE_SECONDS):
        while len(found) < count:
            found += await subscription.receive(count - len(found))
    return found


async def nothing_more(subscription: Subscription) -> None:
    with trio.move_on_after(0.15) as scope:
        await subscription.receive(1)
    assert scope.cancelled_caught


async def changes(watch: Watch, count: int) -> list[tuple[str, bytes | None]]:
    with trio.fail_after(PATIENCE_SECONDS):
        return [await anext(watch) for _ in range(count)]


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not holds():
            await trio.sleep(0.01)


def payloads(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.payload for delivery in deliveries]


class BusContract:
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
        await until(lambda: bus.backlog("events.node-1", "reports") == 0)
        assert bus.backlog("events.node-1", "webhooks") == 2
        assert payloads(await take(hooks, 2)) == [b"a", b"b"]

    async def test_the_backlog_counts_what_was_published_here_and_not_acknowledged(
        self, house: BusHouse
    ) -> None:
        writer, reader = await house.open("control"), await house.open("node-1")
        assert writer.backlog("chunks.node-1", "intake") == 0
        await writer.publish("chunks.node-1", [b"a", b"b", b"c"])
        assert writer.backlog("chunks.node-1", "intake") == 3
        assert reader.backlog("chunks.node-1", "intake") == 0
        subscription = reader.subscribe("chunks.node-1", "intake")
        found = await take(subscription, 3)
        assert writer.backlog("chunks.node-1", "intake") == 3
        await subscription.acknowledge(found[1])
        await until(lambda: writer.backlog("chunks.node-1", "intake") == 1)
        await subscription.acknowledge(found[2])
        await until(lambda: writer.backlog("chunks.node-1", "intake") == 0)

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
            await until(lambda: writer.backlog("chunks.node-1", "intake") == 0)

    @pytest.mark.parametrize("name", ["", "a b", "../x", ".hidden", "a/b", "x" * (NAME_OCTETS_MAX + 1)])
    async def test_odd_names_are_refused(self, house: BusHouse, name: str) -> None:
        bus = await house.open("node-1")
        with pytest.raises(ValueError, match="no name"):
            await bus.publish(name, [b"a"])
        with pytest.raises(ValueError, match="no name"):
            bus.subscribe("events.node-1", name)
        with pytest.raises(ValueError, match="no name"):
            bus.get(name, "key")
        with pytest.raises(ValueError, match="no name"):
            bus.serve(name)

    async def test_too_large_payloads_are_refused(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        with pytest.raises(ValueError, match="octets"):
            await bus.publish("events.node-1", [bytes(PAYLOAD_OCTETS_MAX + 1)])
        with pytest.raises(ValueError, match="octets"):
            await bus.publish("events.node-1", [bytes(PAYLOAD_OCTETS_MAX)] * 17)
        assert await bus.publish("events.node-1", [bytes(PAYLOAD_OCTETS_MAX)]) == 1

    async def test_a_table_keeps_the_last_value_of_each_key(self, house: BusHouse) -> None:
        bus, other = await house.open("control"), await house.open("node-1")
        await bus.put("campaigns", "7", b"run")
        await bus.put("campaigns", "7", b"pause")
        await bus.put("campaigns", "8/x", b"")
        await bus.put("campaigns.old", "7", b"other table")
        for reader in (bus, other):
            await until(lambda reader=reader: reader.items("campaigns") == {"7": b"pause", "8/x": b""})  # type: ignore[misc]
            assert reader.get("campaigns", "7") == b"pause"
            assert reader.get("campaigns", "9") is None
        await bus.delete("campaigns", "7")
        await bus.delete("campaigns", "never")
        await until(lambda: other.items("campaigns") == {"8/x": b""})
        assert bus.get("campaigns", "7") is None
        await house.close(bus)
        bus = await house.open("control")
        assert bus.items("campaigns") == {"8/x": b""}

    async def test_create_tells_what_is_there(self, house: BusHouse) -> None:
        bus, other = await house.open("node-1"), await house.open("node-2")
        assert await bus.create("claims", "c1", b"node-1 epoch") is None
        assert await bus.create("claims", "c1", b"node-1 again") == b"node-1 epoch"
        assert await other.create("claims", "c1", b"node-2 epoch") == b"node-1 epoch"
        assert await other.create("claims", "c2", b"node-2 epoch") is None
        await bus.delete("claims", "c1")
        assert await other.create("claims", "c1", b"node-2 epoch") is None

    async def test_a_race_of_members_and_tasks_creates_each_key_once(self, house: BusHouse) -> None:
        buses = [await house.open("node-1"), await house.open("node-2")]
        outcomes: dict[str, list[tuple[bytes, bytes | None]]] = {f"c{number}": [] for number in range(20)}

        async def claim(bus: Bus, key: str, value: bytes) -> None:
            outcomes[key].append((value, await bus.create("claims", key, value)))

        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                for key in outcomes:
                    for task in range(2):
                        for bus in buses:
                            nursery.start_soon(claim, bus, key, f"{bus.member} {task}".encode())
        for key, found in outcomes.items():
            [winner] = [value for value, there in found if there is None]
            assert len(found) == 4
            assert {there for _, there in found} == {None, winner}
            assert buses[0].get("claims", key) == buses[1].get("claims", key) == winner

    async def test_a_watch_shows_what_is_there_and_then_what_changes(self, house: BusHouse) -> None:
        owner, watcher = await house.open("control"), await house.open("node-1")
        await owner.put("campaigns", "7", b"run")
        watch = watcher.watch("campaigns")
        assert await changes(watch, 1) == [("7", b"run")]
        seen: list[tuple[str, bytes | None]] = []

        async def look() -> None:
            seen.extend(await changes(watch, 2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await owner.put("hosts", "elsewhere", b"x")
            await owner.put("campaigns", "8", b"run")
            await owner.delete("campaigns", "7")
        assert seen == [("8", b"run"), ("7", None)]

    async def test_a_watch_resumes_where_another_stood(self, house: BusHouse) -> None:
        owner, watcher = await house.open("control"), await house.open("node-1")
        for key in ("1", "2", "3"):
            await owner.put("campaigns", key, b"run")
        watch = watcher.watch("campaigns")
        assert await changes(watch, 3) == [("1", b"run"), ("2", b"run"), ("3", b"run")]
        position = watch.position
        await house.close(watcher)
        await owner.put("campaigns", "2", b"pause")
        await owner.delete("campaigns", "3")
        watcher = await house.open("node-1")
        assert await changes(watcher.watch("campaigns", position), 2) == [("2", b"pause"), ("3", None)]

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
