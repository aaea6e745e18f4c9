"""Questions from outside get an answer, also those that make no sense."""

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.commands import commands, reply_to
from engine.actors.parts import Parts, SiteMemory
from engine.mta.policy.throttle import Throttle
from engine.runtime.child import SupervisorStatistics
from tests.fakes.engine_house import memory_parts
from tests.fakes.trees import running_actor


def nothing_runs() -> SupervisorStatistics:
    return SupervisorStatistics("engine", "rest_for_one", 0, 5, 60.0, ())


def reply(parts: Parts, payload: bytes) -> Any:
    return json.loads(reply_to(parts, nothing_runs, payload))


async def test_show_tells_the_sites_and_the_tree(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    memory = parts.memory["out>mx.x.test"] = SiteMemory(Throttle(None, 0.0))
    memory.suspended_until = trio.current_time() + 12.5
    memory.failures = 3
    shown = reply(parts, b'{"command":"show"}')
    assert shown["sites"] == [
        {
            "path": "out>mx.x.test",
            "suspended_seconds": 12.5,
            "failures": 3,
            "served": 0,
            "pipelining": "untried",
            "across": "untried",
            "chunking": "untried",
        }
    ]
    assert shown["connections"] == 0
    assert shown["actors"]["name"] == "engine"


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", "does not decode"),
        (b"\xff\x00", "does not decode"),
        (b"{}", "does not decode"),
        (b'{"command":7}', "does not decode"),
        (b'{"command":"rm -rf"}', "unknown command 'rm -rf'"),
        (b'{"command":"' + b"x" * 5_000 + b'"}', "unknown command 'xxx"),
    ],
)
async def test_what_makes_no_sense_gets_an_error_as_its_answer(
    payload: bytes, error: str, autojump_clock: MockClock
) -> None:
    answer = reply(memory_parts(), payload)
    assert error in answer["error"]
    assert len(answer["error"]) < 300


async def test_it_serves_the_node_s_subject_until_it_is_stopped(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running_actor(commands(parts, nothing_runs), mailbox_capacity=0):
        for payload in (b"nonsense", b'{"command":"show"}'):
            answer = json.loads(await parts.bus.ask("engine.node", payload, 5.0))
            assert ("error" in answer) == (payload == b"nonsense")
