"""The acts behind `emass queue trace` and `emass queue timing`."""

from typing import Any

import pytest
from trio.testing import MockClock

from engine.actors.memory import Place
from engine.actors.operating import Refused
from engine.actors.parts import Parts
from engine.actors.requests import Request
from engine.actors.taps import TAPS_MAX
from engine.actors.timelines import STAGES
from engine.actors.tracing import acts
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.policy.egress import Egress
from tests.fakes.engine_house import SOURCE, memory_parts


async def act(parts: Parts, command: str, **request: Any) -> dict[str, Any]:
    return await acts(parts, lambda name: None)[command](Request(command, **request))  # type: ignore[arg-type, return-value]


async def test_a_trace_is_begun_read_and_ended(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    number = (await act(parts, "trace-start", asked={"sessions": 2, "site": "mx.test"}))["trace"]
    assert await act(parts, "trace-read", number=number) == {"lines": [], "more": True, "dropped": 0}
    await act(parts, "trace-stop", number=number)
    with pytest.raises(Refused, match="has ended"):
        await act(parts, "trace-read", number=number)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"sessions": 0}, "from 1 to"),
        ({"sessions": 1_000_000}, "from 1 to"),
        ({"body": -1}, "octets of a message"),
        ({"site": 5}, "makes no sense"),
        ({"domain": "a..test"}, "'a..test'"),
    ],
)
async def test_a_trace_that_makes_no_sense_is_refused(
    asked: dict[str, Any], why: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(Refused, match=why):
        await act(memory_parts(), "trace-start", asked=asked)


async def test_a_domain_is_meant_whatever_pool_it_goes_over(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    parts.egress = Egress((SOURCE,), {"special": {"out": 1}})
    parts.routes["a.test|special"] = "out>mx.a.test"
    number = (await act(parts, "trace-start", asked={"domain": "A.test"}))["trace"]
    place = Place("out", "mx.a.test", ("mx.a.test",), "")
    failure = TransportFailure(FailureKind.CONNECT_REFUSED, Verb.CONNECT)
    parts.taps.wrap(failure, "out>mx.b.test", place, "mx.b.test", "192.0.2.2")
    parts.taps.wrap(failure, "out>mx.a.test", place, "mx.a.test", "192.0.2.1")
    (line,) = (await act(parts, "trace-read", number=number))["lines"]
    assert "192.0.2.1" in line.text


async def test_too_many_traces_are_refused(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    for _ in range(TAPS_MAX):
        await act(parts, "trace-start")
    with pytest.raises(Refused, match="end one first"):
        await act(parts, "trace-start")


async def test_timing_tells_the_stages_and_refuses_a_message_that_is_not_followed(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    told = await act(parts, "timing")
    assert (told["every"], told["stages"], told["messages"]) == (64, STAGES, [])
    with pytest.raises(Refused, match="not followed"):
        await act(parts, "timing", number=65)
