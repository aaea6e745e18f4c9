"""The agent on a bus in memory and a jumping clock: its row, its questions, and two nodes of one name."""

import msgspec
import pytest
import structlog
import trio
from msgspec.structs import replace

from control.cluster.knock import Answer, Knock
from control.node.agent import (
    ANSWER_OCTETS_MAX,
    Agent,
    NodeRefused,
    agent,
    door_words,
    last_lines,
    why_away,
)
from control.node.house import NodeHouse
from control.node.log_lines import LogBook
from control.node.record import ProcessState
from engine.bus.api import BusFull
from engine.config import BusKind
from tests.fakes.memory_bus import MemoryBus
from tests.fakes.node_children import node_config, shell

NOW = 1_700_000_000.0


class ToyHouse(NodeHouse):
    """A house whose processes obey at once."""

    def __init__(self, folder, wall=lambda: NOW + trio.current_time()) -> None:
        folder.mkdir(exist_ok=True)
        config, path = node_config(folder)
        kinds = [shell("bus", "true"), shell("engine", "true")]
        super().__init__(config, path, kinds, LogBook(("bus", "engine")), wall=wall, environ={})
        self.did: list[str] = []
        for record in self.records.values():
            record.state = ProcessState.READY

    async def start(self, name):
        self._record(name)
        self.did.append(f"start {name}")

    async def stop(self, name):
        self._record(name)
        self.did.append(f"stop {name}")

    async def restart(self, name):
        self._record(name)
        self.did.append(f"restart {name}")

    async def drain(self, reason, author="", seconds=600.0):
        self.did.append(f"drain: {reason}, {author}, {seconds:g} s")
        return {"done": "draining", "left": 3, "seconds_left": seconds}


@pytest.fixture
async def house(tmp_path):
    return ToyHouse(tmp_path / "one")


@pytest.fixture
def bus():
    return MemoryBus("n1.agent")


def row(bus, key="n1/agent"):
    return msgspec.json.decode(bus.tables["status"][key])


class running:
    """An agent that runs for the length of a block and is stopped politely."""

    def __init__(self, house, bus) -> None:
        self.agent, self.stop = Agent(house, bus), trio.Event()
        self.nursery = trio.open_nursery()

    async def __aenter__(self):
        nursery = await self.nursery.__aenter__()
        nursery.start_soon(self.agent.run, self.stop)
        return self.agent

    async def __aexit__(self, *error):
        self.stop.set()
        return await self.nursery.__aexit__(*error)


async def ask(bus, **question):
    return msgspec.json.decode(await bus.ask("node.n1", msgspec.json.encode(question), 5))


async def test_the_row_is_written_every_other_second_and_says_when_it_was_the_last(
    house, bus, autojump_clock
):
    async with running(house, bus):
        await trio.sleep(0.5)
        first = row(bus)
        await trio.sleep(2)
        assert row(bus)["beat"] == first["beat"] + 1
        assert row(bus)["at"] > first["at"]
        assert [each["name"] for each in first["processes"]] == ["bus", "engine"]
        assert (first["node"], first["incarnation"], first["stopped"]) == ("n1", house.incarnation, False)
    assert row(bus)["stopped"] is True


async def no_room(*_):
    await trio.lowlevel.checkpoint()
    raise BusFull("table status: no room")


