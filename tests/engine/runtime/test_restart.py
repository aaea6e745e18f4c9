"""The supervisor's decisions as tables."""

import pytest

from engine.runtime.restart import Intensity, affected, comes_back
from engine.runtime.spec import Restart, Strategy


@pytest.mark.parametrize(
    ("restart", "after_a_crash", "after_leaving"),
    [
        (Restart.PERMANENT, True, True),
        (Restart.TRANSIENT, True, False),
        (Restart.TEMPORARY, False, False),
    ],
)
def test_who_comes_back(restart: Restart, after_a_crash: bool, after_leaving: bool) -> None:
    assert comes_back(restart, True) is after_a_crash
    assert comes_back(restart, False) is after_leaving


@pytest.mark.parametrize(
    ("strategy", "index", "taken"),
    [
        (Strategy.ONE_FOR_ONE, 0, [0]),
        (Strategy.ONE_FOR_ONE, 2, [2]),
        (Strategy.REST_FOR_ONE, 0, [0, 1, 2, 3]),
        (Strategy.REST_FOR_ONE, 2, [2, 3]),
        (Strategy.REST_FOR_ONE, 3, [3]),
        (Strategy.ONE_FOR_ALL, 2, [0, 1, 2, 3]),
    ],
)
def test_whom_a_restart_takes_along(strategy: Strategy, index: int, taken: list[int]) -> None:
    assert list(affected(strategy, index, 4)) == taken


@pytest.mark.parametrize(
    ("times", "allowed"),
    [
        ([0, 1, 2], [True, True, True]),
        ([0, 1, 2, 3], [True, True, True, False]),
        ([0, 1, 2, 60], [True, True, True, True]),
        ([0, 1, 2, 59.9], [True, True, True, False]),
        ([0, 30, 61, 62, 89], [True, True, True, True, False]),
    ],
)
def test_three_restarts_in_sixty_seconds(times: list[float], allowed: list[bool]) -> None:
    intensity = Intensity(3, 60)
    assert [intensity.allow(time) for time in times] == allowed


def test_recent_forgets_with_time() -> None:
    intensity = Intensity(3, 60)
    intensity.allow(0)
    intensity.allow(30)
    assert [intensity.recent(now) for now in (30, 59, 60, 90)] == [2, 2, 1, 0]


def test_no_restart_is_allowed_with_an_intensity_of_zero() -> None:
    assert not Intensity(0, 60).allow(5)
