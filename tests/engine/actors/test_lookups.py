"""The books of look-ups: each destination once, the most urgent first, no more than so many at a time."""

import pytest

from engine.actors.lookups import REFRESH_RANK, LookUps
from engine.mta.queue.fair import BULK, TRANSACTIONAL


class Office:
    """`started` in order; `room` for actors."""

    def __init__(self, limit: int, room: int = 99) -> None:
        self.lookups = LookUps(limit)
        self.started: list[str] = []
        self.room = room
        self.idle: set[str] = set()  # nothing waits for them

    def start(self) -> list[str]:
        """What is started now."""
        before = len(self.started)
        self.lookups.start(lambda name: name not in self.idle, self._start)
        return self.started[before:]

    def _start(self, name: str) -> bool:
        if self.room <= 0:
            return False
        self.room -= 1
        self.started.append(name)
        return True


def test_destinations_are_looked_up_by_class_and_age_and_those_with_a_route_last() -> None:
    office = Office(9)
    office.lookups.want("old.test", REFRESH_RANK, 1)
    office.lookups.want("b.test", BULK, 20)
    office.lookups.want("a.test", BULK, 10)
    office.lookups.want("urgent.test", TRANSACTIONAL, 30)
    assert office.start() == ["urgent.test", "a.test", "b.test", "old.test"]


def test_one_that_is_looked_up_already_is_not_wanted_again_before_it_is_done() -> None:
    office = Office(9)
    for _ in range(3):
        office.lookups.want("a.test", BULK, 1)
        office.start()
    assert office.started == ["a.test"]
    assert "a.test" in office.lookups
    office.lookups.done("a.test")
    assert "a.test" not in office.lookups
    office.lookups.want("a.test", BULK, 1)
    assert office.start() == ["a.test"]


def test_no_more_are_under_way_than_the_limit_and_an_end_makes_room() -> None:
    office = Office(2)
    for name in ("a.test", "b.test", "c.test"):
        office.lookups.want(name, BULK, ord(name[0]))
    assert office.start() == ["a.test", "b.test"]
    assert repr(office.lookups) == "<LookUps: 2 under way, 1 wait, 0 postponed>"
    office.lookups.done("a.test")
    assert office.start() == [], "its actor lives on: it settles what has no route"
    office.lookups.ended()
    assert office.start() == ["c.test"]


def test_one_that_finds_no_room_for_its_actor_stays_first_in_the_line() -> None:
    office = Office(9, room=1)
    office.lookups.want("a.test", BULK, 1)
    office.lookups.want("b.test", BULK, 2)
    assert office.start() == ["a.test"]
    assert office.lookups.started == 1
    office.room = 9
    assert office.start() == ["b.test"]


def test_one_that_nothing_waits_for_any_more_is_dropped() -> None:
    office = Office(9)
    office.idle = {"a.test"}
    office.lookups.want("a.test", BULK, 1)
    office.lookups.want("b.test", BULK, 2)
    assert office.start() == ["b.test"]
    assert "a.test" not in office.lookups
    office.idle.clear()
    office.lookups.want("a.test", BULK, 1)
    assert office.start() == ["a.test"]


@pytest.mark.parametrize("now", [0.0, 59.9])
def test_a_postponed_one_is_not_due_before_its_time(now: float) -> None:
    lookups = LookUps(9)
    lookups.want("a.test", BULK, 1)
    lookups.postpone("a.test", 60.0)
    assert lookups.due(now) == []
    assert lookups.is_postponed("a.test")
    assert "a.test" in lookups


def test_postponed_ones_are_due_once_in_the_order_of_their_times() -> None:
    lookups = LookUps(9)
    for name, until in (("late.test", 90.0), ("b.test", 60.0), ("a.test", 30.0)):
        lookups.want(name, BULK, 1)
        lookups.postpone(name, until)
    assert lookups.due(61.0) == ["a.test", "b.test"]
    assert lookups.due(61.0) == []
    assert ("a.test" in lookups, lookups.is_postponed("a.test")) == (False, False)
    assert ("late.test" in lookups, lookups.is_postponed("late.test")) == (True, True)