async def test_a_full_bus_is_a_line_in_the_log(house, bus, monkeypatch, autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with running(house, bus):
            with monkeypatch.context() as patch:
                patch.setattr(bus, "put", no_room)
                await trio.sleep(3)
            await trio.sleep(3)
            assert row(bus)["beat"] >= 2
    assert {entry["event"] for entry in logs} == {"the status could not be written"}


async def test_questions_are_answered(house, bus, autojump_clock):
    async with running(house, bus):
        house.log_book.add("engine", "a line")
        assert (await ask(bus, command="who"))["incarnation"] == house.incarnation
        assert (await ask(bus, command="list"))["node"] == "n1"
        assert (await ask(bus, command="logs", process="engine", count=5))["lines"] == ["engine     | a line"]
        assert (await ask(bus, command="start", process="engine"))["done"] == "engine started"
        drained = await ask(bus, command="drain", reason="new kernel", author="me", seconds=60)
        assert (drained["done"], drained["node"]) == ("draining", "n1")
        assert house.did == ["start engine", "drain: new kernel, me, 60 s"]


async def test_all_of_a_node_is_all_but_the_bus_that_carries_the_order(house, bus, autojump_clock):
    async with running(house, bus):
        assert (await ask(bus, command="stop"))["done"] == "engine stopped"
        assert (await ask(bus, command="restart"))["done"] == "engine restarted"
        assert "emass stop" in (await ask(bus, command="stop", process="bus"))["error"]
    assert house.did == ["stop engine", "restart engine"]


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ({"command": "dance"}, "does not know that question"),
        ({"command": "stop", "process": "web"}, "no process is called 'web'"),
        ({"command": "logs", "process": "web"}, "no process is called 'web'"),
        ({}, "does not know that question"),
    ],
)
async def test_what_cannot_be_done_is_said(house, bus, question, word, autojump_clock):
    async with running(house, bus):
        assert word in (await ask(bus, **question))["error"]
        assert "error" in msgspec.json.decode(await bus.ask("node.n1", b"[", 5))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"command": "logs", "count": "x"}',
        b'{"command": "logs", "count": [1]}',
        b'{"command": "drain", "seconds": "soon"}',
        b'{"command": "drain", "seconds": {}}',
        b'{"command": {}}',
        b'{"command": "stop", "process": 1}',
        b'{"command": "\xff"}',
        b'{"command":' + b"[" * 100_000,
        b'{"more":' + b"[" * 100_000,
    ],
)
async def test_a_strange_question_is_answered_and_changes_nothing(house, bus, payload, autojump_clock):
    async with running(house, bus):
        assert msgspec.json.decode(await bus.ask("node.n1", payload, 5))["error"]
        assert (await ask(bus, command="who"))["incarnation"] == house.incarnation
    assert house.did == []


async def test_a_full_bus_at_the_end_is_a_line_in_the_log(house, bus, monkeypatch, autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with running(house, bus):
            await trio.sleep(1)
            monkeypatch.setattr(bus, "put", no_room)
    assert row(bus)["stopped"] is False
    assert [entry["event"] for entry in logs] == ["that this node stops could not be told"]


async def test_a_slow_order_holds_up_no_question(house, bus, autojump_clock):
    async def stop(name):
        await trio.sleep(60)

    house.stop = stop
    async with running(house, bus), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: bus.ask("node.n1", b'{"command":"stop"}', 100))
        await trio.sleep(0.1)
        assert (await ask(bus, command="who"))["incarnation"]
        nursery.cancel_scope.cancel()


# --- two of one name ---------------------------------------------------------------------------------------


async def test_a_second_node_of_a_name_refuses_before_it_starts(house, bus, tmp_path, autojump_clock):
    async with running(house, bus):
        await trio.sleep(1)
        second = ToyHouse(tmp_path / "two")
        with pytest.raises(NodeRefused) as told:
            await Agent(second, bus).look_for_another()
    for each in (house, second):
        assert each.incarnation in str(told.value)
        assert str(each.data) in str(told.value)


async def test_nobody_is_asked_where_none_runs(house, bus, tmp_path, autojump_clock):
    begun = trio.current_time()
    await Agent(house, bus).look_for_another()  # the first of that name
    async with running(house, bus):
        await trio.sleep(1)
    await Agent(ToyHouse(tmp_path / "two"), bus).look_for_another()  # the former one was stopped
    assert trio.current_time() - begun < 2


async def test_a_former_life_of_the_same_folder_is_over(house, bus, tmp_path, autojump_clock):
    """Its root held the folder, and this one does now."""
    await bus.put("status", "n1/agent", msgspec.json.encode(Agent(house, bus).status()))
    begun = trio.current_time()
    await Agent(ToyHouse(tmp_path / "one"), bus).look_for_another()
    assert trio.current_time() == begun


