"""Questions from outside get an answer, also those that make no sense; pins end when their time is over."""

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.commands import Desk as Answers
from engine.actors.commands import commands
from engine.actors.messages import Note
from engine.actors.parts import Parts
from engine.actors.path import Path
from engine.actors.resolver import resolver
from engine.bus.api import PAYLOAD_OCTETS_MAX, BusFull
from engine.model.event import Adapted
from engine.mta.policy.governor import Knob
from engine.runtime.child import SupervisorStatistics
from engine.storage import StorageError
from tests.fakes.engine_house import SOURCE, Desk, host_route, memory_parts
from tests.fakes.trees import running_actor

KEY = "out>mx.x.test"
BY: dict[str, Any] = {"reason": "we agreed so", "author": "ann"}


def nothing_runs() -> SupervisorStatistics:
    return SupervisorStatistics("engine", "rest_for_one", 0, 5, 60.0, ())


class Office:
    """Parts with one path, and the answers to requests about it."""

    def __init__(self) -> None:
        self.parts = memory_parts()
        self.desk = Desk()
        route = host_route("192.0.2.1", 25, "mx.x.test")
        self.memory = self.parts.path(KEY, route, SOURCE, "", trio.current_time())
        self.answers = Answers(self.parts, nothing_runs, self.desk.peer)

    async def ask(self, command: str, **facts: Any) -> Any:
        return await self.raw(json.dumps({"command": command} | facts).encode())

    async def raw(self, payload: bytes) -> Any:
        return json.loads(await self.answers.reply(payload))

    def noted(self) -> list[Adapted]:
        return [event for note in self.desk.take("spooler", Note) for event in note.events]


async def test_show_tells_the_paths_with_what_holds_them_and_the_tree(autojump_clock: MockClock) -> None:
    office = Office()
    office.memory.suspend(trio.current_time() + 12.5, "no connection succeeded: refused")
    office.memory.failures = 3
    shown = await office.ask("show")
    (row,) = shown["sites"]
    kept = ("path", "suspended_seconds", "failures", "served", "pipelining", "across", "chunking")
    assert [row[key] for key in kept] == [KEY, 12.5, 3, 0, "untried", "untried", "untried"]
    assert (row["provider"], row["connections"], row["connections_allowed"]) == ("mx.x.test", 0, 2)
    assert (row["resting_seconds"], row["rate_per_second"]) == (12.5, 20.0)
    assert row["why"] == ["nothing goes for 12 s: no connection succeeded: refused"]
    assert (shown["connections"], shown["sites_hidden"], shown["holds"]) == (0, 0, [])
    assert shown["actors"]["name"] == "engine"
    assert shown["forecast"]["total"]["sentence"] == "nothing waits"


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", "does not decode"),
        (b"\xff\x00", "does not decode"),
        (b"{}", "does not decode"),
        (b'{"command":7}', "does not decode"),
        (b'{"command":"rm -rf"}', "unknown command 'rm -rf'"),
        (b'{"command":"' + b"x" * 5_000 + b'"}', "unknown command 'xxx"),
        (b'{"command":"explain","address":"a@' + b"x" * 5_000 + b'"}', "xxx"),
        (b'{"command":"signals","path":"nowhere"}', "no path is called 'nowhere'"),
        (b'{"command":"pin","path":"out>mx.x.test"}', "say why"),
        (b'{"command":"lift","path":"?","reason":"r"}', "no path is called '?'"),
    ],
)
async def test_what_makes_no_sense_gets_an_error_as_its_answer(
    payload: bytes, error: str, autojump_clock: MockClock
) -> None:
    answer = await Office().raw(payload)
    assert error in answer["error"]
    assert len(answer["error"]) < 400


