"""Wall time that never jumps by itself."""

import pytest
import trio

from engine.runtime.clock import EPOCH_SECONDS, SystemClock, TrioClock


class Hands:
    """Two clock hands that a test moves."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.monotonic = 50.0

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self) -> SystemClock:
        return SystemClock(wall=lambda: self.wall, monotonic=lambda: self.monotonic, step_limit_seconds=2.0)


def test_the_wall_moves_with_the_monotonic_clock() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.pass_time(12.5)
    assert clock.now() == 1_000_012.5
    assert clock.monotonic() == 62.5


def test_a_step_of_the_system_clock_is_not_seen_before_it_is_checked() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall -= 3600
    assert clock.now() == 1_000_000.0


@pytest.mark.parametrize(
    ("wall_moves", "step"), [(0.0, None), (2.0, None), (-2.0, None), (2.5, 2.5), (-3600.0, -3600.0)]
)
def test_check_step_re_anchors_only_beyond_the_limit(wall_moves: float, step: float | None) -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall += wall_moves
    assert clock.check_step() == step
    assert clock.now() == 1_000_000.0 + (step or 0.0)
    assert clock.check_step() is None


def test_the_real_system_clock_shows_the_time_of_day() -> None:
    clock = SystemClock()
    assert clock.now() > 1_700_000_000
    assert clock.check_step() is None
    assert repr(clock).startswith("<SystemClock")


async def test_the_trio_clock_jumps_with_the_autojump_clock(autojump_clock: trio.abc.Clock) -> None:
    clock = TrioClock()
    before, monotonic = clock.now(), clock.monotonic()
    await trio.sleep(86_400)
    assert clock.now() - before == pytest.approx(86_400)
    assert clock.monotonic() - monotonic == pytest.approx(86_400)
    assert clock.now() >= EPOCH_SECONDS
    assert clock.check_step() is None
