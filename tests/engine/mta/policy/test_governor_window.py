"""The window's moves, one at a time; how well it finds caps is in test_governor_loop."""

import pytest

from engine.mta.policy.governor_window import (
    ALONE_HOLD_SECONDS,
    CAP_PROBE_SECONDS,
    LATENCY_HOLD_SECONDS,
    WindowControl,
)


class Path:
    """A window whose connections are all open, at `per_connection` messages a second each."""

    def __init__(self, window: WindowControl, per_connection: float = 20.0, latency: float = 0.1) -> None:
        self.window = window
        self.per_connection = per_connection
        self.latency = latency
        self.most = float("inf")
        self.now = 0.0
        self.reasons: list[str] = []

    def run(self, seconds: float, *, busy: bool = True, rate_bound: bool = False) -> int:
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            value = self.window.value
            count = int(min(value * self.per_connection, self.most) * 0.5)
            took = max(self.latency, value * self.per_connection * self.latency / self.most)
            reason = self.window.tick(self.now, busy, rate_bound, value, count, count * took)
            self.reasons += [reason] if reason else []
        return self.window.value


def test_it_doubles_while_more_connections_carry_more() -> None:
    path = Path(WindowControl(1, 20, 2, 0.0))
    assert path.run(1) == 8
    assert path.run(2) == 20
    assert repr(path.window) == "<WindowControl 20 of 1..20>"


def test_it_grows_for_nobody_who_does_not_need_it() -> None:
    assert Path(WindowControl(1, 20, 2, 0.0)).run(60, busy=False) == 2
    assert Path(WindowControl(1, 20, 2, 0.0)).run(60, rate_bound=True) == 2


def test_it_waits_until_all_connections_are_open() -> None:
    window = WindowControl(1, 20, 4, 0.0)
    for half in range(20):
        window.tick(half / 2, True, False, 3, 100, 10.0)
    assert window.value == 4


def test_a_refused_connection_names_the_cap_and_one_more_is_tried_later() -> None:
    path = Path(WindowControl(1, 20, 8, 0.0))
    assert path.window.refused(0.0, 5) == "too many connections"
    assert (path.window.value, path.window.cap) == (5, 5)
    assert path.run(CAP_PROBE_SECONDS - 1) == 5
    assert path.run(1) == 6
    assert path.window.refused(path.now, 5)
    assert path.run(CAP_PROBE_SECONDS + 2) == 5, "twice as long the second time"
    assert path.run(CAP_PROBE_SECONDS) == 6


def test_a_cap_that_was_raised_is_followed() -> None:
    path = Path(WindowControl(1, 20, 8, 0.0))
    path.window.refused(0.0, 5)
    assert path.run(1_200) > 12


def test_dials_that_were_on_their_way_together_are_one_event() -> None:
    window = WindowControl(1, 20, 16, 0.0)
    window.refused(0.0, 5)
    assert window.refused(0.5, 7) == "", "two of the flight got in"
    assert window.value == 7
    window.refused(1.0, 7)
    assert window.value == 7


def test_a_session_still_counted_there_is_no_cap() -> None:
    path = Path(WindowControl(1, 4, 4, 0.0))
    path.run(30)
    assert path.window.refused(path.now, 3) == ""
    assert path.window.value == 4
    path.now += 20
    assert path.window.refused(path.now, 3)
    assert path.window.value == 3


def test_not_even_one_connection_closes_the_path_for_longer_and_longer() -> None:
    window = WindowControl(1, 20, 4, 0.0)
    window.refused(0.0, 0)
    assert (window.value, window.closed_until) == (2, ALONE_HOLD_SECONDS)
    window.refused(10.0, 0)
    assert (window.value, window.closed_until) == (1, 10 + 2 * ALONE_HOLD_SECONDS)


def test_it_steps_back_when_the_receiver_only_queues() -> None:
    path = Path(WindowControl(1, 100, 2, 0.0))
    path.most = 160.0  # eight connections' worth
    path.run(4)
    assert path.window.value == 8
    assert "no more get through" in path.reasons[-1]
    assert path.run(LATENCY_HOLD_SECONDS - 5) == 8
    assert path.run(300) <= 16


def test_a_slow_answer_that_brings_more_through_is_no_reason() -> None:
    path = Path(WindowControl(1, 16, 2, 0.0))
    path.run(1)
    path.latency = 0.5
    assert path.run(10) == 16


def test_broken_sessions_count_in_numbers_only() -> None:
    window = WindowControl(1, 20, 10, 0.0)
    assert all(window.closed(20.0 * count) == "" for count in range(10))
    assert [window.closed(500.0) for _ in range(5)][-1] == "5 sessions broke off within 10 s"
    assert window.value == 7


@pytest.mark.parametrize("opened", [0, 1, 2, 50])
def test_the_floor_holds(opened: int) -> None:
    window = WindowControl(3, 20, 2, 0.0)
    assert window.value == 3
    for second in range(0, 100, 5):
        window.refused(float(second), opened)
        window.reputation(float(second))
    assert window.value == 3
    window.set_bounds(1, 2)
    assert window.value == 2
