"""The loop's lag: what is due and comes late is counted by how late it came."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.observe.lag import LOOK_SECONDS, LoopLag


async def test_a_loop_that_is_on_time_has_no_lag(autojump_clock: MockClock) -> None:
    lag = LoopLag()
    with trio.move_on_after(10.5 * LOOK_SECONDS):
        await lag.watch()
    assert lag.times.count == 10
    assert lag.times.counts[0] == 10


async def test_a_stall_is_seen(mock_clock: MockClock) -> None:
    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.watch)
        await wait_all_tasks_blocked()
        mock_clock.jump(LOOK_SECONDS + 0.06)  # as if something else had run meanwhile
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert lag.times.count == 1
    assert lag.times.total == pytest.approx(0.06)
