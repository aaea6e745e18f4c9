"""Each thing that makes mail wait is one sentence, and nothing is left out of what holds for an address."""

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.actors import explaining
from engine.actors.explaining import explain, path_rows, why_it_waits
from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.actors.path import Path
from engine.config.shaping import ShapingRule
from engine.config.units import CountRange, Rate, RateRange
from engine.model.content import MessageClass
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.policy.holds import Hold, Subject
from engine.mta.queue.fair import BULK, TRANSACTIONAL
from engine.mta.queue.scheduled import ScheduledQueue
from tests.fakes.engine_house import SOURCE, accepted, host_route, letter, memory_parts

KEY = "out>mx.x.test"
ROUTE = host_route("192.0.2.1", 25, "mx.x.test")


def with_path(parts: Parts, waiting: int = 0, rank: int = BULK) -> tuple[PathMemory, Path]:
    memory = parts.path(KEY, ROUTE, SOURCE, "", trio.current_time())
    path = parts.paths[KEY] = Path(KEY, None, ROUTE, SOURCE)
    path.provider = memory.provider.name
    if waiting:
        queue = ScheduledQueue(7, "x.test")
        for spool_id in range(waiting):
            queue.add(spool_id)
        path.waiting.push(queue, rank, "")
    return memory, path


def why(parts: Parts, memory: PathMemory, path: Path | None, opened: int = 0) -> list[str]:
    now = trio.current_time()
    return why_it_waits(parts, memory, path, opened, parts.holds.all(now), now)


async def test_where_nothing_waits_that_is_said(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    memory, path = with_path(parts)
    assert why(parts, memory, path) == ["nothing waits here"]
    assert why(parts, memory, None) == ["nothing waits here"]


async def test_what_waits_for_its_turn_only_is_held_by_nothing(autojump_clock: MockClock) -> None:
    parts = memory_parts(site=(ShapingRule(rate=RateRange.parse("1/min..1000000/s")),))
    memory, path = with_path(parts, 40)
    found = why(parts, memory, path)
    assert len(found) == 1
    assert found[0].startswith("40 wait at 1,000,000/s")


async def test_rate_window_rest_and_hold_are_a_sentence_each(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    memory, path = with_path(parts, 600)
    assert why(parts, memory, path, opened=2) == [
        "600 wait at 20/s, about 30 s: as it started",
        "2 of 2 connections are open: as it started",
    ]
    memory.provider.rest_until, memory.provider.rest_reason = trio.current_time() + 600, "our IP is listed"
    parts.holds.put(Hold("mx.x.test", Subject.CAMPAIGN, "7", trio.current_time() + 7_200, "spam"))
    parts.holds.put(Hold("elsewhere", Subject.CAMPAIGN, "8", trio.current_time() + 7_200, "spam"))
    assert why(parts, memory, path)[:2] == [
        "nothing goes for 10 min: our IP is listed",
        "campaign 7 is held for 2.0 h: spam",
    ]


async def test_a_shared_door_is_named(autojump_clock: MockClock) -> None:
    rule = ShapingRule(provider_connections=2, provider_rate=RateRange.parse("5/s"))
    parts = memory_parts(site=(rule,))
    memory, path = with_path(parts, 10)
    for _ in range(2):
        memory.provider.slots.opened("out>mx.other.test", 0.0)
    found = why(parts, memory, path)
    assert "all paths to mx.x.test share 5/s" in found
    assert any(line.startswith("all 2 connections that mx.x.test allows are taken") for line in found)


async def test_an_address_has_values_with_their_layer_and_the_state_of_its_path(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts(
        site=(ShapingRule(mx="x.test", connections=CountRange(1, 3), rate=RateRange.parse("9/s")),)
    )
    with_path(parts, 3, TRANSACTIONAL)
    told = explain(parts, "x.test", ROUTE, 0, trio.current_time())
    assert (told["path"], told["provider"], told["source"], told["known"]) == (KEY, "mx.x.test", "out", True)
    values = {row["key"]: (row["value"], row["layer"], row["rule"]) for row in told["values"]}
    assert values["connections"] == ("3", "emass.toml", "rule 1 (mx x.test)")
    assert values["messages_per_connection"][1] != "emass.toml"
    assert told["waiting"] == {"transactional": 3, "default": 0, "bulk": 0, "released": 0}
    assert told["state"]["connections_ceiling"] == 3
    assert told["provider_state"]["breaker"] == "closed"
    assert told["forecast"]["messages"] == 3
    msgspec.json.encode(told)


async def test_a_campaign_s_own_hold_and_rate_are_told(autojump_clock: MockClock) -> None:
    parts = memory_parts(site=(ShapingRule(campaign=7, rate=RateRange.up_to(Rate.parse("6/min"))),))
    await accepted(parts, ["a@x.test"], letter(7, message_class=MessageClass.BULK))
    with_path(parts, 1)
    parts.holds.put(Hold("mx.x.test", Subject.CAMPAIGN, "7", trio.current_time() + 60, "spam"))
    told = explain(parts, "x.test", ROUTE, 7, trio.current_time())
    assert told["why"][0] == "it is held for 60 s: campaign 7 at mx.x.test: spam"
    assert any("a rate of its own: 6/min" in line for line in told["why"])
    assert sum("is held" in line for line in told["why"]) == 1


async def test_a_domain_without_a_route_says_why(autojump_clock: MockClock) -> None:
    failure = TransportFailure(FailureKind.NULL_MX, Verb.RESOLVE, "the domain accepts no mail (null MX)")
    told = explain(memory_parts(), "x.test", failure, 0, 0.0)
    assert told["why"] == ["there is no route: the domain accepts no mail (null MX)"]


async def test_rows_put_first_what_rests_and_then_what_waits(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = memory_parts()
    parts.paths["out>mx.new.test"] = Path("out>mx.new.test")
    parts.paths["!gone.test"] = Path("!gone.test")
    memory, _ = with_path(parts, 2)
    memory.suspend(trio.current_time() + 5, "refused")
    rows, hidden = path_rows(parts, trio.current_time())
    assert ([row["path"] for row in rows], hidden) == ([KEY, "out>mx.new.test"], 0)
    assert rows[1]["why"] == ["not begun yet"]
    monkeypatch.setattr(explaining, "ROWS_MAX", 1)
    assert path_rows(parts, trio.current_time())[1] == 1
