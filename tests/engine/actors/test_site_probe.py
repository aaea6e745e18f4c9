"""How a path comes back from its rest: with one connection, as the simulation has taught.

A receiver that takes one connection at a time counts those that still wait for its banner, and refuses
both of two that come together. A path that tries with two each time is never let in.
"""

import pytest
import trio
from trio.testing import MockClock

from engine.model.reply import Reply
from tests.fakes.scripted_connections import PATH, open_house

BUSY = Reply(421, None, ("too many connections",))


async def test_a_path_that_comes_back_from_its_rest_tries_with_one_connection(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=2) as house:
        await house.offer(100)
        assert len(house.names) == 2
        for _ in range(9):
            if house.names:
                await house.end(house.names[0], BUSY)
        assert not house.names, "the path rests"
        memory = house.parts.memory[PATH]
        await trio.sleep(memory.rest(trio.current_time())[0] - trio.current_time() + 1)
        await house.offer(100, first=101)
        assert len(house.names) == 1
        await trio.sleep(2)
        assert len(house.names) == 1, "until its receiver has let it in"
        await house.ready(house.names[0])
        await trio.sleep(2)
        assert len(house.names) == 1, "two were refused: that is not tried again at once"
