"""What an operator does to the loop takes effect, is noted, or is refused with what would make sense."""

import pytest
import trio
from trio.testing import MockClock

from engine.actors import operating
from engine.actors.memory import PathMemory
from engine.actors.operating import Author, Refused, find_path
from engine.actors.parts import Parts
from engine.actors.path import Path
from engine.mta.policy.holds import Hold, Subject
from tests.fakes.engine_house import SOURCE, host_route, memory_parts

ANN = Author("ann", "we agreed so")
KEY = "out>mx.x.test"


def with_path(parts: Parts, site: str = "mx.x.test") -> PathMemory:
    return parts.path(f"out>{site}", host_route("192.0.2.1", 25, site), SOURCE, "", trio.current_time())


def test_no_act_without_a_reason() -> None:
    with pytest.raises(Refused, match="say why"):
        Author("ann", "  ")
    assert Author("", "x").name == "operator"


async def test_a_path_is_found_by_its_name_its_site_or_its_provider(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    with pytest.raises(Refused, match="nothing has been sent anywhere yet"):
        find_path(parts, KEY)
    with_path(parts)
    parts.paths["out>mx.other.test"] = Path("out>mx.other.test")
    parts.paths["!nowhere.test"] = Path("!nowhere.test")
    assert find_path(parts, KEY) == find_path(parts, "mx.x.test") == find_path(parts, "x.test") == KEY
    assert find_path(parts, "mx.other.test") == "out>mx.other.test"
    with pytest.raises(Refused, match=r"known are: out>mx\.x\.test"):
        find_path(parts, "mx.x.tset")
    with pytest.raises(Refused, match="no path is called"):
        find_path(parts, "!nowhere.test")
    parts.paths["in>mx.x.test"] = Path("in>mx.x.test")
    with pytest.raises(Refused, match="has 2 paths, name one: "):
        find_path(parts, "mx.x.test")


async def test_a_pin_holds_within_the_bounds_and_says_so(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    memory = with_path(parts)
    ceiling = memory.shaping.connections.ceiling
    done = await operating.pin(parts, KEY, "connections", 5_000, None, ANN, 1.0)
    assert done == f"connections of {KEY} is pinned at {ceiling}: its bounds allow no 5000"
    await operating.pin(parts, KEY, "rate", 0.5, 60, ANN, 1.0)
    assert memory.throttle.per_second == 0.5
    with pytest.raises(Refused, match="rate of elsewhere is not pinned"):
        await operating.unpin(parts, "elsewhere", "rate", ANN, 1.0)
    assert await operating.unpin(parts, KEY, "", ANN, 2.0) == f"connections and rate of {KEY} may move again"
    assert memory.throttle.per_second == 20.0


async def test_a_path_that_waits_for_its_first_mail_may_be_pinned(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    done = await operating.pin(parts, KEY, "rate", 3, None, ANN, 1.0)
    assert done == f"rate of {KEY} will be pinned at 3 when mail goes there"
    assert with_path(parts).governor.rate_per_second == 3.0


@pytest.mark.parametrize(
    ("knob", "value", "seconds", "error"),
    [
        ("burst", 1, None, "'burst' cannot be pinned"),
        ("connections", 0, None, "0 is no number of connections"),
        ("connections", 2.5, None, "2.5 is no number"),
        ("connections", 10**9, None, "is no number"),
        ("rate", float("nan"), None, "is no number"),
        ("rate", float("inf"), None, "is no number"),
        ("rate", -1, None, "is no number"),
        ("rate", 1, 0, "longer than 0 s"),
        ("rate", 1, float("nan"), "longer than 0 s"),
    ],
)
async def test_a_pin_that_makes_no_sense_is_refused(
    knob: str, value: float, seconds: float | None, error: str, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    with pytest.raises(Refused, match=error):
        await operating.pin(parts, KEY, knob, value, seconds, ANN, 1.0)
    assert parts.controls.of(KEY) == []
    assert not parts.changes


async def test_a_path_that_is_reset_starts_anew_without_pins_and_rest(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    memory = with_path(parts)
    await operating.pin(parts, KEY, "connections", 1, None, ANN, 1.0)
    memory.governor.rate_limited(2.0, rule="r", text="slower")
    memory.suspend(500.0, "no connection succeeded")
    assert (await operating.reset(parts, KEY, ANN, 3.0)).startswith(f"{KEY} starts anew: <Governor 2 of")
    assert (memory.rest(3.0), memory.throttle.per_second) == ((0.0, ""), 20.0)
    assert parts.controls.of(KEY) == []
    assert (parts.changes[-1].change.knob, parts.changes[-1].change.author) == ("reset", "ann")
    with pytest.raises(Refused, match="nothing to forget"):
        await operating.reset(parts, "out>mx.never.test", ANN, 3.0)


async def test_a_hold_that_is_lifted_holds_no_longer(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    parts.holds.put(Hold("lamp", Subject.CAMPAIGN, "7", 900.0, "spam"))
    assert operating.lift(parts, "lamp", "campaign", "7", ANN, 0.0) == "campaign 7 is no longer held at lamp"
    change = parts.changes[-1].change
    assert (change.knob, change.before, change.after, change.campaign) == ("hold", 900.0, None, 7)
    parts.holds.put(Hold("lamp", Subject.DOMAIN, "letter.example", 900.0, "no signature"))
    with pytest.raises(Refused, match=r"held are: domain letter\.example at lamp"):
        operating.lift(parts, "lamp", "campaign", "7", ANN, 0.0)
    with pytest.raises(Refused, match="nothing is held anywhere"):
        operating.lift(parts, "lamp", "campaign", "7", ANN, 1_000.0)
    with pytest.raises(Refused, match="not of a 'person'"):
        operating.lift(parts, "lamp", "person", "7", ANN, 0.0)


async def test_a_rest_that_is_lifted_is_over_for_the_provider_and_its_paths(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    memory = with_path(parts)
    memory.provider.rest_until, memory.provider.rest_reason = 900.0, "our IP is listed"
    memory.suspend(800.0, "no connection succeeded")
    assert operating.lift(parts, "mx.x.test", "", "", ANN, 1.0) == "mx.x.test rests no longer"
    assert memory.rest(1.0) == (0.0, "")
    assert not memory.hushed(1.0), "its connections send again"
    assert [noted.change.knob for noted in parts.changes] == ["rest", "rest"]
    with pytest.raises(Refused, match="does not rest"):
        operating.lift(parts, KEY, "", "", ANN, 1.0)
    memory.governor.rate_limited(2.0, rule="r", text="come back", retry_after_seconds=300)
    with pytest.raises(Refused, match="the receiver asked for a pause of 300 s more"):
        operating.lift(parts, KEY, "", "", ANN, 2.0)
    parts.paths["out>mx.new.test"] = Path("out>mx.new.test")
    with pytest.raises(Refused, match="it does not rest"):
        operating.lift(parts, "mx.new.test", "", "", ANN, 2.0)