async def test_it_serves_the_node_s_subject_until_it_is_stopped(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running_actor(commands(parts, nothing_runs), mailbox_capacity=0):
        for payload in (b"nonsense", b'{"command":"show"}'):
            answer = json.loads(await parts.bus.ask("engine.node", payload, 5.0))
            assert ("error" in answer) == (payload == b"nonsense")


async def test_an_operator_s_acts_are_changes_with_author_and_go_to_the_journal(
    autojump_clock: MockClock,
) -> None:
    office = Office()
    pinned = await office.ask("pin", path=KEY, knob="connections", value=3, **BY)
    assert pinned == {"done": f"connections of {KEY} is pinned at 3"}
    assert office.memory.governor.connections == 3
    freed = await office.ask("unpin", path="mx.x.test", **BY)
    assert freed == {"done": f"connections of {KEY} may move again"}
    assert office.memory.governor.connections == 2
    told = await office.ask("changes", path=KEY)
    assert [(one["knob"], one["before"], one["after"], one["author"]) for one in told["changes"]] == [
        ("connections", 2.0, 3.0, "ann"),
        ("connections", 3.0, 2.0, "ann"),
    ]
    assert told["changes"][0]["reason"] == "pinned: we agreed so"
    assert told["changes"][0]["at"] == office.parts.clock.now()
    assert [event.author for event in office.noted()] == ["ann", "ann"]
    assert (await office.ask("changes", limit=1))["changes"] == told["changes"][1:]


async def test_a_pin_ends_when_its_time_is_over(autojump_clock: MockClock) -> None:
    office = Office()
    await office.ask("pin", path=KEY, knob="rate", value=2.5, seconds=60, **BY)
    with trio.move_on_after(59):
        await office.answers.end_what_is_over()
    assert office.memory.governor.rate_per_second == 2.5
    with trio.move_on_after(3):
        await office.answers.end_what_is_over()
    assert office.memory.governor.rate_per_second == 20.0
    assert office.parts.controls.of(KEY) == []
    assert office.noted()[-1].reason == "no longer pinned: its time is over"


async def test_a_pin_stands_again_after_a_restart(autojump_clock: MockClock) -> None:
    office = Office()
    await office.ask("pin", path=KEY, knob="rate", value=2.5, **BY)
    old = office.parts
    again = memory_parts()
    again.bus = old.bus
    again.controls = type(old.controls)(old.bus)
    memory = again.path(KEY, host_route("192.0.2.1", 25, "mx.x.test"), SOURCE, "", trio.current_time())
    assert memory.governor.rate_per_second == 2.5
    assert memory.throttle.per_second == 2.5
    assert [pin.knob for pin in again.controls.of(KEY)] == [Knob.RATE]


@pytest.mark.parametrize("trouble", [StorageError("the disk is full"), BusFull("the disk is full")])
async def test_a_disk_that_keeps_no_pin_costs_that_act_only(
    trouble: Exception, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = Office()

    async def full(*_: object) -> None:
        raise trouble

    monkeypatch.setattr(office.parts.bus, "put", full)
    answer = await office.ask("pin", path=KEY, knob="rate", value=2, **BY)
    assert answer == {"error": "it could not be kept: the disk is full"}
    assert office.memory.governor.rate_per_second == 20.0


async def test_the_signals_of_a_path_come_with_what_a_replay_needs(autojump_clock: MockClock) -> None:
    office = Office()
    now = trio.current_time()
    office.memory.governor.rate_limited(now, rule="rate", text="450 slower", retry_after_seconds=None)
    told = await office.ask("signals", path=KEY)
    assert (told["start_connections"], told["start_per_second"]) == (2, 20.0)
    assert (told["connections"], told["rate"], told["source"], told["site"]) == (
        str(office.memory.shaping.connections),
        None,
        "out",
        "mx.x.test",
    )
    (signal,) = told["signals"]
    assert (signal["kind"], signal["text"]) == ("rate-limited", "450 slower")
    assert signal["at"] == pytest.approx(office.parts.clock.now())


async def test_explain_asks_the_resolver_for_the_route(autojump_clock: MockClock) -> None:
    parts: Parts = memory_parts()
    parts.resolver.serve("x.test")  # type: ignore[attr-defined]
    async with running_actor(
        commands(parts, nothing_runs), mailbox_capacity=0, peers={"resolver": resolver(parts)}
    ):
        told = []
        for address in ("ann@X.test", "gone.test"):
            payload = json.dumps({"command": "explain", "address": address}).encode()
            told.append(json.loads(await parts.bus.ask("engine.node", payload, 10.0)))
    assert (told[0]["domain"], told[0]["path"], told[0]["hosts"]) == ("x.test", KEY, ["mx.x.test"])
    assert told[0]["why"] == ["nothing has gone this way yet: it starts within the bounds of its shaping"]
    assert told[1]["why"] == ["there is no route: no such domain"]


async def test_an_answer_that_the_bus_would_not_take_is_an_error(autojump_clock: MockClock) -> None:
    office = Office()
    for number in range(1_000):
        office.parts.note(Adapted(f"p{number}", "p", "rate", 1.0, 2.0, "x" * 2_000))
    assert "more than the bus takes" in (await office.ask("changes"))["error"]
    assert len((await office.ask("changes", limit=10))["changes"]) == 10


async def test_many_paths_are_shown_up_to_what_the_bus_takes(autojump_clock: MockClock) -> None:
    office = Office()
    for number in range(2_000):
        office.parts.paths[f"out>mx{number}"] = Path(f"out>mx{number}")
    payload = await office.answers.reply(b'{"command":"show"}')
    assert len(payload) < PAYLOAD_OCTETS_MAX // 2
    assert json.loads(payload)["sites_hidden"] == 1_501


async def test_an_override_is_set_listed_and_ends_when_its_time_is_over(autojump_clock: MockClock) -> None:
    office = Office()
    said = {"site": "mx.x.test", "connections": "1"}
    told = await office.ask("override", said=said, seconds=60, **BY)
    assert told == {"done": "override 1 holds for 1 min: site mx.x.test: connections 1", "warnings": []}
    assert office.memory.governor.connections == 1
    (listed,) = (await office.ask("overrides"))["overrides"]
    assert listed == {
        "number": 1,
        "said": said,
        "match": "site mx.x.test",
        "values": {"connections": "1"},
        "until": office.parts.clock.now() + 60,
        "reason": BY["reason"],
        "author": "ann",
    }
    await office.ask("override", said=said, **BY)
    with trio.move_on_after(62):
        await office.answers.end_what_is_over()
    assert [one["number"] for one in (await office.ask("overrides"))["overrides"]] == [2]
    ended = await office.ask("end-override", number=2, **BY)
    assert ended == {"done": "override 2 holds no longer: site mx.x.test: connections 1"}
    noted = [event for event in office.noted() if event.knob == "override"]
    assert [event.reason.rpartition(": ")[2] for event in noted] == [
        BY["reason"],
        BY["reason"],
        "its time is over",
        BY["reason"],
    ]


async def test_a_reload_is_refused_where_no_file_was_read(autojump_clock: MockClock) -> None:
    assert "without a configuration file" in (await Office().ask("reload", **BY))["error"]
