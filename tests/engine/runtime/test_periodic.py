"""A loop that keeps its rhythm."""

import pytest
import trio
from trio.testing import MockClock

from engine.runtime.periodic import every


async def ticks_of(until_seconds: float, **settings: object) -> list[float]:
    """When a ten-second loop calls; its work takes as long as `work` says."""
    work = settings.pop("work", 0.0)
    assert isinstance(work, float)
    began = trio.current_time()
    ticks: list[float] = []

    async def call() -> None:
        ticks.append(round(trio.current_time() - began, 6))
        await trio.sleep(work)

    with trio.move_on_after(until_seconds):
        await every(10, call, **settings)  # type: ignore[arg-type]
    return ticks


async def test_it_calls_every_so_many_seconds(autojump_clock: MockClock) -> None:
    assert await ticks_of(35) == [10, 20, 30]


async def test_the_first_call_may_come_earlier(autojump_clock: MockClock) -> None:
    assert await ticks_of(25, first_after_seconds=0) == [0, 10, 20]


async def test_the_time_that_a_call_takes_does_not_shift_the_next(autojump_clock: MockClock) -> None:
    assert await ticks_of(45, work=4.0) == [10, 20, 30, 40]


async def test_a_call_slower_than_the_period_is_followed_at_once_without_a_burst(
    autojump_clock: MockClock,
) -> None:
    assert await ticks_of(90, work=25.0) == [10, 35, 60, 85]


async def test_jitter_draws_each_pause(autojump_clock: MockClock) -> None:
    ends: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        ends.append((low, high))
        return low if len(ends) % 2 else high

    assert await ticks_of(35, jitter=0.2, uniform=uniform) == [8, 20, 28]
    assert ends[0] == (0.8, 1.2)


async def test_a_call_that_raises_ends_the_loop(autojump_clock: MockClock) -> None:
    async def call() -> None:
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        await every(1, call)


async def test_it_reports_ready_before_the_first_call(autojump_clock: MockClock) -> None:
    async def call() -> None: ...

    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: every(1, call, task_status=task_status))
        nursery.cancel_scope.cancel()