@pytest.mark.parametrize("octets", [b"[]", b'{"incarnation":5}', b'{"x":' + b"[" * 100_000])
async def test_a_strange_answer_is_nobody_s(house, bus, tmp_path, octets, autojump_clock):
    async def strange():
        for question in await bus.serve("node.n1").receive(1):
            await question.answer(octets)

    await bus.put("status", "n1/agent", msgspec.json.encode(Agent(house, bus).status()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(strange)
        await Agent(ToyHouse(tmp_path / "two"), bus).look_for_another()


async def test_one_that_died_elsewhere_is_not_waited_for_long(house, bus, tmp_path, autojump_clock):
    await bus.put("status", "n1/agent", msgspec.json.encode(Agent(house, bus).status()))
    begun = trio.current_time()
    await Agent(ToyHouse(tmp_path / "two"), bus).look_for_another()
    assert trio.current_time() - begun < 3


async def test_of_two_that_run_the_later_one_refuses(house, bus, tmp_path, autojump_clock):
    """They could not see each other when they started."""
    await trio.sleep(1)
    later = ToyHouse(tmp_path / "two")
    ends: dict[str, str] = {}

    async def live(name, one):
        try:
            await Agent(one, bus).run(stop)
        except* NodeRefused as group:
            ends[name] = str(group)

    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live, "earlier", house)
        await trio.sleep(1.5)
        nursery.start_soon(live, "later", later)
        await trio.sleep(30)
        assert set(ends) == {"later"}
        assert row(bus)["incarnation"] == house.incarnation
        stop.set()


async def test_a_row_that_stands_still_is_nobody(house, bus, tmp_path, autojump_clock):
    other = Agent(ToyHouse(tmp_path / "two"), bus).status()
    await bus.put("status", "n1/agent", msgspec.json.encode(replace(other, started_at=1.0, beat=7)))
    async with running(house, bus):
        await trio.sleep(20)
        assert row(bus)["incarnation"] == house.incarnation


@pytest.mark.parametrize("octets", [b"{", b'{"node":"\xff"}', b'{"processes":[' + b'{"a":' * 100_000])
async def test_a_row_that_does_not_decode_is_written_anew(house, bus, octets, autojump_clock):
    await bus.put("status", "n1/agent", octets)
    async with running(house, bus):
        await trio.sleep(1)
        assert row(bus)["node"] == "n1"


# --- the hub's clock and the door --------------------------------------------------------------------------


async def test_the_skew_from_the_hub_is_measured_and_told(bus, tmp_path, autojump_clock):
    ahead = ToyHouse(tmp_path / "ahead", wall=lambda: NOW + 90 + trio.current_time())

    async def hub():
        questions = bus.serve("desk")
        while True:
            for question in await questions.receive(1):
                await trio.sleep(0.2)
                await question.answer(msgspec.json.encode({"at": NOW + trio.current_time() - 0.1}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub)
        async with running(ahead, bus):
            await trio.sleep(5)
            assert row(bus)["skew_seconds"] == pytest.approx(90, abs=0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("octets", [b'{"at":null}', b'{"at":[1]}', b"{}", b"5", b'{"at":' + b"[" * 100_000])
async def test_a_strange_answer_says_nothing_of_the_hub_s_clock(house, bus, octets, autojump_clock):
    async def hub():
        questions = bus.serve("desk")
        while True:
            for question in await questions.receive(1):
                await question.answer(octets)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub)
        async with running(house, bus):
            await trio.sleep(5)
            assert row(bus)["skew_seconds"] is None
            assert row(bus)["beat"] >= 2
        nursery.cancel_scope.cancel()


async def test_without_a_hub_the_skew_is_not_known(house, bus, autojump_clock):
    async with running(house, bus):
        await trio.sleep(5)
        assert row(bus)["skew_seconds"] is None


def test_what_a_door_says_is_told_with_its_cure():
    assert "emass node add" in door_words(Knock(Answer.REFUSED))
    assert "another certificate" in door_words(Knock(Answer.OTHER_CERTIFICATE))
    assert "servers" in door_words(Knock(Answer.NO_BUS, "no nats-server listens there"))
    assert "goes on sending" in door_words(Knock(Answer.UNREACHABLE, "Connection refused"))


def test_a_node_without_its_keys_is_told_which_file_it_lacks(tmp_path):
    config, _ = node_config(tmp_path)
    assert "agent.seed" in why_away(config)
    assert why_away(replace(config, bus=replace(config.bus, seeds=""))) == ""


async def test_a_node_that_has_no_way_onto_the_bus_refuses_with_the_file(tmp_path, autojump_clock):
    config, path = node_config(tmp_path)
    config = replace(config, bus=replace(config.bus, kind=BusKind.NATS))
    house = NodeHouse(config, path, [], LogBook(()), wall=lambda: NOW, environ={})
    with pytest.raises(NodeRefused, match=r"bus-ca\.pem"):
        await agent(house)(None, trio.TASK_STATUS_IGNORED)


def test_an_answer_takes_only_so_many_lines():
    assert last_lines(["a", "b"]) == ["a", "b"]
    lines = [f"{number} {'x' * 1_000}" for number in range(1_000)]
    kept = last_lines(lines)
    assert kept == lines[-len(kept) :]
    assert 400 < len(kept) < ANSWER_OCTETS_MAX // 1_000
    assert last_lines([]) == []
