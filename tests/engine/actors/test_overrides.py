"""Overrides are what the table holds: durable, in order, numbered once, and over when their time is."""

import pytest

from engine.actors import overrides
from engine.actors.overrides import TABLE, Override, Overrides, TooManyOverrides, describe_said
from engine.config.load import parse_rule
from engine.config.shaping import ShapingRule
from tests.fakes.memory_bus import MemoryBus

SAID = {"provider": "google", "connections": "2..4", "rate": "100/min"}


async def add(held: Overrides, until: float | None = None, **said: str) -> Override:
    texts = said or SAID
    return await held.add(texts, parse_rule(texts), until, "they asked", "ann")


async def test_an_override_is_there_for_the_next_engine_until_it_is_removed() -> None:
    bus = MemoryBus("node")
    first = Overrides(bus)
    for connections in range(1, 12):  # as texts, "10" and "11" come before "2"
        await add(first, provider="google", connections=str(connections))
    again = Overrides(bus)
    assert again.all() == first.all()
    assert [each.number for each in again.all()] == list(range(1, 12))
    assert again.rules(0.0)[-1] == ShapingRule(provider="google", connections=11)  # type: ignore[arg-type]
    await again.remove(again.all()[0])
    assert [each.number for each in Overrides(bus).all()] == list(range(2, 12))
    assert repr(Overrides(MemoryBus("node"))) == "<Overrides: none>"


async def test_an_override_holds_until_its_time() -> None:
    held = Overrides(MemoryBus("node"))
    override = await add(held, until=100.0)
    assert (override.is_over(99.9), override.is_over(100.0)) == (False, True)
    assert held.rules(99.9) == [held.rule(override)]
    assert held.rules(100.0) == []
    assert not (await add(held)).is_over(1e12)


@pytest.mark.parametrize(
    "row",
    [
        b"\xff",
        b'{"number": 7}',
        b'{"number": 7, "said": {"conections": "2"}, "until": null, "reason": "r", "author": "a"}',
        b'{"number": 7, "said": {"connections": "4..2"}, "until": null, "reason": "r", "author": "a"}',
    ],
)
async def test_a_row_that_is_no_rule_is_left_alone_and_its_number_is_not_used_again(row: bytes) -> None:
    bus = MemoryBus("node")
    await bus.put(TABLE, "7", row)
    held = Overrides(bus)
    assert repr(held) == "<Overrides: none>"
    assert (await add(held)).number == 8
    assert bus.items(TABLE)["7"] == row


async def test_there_is_an_end_to_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overrides, "OVERRIDES_MAX", 1)
    held = Overrides(MemoryBus("node"))
    await add(held)
    with pytest.raises(TooManyOverrides, match="1 overrides stand"):
        await add(held)


def test_an_override_is_described_as_it_was_said() -> None:
    values = Override(1, SAID, None, "", "").values
    assert describe_said(parse_rule(SAID), values) == "provider google: connections 2..4, rate 100/min"
