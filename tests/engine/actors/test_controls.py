"""Pins are what the table holds: durable, one for each path and knob, and over when their time is."""

import pytest
import trio
from trio.testing import MockClock

from engine.actors import controls
from engine.actors.controls import TABLE, Controls, Pin, TooManyPins
from engine.mta.policy.governor import Knob
from tests.fakes.engine_house import SOURCE, host_route, memory_parts
from tests.fakes.memory_bus import MemoryBus

KEY = "out>mx.x.test"


def pin(value: float = 3.0, until: float | None = None, knob: Knob = Knob.CONNECTIONS) -> Pin:
    return Pin(KEY, knob, value, until, "agreed", "ann")


async def test_a_pin_is_there_for_the_next_engine_until_it_is_removed() -> None:
    bus = MemoryBus("node")
    first = Controls(bus)
    await first.put(pin(3.0))
    await first.put(pin(4.0))
    await first.put(pin(9.5, knob=Knob.RATE))
    again = Controls(bus)
    assert again.of(KEY) == [pin(4.0), pin(9.5, knob=Knob.RATE)]
    assert again.of("elsewhere") == []
    assert await again.remove(KEY, Knob.RATE) == pin(9.5, knob=Knob.RATE)
    assert await again.remove(KEY, Knob.RATE) is None
    assert Controls(bus).of(KEY) == [pin(4.0)]


async def test_a_pin_is_over_at_its_time_and_not_put_on_after_it(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    await parts.controls.put(pin(2.0, until=100.0))
    assert parts.controls.over(99.0) == []
    assert parts.controls.over(100.0) == [pin(2.0, until=100.0)]
    memory = parts.path(KEY, host_route("192.0.2.1", 25, "mx.x.test"), SOURCE, "", trio.current_time())
    assert memory.governor.state()["pinned"] == {}
    parts.controls.apply(memory, trio.current_time(), 99.0)
    assert memory.governor.state()["pinned"] == {"connections": 2.0}


async def test_a_row_that_does_not_decode_is_left_alone() -> None:
    bus = MemoryBus("node")
    await bus.put(TABLE, "connections x", b'{"path": 7}')
    assert repr(Controls(bus)) == "<Controls: 0 pins>"
    assert bus.items(TABLE) == {"connections x": b'{"path": 7}'}


async def test_there_is_an_end_to_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "PINS_MAX", 1)
    held = Controls(MemoryBus("node"))
    await held.put(pin(3.0))
    await held.put(pin(5.0))  # the same one, moved
    with pytest.raises(TooManyPins, match="1 pins stand"):
        await held.put(pin(3.0, knob=Knob.RATE))
