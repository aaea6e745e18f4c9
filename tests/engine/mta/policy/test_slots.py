"""A provider's places: never more than the limit, nobody waits for ever, no limit costs nothing."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.mta.policy.slots import SLICE_SECONDS, Slots


def test_without_a_limit_everybody_may_open() -> None:
    slots = Slots(None)
    assert slots.may_open("a") > 1_000
    slots.opened("a", 0.0)
    assert not slots.must_yield("a", 100.0)


def test_the_sites_of_a_provider_together_hold_to_its_limit() -> None:
    slots = Slots(5)
    for _ in range(5):
        slots.opened("a", 0.0)
    assert slots.may_open("b") == 0
    slots.closed("a")
    assert slots.may_open("b") == 1


def test_who_holds_more_than_its_part_gives_up_as_soon_as_another_waits() -> None:
    slots = Slots(4)
    for _ in range(4):
        slots.opened("a", 0.0)
    assert not slots.must_yield("a", 60.0)
    assert slots.may_open("b") == 0
    assert slots.must_yield("a", 0.1)
    slots.closed("a")
    assert slots.may_open("a") == 0, "the free place is for who waits"
    assert slots.may_open("b") == 1
    slots.opened("b", 0.2)
    assert not slots.must_yield("a", 0.3)


def test_a_path_that_has_its_part_gives_way_after_its_slice_only() -> None:
    slots = Slots(1)
    slots.opened("a", 0.0)
    assert slots.may_open("b") == 0
    assert not slots.must_yield("a", SLICE_SECONDS - 0.1)
    assert slots.must_yield("a", SLICE_SECONDS)


def test_who_has_no_work_any_more_does_not_stand_in_the_way() -> None:
    slots = Slots(1)
    slots.opened("a", 0.0)
    assert slots.may_open("b") == 0
    slots.content("b")
    assert not slots.must_yield("a", 100.0)


def test_many_sites_are_served_in_turn() -> None:
    slots, now = Slots(2), 0.0
    paths = [f"p{number}" for number in range(30)]
    served: Counter[str] = Counter()
    holding: list[str] = []
    for _ in range(400):
        now += 0.5
        for path in list(holding):
            if slots.must_yield(path, now):
                holding.remove(path)
                slots.closed(path)
        for path in paths:
            if path not in holding and slots.may_open(path):
                slots.opened(path, now)
                holding.append(path)
                served[path] += 1
        assert slots.taken == len(holding) <= 2
    assert min(served[path] for path in paths) >= 2
    assert max(served.values()) <= 4


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["open", "close", "rest"]), st.sampled_from("abc")), max_size=60),
)
def test_no_order_of_events_breaks_the_limit(limit: int, steps: list[tuple[str, str]]) -> None:
    slots = Slots(limit)
    held: Counter[str] = Counter()
    for number, (action, path) in enumerate(steps):
        if action == "open" and slots.may_open(path):
            slots.opened(path, float(number))
            held[path] += 1
        elif action == "close" and held[path]:
            slots.closed(path)
            held[path] -= 1
        elif action == "rest":
            slots.content(path)
        assert slots.taken == sum(held.values()) <= limit


def test_a_path_that_changes_its_provider_takes_its_places_along() -> None:
    before, after = Slots(3), Slots(2)
    for _ in range(2):
        before.opened("a", 0.0)
    before.opened("b", 0.0)
    assert before.may_open("a") == 0
    before.hand_over("a", after)
    assert repr(before) == "<Slots 1 of 3 open on 1 paths, 0 waiting>"
    assert repr(after) == "<Slots 2 of 2 open on 1 paths, 0 waiting>"
    before.hand_over("c", after)
    after.closed("a")
    after.closed("a")
    assert after.taken == 0
